"""Spherical k-means on integer vectors, exactly the same on every machine.

All matrix products are of integer-valued float64 arrays whose sums stay below 2**53, so they are exact in whatever order a
BLAS adds them; square roots and quotients are elementwise, which IEEE 754 rounds in one way only.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

CENTROID_NORM: Final = 280
_POINT_NORM: Final = 1_000
_ROUNDS: Final = 30
MAX_POINTS: Final = 50_000
"""So that the squared length of a sum of points stays below 2**53."""

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Clusters:
    """Centroids (clusters × dimensions, int8, of norm about CENTROID_NORM), and the mean distance of the points from theirs:
    `spread` of CENTROID_NORM * 1,000, summed over points."""

    centroids: NDArray[np.int8]
    spread: int


def cluster(vectors: NDArray[np.int32], k: int) -> Clusters:
    """At most `k` clusters of distinct vectors, none of them zero; begins from evenly spaced ones.

    Ties go to the lowest index; a cluster that becomes empty takes the point that fits its own worst. Raises ValueError for
    no or too many vectors.
    """
    if not 0 < len(vectors) <= MAX_POINTS:
        raise ValueError(f"{len(vectors)} vectors to cluster: there must be 1 to {MAX_POINTS:,}")
    points = scaled(vectors.astype(np.float64), _POINT_NORM)
    k = min(k, len(points))
    centroids = np.clip(scaled(points[np.arange(k) * len(points) // k], CENTROID_NORM), -127, 127)
    for _ in range(_ROUNDS):
        fit = points @ centroids.T
        cell = fit.argmax(axis=1)
        best = fit[np.arange(len(points)), cell]
        sums = _sums(points, cell, k)
        for empty in np.flatnonzero(np.bincount(cell, minlength=k) == 0):
            worst = int(best.argmin())
            sums[empty] = points[worst]
            best[worst] = np.inf
        moved = np.clip(scaled(sums, CENTROID_NORM), -127, 127)
        if np.array_equal(moved, centroids):
            break
        centroids = moved
    fit = points @ centroids.T
    used = np.flatnonzero(np.bincount(fit.argmax(axis=1), minlength=k))
    spread = len(points) * CENTROID_NORM * _POINT_NORM - int(fit.max(axis=1).sum())
    return Clusters(centroids[used].astype(np.int8), spread)


def scaled(vectors: Floats, norm: int) -> Floats:
    """Rows scaled to (almost) equal norm and rounded to integers; a zero row stays zero."""
    length = np.sqrt((vectors * vectors).sum(axis=1, keepdims=True))
    rounded: Floats = np.rint(vectors * (norm / np.maximum(length, 1.0)))
    return rounded


def _sums(points: Floats, cell: NDArray[np.int64], k: int) -> Floats:
    """Sum of the points of each cluster."""
    sums = np.zeros((k, points.shape[1]))
    order = np.argsort(cell, kind="stable")
    found, starts = np.unique(cell[order], return_index=True)
    sums[found] = np.add.reduceat(points[order], starts, axis=0)
    return sums
