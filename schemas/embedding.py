"""The static embedding that topic and novelty are read from: what adapters make and scoring reads. Integers only."""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, eq=False)
class EmbeddingTable:
    """Token vectors (tokens × dimensions), weights per token, centroids of the fixed cells and their names.

    `tokenise` gives the token ids of one lower-case word. `digest` (sha256) names all of it in a config.
    """

    vectors: NDArray[np.int8]
    weights: NDArray[np.int8]
    centroids: NDArray[np.int8]
    cells: tuple[str, ...]
    tokenise: Callable[[str], Sequence[int]]
    digest: str

    @property
    def dimensions(self) -> int:
        return int(self.vectors.shape[1])


def table_digest(
    vectors: NDArray[np.int8], weights: NDArray[np.int8], centroids: NDArray[np.int8], cells: Sequence[str], tokeniser: str
) -> str:
    """sha256 of a table's content; `tokeniser` names the rule that cuts words into tokens."""
    state = hashlib.sha256()
    for array in (vectors, weights, centroids):
        state.update(repr((array.shape, array.dtype.str)).encode())
        state.update(np.ascontiguousarray(array).data)
    state.update("\0".join((*cells, tokeniser)).encode())
    return state.hexdigest()
