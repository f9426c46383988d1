"""Words as rows of a cache: each distinct word is worked out once, and a batch of texts is looked up in one go."""

from collections.abc import Iterator, Sequence
from itertools import chain, islice
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

T = TypeVar("T", bound=np.generic)


class Lexicon(dict[str, int]):
    """Word → its row; one that is asked for and not there gets the next row, and stands in `fresh` until that is worked out."""

    def __init__(self) -> None:
        super().__init__()
        self.fresh: list[str] = []

    def __missing__(self, word: str) -> int:
        row = self[word] = len(self)
        self.fresh.append(word)
        return row

    def rows(self, lines: Sequence[Sequence[str]]) -> NDArray[np.int64]:
        """The rows of the words of all lines, one after the other."""
        return np.fromiter(map(self.__getitem__, chain.from_iterable(lines)), np.int64)

    def keep(self, count: int) -> None:
        """Forget all but the first words."""
        kept = dict(islice(self.items(), count))
        self.clear()
        self.update(kept)
        self.fresh = []


def ends(lines: Sequence[Sequence[str]]) -> NDArray[np.int64]:
    """Where each line's words begin among those of all, and the end (lines + 1).

    >>> ends([["a", "b"], [], ["c"]]).tolist()
    [0, 2, 2, 3]
    """
    return np.concatenate(([0], np.cumsum([len(line) for line in lines], dtype=np.int64)))


def portions(lines: Sequence[Sequence[str]], most: int) -> Iterator[slice]:
    """The lines in runs of at most `most` words, or of one line.

    >>> list(portions([["a", "b"], ["c"], ["d", "e", "f"], []], 2))
    [slice(0, 1, None), slice(1, 2, None), slice(2, 3, None), slice(3, 4, None)]
    """
    start, words = 0, 0
    for number, line in enumerate(lines):
        if words + len(line) > most and number > start:
            yield slice(start, number)
            start, words = number, 0
        words += len(line)
    if start < len(lines):
        yield slice(start, len(lines))


def grown(array: NDArray[T], rows: int) -> NDArray[T]:
    """An array with room for so many rows: itself, or one twice as long that begins with what it holds."""
    if len(array) >= rows:
        return array
    result = np.zeros((max(rows, 2 * len(array)), *array.shape[1:]), array.dtype)
    result[: len(array)] = array
    return result


def summed(rows: NDArray[np.int64], bounds: NDArray[np.int64], values: NDArray[np.int32]) -> NDArray[np.int32]:
    """For each line (see `ends`) the sum of the values of its rows: a sparse 0/1 product in 32 bits, hence exact.

    >>> summed(np.array([0, 1, 1]), np.array([0, 2, 2, 3]), np.array([[1, 2], [10, 20]], np.int32)).tolist()
    [[11, 22], [0, 0], [10, 20]]
    """
    ones = np.ones(len(rows), np.int32)
    return np.asarray(csr_array((ones, rows, bounds), shape=(len(bounds) - 1, len(values))) @ values)
