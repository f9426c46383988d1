"""Words of a text and their integer vectors, through a bounded cache: each distinct word is tokenised once.

A text's vector is the sum of its words' vectors. The cache changes how fast a sum is found, never what it is.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from core.scoring.cut import MAX_WORDS, words
from core.scoring.evidence import EvidenceSums
from core.scoring.languages import EVIDENCE, evidence
from core.scoring.lexicon import Lexicon, ends, grown, portions, summed
from core.scoring.nearest import Cells
from schemas.embedding import EmbeddingTable
from schemas.messages import OwnCells

MAX_TOKENS: Final = 32
"""Tokens counted per word, so that 1,024 words × 32 tokens × 127 × weight 8 stays inside int32."""
CACHE_ROWS: Final = 32_768
PORTION: Final = 8_192
"""Words that are looked up in one go."""
_WHOLE: Final = 16
"""Every so many times that the cache is full, all of it is forgotten, since what is frequent changes."""


def word_vectors(found: Sequence[str], embedding: EmbeddingTable) -> NDArray[np.int32]:
    """Each word's vector in the static embedding: the weighted sum of its tokens' (words × dimensions)."""
    tokens = [embedding.tokenise(word)[:MAX_TOKENS] for word in found]
    lengths = np.fromiter(map(len, tokens), np.int64, len(tokens))
    flat = np.fromiter((token for one in tokens for token in one), np.int64, int(lengths.sum()))
    result = np.zeros((len(found), embedding.dimensions), np.int32)
    some = np.flatnonzero(lengths)
    if len(some):
        rows = embedding.vectors[flat].astype(np.int32) * embedding.weights[flat].astype(np.int32)[:, None]
        result[some] = np.add.reduceat(rows, (np.cumsum(lengths) - lengths)[some], axis=0)
    return result


@dataclass(frozen=True)
class TextSums:
    """Per text: the sum of its words' vectors (texts × dimensions), and of their words' language evidence."""

    vectors: NDArray[np.int32]
    evidence: NDArray[np.int32]


@dataclass(frozen=True)
class AppCells:
    """An app's own cells, ready to score with."""

    cells: Cells
    version: int


class WordSums:
    """Sums over words of texts, for one embedding table, and the topic cells that the sums are compared with: the table's
    (`fixed`) and, by (app, environment), those that apps have of their own."""

    def __init__(self, table: EmbeddingTable, cache_rows: int = CACHE_ROWS, own: Sequence[OwnCells] = ()) -> None:
        """`cache_rows` bounds the words kept from one call to the next; the least is MAX_WORDS. Raises ValueError for cells of another table."""
        self.table = table
        self.fixed = Cells(table.centroids, table.cells)
        for one in own:
            if one.embedding != table.digest:
                raise ValueError(f"the cells of {one.app} ({one.environment}) belong to the embedding {one.embedding}")
        self.own = {(one.app, one.environment): AppCells(Cells.of_app(one, table.dimensions), one.version) for one in own}
        self.languages = EvidenceSums(cache_rows)
        self._limit = max(cache_rows, MAX_WORDS)
        self._lexicon = Lexicon()
        self._overflows = 0
        self._rows = np.zeros((0, table.dimensions + len(EVIDENCE)), np.int32)

    def sums(self, texts: Sequence[str]) -> TextSums:
        """Sums of each text, the same for a text alone and in any company."""
        return self.of_words([words(text) for text in texts])

    def of_words(self, found: Sequence[Sequence[str]]) -> TextSums:
        """As `sums`, of texts that are cut into words already (by `core.scoring.cut.words`)."""
        total = np.zeros((len(found), self._rows.shape[1]), np.int32)
        for part in portions(found, PORTION):
            self._make_room()
            rows, bounds = self._lexicon.rows(found[part]), ends(found[part])
            self._learn()
            total[part] = summed(rows, bounds, self._rows)
        dimensions = self.table.dimensions
        return TextSums(total[:, :dimensions], total[:, dimensions:])

    def _make_room(self) -> None:
        """The words that came first are the most frequent ones: half of the cache is theirs, but not for ever."""
        if len(self._lexicon) > self._limit:
            self._overflows += 1
            self._lexicon.keep(self._limit // 2 if self._overflows % _WHOLE else 0)

    def _learn(self) -> None:
        """Work out the rows of fresh words."""
        fresh = self._lexicon.fresh
        if not fresh:
            return
        try:
            vectors = word_vectors(fresh, self.table)
        except BaseException:
            self._lexicon.keep(0)
            raise
        first = len(self._lexicon) - len(fresh)
        self._rows = grown(self._rows, len(self._lexicon))
        self._rows[first : len(self._lexicon)] = np.hstack((vectors, np.stack([evidence(word) for word in fresh])))
        self._lexicon.fresh = []
