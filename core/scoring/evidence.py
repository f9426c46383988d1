"""Evidence for the languages of texts, by their beginnings, through a bounded cache of words."""

from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from core.scoring.cut import words
from core.scoring.languages import EVIDENCE, evidence
from core.scoring.lexicon import Lexicon, ends, grown, summed

READ: Final = 400
"""Characters of a text that are read …"""
_MOST_WORDS: Final = 64
"""… and words."""
_CACHE_ROWS: Final = 32_768


class EvidenceSums:
    """Sums of the words' evidence. The cache changes how fast a sum is found, never what it is."""

    def __init__(self, cache_rows: int = _CACHE_ROWS) -> None:
        """`cache_rows` bounds the words kept from one call to the next."""
        self._limit = cache_rows
        self._lexicon = Lexicon()
        self._rows = np.zeros((0, len(EVIDENCE)), np.int32)

    def sums(self, texts: Sequence[str]) -> NDArray[np.int32]:
        """Evidence (texts × EVIDENCE), for `languages.languages`."""
        if len(self._lexicon) > self._limit:
            self._lexicon.keep(0)
        found = [words(text[:READ])[:_MOST_WORDS] for text in texts]
        rows, bounds = self._lexicon.rows(found), ends(found)
        fresh, self._lexicon.fresh = self._lexicon.fresh, []
        if fresh:
            self._rows = grown(self._rows, len(self._lexicon))
            self._rows[len(self._lexicon) - len(fresh) : len(self._lexicon)] = np.stack([evidence(word) for word in fresh])
        return summed(rows, bounds, self._rows)
