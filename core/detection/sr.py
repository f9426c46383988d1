"""The Shiryaev-Roberts e-detector on counts over bins, in the time clock.

Source: Shin, Ramdas, Rinaldo, "E-detectors: a nonparametric framework for sequential change detection" (2022). For each
arm (bin and direction) and tilt d, a step of n events with x in the bin, lasting dt seconds, has the log-likelihood ratio
L = x ln(q/p0) + (n - x) ln((1-q)/(1-p0)) with q = expit(logit(p0) +- d), and M <- (M + dt) exp(L). With weights that sum
to 1, E = sum w M; for every rate inside the band the expected time until E >= D is at least D.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np
import numpy.typing as npt
from scipy.special import expit, logit

from core.detection.reference import Arm, Floats, Ints, Reference, arms, width
from core.metrics import split_metric_key

TILTS: Final = (0.2, 0.4, 0.8, 1.6, 3.2)
"""Log-odds."""
MAX_EXPONENT: Final = 60.0
MAX_M: Final = 1e200
RESOLVED_AT: Final = math.log(100.0)
Small = npt.NDArray[np.int32]


@dataclass(frozen=True)
class Layout:
    """The arms of several streams side by side, so that one step is a few array operations.

    `keys` are stream keys in order, `starts` their first arms; `columns` gives each metric key's first raw count; the
    raw counts of an arm are [first, last), those of its metric [whole_first, whole_last). Arrays `gain`, `base`, `weight`
    have the shape (tilts, arms): L = x gain + n base.
    """

    keys: tuple[str, ...]
    arms: tuple[Arm, ...]
    starts: Ints
    columns: Mapping[str, int]
    names: Mapping[str, Sequence[str]]
    width: int
    first: Ints
    last: Ints
    whole_first: Ints
    whole_last: Ints
    gain: Floats
    base: Floats
    weight: Floats

    def segment(self, position: int) -> slice:
        """The arms of a stream."""
        end = int(self.starts[position + 1]) if position + 1 < len(self.keys) else len(self.arms)
        return slice(int(self.starts[position]), end)

    def columns_of(self, reference: Reference) -> dict[str, slice]:
        """Where the raw counts of a reference's metrics are."""
        version = split_metric_key(reference.key)[1]
        begins = {metric: self.columns[f"{metric}@{version}"] for metric, _ in reference.stream.parts}
        return {metric: slice(begin, begin + width(reference, metric)) for metric, begin in begins.items()}


def build_layout(references: Sequence[Reference]) -> Layout:
    """Lay out complete references (each with at least one arm) in the given order."""
    all_arms: list[Arm] = []
    keys, starts, columns, names = [], [], {}, {}
    first, last, whole_first, whole_last = [], [], [], []
    at = 0
    for reference in references:
        own = arms(reference)
        begin: dict[str, tuple[int, int]] = {}
        for metric, _ in reference.stream.parts:
            key = f"{metric}@{split_metric_key(reference.key)[1]}"
            columns[key] = at
            if reference.names is not None:
                names[key] = reference.names
            begin[metric] = (at, at + width(reference, metric))
            at += width(reference, metric)
        if not own:
            continue
        keys.append(reference.key)
        starts.append(len(all_arms))
        all_arms += own
        first += [begin[arm.metric][0] + arm.first for arm in own]
        last += [begin[arm.metric][0] + arm.last for arm in own]
        whole_first += [begin[arm.metric][0] for arm in own]
        whole_last += [begin[arm.metric][1] for arm in own]
    p0 = np.array([arm.p0 for arm in all_arms], dtype=np.float64)
    sign = np.array([1.0 if arm.up else -1.0 for arm in all_arms])
    q = expit(logit(p0) + np.outer(TILTS, sign))
    base = np.log1p(-q) - np.log1p(-p0)
    return Layout(
        keys=tuple(keys),
        arms=tuple(all_arms),
        starts=np.array(starts, dtype=np.int64),
        columns=columns,
        names=names,
        width=at,
        first=np.array(first, dtype=np.int64),
        last=np.array(last, dtype=np.int64),
        whole_first=np.array(whole_first, dtype=np.int64),
        whole_last=np.array(whole_last, dtype=np.int64),
        gain=np.log(q) - np.log(p0) - base,
        base=base,
        weight=np.tile(np.array([arm.weight for arm in all_arms], dtype=np.float64) / len(TILTS), (len(TILTS), 1)),
    )


@dataclass
class Hold:
    """A stream after its alarm: S over the arm and tilt that carried it; it resolves when S >= ln 100."""

    tilt: int
    arm: int
    s: float = 0.0


@dataclass
class SrState:
    """State of one slice's detectors. All arrays have the shape (tilts, arms).

    `m` is M; `rise` the cumulative L above its running minimum; `onset` the window number (time / 5 s) after that
    minimum, i.e. the most likely start of a change; `x`, `n` the counts since then.
    """

    m: Floats
    rise: Floats
    onset: Small
    x: Small
    n: Small
    holds: dict[str, Hold] = field(default_factory=dict)

    @classmethod
    def new(cls, layout: Layout, window_number: int) -> "SrState":
        shape = (len(TILTS), len(layout.arms))
        return cls(
            m=np.zeros(shape),
            rise=np.zeros(shape),
            onset=np.full(shape, window_number, dtype=np.int32),
            x=np.zeros(shape, dtype=np.int32),
            n=np.zeros(shape, dtype=np.int32),
        )

    def relaid(self, old: Layout, new: Layout, window_number: int) -> "SrState":
        """The same state under a layout that gained or lost streams, or whose references have doubled."""
        state = SrState.new(new, window_number)
        for position, key in enumerate(new.keys):
            if key in old.keys:
                source, target = old.segment(old.keys.index(key)), new.segment(position)
                before = {arm.place: at for at, arm in enumerate(old.arms[source])}
                now = {arm.place: at for at, arm in enumerate(new.arms[target])}
                pairs = [(at, before.get(place, before.get((*place[:-1], False)))) for place, at in now.items()]
                kept = [(at, was) for at, was in pairs if was is not None]
                mine_at, theirs_at = np.array(kept, dtype=np.int64).reshape(-1, 2).T
                for mine, theirs in zip(state.arrays(), self.arrays(), strict=True):
                    mine[:, target.start + mine_at] = theirs[:, source.start + theirs_at]
                if key in self.holds:
                    held = self.holds[key]
                    arm = now[old.arms[source.start + held.arm].place]
                    state.holds[key] = Hold(held.tilt, arm, held.s)
        return state

    def arrays(self) -> tuple[npt.NDArray[np.float64] | npt.NDArray[np.int32], ...]:
        return (self.m, self.rise, self.onset, self.x, self.n)

    def idle(self, seconds: float, window_number: int) -> None:
        """Monitored time without events."""
        self.m += seconds
        self.onset[self.rise <= 0.0] = window_number

    def reset(self, segment: slice, window_number: int) -> None:
        """Begin a stream again."""
        for array in (self.m, self.rise, self.x, self.n):
            array[:, segment] = 0
        self.onset[:, segment] = window_number


@dataclass(frozen=True)
class StepResult:
    """`alarms`: positions of streams whose E reached their threshold, with E; `resolved`: keys of streams no longer held."""

    alarms: tuple[tuple[int, float], ...]
    resolved: tuple[str, ...]


def step(
    layout: Layout, state: SrState, counts: Mapping[int, int], seconds: float, next_number: int, thresholds: Floats
) -> StepResult:
    """One step of all streams of a slice: raw counts by column, its length in seconds of monitored time.

    `next_number` is the number of the first window after the step; `thresholds` are per stream. A stream alarms only in a
    step that brought it events: silence alone is no evidence, though M grows with it. An alarming stream is left as it
    is, so that it can be explained; the caller then calls `hold`.
    """
    raw = np.zeros(layout.width, dtype=np.int64)
    raw[list(counts)] = list(counts.values())
    cumulative = np.concatenate(([0], np.cumsum(raw)))
    x = cumulative[layout.last] - cumulative[layout.first]
    n = cumulative[layout.whole_last] - cumulative[layout.whole_first]
    gained = layout.gain * x
    gained += layout.base * n
    np.exp(np.clip(gained, -MAX_EXPONENT, MAX_EXPONENT), out=(factor := np.empty_like(gained)))
    state.m += seconds
    state.m *= factor
    np.minimum(state.m, MAX_M, out=state.m)
    state.rise += gained
    state.x += x.astype(np.int32)
    state.n += n.astype(np.int32)
    fallen = state.rise <= 0.0
    state.rise[fallen] = 0.0
    state.x[fallen] = 0
    state.n[fallen] = 0
    state.onset[fallen] = next_number
    resolved = tuple(key for key in sorted(state.holds) if _released(layout, state, key, gained, next_number))
    evidence = np.add.reduceat((layout.weight * state.m).sum(axis=0), layout.starts)
    alarms = tuple(
        (int(position), float(evidence[position]))
        for position in np.flatnonzero((evidence >= thresholds) & (n[layout.starts] > 0))
        if layout.keys[position] not in state.holds
    )
    return StepResult(alarms, resolved)


def _released(layout: Layout, state: SrState, key: str, gained: Floats, next_number: int) -> bool:
    hold = state.holds[key]
    segment = layout.segment(layout.keys.index(key))
    state.m[:, segment] = 0.0
    hold.s = max(0.0, hold.s - float(gained[hold.tilt, segment.start + hold.arm]))
    if hold.s < RESOLVED_AT:
        return False
    del state.holds[key]
    state.reset(segment, next_number)
    return True


def hold(layout: Layout, state: SrState, position: int) -> None:
    """Hold a stream after its alarm: M = 0, and its alert lives until the arm that carried it has evidence for normal."""
    segment = layout.segment(position)
    share = (layout.weight * state.m)[:, segment]
    tilt, arm = divmod(int(np.argmax(share)), share.shape[1])
    state.m[:, segment] = 0.0
    state.holds[layout.keys[position]] = Hold(tilt, arm)
