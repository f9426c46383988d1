"""Learned heads: integer weights over hashed features and the static embedding, summed per word and kept per word.

A head's logit for a window is (sum over distinct words + sum over pairs of words) scaled by the number of distinct
words, plus a bias; for a text it is the largest of its windows. A combined head adds the level of one linear head and the
highest level of some others: levels of all heads are on one scale, log-odds from where a head fires. All in int64.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import isqrt
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray

from core.scoring.features import APART, pair_ids, pairs, positions, read, windows, word_features, word_hashes, words
from core.scoring.normalise import Normalised, normalise, spans
from schemas.embedding import EmbeddingTable
from schemas.heads import HeadTable
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
        self._embedded = table.embedding.astype(np.int64)
        self._linear = len(table.linear)
        self._combined = [
            (self.names.index(always), [self.names.index(voter) for voter in voters])
            for always, voters in (COMBINED[name] for name in table.names[self._linear :])
        ]
        self._limit = cache_rows
        self._last: _LookedAt | None = None
        self._row_of: dict[str, int] = {}
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
            unknown = [word for word in found[number] if word not in self._row_of and word not in new]
            if unknown:
                unknown = list(dict.fromkeys(unknown))
                if len(self._row_of) + len(new) + len(unknown) > self._limit:
                    if number > at:
                        self._add(list(new))
                        return number - at
                    self._row_of.clear()
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
        start = len(self._row_of)
        self._sums[start : start + len(new)] = self.word_sums(new)
        self._hashes[start : start + len(new)] = word_hashes(new)
        self._row_of.update(zip(new, range(start, start + len(new)), strict=True))

    def word_sums(self, found: Sequence[str]) -> NDArray[np.int64]:
        """What each word adds to each head before scaling (words × heads)."""
        of_word = word_features(found)
        sums = np.add.reduceat(self.table.weights[of_word.ids], of_word.ends[:-1], axis=0, dtype=np.int64)
        embedded = word_vectors(found, self._embedding) @ self._embedded
        return np.asarray((sums + (embedded >> self.table.embedding_shift)).clip(-_LARGEST, _LARGEST))

    def _logits(self, found: Sequence[list[str]]) -> NDArray[np.int64]:
        laid = self._laid(found)
        spans = np.array(laid.distinct_ends, np.int64)
        total = _sums(self._sums[laid.distinct], spans)
        for pair in pairs(self._hashes[laid.full], np.array(laid.full_ends, np.int64)):
            total += _sums(self.table.weights[pair.ids], pair.ends)
        counts = np.minimum(np.diff(spans), len(LENGTH_SCALE) - 1)
        scaled = (total * LENGTH_SCALE[counts][:, None] >> _SCALE_BITS) + self.table.bias
        starts = np.array(laid.first_windows, np.int64)
        linear = np.where(self.table.first_window, scaled[starts], np.maximum.reduceat(scaled, starts, axis=0))
        if not self._combined:
            return linear
        levels = self._levels(linear, slice(0, self._linear))
        votes = [levels[:, always] + levels[:, voters].max(axis=1) for always, voters in self._combined]
        return np.column_stack((linear, *votes))

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

    def reasons(self, text: str, heads: Sequence[str], of: Literal["prompt", "response"]) -> list[Reason]:
        """What raised the surest of some heads most, in the window that decided: words and pairs, with spans in the text.

        At most MAX_REASONS, the strongest first, ties by position; at least one for a text with a word.
        """
        read_ = self._last if self._last is not None and self._last.text == text else self._looked_at(text)
        self._last = read_
        if not read_.found:
            return []
        linear = [self.column(voter) for head in heads for voter in _voters(head)]
        levels = self._levels(read_.by_window, slice(0, self._linear))
        if self.table.first_window.any():
            levels[1:, self.table.first_window] = -1
        column = max(linear, key=lambda column: (int(levels[:, column].max()), -column))
        start, end = read_.windows[int(levels[:, column].argmax())]
        found, places = read_.found[start:end], read_.places[start:end]
        reasons = []
        for _, first, last in sorted(self._shares(found, column), key=lambda share: (-share[0], share[1]))[:MAX_REASONS]:
            rule = f"{self.names[column]}:{' '.join(dict.fromkeys((found[first], found[last])))}"
            where = [read_.at[position] for position in (places[first][0], places[last][1] - 1)]
            reasons.append(Reason(rule=rule, text=of, start=min(one[0] for one in where), end=max(one[1] for one in where)))
        return reasons

    def _looked_at(self, text: str) -> "_LookedAt":
        normalised = normalise(text)
        found = words(read(normalised.text))
        cut = windows(len(found))
        by_window = self.of_words([found[start:end] for start, end in cut])[:, : self._linear]
        at = [(n, n + 1) for n in range(len(text))] if normalised.text == text else spans(normalised)
        return _LookedAt(text, found, positions(normalised.text), cut, by_window, at)

    def _shares(self, found: list[str], column: int) -> list[tuple[int, int, int]]:
        """(share of the sum, first word, last word) of each distinct word and each pair that raises the head."""
        firsts = {word: number for number, word in reversed(list(enumerate(found)))}
        self._learn([found], 0)
        sums = self._sums[[self._row_of[word] for word in firsts], column].tolist()
        shares = [(share, number, number) for share, number in zip(sums, firsts.values(), strict=True)]
        hashes = self._hashes[[self._row_of[word] for word in found]]
        for apart in APART:
            weights = self.table.weights[pair_ids(hashes[:-apart], hashes[apart:], apart), column].tolist()
            shares += [(weight, number, number + apart) for number, weight in enumerate(weights)]
        return [share for share in shares if share[0] > 0] or [max(shares)]


@dataclass(frozen=True, eq=False, slots=True)
class _LookedAt:
    """A text as reasons need it, kept for the next head of the same text."""

    text: str
    found: list[str]
    places: list[tuple[int, int]]
    windows: list[tuple[int, int]]
    by_window: NDArray[np.int64]
    at: list[tuple[int, int]]


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
