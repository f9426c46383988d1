"""What a detector could have seen: the smallest change that it finds in a given time, at a given traffic, with its reference.

A step of m events with x in the bin adds L = x gain + m base; after k steps with a rate of p the sum is exactly a function of
a binomial count of k m events. M after k steps is at least the step's seconds times exp of the sum since the change, times
the start points that lie close together while the drift g of a step is small, 1 / (1 - exp(-g)). What is left out (other bins
and tilts, evidence from before, an alarm at an earlier step that would have gone again) only adds to the power.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import numpy as np
from scipy.special import expit, logit
from scipy.stats import binom

from core.detection.budget import budget_seconds, slice_weight, stream_weight
from core.detection.reference import Arm, Floats, Reference, arms
from core.detection.sr import TILTS
from schemas.messages import Rules

DAY: Final = 86_400.0
STEP_EVENTS: Final = 100
STEP_SECONDS: Final = 300.0
WINDOW_SECONDS: Final = 5.0
FOUND: Final = 0.8
"""With this probability a change of the shown size is found in the shown time."""
_LONGEST: Final = 365 * DAY
_BISECTIONS: Final = 40


@dataclass(frozen=True)
class Power:
    """The smallest change of one bin, in one direction, that is found within `seconds`; `after` is None where none is.

    `x` of `n` events of the reference were in the bin.
    """

    metric: str
    first: int
    up: bool
    x: int
    n: int
    after: float | None
    seconds: float

    @property
    def before(self) -> float:
        return self.x / max(self.n, 1)

    def __str__(self) -> str:
        """
        >>> print(Power("refusal", 1, True, 412, 5_000, 0.1724, 86_400.0))
        412 of 5,000 events; today 9 points in a day
        >>> print(Power("refusal", 1, True, 412, 5_000, None, 7 * 86_400.0))
        412 of 5,000 events; today no change at all in 7 days
        """
        return f"{self.x:,} of {self.n:,} events; today {self._size()} in {_span(self.seconds)}"

    def _size(self) -> str:
        if self.after is None:
            return "no change at all"
        points = 100.0 * abs(self.after - self.before)
        return f"{points:.0f} points" if points >= 2.0 else f"{points:.2g} points"


def _span(seconds: float) -> str:
    for unit, name in ((DAY, "day"), (3_600.0, "hour")):
        if seconds >= unit:
            return f"a {name}".replace("a hour", "an hour") if round(seconds / unit) == 1 else f"{seconds / unit:.0f} {name}s"
    return f"{seconds / 60.0:.0f} minutes"


def step_of(events_per_day: float) -> tuple[float, float]:
    """(events, seconds) of a detector's step: the first window that brings it to 100 events, or 5 minutes.

    >>> step_of(864_000)
    (100.0, 10.0)
    >>> step_of(2_880)
    (10.0, 300.0)
    """
    rate = events_per_day / DAY
    seconds = STEP_SECONDS if rate <= 0.0 else min(STEP_SECONDS, math.ceil(STEP_EVENTS / rate / WINDOW_SECONDS) * WINDOW_SECONDS)
    return rate * seconds, seconds


def chance(arm: Arm, threshold: float, events_per_day: float, after: float, seconds: float) -> float:
    """Probability (from below) that a change of a bin's rate to `after` is found within `seconds`; `threshold` is E's, in seconds."""
    m, long = step_of(events_per_day)
    steps = math.floor(seconds / long)
    events = math.floor(steps * m)
    if events < 1:
        return 0.0
    sign = 1.0 if arm.up else -1.0
    q: Floats = expit(logit(arm.p0) + sign * np.array(TILTS))
    base = np.log1p(-q) - math.log1p(-arm.p0)
    gain = np.log(q) - math.log(arm.p0) - base
    drift = m * (after * gain + base)
    near = np.minimum(-1.0 / np.expm1(-np.maximum(drift, 1e-9)), steps)
    needed = math.log(threshold) - np.log(arm.weight / len(TILTS) * long * near)
    hits = (needed - events * base) / gain
    found = binom.sf(np.ceil(hits) - 1, events, after) if arm.up else binom.cdf(np.floor(hits), events, after)
    return float(found[drift > 0.0].max(initial=0.0))


def smallest_change(arm: Arm, threshold: float, events_per_day: float, seconds: float = DAY) -> float | None:
    """The rate nearest the reference's that is found within `seconds` with probability >= 0.8; None where none is."""
    edge = 1.0 - 1e-9 if arm.up else 1e-9
    if chance(arm, threshold, events_per_day, edge, seconds) < FOUND:
        return None
    return _least(arm.before, edge, lambda rate: chance(arm, threshold, events_per_day, rate, seconds) >= FOUND)


def seconds_to_find(arm: Arm, threshold: float, events_per_day: float, after: float) -> float | None:
    """The time within which a change to `after` is found with probability >= 0.8; None beyond a year."""

    def found(seconds: float) -> bool:
        return chance(arm, threshold, events_per_day, after, seconds) >= FOUND

    return _least(0.0, _LONGEST, found) if found(_LONGEST) else None


def _least(none: float, enough: float, found: Callable[[float], bool]) -> float:
    for _ in range(_BISECTIONS):
        middle = (none + enough) / 2.0
        none, enough = (none, middle) if found(middle) else (middle, enough)
    return enough


def powers(
    reference: Reference, rules: Rules, events_per_day: float, *, k: int | None = None, seconds: float = DAY
) -> list[Power]:
    """What each bin of a complete reference could show, in each direction that is tested.

    `events_per_day` counts what the stream judges (interactions, or acts of feedback; of first turns, or sampled later ones);
    `k` says that it is judged for the app's k-th version, None for the whole app.
    """
    threshold = budget_seconds(rules) / (stream_weight(reference.key, rules) * (1.0 if k is None else slice_weight(k)))
    out = []
    for arm in arms(reference):
        counts = (reference.grown if arm.grown else reference.counts).get(arm.metric, {})
        x = sum(count for bin_, count in counts.items() if arm.first <= bin_ < arm.last)
        after = smallest_change(arm, threshold, events_per_day, seconds)
        out.append(Power(arm.metric, arm.first, arm.up, x, sum(counts.values()), after, seconds))
    return out
