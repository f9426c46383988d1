"""Several small integers side by side in one of 64 bits, so that one addition sums them all."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Lanes:
    """`columns` integers from -`bias` to `bias` (each stored with `bias` added) in lanes of `bits`; sums of up to
    2**(bits - 1) / (2 · bias) rows are exact."""

    columns: int
    bits: int
    bias: int

    @property
    def width(self) -> int:
        """64-bit integers per row."""
        return -(-self.columns * self.bits // 64)

    def packed(self, values: NDArray[np.integer]) -> Ints:
        """Rows of `columns` integers as rows of `width`.

        >>> lanes = Lanes(columns=3, bits=16, bias=127)
        >>> lanes.unpacked(lanes.packed(np.array([[1, -2, 127]])), np.array([1])).tolist()
        [[1, -2, 127]]
        """
        lanes = 64 // self.bits
        result = np.zeros((len(values), self.width), np.int64)
        for column in range(self.columns):
            result[:, column // lanes] |= (values[:, column].astype(np.int64) + self.bias) << (column % lanes * self.bits)
        return result

    def unpacked(self, sums: Ints, counts: Ints, columns: Sequence[int] | None = None) -> Ints:
        """Sums of packed rows as sums of their columns, or of some; `counts` are the numbers of rows summed."""
        lanes = 64 // self.bits
        chosen = np.arange(self.columns) if columns is None else np.array(columns, np.int64)
        found = sums[:, chosen // lanes] >> chosen % lanes * self.bits & ((1 << self.bits) - 1)
        return np.asarray(found - self.bias * counts[:, None])

    def sums(self, rows: Ints, start: Ints, end: Ints, columns: Sequence[int]) -> Ints:
        """Sums of some columns over runs [start, end) of packed rows; runs may overlap and be empty."""
        result = np.zeros((len(start), len(columns)), np.int64)
        some = np.flatnonzero(end > start)
        if len(some):
            start, end = start[some], end[some]
            first, last = (edge(columns) * self.bits // 64 for edge in (min, max))
            # A run that ends with the rows has no index after it; otherwise every second sum is of what lies between two runs.
            closed = np.zeros((len(rows) + 1, last + 1 - first), np.int64)
            closed[:-1] = rows[:, first : last + 1]
            summed = np.add.reduceat(closed, np.stack((start, end), axis=1).ravel(), axis=0)[::2]
            skipped = first * (64 // self.bits)
            result[some] = self.unpacked(summed, end - start, [column - skipped for column in columns])
        return result
