"""Words of a text and their integer vectors, through a bounded cache: each distinct word is tokenised once.

A text's vector is the sum of its words' vectors. The cache changes how fast a sum is found, never what it is.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

from core.scoring.cut import MAX_WORDS, words
from core.scoring.evidence import EvidenceSums
from core.scoring.languages import EVIDENCE, evidence
from core.scoring.nearest import Cells
from schemas.embedding import EmbeddingTable
from schemas.messages import OwnCells

MAX_TOKENS: Final = 32
"""Tokens counted per word, so that 1,024 words × 32 tokens × 127 × weight 8 stays inside int32."""
CACHE_ROWS: Final = 32_768
_WHOLE: Final = 16
"""Every so many times that the cache is full, all of it is forgotten, since what is frequent changes."""


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
        """`cache_rows` bounds the words kept; the least is MAX_WORDS. Raises ValueError for cells of another table."""
        self.table = table
        self.fixed = Cells(table.centroids, table.cells)
        for one in own:
            if one.embedding != table.digest:
                raise ValueError(f"the cells of {one.app} ({one.environment}) belong to the embedding {one.embedding}")
        self.own = {(one.app, one.environment): AppCells(Cells.of_app(one, table.dimensions), one.version) for one in own}
        self._weighted = table.vectors * table.weights.astype(np.int16)[:, None]
        self.languages = EvidenceSums(cache_rows)
        self._limit = max(cache_rows, MAX_WORDS)
        self._row_of: dict[str, int] = {}
        self._overflows = 0
        self._rows = np.zeros((self._limit, table.dimensions + len(EVIDENCE)), np.int32)

    def sums(self, texts: Sequence[str]) -> TextSums:
        """Sums of each text, the same for a text alone and in any company."""
        total = np.zeros((len(texts), self._rows.shape[1]), np.int32)
        rows: list[int] = []
        ends = [0]
        for number, text in enumerate(texts):
            found = words(text)
            known = list(map(self._row_of.get, found))
            if None in known:
                if len(self._row_of) + len(found) > self._limit:
                    self._add(total, number, rows, ends)
                    self._forget()
                    rows, ends = [], [0] * (number + 1)
                known = [
                    self._row(word) if row is None else row for word, row in zip(found, map(self._row_of.get, found), strict=True)
                ]
            rows.extend(known)  # type: ignore[arg-type]  # no None is left
            ends.append(len(rows))
        self._add(total, len(texts), rows, ends)
        dimensions = self.table.dimensions
        return TextSums(total[:, :dimensions], total[:, dimensions:])

    def _forget(self) -> None:
        """Make room. The words that came first are the most frequent ones: half of the cache is theirs, but not for ever."""
        self._overflows += 1
        kept = self._limit // 2 if self._limit >= 2 * MAX_WORDS and self._overflows % _WHOLE else 0
        self._row_of = dict(islice(self._row_of.items(), kept))

    def _add(self, total: NDArray[np.int32], texts: int, rows: list[int], ends: list[int]) -> None:
        """Add the rows of the first `texts` texts to their totals: a sparse 0/1 product in int32, hence exact."""
        if rows:
            ones = np.ones(len(rows), np.int32)
            which = csr_array((ones, np.array(rows, np.int32), np.array(ends, np.int32)), shape=(texts, self._limit))
            total[:texts] += np.asarray(which @ self._rows)

    def _row(self, word: str) -> int:
        row = self._row_of.get(word)
        if row is None:
            tokens = self.table.tokenise(word)[:MAX_TOKENS]
            row = len(self._row_of)
            np.add.reduce(self._weighted[tokens], axis=0, dtype=np.int32, out=self._rows[row, : self.table.dimensions])
            self._rows[row, self.table.dimensions :] = evidence(word)
            self._row_of[word] = row
        return row
