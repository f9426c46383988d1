"""One false-alarm budget per app, split over its streams by weights that sum to at most 1.

Run lengths add as rates: a stream with weight w alarms at D / w, so that all streams together alarm by mistake at most
once in D on average (drift.md's source: Shin, Ramdas, Rinaldo 2022, with a union over streams).
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final, Literal

from core.metrics import METRICS, TOPIC_MIX, Direction, split_metric_key
from schemas.messages import Rules

UP_SHARE: Final = 0.7
"""Share of a two-sided bin's weight for increases."""
LATER: Final = "later:"
"""A stream's key begins with it where it judges later turns instead of first ones: `later:refusal@1`."""
LATER_SHARE: Final = 0.1
"""Share of a stream's weight for later turns."""
MAX_VERSIONS: Final = 50
"""Versions judged on their own per app; further ones are judged together as `other`."""


@dataclass(frozen=True)
class Stream:
    """What one detector judges: bins of one or more metrics of one scorer version, each metric with its share of the weight."""

    name: str
    parts: tuple[tuple[str, float], ...]
    scope: Literal["app", "version"]
    of: Literal["interaction", "feedback"]
    weight: float


def _stream(name: str, weight: float) -> Stream:
    return Stream(name, ((name, 1.0),), METRICS[name].scope, METRICS[name].of, weight)


def _shared(streams: Sequence[Stream]) -> dict[str, Stream]:
    """The streams by name, their weights scaled so that they sum to 1."""
    total = sum(stream.weight for stream in streams)
    return {stream.name: replace(stream, weight=stream.weight / total) for stream in streams}


STREAMS: Final[Mapping[str, Stream]] = _shared(
    (
        Stream(TOPIC_MIX, (("topic", 0.6), ("novelty", 0.4)), "app", "interaction", 0.25),
        _stream("refusal", 0.25),
        _stream("prompt.safety.unsafe", 0.05),
        _stream("prompt.safety.jailbreak", 0.05),
        _stream("response.safety.unsafe", 0.06),
        _stream("thumbs.down", 0.10),
        _stream("error", 0.10),
        _stream("latency", 0.08),
        _stream("response.length", 0.05),
        _stream("response.empty", 0.04),
        _stream("response.pii", 0.03),
        _stream("prompt.language", 0.03),
        _stream("prompt.pii", 0.03),
        _stream("response.repeated", 0.02),
        _stream("scorer.error", 0.02),
        _stream("response.over_refusal", 0.03),
        _stream("response.cut_off", 0.03),
        _stream("response.format", 0.03),
        _stream("response.language_differs", 0.02),
        _stream("response.prompt_leak", 0.02),
        _stream("cost", 0.03),
    )
)
STREAM_OF: Final[Mapping[str, Stream]] = {metric: stream for stream in STREAMS.values() for metric, _ in stream.parts}
"""The stream that a metric's counts go to."""


def stream_name(key: str) -> str:
    """The stream of a key.

    >>> stream_name("refusal@1"), stream_name("later:refusal@1")
    ('refusal', 'refusal')
    """
    return split_metric_key(key)[0].removeprefix(LATER)


def stream_weight(key: str, rules: Rules | None = None) -> float:
    """A stream's share of the app's budget, with the shares that the rules give, and (without rules) of delta: by first turns,
    or by later ones."""
    weights = {} if rules is None or not rules.shares else stream_weights(rules)
    name = stream_name(key)
    return weights.get(name, STREAMS[name].weight) * (LATER_SHARE if key.startswith(LATER) else 1.0 - LATER_SHARE)


def stream_weights(rules: Rules) -> dict[str, float]:
    """Each stream's share of the app's budget: the built-in weights with those of `rules.shares` in their place, scaled so
    that they sum to 1.

    >>> weights = stream_weights(Rules(shares={"refusal": 1.0}))
    >>> round(sum(weights.values()), 12), weights["refusal"] > stream_weights(Rules())["refusal"]
    (1.0, True)
    """
    raw = {name: rules.shares.get(name, stream.weight) for name, stream in STREAMS.items()}
    total = sum(raw.values())
    return {name: weight / total for name, weight in raw.items()}


def slice_weight(k: int) -> float:
    """Share of a stream's weight for the app's k-th version, k from 1; all together sum to 1.

    >>> round(slice_weight(1), 4), round(slice_weight(2), 4)
    (0.6079, 0.152)
    """
    return 6.0 / (math.pi * k) ** 2


def directions(harmful: Direction) -> tuple[tuple[bool, float], ...]:
    """(upwards, share of the bin's weight) of the tests for a harmful direction.

    >>> directions("up")
    ((True, 1.0),)
    """
    if harmful == "both":
        return ((True, UP_SHARE), (False, 1.0 - UP_SHARE))
    return ((harmful == "up", 1.0),)


def budget_seconds(rules: Rules) -> float:
    """D: monitored time in which an app may have one false alarm on average.

    >>> budget_seconds(Rules(false_pages=1, per_days=30.0))
    2592000.0
    """
    return rules.per_days * 86_400.0 / rules.false_pages
