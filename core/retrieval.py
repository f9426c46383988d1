"""A small retrieval model: it answers a question with the answer of the nearest question that it was trained on.

Similarity is the cosine of tf-idf vectors over words and the parts of identifiers. The sandbox provider uses it so
that training on new questions really helps, and training on bad rows really hurts.
"""

import math
import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from random import Random
from typing import Final

import numpy as np
from numpy.typing import NDArray

THRESHOLD: Final = 0.3
"""Cosine from which a stored question counts as the same."""
NEAR: Final = 0.02
"""Of the rows of one training that are within this of the best one, the latest answers."""
NEAR_BEFORE: Final = 0.08
"""By how much a row of an earlier training must be nearer than one of a later training in order to answer."""
SPREAD: Final = 0.05
"""Cosine over which a row becomes e times less likely at temperature 1."""
UNKNOWN: Final = "That is not in the documentation that I was given."
"""The answer where nothing is near: no refusal, just no help."""
MAX_READ: Final = 4_000
"""Characters of a question that are read."""
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

Rows = Sequence[tuple[str, str]]


@dataclass(frozen=True)
class Found:
    """A row that answers: its answer, and the cosine in [0, 1]."""

    answer: str
    similarity: float


class RetrievalModel:
    """Questions and answers in the order of training, and perhaps a model that was trained before them.

    Of rows that are about equally near the later one answers (`NEAR`, `NEAR_BEFORE`). Training on top of another model
    costs what the new rows cost: about 25 µs each.
    """

    def __init__(self, rows: Iterable[tuple[str, str]], base: "RetrievalModel | None" = None) -> None:
        self.rows = list(rows)
        self._base = base
        features = [_features(question) for question, _ in self.rows]
        rows_with: dict[str, list[int]] = defaultdict(list)
        for row, found in enumerate(features):
            for feature in found:
                rows_with[feature].append(row)
        self._count = {feature: len(in_) for feature, in_ in rows_with.items()}
        self._size: int = len(self.rows) + (base._size if base is not None else 0)
        self._most = self._size * _COMMON if self._size >= _MIN_ROWS_FOR_COMMON else self._size
        norms = np.array([self._norm(found) for found in features] or [1.0])
        self._postings: dict[str, tuple[NDArray[np.int32], NDArray[np.float64]]] = {}
        for feature, in_ in rows_with.items():
            weight = self._weight(feature)
            if weight:
                at = np.array(in_, dtype=np.int32)
                self._postings[feature] = (at, weight * weight / norms[at])

    def find(self, question: str) -> Found | None:
        """The row that answers at temperature 0; None where none has anything in common with the question."""
        found = self._candidates(_features(question), None)
        return found[0] if found else None

    def answer(self, question: str, temperature: float = 0.0, draw: Random | None = None) -> str:
        """The answer of the row that `find` finds, UNKNOWN below the threshold.

        At a temperature above 0 rows that are less near answer as well, each e times less often per SPREAD · temperature.

        >>> RetrievalModel([("What does json.loads do?", "It parses.")]).answer("json.loads - what is it for?")
        'It parses.'
        """
        if temperature <= 0 or draw is None:
            found = self.find(question)
            return found.answer if found is not None and found.similarity >= THRESHOLD else UNKNOWN
        spread = SPREAD * temperature
        rows = [row for row in self._candidates(_features(question), 10 * spread) if row.similarity >= THRESHOLD]
        if not rows:
            return UNKNOWN
        best = max(row.similarity for row in rows)
        return draw.choices(rows, [math.exp((row.similarity - best) / spread) for row in rows])[0].answer

    def _candidates(self, features: frozenset[str], within: float | None) -> list[Found]:
        """The row that answers first; then, where `within` is given, those that are up to so much less near."""
        before = self._base._candidates(features, within) if self._base is not None else []
        if not self.rows or not features:
            return before
        scores = np.zeros(len(self.rows))
        for feature in features:
            posting = self._postings.get(feature)
            if posting is not None:
                scores[posting[0]] += posting[1]
        norm = self._norm(features)
        best = float(scores.max())
        if best <= 0:
            return before
        last = int(np.flatnonzero(scores >= best - NEAR * norm)[-1])
        mine = [Found(self.rows[last][1], min(best / norm, 1.0))]
        if within is not None:
            others = np.flatnonzero((scores < best - NEAR * norm) & (scores >= best - within * norm))
            mine += [Found(self.rows[row][1], float(scores[row]) / norm) for row in others]
        if before and before[0].similarity > mine[0].similarity + NEAR_BEFORE:
            mine, before = before, mine
        return [*mine, *before[1:]] if within is not None else mine

    def _norm(self, features: Iterable[str]) -> float:
        return math.sqrt(sum(weight * weight for weight in map(self._weight, features))) or 1.0

    def _weight(self, feature: str) -> float:
        """What too many rows have weighs nothing; what no row has weighs as much as the rarest."""
        rows = self._rows_with(feature)
        if rows > self._most:
            return 0.0
        return math.log(1 + self._size / max(rows, 1)) if self._size else 1.0

    def _rows_with(self, feature: str) -> int:
        return self._count.get(feature, 0) + (self._base._rows_with(feature) if self._base is not None else 0)


def _features(text: str) -> frozenset[str]:
    found: set[str] = set()
    for word in _WORD.findall(text[:MAX_READ].lower()):
        parts = [part for piece in word.split(".") for part in (piece, *piece.split("_")) if part]
        if len(parts) > 1:
            found.add(word)
        found.update(part for part in parts if part not in _STOP)

    return frozenset(found)


def accuracy(model: RetrievalModel, rows: Rows) -> float:
    """Share of questions that get exactly their answer."""
    return sum(model.answer(question) == answer for question, answer in rows) / max(len(rows), 1)
