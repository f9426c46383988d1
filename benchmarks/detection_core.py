"""The product's detectors in the event clock: references, layouts and steps, with one seed after another."""

import dataclasses
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Final

import numpy as np
import numpy.typing as npt

from benchmarks.report import emit
from core.detection.budget import STREAMS, slice_weight
from core.detection.reference import Reference
from core.detection.sr import TILTS, Layout, SrState, build_layout, step
from core.metrics import split_metric_key
from schemas.messages import Group

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]

STEP: Final = 100
"""Events of a detector's step."""
DELTA: Final = 0.05
_PARTS: Final = 10


def group_of(bins: Mapping[str, Ints], names: Mapping[str, Mapping[str, int]] | None = None, n: int = 0, acts: int = 0) -> Group:
    """Counts by metric key and bin as a window's group."""
    return Group(
        app="app",
        environment="e",
        version="v",
        n=n,
        acts=acts,
        bins={key: [(int(at), int(counts[at])) for at in np.flatnonzero(counts)] for key, counts in bins.items()},
        names={key: sorted(counts.items()) for key, counts in (names or {}).items()},
    )


def reference_of(key: str, groups: Sequence[Group], size: int, delta: float = DELTA) -> Reference:
    """A complete reference of one stream, counted from groups of `size` events together."""
    reference = Reference(key)
    for group in groups:
        reference.add([group], size, delta)
    if not reference.complete:
        raise ValueError(f"{key}: {reference.own()} counted of {reference.seen}")
    return reference


def own_delta(stream: str, delta: float = DELTA) -> float:
    """What gives a stream `delta` of its own, where a reference's is the app's and shared by weights."""
    return delta / STREAMS[stream].weight


def in_parts(size: int) -> Iterator[int]:
    """A reference's events in a few groups, since the first of them name its categories."""
    yield from [size // _PARTS] * (_PARTS - 1)
    yield size - size // _PARTS * (_PARTS - 1)


def one_direction(layout: Layout, *, up: bool) -> Layout:
    """A layout whose whole weight lies on its tests in one direction."""
    keep = np.array([arm.up == up for arm in layout.arms], dtype=np.float64)
    return dataclasses.replace(layout, weight=np.tile(keep / (keep.sum() * len(TILTS)), (len(TILTS), 1)))


def point_null(layout: Layout, n0: int) -> Layout:
    """The negative control: the reference's own rate as the null, as if it were known exactly."""
    p0 = np.clip([arm.before for arm in layout.arms], 0.5 / n0, 1 - 0.5 / n0)
    sign = np.array([1.0 if arm.up else -1.0 for arm in layout.arms])
    odds = np.exp(np.log(p0 / (1 - p0)) + np.outer(TILTS, sign))
    q = odds / (1 + odds)
    base = np.log1p(-q) - np.log1p(-p0)
    return dataclasses.replace(layout, gain=np.log(q) - np.log(p0) - base, base=base)


class Detector:
    """One slice in the event clock: a stream of weight w alarms at A / w, and begins again after an alarm."""

    def __init__(self, layout: Layout, budget: float, *, shared: bool = False) -> None:
        """`shared`: the streams have their weights in the default app (first version); else a single stream has it all."""
        self.layout = layout
        weights = [STREAMS[split_metric_key(key)[0]].weight * slice_weight(1) if shared else 1.0 for key in layout.keys]
        self.thresholds: Floats = budget / np.array(weights)
        self.state = SrState.new(layout, 0)
        self.events = 0
        self._number = 0

    def feed(self, columns: Ints, n: int) -> list[int]:
        """A step: counts by column (dense), of n events; positions of streams that alarm, which the caller may `reset`."""
        self._number += 1
        self.events += n
        at = np.flatnonzero(columns)
        counts = dict(zip(at.tolist(), columns[at].tolist(), strict=True))
        result = step(self.layout, self.state, counts, float(n), self._number, self.thresholds)
        return [position for position, _ in result.alarms]

    def reset(self, position: int) -> None:
        self.state.reset(self.layout.segment(position), self._number)


def layout_of(references: Sequence[Reference]) -> Layout:
    """The product's layout; raises ValueError where no reference allows a test."""
    layout = build_layout(references)
    if not layout.keys:
        raise ValueError("no reference allows a test")
    return layout


def say(name: str, value: float, unit: str, packages: Sequence[str]) -> None:
    """Print one result; what never came is said as such, since JSON knows no infinity."""
    if math.isfinite(value):
        emit(name, value, unit, packages)
    else:
        emit(name, -1, f"never came; {unit}", packages)


def quantiles(values: Sequence[float]) -> tuple[float, float]:
    """Median and 90 % quantile; what never came counts as infinite."""
    ranked = sorted(values)
    return ranked[(len(ranked) - 1) // 2], ranked[min(len(ranked) - 1, int(0.9 * len(ranked)))]
