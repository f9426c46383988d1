"""A small embedding table for tests: made from a seed, words become tokens by a checksum."""

from functools import cache
from zlib import crc32

import numpy as np

from schemas.embedding import EmbeddingTable, table_digest

TOKENS, DIMENSIONS, CELLS = 500, 32, 256


@cache
def embedding_twin() -> EmbeddingTable:
    draw = np.random.default_rng(7)
    vectors = draw.integers(-127, 128, (TOKENS, DIMENSIONS)).astype(np.int8)
    weights = draw.integers(1, 9, TOKENS).astype(np.int8)
    centroids = draw.integers(-90, 91, (CELLS, DIMENSIONS)).astype(np.int8)
    cells = tuple(f"cell-{number}" for number in range(CELLS))

    def tokenise(word: str) -> list[int]:
        return [crc32(word[i : i + 4].encode()) % TOKENS for i in range(0, len(word), 4)]

    return EmbeddingTable(vectors, weights, centroids, cells, tokenise, table_digest(vectors, weights, centroids, cells, "twin"))
