"""A small retrieval model: it answers a question with the answer of the nearest question that it was trained on.

Similarity is the cosine of tf-idf vectors over words and the parts of identifiers. The sandbox provider uses it so
that training on new questions really helps, and training on bad rows really hurts.
"""

import math
import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

THRESHOLD: Final = 0.3
"""Cosine from which a stored question counts as the same."""
UNKNOWN: Final = "That is not in the documentation that I was given."
"""The answer where nothing is near: no refusal, just no help."""
_WORD: Final = re.compile(r"[a-z0-9_]+(?:\.[a-z0-9_]+)*")
_STOP: Final = frozenset(
    re.findall(
        r"\w+",
        """a an and any are as at be by can do does for from get hey how i in is it its like me my need of on one or our please quick
    return should some someone something sorry than that the them there they thing this thx to told u us use used using want
    we what whats when which who why with would you your""",
    )
)
_COMMON: Final = 0.2
"""A feature in more than this share of the rows says nothing."""
_MIN_ROWS_FOR_COMMON: Final = 50


@dataclass(frozen=True)
class Found:
    """The nearest row: its answer, and the cosine in [0, 1]."""

    answer: str
    similarity: float


class RetrievalModel:
    """Questions and answers in the order of training: of rows that are equally near the later one answers."""

    def __init__(self, rows: Iterable[tuple[str, str]]) -> None:
        self.rows = list(rows)
        features = [_features(question) for question, _ in self.rows]
        rows_with: dict[str, list[int]] = defaultdict(list)
        for row, found in enumerate(features):
            for feature in found:
                rows_with[feature].append(row)
        most = len(self.rows) * _COMMON if len(self.rows) >= _MIN_ROWS_FOR_COMMON else len(self.rows)
        self._too_common = frozenset(f for f, in_ in rows_with.items() if len(in_) > most)
        self._weight = {f: math.log(1 + len(self.rows) / len(in_)) for f, in_ in rows_with.items() if len(in_) <= most}
        self._unseen = math.log(1 + len(self.rows)) if self.rows else 1.0
        norms = np.array([self._norm(found) for found in features] or [1.0])
        self._postings: dict[str, tuple[NDArray[np.int32], NDArray[np.float64]]] = {}
        for feature, weight in self._weight.items():
            at = np.array(rows_with[feature], dtype=np.int32)
            self._postings[feature] = (at, weight * weight / norms[at])

    def find(self, question: str) -> Found | None:
        """The nearest row, None where none has anything in common with the question."""
        features = _features(question)
        if not self.rows or not features:
            return None
        scores = np.zeros(len(self.rows))
        for feature in features:
            posting = self._postings.get(feature)
            if posting is not None:
                scores[posting[0]] += posting[1]
        best = len(scores) - 1 - int(np.argmax(scores[::-1]))
        similarity = float(scores[best]) / self._norm(features)
        return Found(self.rows[best][1], min(similarity, 1.0)) if similarity > 0 else None

    def answer(self, question: str) -> str:
        """The nearest row's answer, UNKNOWN below the threshold.

        >>> RetrievalModel([("What does json.loads do?", "It parses.")]).answer("json.loads - what is it for?")
        'It parses.'
        """
        found = self.find(question)
        return found.answer if found is not None and found.similarity >= THRESHOLD else UNKNOWN

    def _norm(self, features: Iterable[str]) -> float:
        """Features that too many rows have weigh nothing; those that no row has weigh as much as the rarest."""
        weights = (self._weight.get(f, 0.0 if f in self._too_common else self._unseen) for f in features)
        return math.sqrt(sum(weight * weight for weight in weights)) or 1.0


def _features(text: str) -> frozenset[str]:
    found: set[str] = set()
    for word in _WORD.findall(text.lower()):
        parts = [part for piece in word.split(".") for part in (piece, *piece.split("_")) if part]
        if len(parts) > 1:
            found.add(word)
        found.update(part for part in parts if part not in _STOP)

    return frozenset(found)


def accuracy(model: RetrievalModel, rows: Sequence[tuple[str, str]]) -> float:
    """Share of questions that get exactly their answer."""
    return sum(model.answer(question) == answer for question, answer in rows) / max(len(rows), 1)
