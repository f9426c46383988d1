"""Learned heads: integer weights over hashed features and the static embedding, summed per word and kept per word.

A head's logit for a window is (sum over distinct words + sum over pairs of words) scaled by the number of distinct
words, plus a bias; for a text it is the largest of its windows, less what the largest of so many harmless ones has in advance.
Some heads look at fine windows, of a sentence's size, likewise: a text is as suspicious as its worst sentence, where that is
worse than what sentences of harmless texts look like. A combined head adds, in each window, the level of one linear head and the
highest level of some others: levels of all heads are on one scale, log-odds from where a head fires. All in int64.
"""

from collections.abc import Sequence
from math import isqrt
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray

from core.scoring.cut import all_words
from core.scoring.features import (
    APART,
    FINE,
    FINE_HOP,
    HOP,
    WINDOW,
    Windows,
    all_windows,
    many_windows,
    pair_ids,
    plain,
    positions,
    read,
    windows,
    word_features,
    word_hashes,
)
from core.scoring.lanes import Lanes
from core.scoring.lexicon import Lexicon, ends, grown, portions
from core.scoring.normalise import DECODED, Normalised, normalise, spans
from core.scoring.words import word_vectors
from schemas.embedding import EmbeddingTable
from schemas.heads import LENGTHS, HeadTable
from schemas.messages import Reason

Text = Literal["prompt", "response"]
CACHE_ROWS: Final = 65_536
"""Words whose sums are kept …"""
PORTION: Final = 32_768
"""… and words that are looked up in one go."""
_ROW_BITS: Final = 20
_ROW_MASK: Final = (1 << _ROW_BITS) - 1
MAX_REASONS: Final = 4
COMBINED: Final[dict[str, tuple[str, tuple[str, ...]]]] = {
    "prompt_unsafe": ("harmful", ("toxic", "asking")),
    "response_unsafe": ("harmful", ("toxic", "reply")),
}
"""Combined head → the head that always votes, and those of which the surest votes."""
FINELY_READ: Final = ("jailbreak",)
"""Heads that look for the worst sentence, too: one that gives orders to a model is like no other. Of harm it was no use:
harmless texts have sentences that look as bad."""
_SCALE_BITS: Final = 16
RATE_BITS: Final = 16
_LARGEST: Final = 1 << 24
"""Of a word's sum: those of a window's words fit in 31 bits."""
LENGTH_SCALE: Final = np.array([0, *(isqrt((1 << 2 * _SCALE_BITS) // n) for n in range(1, 1024))], np.int64)
"""65,536 / √n for n distinct words."""


def length_class(windows: NDArray[np.int64], classes: int = LENGTHS) -> NDArray[np.int64]:
    """The class of texts of so many windows.

    >>> length_class(np.array([1, 2, 3, 4, 5, 64, 1_000])).tolist()
    [0, 1, 2, 2, 3, 4, 4]
    """
    return np.searchsorted(1 << np.arange(classes - 1), windows)


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
        self._read_whole = np.concatenate((~table.first_window, np.ones(len(self._combined), np.bool_)))
        self._fine = [table.linear.index(name) for name in FINELY_READ if name in table.linear]
        self._limit = cache_rows
        self._lexicon = Lexicon()
        self._form = np.zeros(0, np.int64)
        """Row of a word → row of its plain form."""
        self._of_word = Lanes(self._linear, 32, _LARGEST)
        self._of_pair = Lanes(self._linear, 16, 127)
        self._weights = self._of_pair.packed(table.weights)
        self._sums = np.zeros((0, self._of_word.width), np.int64)
        self._hashes = np.zeros(0, np.uint64)

    def logits(self, texts: Sequence[str], of: Text = "prompt") -> NDArray[np.int64]:
        """Logits (texts × heads): the same for a text alone and in any company. Nobody looks for attacks in responses: those are
        spared the fine windows."""
        return self.of_words([all_words(read(normalise(text).text)) for text in texts], of)

    def of_words(self, found: Sequence[list[str]], of: Text = "prompt") -> NDArray[np.int64]:
        """As `logits`, of texts that are cut into words already."""
        result = np.empty((len(found), len(self.names)), np.int64)
        for part in portions(found, PORTION):
            result[part] = self._logits(self._rows(found[part]), ends(found[part]), finely=of == "prompt")
        return result

    def _rows(self, found: Sequence[list[str]]) -> NDArray[np.int64]:
        """The rows of the plain forms of all words, worked out."""
        if len(self._lexicon) > self._limit:
            self._lexicon.keep(0)
        rows = self._lexicon.rows(found)
        if self._lexicon.fresh:
            try:
                self._learn()
            except BaseException:
                self._lexicon.keep(0)
                raise
        return self._form[rows]

    def _learn(self) -> None:
        """Work out what is fresh; words of one plain form share what is worked out."""
        lexicon = self._lexicon
        first = len(lexicon) - len(lexicon.fresh)
        forms = [lexicon[plain(word)] for word in tuple(lexicon.fresh)]
        forms += range(first + len(forms), len(lexicon))
        own = np.unique([row for row in forms if row >= first])
        fresh = [lexicon.fresh[row - first] for row in own.tolist()]
        self._form = grown(self._form, len(lexicon))
        self._sums = grown(self._sums, len(lexicon))
        self._hashes = grown(self._hashes, len(lexicon))
        self._form[first : len(lexicon)] = forms
        if fresh:
            self._sums[own] = self._of_word.packed(self.word_sums(fresh))
            self._hashes[own] = word_hashes(fresh)
        lexicon.fresh = []

    def word_sums(self, found: Sequence[str]) -> NDArray[np.int64]:
        """What each word adds to each head before scaling (words × heads)."""
        of_word = word_features(found)
        sums = np.add.reduceat(self.table.weights.take(of_word.ids, axis=0), of_word.ends[:-1], axis=0, dtype=np.int64)
        # Integers below 2**53 in every partial sum: exact in float64, whatever the order of summation.
        embedded = (word_vectors(found, self._embedding).astype(np.float64) @ self._embedded).astype(np.int64)
        return np.asarray((sums + (embedded >> self.table.embedding_shift)).clip(-_LARGEST, _LARGEST))

    def _logits(self, rows: NDArray[np.int64], bounds: NDArray[np.int64], *, finely: bool) -> NDArray[np.int64]:
        """Logits of texts by the rows of their words, one text after the other."""
        counts, pairs = np.diff(bounds), self._pairs(rows)
        result = self._highest(rows, bounds, pairs, all_windows(counts))
        result -= self._shift(counts, WINDOW, HOP, self.table.length_shift)
        if finely and (counts > FINE).any():
            cut = all_windows(counts, FINE, FINE_HOP)
            fine = np.maximum.reduceat(self._by_window(rows, bounds, pairs, cut, self._fine), cut.firsts, axis=0)
            fine -= self._shift(counts, FINE, FINE_HOP, self.table.fine_shift)[:, self._fine]
            result[:, self._fine] = np.maximum(result[:, self._fine], fine)
        return result

    def unshifted(self, texts: Sequence[str], size: int, hop: int) -> NDArray[np.int64]:
        """The highest logit of each text's windows of `size` words, `hop` apart: what shifts are read from."""
        found = [all_words(read(normalise(text).text)) for text in texts]
        rows, bounds = self._rows(found), ends(found)
        return self._highest(rows, bounds, self._pairs(rows), all_windows(np.diff(bounds), size, hop))

    @staticmethod
    def _shift(counts: NDArray[np.int64], size: int, hop: int, shifts: NDArray[np.int64]) -> NDArray[np.int64]:
        """What is taken off the logits of texts of so many words (texts × heads)."""
        return shifts.T[length_class(many_windows(counts, size, hop), shifts.shape[1])]

    def _pairs(self, rows: NDArray[np.int64]) -> list[NDArray[np.int64]]:
        """Packed weights of the pairs of words that begin at each word, for each of APART."""
        hashes = self._hashes.take(rows)
        return [self._weights.take(pair_ids(hashes[:-apart], hashes[apart:], apart), axis=0) for apart in APART]

    def _highest(
        self, rows: NDArray[np.int64], bounds: NDArray[np.int64], pairs: Sequence[NDArray[np.int64]], cut: Windows
    ) -> NDArray[np.int64]:
        """The highest logit of each text's windows (texts × heads)."""
        linear = self._by_window(rows, bounds, pairs, cut, list(range(self._linear)))
        levels = self._levels(linear, slice(0, self._linear))
        votes = [levels[:, always] + levels[:, voters].max(axis=1) for always, voters in self._combined]
        every = np.column_stack((linear, *votes))
        return np.where(self._read_whole, np.maximum.reduceat(every, cut.firsts, axis=0), every[cut.firsts])

    def _by_window(
        self,
        rows: NDArray[np.int64],
        bounds: NDArray[np.int64],
        pairs: Sequence[NDArray[np.int64]],
        cut: Windows,
        columns: list[int],
    ) -> NDArray[np.int64]:
        """The logit of each window by some linear heads (windows × columns)."""
        start, end = bounds[cut.text] + cut.start, bounds[cut.text] + cut.end
        distinct, per_window = _distinct(rows, start, end - start)
        until = np.cumsum(per_window)
        total = self._of_word.sums(self._sums.take(distinct, axis=0), until - per_window, until, columns)
        for apart, weights in zip(APART, pairs, strict=True):
            total += self._of_pair.sums(weights, start, end - apart, columns)
        scale = LENGTH_SCALE[np.minimum(per_window, len(LENGTH_SCALE) - 1)]
        return np.asarray((total * scale[:, None] >> _SCALE_BITS) + self.table.bias[columns])

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

    def known(self, found: list[str]) -> tuple[NDArray[np.int64], NDArray[np.uint64]]:
        """What each word of a text adds to each head before scaling (words × heads), and the words' hashes."""
        rows = self._rows([found])
        return self._of_word.unpacked(self._sums[rows], np.ones(len(rows), np.int64)), self._hashes[rows]

    def reasons(self, text: str, heads: Sequence[str], of: Text) -> list[Reason]:
        """What raised the surest of some heads most: `TextReasons.of`, for whoever asks once."""
        (why,) = text_reasons(self, [text], of)
        return why.of(heads)


def text_reasons(heads: Heads, texts: Sequence[str], part: Text) -> "list[TextReasons]":
    """Why heads fired in each of some texts, read in one go."""
    normalised = [normalise(text) for text in texts]
    found = [all_words(read(one.text)) for one in normalised]
    cut = [windows(len(line)) for line in found]
    logits = heads.of_words([line[start:end] for line, spans_ in zip(found, cut, strict=True) for start, end in spans_], part)
    by_window = np.split(logits, np.cumsum([len(spans_) for spans_ in cut])[:-1])
    return [TextReasons(heads, part, *one) for one in zip(normalised, found, cut, by_window, strict=True)]


class TextReasons:
    """Why heads fired in one text: read once, asked for each of them."""

    def __init__(
        self,
        heads: Heads,
        part: Text,
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


def _distinct(
    rows: NDArray[np.int64], start: NDArray[np.int64], length: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The distinct rows in each window, ascending, one window after the other, and how many each has."""
    window = np.repeat(np.arange(len(start)), length)
    before = np.cumsum(length) - length
    place = np.arange(len(window)) + np.repeat(start - before, length)
    keys = window << _ROW_BITS | rows[place]
    keys.sort()
    first = np.ones(len(keys), np.bool_)
    np.not_equal(keys[1:], keys[:-1], out=first[1:])
    keys = keys[first]
    return keys & _ROW_MASK, np.bincount(keys >> _ROW_BITS, minlength=len(start))
