"""The nearest of some topic cells to a text's vector, and how far it is: exact, whatever texts are computed together."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Final

import numpy as np
from numpy.typing import NDArray

from core.metrics import NOVELTY_BINS
from schemas.messages import FIXED_ONE, OwnCells, Score

_ROWS: Final = 4
"""Rows per product: so small a product OpenBLAS computes in the calling thread; helpers that spin cost 30 µs a text."""
_STEP: Final = (FIXED_ONE + 1) // NOVELTY_BINS


@dataclass(frozen=True)
class Nearest:
    """Per text: the cell (ties to the lowest), the distance 1 - cosine in fixed point, and whether it has any words."""

    cell: NDArray[np.int64]
    distance: NDArray[np.int64]
    known: NDArray[np.bool_]


class Cells:
    """Centroids (cells × dimensions) with their names; `edges` are an app's own between the bins of novelty."""

    def __init__(self, centroids: NDArray[np.int8], names: Sequence[str], edges: Sequence[int] = ()) -> None:
        self.names = tuple(names)
        self._edges = tuple(edges)
        self._labelled: dict[str, tuple[Score, ...]] = {}
        self._columns = np.ascontiguousarray(centroids.T, dtype=np.float64)
        self._lengths = np.sqrt((centroids.astype(np.int64) ** 2).sum(axis=1).astype(np.float64))

    @classmethod
    def of_app(cls, own: OwnCells, dimensions: int) -> "Cells":
        """Raises ValueError where the centroids are not vectors of so many dimensions."""
        if len(own.centroids) != len(own.names) * dimensions:
            raise ValueError(f"the cells of {own.app} ({own.environment}) do not have {dimensions} dimensions each")
        centroids = np.frombuffer(own.centroids, np.int8).reshape(len(own.names), dimensions)
        return cls(centroids, own.names, own.edges)

    def nearest(self, vectors: NDArray[np.int32]) -> Nearest:
        """Of texts × dimensions word sums.

        The products are of integers below 2**53 in float64 and therefore exact in any order of summation; squared
        lengths are summed in int64; root, quotient and product are elementwise, rounded as IEEE 754 says. So neither the
        batch size nor the BLAS can change a bit.
        """
        fit = self._products(vectors.astype(np.float64))
        cell = fit.argmax(axis=1)
        wide = vectors.astype(np.int64)
        squared = (wide * wide).sum(axis=1)
        length = np.sqrt(squared.astype(np.float64)) * self._lengths[cell]
        cosine = fit[np.arange(len(fit)), cell] / np.maximum(length, 1.0)
        distance = np.floor(np.clip(1.0 - cosine, 0.0, 1.0) * FIXED_ONE).astype(np.int64)
        return Nearest(cell, distance, squared > 0)

    def labelled(self, by: str) -> tuple[Score, ...]:
        """A score for each cell, `by` a scorer's `name@version`. They are shared between records: nobody changes a score."""
        if by not in self._labelled:
            self._labelled[by] = tuple(Score(scorer=by, value=cell, label=name) for cell, name in enumerate(self.names))
        return self._labelled[by]

    def novelty(self, distance: NDArray[np.int64]) -> NDArray[np.int64]:
        """A distance in fixed point as it is scored: itself with the fixed cells; with an app's own its place between the
        app's edges, each bin of novelty one step, in proportion within a step."""
        if not self._edges:
            return distance
        step = np.searchsorted(self._bounds[1:-1], distance, side="right")
        first = self._bounds[step]
        return step * _STEP + (distance - first) * _STEP // (self._bounds[step + 1] - first)

    @cached_property
    def _bounds(self) -> NDArray[np.int64]:
        return np.array((0, *self._edges, FIXED_ONE + 1), np.int64)

    def _products(self, vectors: NDArray[np.float64]) -> NDArray[np.float64]:
        result = np.empty((len(vectors), self._columns.shape[1]))
        for at in range(0, len(vectors), _ROWS):
            np.matmul(vectors[at : at + _ROWS], self._columns, out=result[at : at + _ROWS])
        return result
