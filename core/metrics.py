"""What is counted: every metric's kind, scope and harmful direction, and the one mapping from scores to bins.

A metric's identity in summaries is `name@version`, the version of the scorer that feeds it, so that a window never
mixes two versions. Bins are fixed before there is a reference: 2 for a rate, 64 half-octaves for a number, 256 topic
cells (64 for an app with its own), 32 steps of distance.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal

from schemas.messages import FIXED_ONE, Score

LOG_BINS: Final = 64
TOPIC_CELLS: Final = 256
MAX_OWN_CELLS: Final = 64
"""Topic cells of an app that has its own."""
OWN: Final = 1_000
"""A scorer's version above it is `base * OWN + fit`: by cells that were fitted to the app."""
NOVELTY_BINS: Final = 32
FIRES: Final = (FIXED_ONE + 1) // 2
"""A rate fires from one half on."""
WHOLE_APP: Final = "all"
"""The slice of what is judged over all versions of an app together; the others are named `version=…`."""

MetricKind = Literal["rate", "number", "cells", "distance", "category"]
Direction = Literal["up", "down", "both"]


@dataclass(frozen=True)
class Metric:
    """One monitored quantity.

    `scope` app: counted and judged over all versions together (it describes who asks). Scope version: each version is
    judged against the app's reference (it describes how the application answers). `harmful` is the direction that
    alarms. `detect` off: counted and shown only.
    """

    name: str
    kind: MetricKind
    scorer: str
    scope: Literal["app", "version"]
    harmful: Direction
    of: Literal["interaction", "feedback"] = "interaction"
    detect: bool = True


HARMS: Final[tuple[str, ...]] = ("hate", "harassment", "sexual", "sexual_minors", "violence", "self_harm", "illicit")
"""Categories of harm, each shown; judged together as `unsafe`."""

METRICS: Final[Mapping[str, Metric]] = {
    metric.name: metric
    for metric in (
        Metric("topic", "cells", "topic", "app", "both"),
        Metric("novelty", "distance", "topic", "app", "up"),
        Metric("prompt.language", "category", "language", "app", "both"),
        *(Metric(f"prompt.safety.{harm}", "rate", "safety", "app", "up", detect=False) for harm in HARMS),
        Metric("prompt.safety.unsafe", "rate", "safety", "app", "up"),
        Metric("prompt.safety.jailbreak", "rate", "safety", "app", "up"),
        *(Metric(f"response.safety.{harm}", "rate", "safety", "version", "up", detect=False) for harm in HARMS),
        Metric("response.safety.unsafe", "rate", "safety", "version", "up"),
        Metric("prompt.pii", "rate", "pii", "app", "up"),
        Metric("response.pii", "rate", "pii", "version", "up"),
        Metric("refusal", "rate", "refusal", "version", "both"),
        Metric("response.over_refusal", "rate", "refusal", "version", "up"),
        Metric("response.empty", "rate", "answer", "version", "up"),
        Metric("response.repeated", "rate", "answer", "version", "up"),
        Metric("response.length", "number", "answer", "version", "both"),
        Metric("response.model", "category", "answer", "version", "both", detect=False),
        Metric("response.cut_off", "rate", "form", "version", "up"),
        Metric("response.format", "rate", "form", "version", "up"),
        Metric("response.language_differs", "rate", "language", "version", "up"),
        Metric("response.prompt_leak", "rate", "leak", "version", "up"),
        Metric("error", "rate", "answer", "version", "up"),
        Metric("latency", "number", "latency", "version", "up"),
        Metric("first_chunk", "number", "call", "version", "up", detect=False),
        Metric("tokens.output", "number", "call", "version", "both", detect=False),
        Metric("tool.error", "rate", "call", "version", "up", detect=False),
        Metric("cost", "number", "cost", "version", "up"),
        Metric("thumbs.down", "rate", "thumbs", "version", "both", of="feedback"),
        Metric("scorer.error", "rate", "answer", "app", "up"),
    )
}
RATING: Final = "thumbs.down"
GUARDRAILS: Final = ("refusal", "error", RATING, "latency")
"""On which a candidate must not be worse than the champion."""
TOPIC_MIX: Final = "topic.mix"
"""The detection stream that joins the topic cells and the novelty ladder."""


def metric_key(name: str, version: int) -> str:
    """Identity of a metric in summaries.

    >>> metric_key("refusal", 1)
    'refusal@1'
    """
    return f"{name}@{version}"


def split_metric_key(key: str) -> tuple[str, int]:
    """Inverse of `metric_key`."""
    name, _, version = key.rpartition("@")
    return name, int(version)


def log_bin(value: int) -> int:
    """Half-octave bin of a non-negative integer, 0..63: two bins for each doubling.

    >>> [log_bin(v) for v in (0, 1, 2, 3, 4, 6, 1_000_000)]
    [0, 0, 2, 3, 4, 5, 39]
    """
    if value <= 1:
        return 0
    octave = value.bit_length() - 1
    return min(2 * octave + ((value >> (octave - 1)) & 1), LOG_BINS - 1)


def log_bin_floor(bin_: int) -> int:
    """Smallest value in a half-octave bin.

    >>> [log_bin_floor(b) for b in (0, 2, 3, 4, 5)]
    [0, 2, 3, 4, 6]
    """
    octave, half = divmod(bin_, 2)
    if bin_ == 0:
        return 0
    return (1 << octave) + (half << (octave - 1) if octave else 0)


def bin_of(metric: Metric, score: Score) -> int:
    """The bin of a score that is not a category (a category's bin is its label)."""
    match metric.kind:
        case "rate":
            return 1 if score.value >= FIRES else 0
        case "number":
            return log_bin(score.value)
        case "cells":
            return score.value
        case "distance":
            return min(score.value * NOVELTY_BINS >> 16, NOVELTY_BINS - 1)
        case "category":
            raise ValueError(f"{metric.name} is counted by label")
