"""Evidence for the languages of texts, by their beginnings, through a bounded cache of words."""

from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

from core.scoring.cut import words
from core.scoring.languages import EVIDENCE, evidence

READ: Final = 400
"""Characters of a text that are read …"""
_MOST_WORDS: Final = 64
"""… and words."""
_CACHE_ROWS: Final = 32_768


class EvidenceSums:
    """Sums of the words' evidence. The cache changes how fast a sum is found, never what it is."""

    def __init__(self, cache_rows: int = _CACHE_ROWS) -> None:
        """`cache_rows` bounds the words kept; the least is READ."""
        self._limit = max(cache_rows, READ)
        self._row_of: dict[str, int] = {}
        self._rows = np.zeros((self._limit, len(EVIDENCE)), np.int32)

    def sums(self, texts: Sequence[str]) -> NDArray[np.int32]:
        """Evidence (texts × EVIDENCE), for `languages.languages`."""
        total = np.zeros((len(texts), len(EVIDENCE)), np.int32)
        rows: list[int] = []
        ends = [0]
        for number, text in enumerate(texts):
            found = words(text[:READ])[:_MOST_WORDS] if text else []
            known = list(map(self._row_of.get, found))
            if None in known:
                if len(self._row_of) + len(found) > self._limit:
                    self._add(total, number, rows, ends)
                    self._row_of.clear()
                    rows, ends = [], [0] * (number + 1)
                self._learn(found)
                known = list(map(self._row_of.get, found))
            rows += known  # type: ignore[arg-type]  # no None is left
            ends.append(len(rows))
        self._add(total, len(texts), rows, ends)
        return total

    def _add(self, total: NDArray[np.int32], texts: int, rows: list[int], ends: list[int]) -> None:
        """Add the rows of the first `texts` texts to their totals."""
        if rows:
            ones = np.ones(len(rows), np.int32)
            which = csr_array((ones, np.array(rows, np.int32), np.array(ends, np.int32)), shape=(texts, self._limit))
            total[:texts] += np.asarray(which @ self._rows)

    def _learn(self, found: Sequence[str]) -> None:
        for word in found:
            if word not in self._row_of:
                self._rows[len(self._row_of)] = evidence(word)
                self._row_of[word] = len(self._row_of)
