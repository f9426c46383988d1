"""What is normal for an app: counts of its first N events over all versions, and the bands they prove.

A band [lo, hi] holds a bin's true rate except with the bin's own share of delta (Clopper & Pearson 1934), so that the
detector's null survives an estimated reference. It grows at doublings, the j-th with delta 6/(pi^2 (j+1)^2): all hold together. The delta of a ladder is shared by all fixed edges, not only by those
that the counts choose; a category's bins are named by the first fifth of the reference and counted on the rest.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import msgspec
import numpy as np
import numpy.typing as npt
from scipy.special import betainccinv, betaincinv

from core.detection.budget import LATER, STREAMS, Stream, directions, stream_name, stream_weight
from core.groups import first_turns
from core.identity import OTHER
from core.metrics import LOG_BINS, MAX_OWN_CELLS, METRICS, NOVELTY_BINS, OWN, TOPIC_CELLS, MetricKind, split_metric_key
from schemas.messages import Counts, Group

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

QUANTILES: Final = (0.5, 0.8, 0.9, 0.95, 0.98, 0.99, 0.995, 0.998, 0.999)
LEAST_OWN: Final = 200
"""A reference waits for this many events of its own metric (or for all N, if that is less)."""
NAMING_SHARE: Final = 5
"""1/5 of the reference names the categories."""
_WIDTHS: Final[dict[MetricKind, int]] = {"rate": 2, "number": LOG_BINS, "cells": TOPIC_CELLS, "distance": NOVELTY_BINS}


def upper_bound(x: Floats, n: float, delta: float) -> Floats:
    """Upper Clopper-Pearson bound of a rate after x of n, wrong with probability at most delta.

    >>> round(float(upper_bound(np.array([0.0]), 100, 0.05)[0]), 6) == round(1 - 0.05 ** (1 / 100), 6)
    True
    """
    bound = betainccinv(x + 1.0, np.maximum(n - x, 0.5), delta)
    return np.where(x >= n, 1.0, bound).astype(np.float64)


def lower_bound(x: Floats, n: float, delta: float) -> Floats:
    """Lower Clopper-Pearson bound of a rate after x of n, wrong with probability at most delta.

    >>> round(float(lower_bound(np.array([100.0]), 100, 0.05)[0]), 6) == round(0.05 ** (1 / 100), 6)
    True
    """
    bound = betaincinv(np.maximum(x, 0.5), n - x + 1.0, delta)
    return np.where(x <= 0.0, 0.0, bound).astype(np.float64)


class Reference(msgspec.Struct):
    """Counts of one stream's reference. `key` is `stream@version`, or `later:stream@version`; `counts` by metric and bin (a category's bin is its
    place in `names`, the last place is `other`); `delta` is set when it is complete."""

    key: str
    seen: int = 0
    """Interactions of the app since it began."""
    counts: dict[str, dict[int, int]] = {}
    early: dict[str, int] = {}
    names: list[str] | None = None
    delta: float | None = None
    doublings: int = 0
    grown: dict[str, dict[int, int]] = {}
    """Counts as of the last doubling, the first ones included; none before there was one."""
    learned: dict[str, dict[int, int]] = {}
    """Counts since then."""

    @property
    def stream(self) -> Stream:
        return STREAMS[stream_name(self.key)]

    @property
    def later(self) -> bool:
        return self.key.startswith(LATER)

    @property
    def complete(self) -> bool:
        return self.delta is not None

    def own(self) -> int:
        """Events counted in the stream's rarest metric."""
        return min(sum(self.counts.get(metric, {}).values()) for metric, _ in self.stream.parts)

    def add(self, groups: Sequence[Group], size: int, delta: float) -> bool:
        """Count one window of the app; True when that completes the reference (of `size` events, whole windows)."""
        version = split_metric_key(self.key)[1]
        self.seen += sum(group.n for group in groups)
        judged = [one for group in groups if (one := judged_of(group, later=self.later)) is not None]
        for metric, _ in self.stream.parts:
            key = f"{metric}@{version}"
            if METRICS[metric].kind == "category":
                self._add_names(metric, key, judged)
                if self.names is None and self.seen * NAMING_SHARE >= size:
                    self.names = sorted(name for name in self.early if name != OTHER)
                    self.early = {}
            else:
                counts = self.counts.setdefault(metric, {})
                for one in judged:
                    for bin_, count in one.bins.get(key, ()):
                        counts[bin_] = counts.get(bin_, 0) + count
        if self.seen < size or self.own() < min(size, LEAST_OWN):
            return False
        self.delta = delta
        return True

    def grow(self, counts: Mapping[str, Mapping[int, int]]) -> bool:
        """Learn counts of a complete reference's metrics; True when that has doubled it."""
        base = self.grown or self.counts
        for metric, _ in self.stream.parts:
            self.learned[metric] = _summed(self.learned.get(metric, {}), counts.get(metric, {}))
        sizes = [(sum(self.learned[m].values()), sum(base.get(m, {}).values())) for m, _ in self.stream.parts]
        if any(learned < known for learned, known in sizes) or not all(known for _, known in sizes):
            return False
        self.grown = {metric: _summed(base.get(metric, {}), self.learned[metric]) for metric, _ in self.stream.parts}
        self.learned = {}
        self.doublings += 1
        return True

    def _add_names(self, metric: str, key: str, judged: Sequence[Group | Counts]) -> None:
        counts = self.counts.setdefault(metric, {})
        for one in judged:
            for name, count in one.names.get(key, ()):
                if self.names is None:
                    self.early[name] = self.early.get(name, 0) + count
                else:
                    bin_ = name_bin(self.names, name)
                    counts[bin_] = counts.get(bin_, 0) + count


def judged_of(group: Group, *, later: bool) -> Group | Counts | None:
    """The counts of a group that are judged: of its first turns, or of one later turn per conversation, where it has any."""
    if not later:
        return first_turns(group)
    return None if group.later is msgspec.UNSET else group.later


def _summed(one: Mapping[int, int], other: Mapping[int, int]) -> dict[int, int]:
    return {bin_: one.get(bin_, 0) + other.get(bin_, 0) for bin_ in sorted({*one, *other})}


def growth_delta(doublings: int) -> float:
    """Share of delta of the reference after j doublings, j >= 0; all together are 1.

    >>> round(sum(growth_delta(j) for j in range(10_000)), 3)
    1.0
    """
    return 6.0 / (math.pi * (doublings + 1)) ** 2


def name_bin(names: Sequence[str], name: str) -> int:
    """A category's bin: its place among the reference's names, else the last."""
    return names.index(name) if name in names else len(names)


@dataclass(frozen=True)
class Arm:
    """One bin and direction of a stream: counts [first, last) of its metric's counts, against the band's edge `p0`.

    `before` is the reference's own rate; weights of a stream's arms sum to at most 1. `grown`: the band is that of the grown
    reference, else of the first.
    """

    metric: str
    first: int
    last: int
    up: bool
    p0: float
    weight: float
    before: float
    grown: bool = False

    @property
    def place(self) -> tuple[str, int, int, bool, bool]:
        """Which test it is, whatever its band."""
        return self.metric, self.first, self.last, self.up, self.grown


def width(reference: Reference, metric: str) -> int:
    """Number of a metric's bins before any are summed."""
    kind = METRICS[metric].kind
    if kind == "category":
        return len(reference.names or ()) + 1
    if kind == "cells" and split_metric_key(reference.key)[1] > OWN:
        return MAX_OWN_CELLS
    return _WIDTHS[kind]


def ladder_edges(counts: Ints) -> list[int]:
    """Bin edges nearest above the reference's quantiles: for each the first edge that at least that share lies below.

    >>> ladder_edges(np.array([50, 30, 20, 0]))
    [1, 2, 3]
    """
    below = np.cumsum(counts) / max(int(counts.sum()), 1)
    edges = {int(np.searchsorted(below, q - 1e-12)) + 1 for q in QUANTILES}
    return sorted(edge for edge in edges if edge < len(counts))


def arms(reference: Reference) -> list[Arm]:
    """The tests that a complete reference allows; where a band reaches 0 or 1 there is none, and its weight stays unused.

    Once it has doubled, half of the weight stays on the first reference: a slow ramp would else be learned as normal.
    """
    if not reference.doublings:
        return _arms(reference, grown=False, part=1.0)
    return _arms(reference, grown=False, part=0.5) + _arms(reference, grown=True, part=0.5)


def _arms(reference: Reference, *, grown: bool, part: float) -> list[Arm]:
    if reference.delta is None:
        raise ValueError(f"the reference {reference.key} is not complete")
    out: list[Arm] = []
    whole = reference.delta * stream_weight(reference.key) * growth_delta(reference.doublings if grown else 0)
    for metric, share in reference.stream.parts:
        first = _array(reference, metric, reference.counts)
        ranges, bands = _ranges(METRICS[metric].kind, first)
        counts = _array(reference, metric, reference.grown) if grown else first
        total = int(counts.sum())
        cumulative = np.concatenate(([0], np.cumsum(counts)))
        for up, side in directions(METRICS[metric].harmful):
            x = np.array([cumulative[last] - cumulative[first] for first, last in ranges], dtype=np.int64)
            edge = (upper_bound if up else lower_bound)(x.astype(np.float64), total, whole * share / bands * side)
            out.extend(
                Arm(metric, first, last, up, p0, part * share * side / len(ranges), count / max(total, 1), grown)
                for (first, last), p0, count in zip(ranges, edge.tolist(), x.tolist(), strict=True)
                if 0.0 < p0 < 1.0
            )
    return out


def _array(reference: Reference, metric: str, counted: Mapping[str, Mapping[int, int]]) -> Ints:
    counts = np.zeros(width(reference, metric), dtype=np.int64)
    for bin_, count in counted.get(metric, {}).items():
        counts[bin_] += count
    return counts


def _ranges(kind: MetricKind, counts: Ints) -> tuple[list[tuple[int, int]], int]:
    """The bins as ranges of counts, and how many bands share the metric's delta."""
    bins = len(counts)
    match kind:
        case "rate":
            return [(1, 2)], 1
        case "number" | "distance":
            return [(edge, bins) for edge in ladder_edges(counts)], bins - 1
        case "cells" | "category":
            return [(bin_, bin_ + 1) for bin_ in range(bins)], bins
