"""The latency that the client measured."""

from typing import Final

from core.scoring.batch import Batch, Scorer, Scores
from schemas.messages import Score

_LONGEST_US: Final = 1 << 53


def micros(ms: float | None) -> int | None:
    """Whole microseconds, rounded; None for none, negative or absurd.

    >>> micros(12.3456), micros(-1.0), micros(1e300)
    (12346, None, None)
    """
    if ms is None or not 0 <= ms * 1000 < _LONGEST_US:
        return None
    return round(ms * 1000)


def score(batch: Batch) -> list[Scores]:
    """Value: microseconds."""
    results: list[Scores] = []
    for reading in batch.readings:
        latency = micros(reading.interaction.latency_ms) if reading.has("call") else None
        results.append({} if latency is None else {"latency": Score(scorer="latency@1", value=latency)})
    return results


SCORER: Final = Scorer("latency", 1, {"latency": "call"}, score)
