"""The fixed topic cells: a token table quantised to integers and clustered, exactly the same on every machine.

All matrix products are of integer-valued float64 arrays whose sums stay below 2**53, so they are exact in whatever
order a BLAS adds them; square roots and quotients are elementwise, which IEEE 754 rounds in one way only.
"""

from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

QUANTUM: Final = 16
"""Steps per unit of the source's floats: a power of two, so that scaling is exact."""
CENTROID_NORM: Final = 280
_POINT_NORM: Final = 1_000
_ROUNDS: Final = 60
_FIRST_WORD_TOKEN: Final = 259
_MIN_WORD: Final = 3


def quantise(table: NDArray[np.float16]) -> NDArray[np.int8]:
    """Token vectors as int8: tokens × dimensions floats → the same shape."""
    steps: NDArray[np.float64] = np.rint(table.astype(np.float64) * QUANTUM)
    return steps.clip(-127, 127).astype(np.int8)


def token_weights(tokens: int) -> NDArray[np.int8]:
    """Weight 1..8 of each token id: a merge-ordered vocabulary lists frequent tokens first, so rank stands in for rarity.

    >>> [int(w) for w in token_weights(32_000)[[5, 278, 500, 3_000, 31_999]]]
    [1, 1, 2, 6, 8]
    """
    rank = np.maximum(np.arange(tokens) - _FIRST_WORD_TOKEN + 1, 1)
    octave = np.array([int(r).bit_length() - 1 for r in rank])
    return (octave - 5).clip(1, 8).astype(np.int8)


def scaled(vectors: NDArray[np.float64], norm: int) -> NDArray[np.float64]:
    """Rows scaled to (almost) equal norm and rounded to integers; a zero row stays zero."""
    length = np.sqrt((vectors * vectors).sum(axis=1, keepdims=True))
    rounded: NDArray[np.float64] = np.rint(vectors * (norm / np.maximum(length, 1.0)))
    return rounded


def cluster(points: NDArray[np.float64], k: int) -> NDArray[np.int8]:
    """Spherical k-means from evenly spaced points: k int8 centroids of norm about CENTROID_NORM.

    An empty cell takes the point that fits its own cell worst; ties go to the lowest index.
    """
    points = scaled(points, _POINT_NORM)
    start = points[np.arange(k) * len(points) // k]
    centroids = np.clip(scaled(start, CENTROID_NORM), -127, 127)
    for _ in range(_ROUNDS):
        fit = points @ centroids.T
        cell = fit.argmax(axis=1)
        best = fit[np.arange(len(points)), cell]
        sums = np.zeros_like(centroids)
        np.add.at(sums, cell, points)
        for empty in np.flatnonzero(np.bincount(cell, minlength=k) == 0):
            worst = int(best.argmin())
            sums[empty] = points[worst]
            best[worst] = np.inf
        moved = np.clip(scaled(sums, CENTROID_NORM), -127, 127)
        if np.array_equal(moved, centroids):
            break
        centroids = moved
    return centroids.astype(np.int8)


def whole_words(vocabulary: dict[str, int], mark: str = "▁") -> list[tuple[int, str]]:
    """(token id, word) of the tokens that are a whole lower-case ASCII word of three letters or more, by id."""
    words = ((id_, token[1:]) for token, id_ in vocabulary.items() if token.startswith(mark))
    return sorted((i, w) for i, w in words if len(w) >= _MIN_WORD and w.isascii() and w.isalpha() and w.islower())


def names(centroids: NDArray[np.int8], points: NDArray[np.float64], words: Sequence[str]) -> tuple[str, ...]:
    """Each cell's name: its three most central words that do not begin alike; made unique by the cell's number."""
    fit = scaled(points, _POINT_NORM) @ centroids.astype(np.float64).T
    found: list[str] = []
    for cell in range(len(centroids)):
        chosen: list[str] = []
        for index in np.argsort(-fit[:, cell], kind="stable")[:60]:
            word = words[index]
            if all(word[:4] != other[:4] for other in chosen):
                chosen.append(word)
            if len(chosen) == 3:
                break
        name = "/".join(chosen)
        found.append(name if name not in found else f"{name}/{cell}")
    return tuple(found)
