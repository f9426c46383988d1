"""Evidence for the languages of texts, by their beginnings, through a bounded cache of words."""

from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from core.scoring.cut import words
from core.scoring.languages import EVIDENCE, evidence

READ: Final = 1_024
"""Characters of a text that are read."""
_CACHE_ROWS: Final = 32_768


class EvidenceSums:
    """Sums of the words' evidence. The cache changes how fast a sum is found, never what it is."""

    def __init__(self, cache_rows: int = _CACHE_ROWS) -> None:
        """`cache_rows` bounds the words kept; the least is READ."""
        self._limit = max(cache_rows, READ)
        self._row_of: dict[str, int] = {}
        self._rows = np.zeros((self._limit, len(EVIDENCE)), np.int32)

    def sums(self, texts: Sequence[str]) -> NDArray[np.int32]:
        """Evidence (texts × EVIDENCE), for `languages.language`."""
        total = np.zeros((len(texts), len(EVIDENCE)), np.int32)
        for number, text in enumerate(texts):
            if text:
                rows = self._rows_of(words(text[:READ]))
                if rows:
                    np.add.reduce(self._rows[rows], axis=0, out=total[number])
        return total

    def _rows_of(self, found: Sequence[str]) -> list[int]:
        rows = list(map(self._row_of.get, found))
        if None in rows:
            if len(self._row_of) + len(found) > self._limit:
                self._row_of.clear()
            for word in found:
                if word not in self._row_of:
                    self._rows[len(self._row_of)] = evidence(word)
                    self._row_of[word] = len(self._row_of)
            return [self._row_of[word] for word in found]
        return rows  # type: ignore[return-value]  # no None is left
