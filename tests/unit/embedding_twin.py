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


TOPICS = {
    "bread": ["bread", "oven", "flour", "yeast", "dough", "bake", "knead", "crust"],
    "travel": ["train", "ticket", "station", "platform", "luggage", "journey", "border", "visa"],
    "garden": ["garden", "tomato", "compost", "seed", "watering", "spade", "prune", "lawn"],
}
FILLER = ["tell", "about", "need", "help", "today", "thanks", "quick", "question", "maybe"]
_UNKNOWN = 200


@cache
def planted_twin() -> EmbeddingTable:
    """A table in which the words of a topic lie close together. Other words are tokens by a checksum, one for two letters."""
    draw = np.random.default_rng(5)
    words = [word for topic in TOPICS.values() for word in topic] + FILLER
    vectors = draw.integers(-20, 21, (len(words) + _UNKNOWN, DIMENSIONS)).astype(np.int8)
    for topic in TOPICS.values():
        centre = draw.integers(-70, 71, DIMENSIONS)
        for word in topic:
            vectors[words.index(word)] += centre.astype(np.int8)
    weights = np.array([4] * (len(words) - len(FILLER)) + [1] * (len(FILLER) + _UNKNOWN), np.int8)
    centroids = draw.integers(-90, 91, (CELLS, DIMENSIONS)).astype(np.int8)
    cells = tuple(f"cell-{number}" for number in range(CELLS))

    def tokenise(word: str) -> list[int]:
        if word in words:
            return [words.index(word)]
        return [len(words) + crc32(word[i : i + 2].encode()) % _UNKNOWN for i in range(0, len(word), 2)]

    return EmbeddingTable(
        vectors, weights, centroids, cells, tokenise, table_digest(vectors, weights, centroids, cells, "planted")
    )
