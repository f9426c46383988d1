"""Topic and novelty of a prompt: the nearest of the fixed cells, and how far it is."""

from typing import Final

import numpy as np
from numpy.typing import NDArray

from core.scoring.batch import Batch, Scorer, Scores
from schemas.embedding import EmbeddingTable
from schemas.messages import FIXED_ONE, Score

__all__ = ["SCORER", "EmbeddingTable"]

_BY: Final = "topic@1"


_ROWS: Final = 4
"""Rows per product: so small a product OpenBLAS computes in the calling thread; helpers that spin cost 30 µs a text."""


def score(batch: Batch) -> list[Scores]:
    """Cell (value its index, label its name; ties to the lowest) and distance 1 − cosine in fixed point.

    The products are of integers below 2**53 in float64 and therefore exact in any order of summation; squared lengths
    are summed in int64; root, quotient and product are elementwise, rounded as IEEE 754 says. So neither the batch size
    nor the BLAS can change a bit.
    """
    table = batch.words.table
    vectors = batch.prompts.vectors
    fit = _products(vectors.astype(np.float64), batch.words.centroids)
    cell = fit.argmax(axis=1)
    wide = vectors.astype(np.int64)
    squared = (wide * wide).sum(axis=1)
    length = np.sqrt(squared.astype(np.float64)) * batch.words.centroid_lengths[cell]
    cosine = fit[np.arange(len(fit)), cell] / np.maximum(length, 1.0)
    distance = np.floor(np.clip(1.0 - cosine, 0.0, 1.0) * FIXED_ONE).astype(np.int64)
    return [
        {
            "topic": Score(scorer=_BY, value=nearest, label=table.cells[nearest]),
            "novelty": Score(scorer=_BY, value=far),
        }
        if known
        else {}
        for nearest, far, known in zip(cell.tolist(), distance.tolist(), squared.tolist(), strict=True)
    ]


def _products(vectors: NDArray[np.float64], centroids: NDArray[np.float64]) -> NDArray[np.float64]:
    result = np.empty((len(vectors), centroids.shape[1]))
    for at in range(0, len(vectors), _ROWS):
        np.matmul(vectors[at : at + _ROWS], centroids, out=result[at : at + _ROWS])
    return result


SCORER: Final = Scorer("topic", 1, {"topic": "prompt", "novelty": "prompt"}, score)
