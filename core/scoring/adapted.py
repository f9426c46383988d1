"""An app's own correction of a learned score: a small head over the frozen logits, hashed features and the text's embedding.

A text's margin is, in units of 2**-20 and in integers only,

    bias + Σ frozen[h]·logit[h] + scale·Σ gram[id] / √(number of ids) + linear·x + xᵀ·quadratic·x

with the frozen score's own log-odds as the last of the logits, and x the text's embedding, taken to unit length, less the mean of the app's texts, taken to unit length again. A
monotone table turns the margin into a fixed-point probability.
"""

import itertools
import struct
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from math import isqrt
from typing import Final

import numpy as np
from numpy.typing import NDArray

from core.scoring.cut import all_words
from core.scoring.features import BUCKETS, Features, pairs, positions, read, word_features, word_hashes
from core.scoring.normalise import DECODED, Normalised, normalise, spans
from schemas.messages import AdaptedHead

MARGIN_BITS: Final = 20
UNIT_BITS: Final = 14
"""A unit vector's length is 2**14."""
MAX_BYTES: Final = 256 * 1024
MAX_LEVELS: Final = 4_096
MAX_LOGIT: Final = 1 << 26
MAX_VERSION: Final = 999
MAX_REASONS: Final = 4
CACHE_ROWS: Final = 32_768
"""Words from which a cache of words begins anew."""
_MAGIC: Final = b"BBA1"
_HEADER: Final = struct.Struct("<4sIIIIqqqiiiiii")
_MOST: Final = 4 * 1024 * 1024
"""Bytes that a packed head may unfold to."""
_INVERSE_ROOTS: Final = np.array([0, *(isqrt((1 << 32) // n) for n in range(1, 65_536))], np.int64)
"""65,536 / √n."""

Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Scale:
    """A positive factor as an integer of 20 bits and a shift: x·multiplier >> shift."""

    multiplier: int
    shift: int

    def of(self, values: Ints) -> Ints:
        return values * self.multiplier >> self.shift


def scale(factor: float) -> Scale:
    """The nearest scale.

    >>> scale(0.75).of(np.array([1_000, -1_000])).tolist()
    [750, -750]
    """
    if not 0.0 < factor < 2.0**19:
        raise ValueError("a factor must be positive and below 2**19")
    shift = 0
    while factor < 2.0**19 and shift < 62:
        factor, shift = factor * 2.0, shift + 1
    return Scale(min(round(factor), (1 << 20) - 1), shift)


@dataclass(frozen=True, eq=False)
class AdaptedWeights:
    """The numbers of a correction.

    `frozen` (heads + 1) is in 2**-20 of a margin per 2**-16 of a logit; `ids` ascend, `grams` are their weights; `mean` and
    `linear` have one entry per dimension, `quadratic` is dimensions × dimensions and symmetric. A margin counts as level
    `(margin - low) // step`; `values` (non-decreasing) is each level's fixed-point probability.
    """

    bias: int
    frozen: Ints
    ids: NDArray[np.uint32]
    grams: NDArray[np.int8]
    gram_scale: Scale
    mean: NDArray[np.int16]
    linear: NDArray[np.int8]
    linear_scale: Scale
    quadratic: NDArray[np.int8]
    quadratic_scale: Scale
    low: int
    step: int
    values: NDArray[np.uint16]


def pack(w: AdaptedWeights) -> bytes:
    """A correction as bytes, at most MAX_BYTES of them. Raises ValueError for one that is too large."""
    dimensions = len(w.mean)
    header = _HEADER.pack(
        _MAGIC, len(w.frozen), len(w.ids), dimensions, len(w.values), w.bias, w.low, w.step,
        w.gram_scale.multiplier, w.gram_scale.shift, w.linear_scale.multiplier, w.linear_scale.shift,
        w.quadratic_scale.multiplier, w.quadratic_scale.shift,
    )  # fmt: skip
    parts = (
        w.frozen.astype("<i8"),
        np.diff(w.ids.astype(np.int64), prepend=0).astype("<u4").view(np.uint8).reshape(-1, 4).T.copy(),
        w.grams,
        w.mean.astype("<i2"),
        w.linear,
        w.quadratic[np.triu_indices(dimensions)],
        np.diff(w.values.astype(np.int64), prepend=0).astype("<u2"),
    )
    packed = zlib.compress(header + b"".join(part.tobytes() for part in parts), 9)
    if len(packed) > MAX_BYTES:
        raise ValueError(f"the correction has {len(packed):,} bytes; {MAX_BYTES:,} is the most")
    return packed


def unpack(packed: bytes) -> AdaptedWeights:
    """The inverse of `pack`. Raises ValueError for bytes that no `pack` made."""
    if len(packed) > MAX_BYTES:
        raise ValueError(f"a correction has at most {MAX_BYTES:,} bytes")
    reader = zlib.decompressobj()
    try:
        data = reader.decompress(packed, _MOST)
    except zlib.error as error:
        raise ValueError(f"a correction cannot be unpacked: {error}") from None
    if not reader.eof or len(data) < _HEADER.size:
        raise ValueError("a correction is cut off or too large")
    magic, heads, grams, dimensions, levels, bias, low, step, *scales = _HEADER.unpack_from(data)
    sizes = (8 * heads, 4 * grams, grams, 2 * dimensions, dimensions, dimensions * (dimensions + 1) // 2, 2 * levels)
    if magic != _MAGIC or len(data) != _HEADER.size + sum(sizes) or not 2 <= levels <= MAX_LEVELS or step < 1:
        raise ValueError("a correction has another form")
    if any(not 0 < m < 1 << 20 or not 0 <= s <= 62 for m, s in zip(scales[::2], scales[1::2], strict=True)):
        raise ValueError("a correction has a scale out of bounds")
    ends = np.cumsum((_HEADER.size, *sizes)).tolist()
    frozen, deltas, weights, mean, linear, triangle, steps = (data[start:end] for start, end in itertools.pairwise(ends))
    wide = np.frombuffer(deltas, np.uint8).reshape(4, -1).T.copy().view("<u4").ravel()
    ids = np.cumsum(wide.astype(np.int64))
    if len(ids) and (ids[-1] >= BUCKETS or (wide[1:] == 0).any()):
        raise ValueError("a correction has feature ids out of bounds")
    values = np.cumsum(np.frombuffer(steps, "<u2").astype(np.int64))
    if values[-1] > 65_535 or max(abs(bias), abs(low)) > 1 << 50 or np.abs(np.frombuffer(frozen, "<i8")).max(initial=0) > 1 << 30:
        raise ValueError("a correction has numbers out of bounds")
    quadratic = np.zeros((dimensions, dimensions), np.int8)
    quadratic[np.triu_indices(dimensions)] = np.frombuffer(triangle, np.int8)
    return AdaptedWeights(
        bias=bias,
        frozen=np.frombuffer(frozen, "<i8").astype(np.int64),
        ids=ids.astype(np.uint32),
        grams=np.frombuffer(weights, np.int8),
        gram_scale=Scale(*scales[0:2]),
        mean=np.frombuffer(mean, "<i2").astype(np.int16),
        linear=np.frombuffer(linear, np.int8),
        linear_scale=Scale(*scales[2:4]),
        quadratic=np.where(quadratic == 0, quadratic.T, quadratic),
        quadratic_scale=Scale(*scales[4:6]),
        low=low,
        step=step,
        values=values.astype(np.uint16),
    )


def versioned(scorer: str, version: int) -> str:
    """The scorer of a corrected score: its version × 1,000 + the correction's.

    >>> versioned("safety@2", 7)
    'safety@2007'
    """
    name, _, number = scorer.rpartition("@")
    return f"{name}@{int(number) * (MAX_VERSION + 1) + version}"


def features_of(texts: Sequence[str]) -> Features:
    """Ids of each text as heads see it (what was hidden is undone): of its distinct words, then of its pairs; they may repeat."""
    found = [all_words(read(normalise(text).text)) for text in texts]
    known = list(dict.fromkeys(chain.from_iterable(found)))
    row_of = {word: row for row, word in enumerate(known)}
    of_word, hashes = word_features(known), word_hashes(known)
    ids: list[Ints] = []
    for line in found:
        own = [of_word.ids[of_word.ends[row] : of_word.ends[row + 1]] for row in (row_of[word] for word in dict.fromkeys(line))]
        pair = pairs(hashes[[row_of[word] for word in line]], np.array([0, len(line)], np.int64))
        ids.append(np.concatenate([*own, *(one.ids for one in pair)]).astype(np.int64))
    ends = np.cumsum([0, *map(len, ids)]).astype(np.int64)
    return Features(np.concatenate(ids) if ids else np.zeros(0, np.int64), ends)


class _Words:
    """What words add to a correction's grams, kept per word: the cache changes how fast a sum is found, never what it is."""

    def __init__(self, grams: NDArray[np.int8]) -> None:
        self._grams = grams
        self._clear()

    def _clear(self) -> None:
        self._row_of: dict[str, int] = {}
        self._sums, self._counts, self._hashes = np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0, np.uint64)

    def sums(self, found: Sequence[list[str]]) -> tuple[Ints, Ints]:
        """(sum of the weights, number) of each text's features, as `features_of` lists them."""
        known = dict.fromkeys(chain.from_iterable(found))
        if len(self._row_of) > CACHE_ROWS:
            self._clear()
        self._add([word for word in known if word not in self._row_of])
        get = self._row_of.__getitem__
        full = [list(map(get, line)) for line in found]
        distinct = [list(dict.fromkeys(line)) for line in full]
        sizes = np.array(list(map(len, distinct)), np.int64)
        flat = np.fromiter(chain.from_iterable(distinct), np.int64, int(sizes.sum()))
        ends = np.cumsum([0, *map(len, full)]).astype(np.int64)
        places = np.fromiter(chain.from_iterable(full), np.int64, int(ends[-1]))
        starts = np.concatenate(([0], np.cumsum(sizes)))
        total, count = _runs(self._sums[flat], starts), _runs(self._counts[flat], starts)
        for pair in pairs(self._hashes[places], ends):
            total = total + _runs(self._grams[pair.ids], pair.ends)
            count = count + np.diff(pair.ends)
        return total, count

    def _add(self, new: list[str]) -> None:
        if not new:
            return
        features = word_features(new)
        self._sums = np.concatenate((self._sums, _runs(self._grams[features.ids], features.ends)))
        self._counts = np.concatenate((self._counts, np.diff(features.ends)))
        self._hashes = np.concatenate((self._hashes, word_hashes(new)))
        start = len(self._row_of)
        self._row_of.update(zip(new, range(start, start + len(new)), strict=True))


def _runs(values: NDArray[np.integer], ends: Ints) -> Ints:
    """Sums of runs of values; `ends` has runs + 1 entries, the first of them 0."""
    summed = np.concatenate(([0], np.cumsum(values, dtype=np.int64)))
    return np.asarray(summed[ends[1:]] - summed[ends[:-1]])


def log_odds(values: Sequence[int] | Ints) -> Ints:
    """log2(p / (1 - p)) of fixed-point probabilities in 1/1,024, by integers alone: between powers of two it runs straight.

    >>> log_odds([0, 32_767, 65_535]).tolist()
    [-16384, 0, 16384]
    """
    p = np.asarray(values, np.int64)
    return _log2(p + 1) - _log2(65_536 - p)


def _log2(x: Ints) -> Ints:
    exponent = np.frexp(x.astype(np.float64))[1].astype(np.int64) - 1
    power = np.left_shift(np.int64(1), exponent)
    return np.asarray((exponent << 10) + ((x - power << 10) >> exponent))


def with_frozen(logits: Ints, values: Sequence[int] | Ints) -> Ints:
    """Logits of the heads and, as the last column, the log-odds of the frozen score."""
    return np.column_stack((logits, log_odds(values)))


def unit_vectors(vectors: NDArray[np.integer]) -> Ints:
    """Vectors (texts × dimensions) at length 2**14, rounded down; a zero vector stays zero.

    Sums of squares are exact, root and quotient are elementwise as IEEE 754 says: equal on every machine.
    """
    wide = vectors.astype(np.int64)
    lengths = np.sqrt((wide * wide).sum(axis=1).astype(np.float64))
    return np.asarray(np.floor(wide * float(1 << UNIT_BITS) / np.maximum(lengths, 1.0)[:, None]), np.int64)


def centred(vectors: NDArray[np.integer], mean: NDArray[np.int16]) -> Ints:
    """The unit vectors of texts less the mean, at unit length again."""
    return unit_vectors(unit_vectors(vectors) - mean)


class Correction:
    """One app's correction of one score, ready to apply."""

    def __init__(self, head: AdaptedHead, heads: int, dimensions: int) -> None:
        """Raises ValueError where it is for another number of frozen heads or dimensions."""
        self.head = head
        self.weights = w = unpack(head.weights)
        if len(w.frozen) != heads + 1 or len(w.mean) != dimensions:
            raise ValueError(f"the correction of {head.name} for {head.app} was made for other heads or another embedding")
        self._grams = np.zeros(BUCKETS, np.int8)
        self._grams[w.ids] = w.grams
        self._words = _Words(self._grams)
        self._linear = w.linear.astype(np.int64)
        self._quadratic = w.quadratic.astype(np.float64)

    def margins(self, texts: Sequence[str], logits: Ints, vectors: NDArray[np.integer]) -> Ints:
        """Margins of texts, given `with_frozen` (texts × heads + 1) and their embedding (texts × dimensions)."""
        w = self.weights
        total, counts = self._words.sums([all_words(read(normalise(text).text)) for text in texts])
        grams = total * _INVERSE_ROOTS[np.minimum(counts, len(_INVERSE_ROOTS) - 1)]
        x = centred(vectors, w.mean)
        frozen = (np.clip(logits, -MAX_LOGIT, MAX_LOGIT) * w.frozen >> 16).sum(axis=1)
        return np.asarray(
            w.bias
            + frozen
            + w.gram_scale.of(grams)
            + w.linear_scale.of(x @ self._linear)
            + w.quadratic_scale.of(quadratic_form(x, self._quadratic) >> UNIT_BITS)
        )

    def values(self, margins: Ints) -> NDArray[np.uint16]:
        """Fixed-point probabilities of margins."""
        w = self.weights
        return np.asarray(w.values[np.clip((margins - w.low) // w.step, 0, len(w.values) - 1)])

    def words(self, text: Normalised) -> list[tuple[str, int, int]]:
        """(word, start, end in the given text) of the words whose own features raise the margin most, at most MAX_REASONS."""
        found = all_words(read(text.text))
        firsts = {word: number for number, word in reversed(list(enumerate(found)))}
        features = word_features(list(firsts))
        shares = _runs(self._grams[features.ids], features.ends).tolist()
        best = sorted(zip(shares, firsts.values(), firsts, strict=True), key=lambda entry: (-entry[0], entry[1]))[:MAX_REASONS]
        begun, at = positions(text.text), spans(text)
        return [
            (word if begun[number][1] <= text.own else DECODED, at[begun[number][0]][0], at[begun[number][1] - 1][1])
            for share, number, word in best
            if share > 0 and number < len(begun)
        ]


def quadratic_form(x: Ints, matrix: NDArray[np.float64]) -> Ints:
    """xᵀ·matrix·x of each row, exact: all partial sums are integers below 2**53 in float64."""
    wide = x.astype(np.float64)
    result = np.empty(len(x), np.int64)
    for at in range(0, len(x), 4):
        rows = wide[at : at + 4]
        result[at : at + 4] = ((rows @ matrix) * rows).sum(axis=1).astype(np.int64)
    return result
