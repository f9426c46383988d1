"""The training matrix in factors: windows × words, words × n-grams and embedding, windows × pairs of words.

What a head sums over a window is linear in each factor, so that nobody needs their product (30 times as many entries).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

from core.scoring.cut import all_words
from core.scoring.features import BUCKETS, pairs, plain, windows, word_features, word_hashes
from core.scoring.features import read as read_part
from core.scoring.heads import LENGTH_SCALE
from core.scoring.normalise import normalise
from core.scoring.words import word_vectors
from schemas.embedding import EmbeddingTable

_EMBEDDING_UNIT: Final = 1.0 / 2048.0


@dataclass(frozen=True, eq=False)
class Matrix:
    """Windows of texts as sparse factors; `text` is the text that each window is of, `first` marks first windows."""

    words: csr_array
    ngrams: csr_array
    vectors: NDArray[np.float32]
    pairs: csr_array
    scale: NDArray[np.float64]
    text: NDArray[np.int64]
    first: NDArray[np.bool_]

    def rows(self, which: NDArray[np.int64]) -> "Matrix":
        """Some windows only."""
        return Matrix(
            self.words[which],
            self.ngrams,
            self.vectors,
            self.pairs[which],
            self.scale[which],
            self.text[which],
            self.first[which],
        )


def matrix(texts: Sequence[str], embedding: EmbeddingTable) -> Matrix:
    """The factors of a list of texts."""
    row_of: dict[str, int] = {}
    full: list[int] = []
    full_ends = [0]
    distinct: list[int] = []
    distinct_ends = [0]
    text_of: list[int] = []
    first: list[bool] = []
    for number, text in enumerate(texts):
        found = all_words(read_part(normalise(text).text))
        rows = [row_of.setdefault(plain(word), len(row_of)) for word in found]
        for start, end in windows(len(rows)):
            window = rows[start:end]
            full += window
            full_ends.append(len(full))
            distinct += dict.fromkeys(window)
            distinct_ends.append(len(distinct))
            text_of.append(number)
            first.append(start == 0)
    known = list(row_of)
    of_word = word_features(known)
    ngrams = csr_array((np.ones(len(of_word.ids), np.float32), of_word.ids, of_word.ends), shape=(len(known), BUCKETS))
    ngrams.sum_duplicates()
    near, apart = (
        csr_array((np.ones(len(one.ids), np.float32), one.ids, one.ends), shape=(len(text_of), BUCKETS))
        for one in pairs(word_hashes(known)[np.array(full, np.int64)], np.array(full_ends, np.int64))
    )
    pair = csr_array(near + apart)
    counts = np.diff(distinct_ends)
    which = csr_array((np.ones(len(distinct), np.float32), distinct, distinct_ends), shape=(len(text_of), len(known)))
    vectors = word_vectors(known, embedding).astype(np.float32) * np.float32(_EMBEDDING_UNIT)
    scale = LENGTH_SCALE[np.minimum(counts, len(LENGTH_SCALE) - 1)] / float(LENGTH_SCALE[1])
    return Matrix(which, ngrams, vectors, pair, scale, np.array(text_of), np.array(first))
