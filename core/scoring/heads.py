"""Learned heads: integer weights over hashed features and the static embedding, summed per word and kept per word.

A head's logit for a window is (sum over distinct words + sum over pairs of words) scaled by the number of distinct
words, plus a bias; for a text it is the largest of its windows, less what the largest of so many harmless ones has in advance. A combined head adds the level of one linear head and the
highest level of some others: levels of all heads are on one scale, log-odds from where a head fires. All in int64.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import isqrt
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray

from core.scoring.features import APART, pair_ids, pairs, plain, positions, read, windows, word_features, word_hashes, words
from core.scoring.normalise import DECODED, Normalised, normalise, spans
from schemas.embedding import EmbeddingTable
from schemas.heads import LENGTHS, HeadTable
from schemas.messages import Reason

CACHE_ROWS: Final = 65_536
"""Words whose sums are kept."""
MAX_TOKENS: Final = 32
MAX_REASONS: Final = 4
COMBINED: Final[dict[str, tuple[str, tuple[str, ...]]]] = {
    "prompt_unsafe": ("harmful", ("toxic", "asking")),
    "response_unsafe": ("harmful", ("toxic", "reply")),
}
"""Combined head → the head that always votes, and those of which the surest votes."""
_SCALE_BITS: Final = 16
RATE_BITS: Final = 16
_LARGEST: Final = 1 << 30
"""Of a word's sum, which is kept in 32 bits."""
LENGTH_SCALE: Final = np.array([0, *(isqrt((1 << 2 * _SCALE_BITS) // n) for n in range(1, 1024))], np.int64)
"""65,536 / √n for n distinct words."""


def length_class(windows: NDArray[np.int64]) -> NDArray[np.int64]:
    """The class of texts of so many windows.

    >>> length_class(np.array([1, 2, 3, 4, 5, 64, 1_000])).tolist()
    [0, 1, 2, 2, 3, 4, 4]
    """
    return np.searchsorted(1 << np.arange(LENGTHS - 1), windows)


def word_vectors(found: Sequence[str], embedding: EmbeddingTable) -> NDArray[np.int64]:
    """Each word's vector in the static embedding: the weighted sum of its tokens' (words × dimensions)."""
    tokens = [embedding.tokenise(word)[:MAX_TOKENS] for word in found]
    lengths = np.fromiter(map(len, tokens), np.int64, len(tokens))
    flat = np.fromiter((token for one in tokens for token in one), np.int64, int(lengths.sum()))
    result = np.zeros((len(found), embedding.dimensions), np.int64)
    some = np.flatnonzero(lengths)
    if len(some):
        rows = embedding.vectors[flat].astype(np.int32) * embedding.weights[flat].astype(np.int32)[:, None]
        result[some] = np.add.reduceat(rows, (np.cumsum(lengths) - lengths)[some], axis=0)
    return result


@dataclass(frozen=True, slots=True)
class _Words:
    """Cache rows of a batch: of all words in order, and of the distinct words of each window."""

    full: list[int]
    full_ends: list[int]
    distinct: list[int]
    distinct_ends: list[int]
    first_windows: list[int]


class Heads:
    """The heads of one table. Holds a cache of word sums only: it changes how fast a logit is found, never what it is."""

    def __init__(self, table: HeadTable, embedding: EmbeddingTable, cache_rows: int = CACHE_ROWS) -> None:
        """`embedding` must be the one that the table was trained with (its dimensions are checked: ValueError)."""
        if embedding.dimensions != len(table.embedding):
            raise ValueError(f"heads for {len(table.embedding)} dimensions, an embedding of {embedding.dimensions}")
        self.table = table
        self.names = table.names
        self._embedding = embedding
        self._embedded = table.embedding.astype(np.float64)
        self._linear = len(table.linear)
        self._combined = [
            (self.names.index(always), [self.names.index(voter) for voter in voters])
            for always, voters in (COMBINED[name] for name in table.names[self._linear :])
        ]
        self._limit = cache_rows
        self._row_of: dict[str, int] = {}
        self._used = 0
        self._sums = np.zeros((cache_rows, self._linear), np.int32)
        self._hashes = np.zeros(cache_rows, np.uint64)

    def logits(self, texts: Sequence[str]) -> NDArray[np.int64]:
        """Logits (texts × heads): the same for a text alone and in any company."""
        return self.of_normalised([normalise(text) for text in texts])

    def of_normalised(self, texts: Sequence[Normalised]) -> NDArray[np.int64]:
        """As `logits`, of texts that are normalised already."""
        return self.of_words([words(read(text.text)) for text in texts])

    def of_words(self, found: Sequence[list[str]]) -> NDArray[np.int64]:
        """As `logits`, of texts that are cut into words already."""
        result = np.empty((len(found), len(self.names)), np.int64)
        at = 0
        while at < len(found):
            size = self._learn(found, at)
            result[at : at + size] = self._logits(found[at : at + size])
            at += size
        return result

    def _learn(self, found: Sequence[list[str]], at: int) -> int:
        """See to it that the words of texts from `at` on are in the cache; of how many texts they are."""
        new: dict[str, None] = {}
        for number in range(at, len(found)):
            unknown = set(found[number]).difference(self._row_of, new)  # in any order: a row is a place, no result
            if unknown:
                if len(self._row_of) + len(new) + len(unknown) > self._limit:
                    if number > at:
                        self._add(list(new))
                        return number - at
                    self._row_of.clear()
                    self._used = 0
                    self._grow(len(set(found[at])))
                    self._add(list(dict.fromkeys(found[at])))
                    return 1
                new.update(dict.fromkeys(unknown))
        self._add(list(new))
        return len(found) - at

    def _grow(self, needed: int) -> None:
        if needed > self._limit:
            self._limit = needed
            self._sums = np.zeros((needed, self._linear), np.int32)
            self._hashes = np.zeros(needed, np.uint64)

    def _add(self, new: list[str]) -> None:
        if not new:
            return
        forms = list(map(plain, new))
        fresh = [word for word in dict.fromkeys(forms) if word not in self._row_of]
        if fresh:
            end = self._used + len(fresh)
            self._sums[self._used : end] = self.word_sums(fresh)
            self._hashes[self._used : end] = word_hashes(fresh)
            self._row_of.update(zip(fresh, range(self._used, end), strict=True))
            self._used = end
        self._row_of.update((word, self._row_of[form]) for word, form in zip(new, forms, strict=True))

    def word_sums(self, found: Sequence[str]) -> NDArray[np.int64]:
        """What each word adds to each head before scaling (words × heads)."""
        of_word = word_features(found)
        sums = np.add.reduceat(self.table.weights.take(of_word.ids, axis=0), of_word.ends[:-1], axis=0, dtype=np.int64)
        # Integers below 2**53 in every partial sum: exact in float64, whatever the order of summation.
        embedded = (word_vectors(found, self._embedding).astype(np.float64) @ self._embedded).astype(np.int64)
        return np.asarray((sums + (embedded >> self.table.embedding_shift)).clip(-_LARGEST, _LARGEST))

    def _logits(self, found: Sequence[list[str]]) -> NDArray[np.int64]:
        laid = self._laid(found)
        spans = np.array(laid.distinct_ends, np.int64)
        total = _sums(self._sums.take(laid.distinct, axis=0), spans)
        for pair in pairs(self._hashes.take(laid.full), np.array(laid.full_ends, np.int64)):
            total += _sums(self.table.weights.take(pair.ids, axis=0), pair.ends)
        counts = np.minimum(np.diff(spans), len(LENGTH_SCALE) - 1)
        scaled = (total * LENGTH_SCALE[counts][:, None] >> _SCALE_BITS) + self.table.bias
        starts = np.array(laid.first_windows, np.int64)
        linear = np.where(self.table.first_window, scaled[starts], np.maximum.reduceat(scaled, starts, axis=0))
        levels = self._levels(linear, slice(0, self._linear))
        votes = [levels[:, always] + levels[:, voters].max(axis=1) for always, voters in self._combined]
        shift = self.table.length_shift.T[length_class(np.diff(starts, append=len(scaled)))]
        return np.column_stack((linear, *votes)) - shift

    def _laid(self, found: Sequence[list[str]]) -> _Words:
        full: list[int] = []
        full_ends = [0]
        distinct: list[int] = []
        distinct_ends = [0]
        first_windows: list[int] = []
        get = self._row_of.__getitem__
        for line in found:
            first_windows.append(len(full_ends) - 1)
            rows = list(map(get, line))
            for start, end in windows(len(rows)):
                window = rows[start:end]
                full += window
                full_ends.append(len(full))
                distinct += dict.fromkeys(window)
                distinct_ends.append(len(distinct))
        return _Words(full, full_ends, distinct, distinct_ends, first_windows)

    def levels(self, logits: NDArray[np.int64]) -> NDArray[np.int64]:
        """Calibration levels of logits (texts × heads)."""
        return self._levels(logits, slice(None))

    def _levels(self, logits: NDArray[np.int64], heads: slice) -> NDArray[np.int64]:
        levels: NDArray[np.int64] = (logits - self.table.low[heads]) * self.table.rate[heads] >> RATE_BITS
        return levels.clip(0, len(self.table.values) - 1)

    def values(self, logits: NDArray[np.int64]) -> NDArray[np.uint16]:
        """Calibrated probabilities in fixed point (texts × heads)."""
        return self.table.values[self.levels(logits)]

    def column(self, name: str) -> int:
        """The column of a head."""
        return self.names.index(name)

    def known(self, found: list[str]) -> tuple[NDArray[np.int32], NDArray[np.uint64]]:
        """What each word of a text adds to each head before scaling (words × heads), and the words' hashes."""
        self._learn([found], 0)
        rows = list(map(self._row_of.__getitem__, found))
        return self._sums[rows], self._hashes[rows]

    def reasons(self, text: str, heads: Sequence[str], of: Literal["prompt", "response"]) -> list[Reason]:
        """What raised the surest of some heads most: `TextReasons.of`, for whoever asks once."""
        (why,) = text_reasons(self, [text], of)
        return why.of(heads)


def text_reasons(heads: Heads, texts: Sequence[str], part: Literal["prompt", "response"]) -> "list[TextReasons]":
    """Why heads fired in each of some texts, read in one go."""
    normalised = [normalise(text) for text in texts]
    found = [words(read(one.text)) for one in normalised]
    cut = [windows(len(line)) for line in found]
    logits = heads.of_words([line[start:end] for line, spans_ in zip(found, cut, strict=True) for start, end in spans_])
    by_window = np.split(logits, np.cumsum([len(spans_) for spans_ in cut])[:-1])
    return [TextReasons(heads, part, *one) for one in zip(normalised, found, cut, by_window, strict=True)]


class TextReasons:
    """Why heads fired in one text: read once, asked for each of them."""

    def __init__(
        self,
        heads: Heads,
        part: Literal["prompt", "response"],
        normalised: Normalised,
        found: list[str],
        cut: Sequence[tuple[int, int]],
        by_window: NDArray[np.int64],
    ) -> None:
        """`found` are the words, `cut` their windows, `by_window` each window's logits."""
        self._heads, self._part, self._found, self._windows, self._by_window = heads, part, found, cut, by_window
        self._places, self._own = positions(normalised.text), normalised.own
        self._spans = spans(normalised)
        self._sums, self._hashes = heads.known(found)

    def of(self, heads: Sequence[str]) -> list[Reason]:
        """What raised the surest of some heads most, in the window that decided: words and pairs, with spans in the text.

        At most MAX_REASONS, the strongest first, ties by position; at least one for a text with a word.
        """
        if not self._found:
            return []
        column, (start, end) = self._surest([self._heads.column(voter) for head in heads for voter in _voters(head)])
        shares = self._shares(start, end, column)
        reasons = []
        for _, first, last in sorted(shares, key=lambda share: (-share[0], share[1]))[:MAX_REASONS]:
            own = self._places[last][1] <= self._own
            shown = " ".join(dict.fromkeys((self._found[first], self._found[last]))) if own else DECODED
            rule = f"{self._heads.names[column]}:{shown}"
            where = [self._spans[position] for position in (self._places[first][0], self._places[last][1] - 1)]
            reasons.append(
                Reason(rule=rule, text=self._part, start=min(one[0] for one in where), end=max(one[1] for one in where))
            )
        return reasons

    def _surest(self, columns: Sequence[int]) -> tuple[int, tuple[int, int]]:
        """Of some heads the one with the highest value (ties to the first column), and the window that decided it."""
        first = self._heads.table.first_window
        decided = {column: 0 if first[column] else int(self._by_window[:, column].argmax()) for column in columns}
        values = self._heads.values(self._by_window)
        column = max(columns, key=lambda column: (values[decided[column], column], -column))
        return column, self._windows[decided[column]]

    def _shares(self, start: int, end: int, column: int) -> list[tuple[int, int, int]]:
        """(share of the sum, first word, last word) of each distinct word and each pair in a window that raises the head."""
        firsts = {word: number for number, word in reversed(list(enumerate(self._found[start:end], start)))}
        numbers = list(firsts.values())
        shares = [(share, number, number) for share, number in zip(self._sums[numbers, column].tolist(), numbers, strict=True)]
        hashes, weights = self._hashes[start:end], self._heads.table.weights
        for apart in APART:
            found = weights[pair_ids(hashes[:-apart], hashes[apart:], apart), column].tolist()
            shares += [(weight, number, number + apart) for number, weight in enumerate(found, start)]
        return [share for share in shares if share[0] > 0] or [max(shares)]


def _voters(head: str) -> tuple[str, ...]:
    """The linear heads behind a head."""
    if head not in COMBINED:
        return (head,)
    always, others = COMBINED[head]
    return (always, *others)


def _sums(rows: NDArray[np.generic], ends: NDArray[np.int64]) -> NDArray[np.int64]:
    """Sums of runs of rows; an empty run gives zeros."""
    result = np.zeros((len(ends) - 1, rows.shape[1]), np.int64)
    some = np.flatnonzero(np.diff(ends))
    if len(some):
        result[some] = np.add.reduceat(rows, ends[:-1][some], axis=0, dtype=np.int64)
    return result
