"""Hashed features of text: words, n-grams inside words, pairs of words. No vocabulary is stored; the same ids everywhere.

A text's features are those of its distinct words (the word, and the runs of 3 to 5 bytes of `<word>`) and of its pairs
of neighbours (adjacent, and one apart). The features of a word are a function of the word alone, so that whoever sums
weights over them may keep the sum per word.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Final

import numpy as np
from numpy.typing import NDArray

from core.scoring.cut import MAX_WORD, WORD, all_words

BUCKET_BITS: Final = 18
BUCKETS: Final = 1 << BUCKET_BITS
HEAD_CHARACTERS: Final = 24_576
TAIL_CHARACTERS: Final = 8_192
"""Of a longer text the beginning and the end are read: where instructions stand."""
NEUTRAL: Final = "0"
"""Stands for numbers and identifiers."""
_LONG_WORD: Final = 25
WINDOW: Final = 48
HOP: Final = 32
"""Words per window, and from one window's start to the next's."""
FINE: Final = 16
FINE_HOP: Final = 8
"""The same of fine windows: what stands in a sentence is not diluted by those around it."""

APART: Final = (1, 2)
"""How far the words of a pair stand from each other."""

_ODD: Final = np.uint64(0x9E3779B97F4A7C15)
_ODD_2: Final = np.uint64(0xC2B2AE3D27D4EB4F)
_ODD_3: Final = np.uint64(0x165667B19E3779F9)
_SHIFT: Final = np.uint64(64 - BUCKET_BITS)
_LONGEST: Final = 4 * MAX_WORD + 2
_POWERS: Final = np.cumprod(np.full(_LONGEST, 0x100000001B3, np.uint64), dtype=np.uint64)


@dataclass(frozen=True)
class Features:
    """Bucket ids of several texts or words, one after the other; `ends[i]` to `ends[i + 1]` are those of the i-th."""

    ids: NDArray[np.int64]
    ends: NDArray[np.int64]


def read(text: str) -> str:
    """What is read of a text: all of it, or its beginning and its end."""
    if len(text) <= HEAD_CHARACTERS + TAIL_CHARACTERS:
        return text
    return f"{text[:HEAD_CHARACTERS]} {text[-TAIL_CHARACTERS:]}"


def plain(word: str) -> str:
    """The word that features are taken of: what is a number or an identifier by its form says nothing by its letters.

    >>> [plain(word) for word in ("hello", "mp3", "123", "2024", "9f86d081884c", "4f2a")]
    ['hello', 'mp3', '123', '0', '0', '0']
    """
    if len(word) > _LONG_WORD:
        return NEUTRAL
    digits = sum(map(str.isdigit, word))
    return NEUTRAL if digits >= 4 or (digits >= 2 and digits < len(word)) else word


def positions(text: str) -> list[tuple[int, int]]:
    """The span [start, end) in a text of each of `all_words(read(text))`; the text's length must survive `lower`."""
    spans = [match.span() for match in WORD.finditer(read(text).lower())]
    beginning, skipped = HEAD_CHARACTERS, len(text) - HEAD_CHARACTERS - TAIL_CHARACTERS - 1
    return [(start + skipped, end + skipped) if skipped >= 0 and start > beginning else (start, end) for start, end in spans]


def windows(count: int) -> list[tuple[int, int]]:
    """The windows [start, end) over `count` words; the last one ends with the text.

    >>> windows(5), windows(100)
    ([(0, 5)], [(0, 48), (32, 80), (52, 100)])
    """
    if count <= WINDOW:
        return [(0, count)]
    starts = [*range(0, count - WINDOW, HOP), count - WINDOW]
    return [(start, start + WINDOW) for start in starts]


@dataclass(frozen=True, slots=True)
class Windows:
    """Windows of several texts, one text after the other: the number of the text, the first word and the end in it."""

    text: NDArray[np.int64]
    start: NDArray[np.int64]
    end: NDArray[np.int64]

    @property
    def firsts(self) -> NDArray[np.int64]:
        """The first window of each text."""
        return np.flatnonzero(self.start == 0)


def many_windows(counts: NDArray[np.int64], size: int = WINDOW, hop: int = HOP) -> NDArray[np.int64]:
    """How many windows texts of so many words each have.

    >>> many_windows(np.array([0, 48, 49, 80, 81])).tolist()
    [1, 1, 2, 2, 3]
    """
    return 1 - (np.minimum(size - counts, 0) // hop)


def all_windows(counts: NDArray[np.int64], size: int = WINDOW, hop: int = HOP) -> Windows:
    """`windows` of texts of so many words each; or such of another size.

    >>> found = all_windows(np.array([5, 100]))
    >>> found.text.tolist(), found.start.tolist(), found.end.tolist()
    ([0, 1, 1, 1], [0, 0, 32, 52], [5, 48, 80, 100])
    """
    last = np.maximum(counts - size, 0)
    many = many_windows(counts, size, hop)
    text = np.repeat(np.arange(len(counts)), many)
    number = np.arange(len(text)) - np.repeat(np.cumsum(many) - many, many)
    start = np.minimum(number * hop, last[text])
    return Windows(text, start, np.minimum(start + size, counts[text]))


def mixed(x: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """A mixing of 64-bit integers (wrapping), whose high bits depend on all bits."""
    x = (x ^ (x >> np.uint64(29))) * _ODD
    return (x ^ (x >> np.uint64(32))) * _ODD_2


def word_hashes(found: Sequence[str]) -> NDArray[np.uint64]:
    """A 64-bit hash per word."""
    data, starts, lengths = _bytes(found)
    position = np.arange(len(data)) - np.repeat(starts, lengths)
    return mixed(np.add.reduceat(data.astype(np.uint64) * _POWERS[position], starts) if len(data) else np.zeros(0, np.uint64))


def word_features(found: Sequence[str]) -> Features:
    """Ids of each word: itself first, then its n-grams in order, repetitions within a word included."""
    if not found:
        return Features(np.zeros(0, np.int64), np.zeros(1, np.int64))
    data, starts, lengths = _bytes(found)
    wide = data.astype(np.uint64)
    owner = np.repeat(np.arange(len(found)), lengths)
    ends = starts + lengths
    room = np.repeat(ends, lengths) - np.arange(len(data))
    owners = [np.arange(len(found))]
    ids = [(mixed(word_hashes(found) + _ODD_3) >> _SHIFT).astype(np.int64)]
    for size in (3, 4, 5):
        fits = np.flatnonzero(room >= size)
        packed = np.full(len(fits), size, np.uint64)
        for offset in range(size):
            packed = (packed << np.uint64(8)) | wide[fits + offset]
        ids.append((mixed(packed) >> _SHIFT).astype(np.int64))
        owners.append(owner[fits])
    order = np.argsort(np.concatenate(owners), kind="stable")
    counts = np.bincount(np.concatenate(owners), minlength=len(found))
    return Features(np.concatenate(ids)[order], np.concatenate(([0], np.cumsum(counts))))


def pair_ids(first: NDArray[np.uint64], second: NDArray[np.uint64], apart: int) -> NDArray[np.int64]:
    """Ids of pairs of words by their hashes, `apart` words from each other."""
    return (mixed(first * _ODD_3 + second + np.uint64(apart)) >> _SHIFT).astype(np.int64)


def pairs(hashes: NDArray[np.uint64], ends: NDArray[np.int64]) -> list[Features]:
    """Ids of the pairs in each run of words (`ends` has runs + 1 entries): adjacent ones, and those one apart."""
    lengths = np.diff(ends)
    result = []
    for apart in APART:
        inside = np.maximum(lengths - apart, 0)
        own_ends = np.concatenate(([0], np.cumsum(inside)))
        first = np.arange(own_ends[-1]) + np.repeat(ends[:-1] - own_ends[:-1], inside)
        result.append(Features(pair_ids(hashes[first], hashes[first + apart], apart), own_ends))
    return result


def extract(texts: Sequence[str]) -> Features:
    """Ids of each text, distinct and ascending: of its words, their n-grams and its pairs of words."""
    found = [all_words(read(text)) for text in texts]
    vocabulary = {word: row for row, word in enumerate(dict.fromkeys(chain.from_iterable(found)))}
    known = list(vocabulary)
    of_word = word_features(known)
    rows = np.fromiter((vocabulary[word] for line in found for word in line), np.int64)
    ends = np.concatenate(([0], np.cumsum([len(line) for line in found]))).astype(np.int64)
    text = np.repeat(np.arange(len(texts)), np.diff(ends))
    sizes = np.diff(of_word.ends)[rows]
    at = np.repeat(of_word.ends[rows] - np.concatenate(([0], np.cumsum(sizes)))[:-1], sizes) + np.arange(sizes.sum())
    of_pair = pairs(word_hashes(known)[rows], ends)
    keys = np.unique(
        np.concatenate(
            (
                np.repeat(text, sizes) << BUCKET_BITS | of_word.ids[at],
                *(np.repeat(np.arange(len(texts)), np.diff(one.ends)) << BUCKET_BITS | one.ids for one in of_pair),
            )
        )
    )
    counts = np.bincount(keys >> BUCKET_BITS, minlength=len(texts))
    return Features(keys & (BUCKETS - 1), np.concatenate(([0], np.cumsum(counts))))


def _bytes(found: Sequence[str]) -> tuple[NDArray[np.uint8], NDArray[np.int64], NDArray[np.int64]]:
    """The UTF-8 bytes of `<word>` of each word, where each begins, and how long each is."""
    encoded = [f"<{word}>".encode("utf-8", "surrogatepass") for word in found]
    lengths = np.fromiter(map(len, encoded), np.int64, len(encoded))
    return np.frombuffer(b"".join(encoded), np.uint8), np.cumsum(lengths) - lengths, lengths
