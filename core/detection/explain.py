"""What an alarm says: what moved, since when, by how much, and which bins carry it."""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from core.cells import CellNames
from core.detection.budget import LATER
from core.detection.reference import Arm, lower_bound, upper_bound
from core.detection.sr import Layout, SrState
from core.metrics import METRICS, log_bin_floor, split_metric_key
from schemas.messages import WINDOW_MS, Contribution, Effect

MOST_CONTRIBUTIONS: Final = 8
MOST_RUNGS: Final = 3
"""Of one ladder, whose rungs say nearly the same."""
LEAST_SHARE: Final = 0.01
LEAST_RISE: Final = math.log(100.0)
"""A bin with a small share of E is named all the same when its own evidence is 100 to 1."""


@dataclass(frozen=True)
class Explanation:
    """`onset` is the start (ms) of the first window after the minimum of the cumulative L of the arm with the largest w M."""

    onset: int
    effect: Effect
    contributions: list[Contribution]


def six_digits(value: float) -> float:
    """Statistics are given with six digits.

    >>> six_digits(1234567.0)
    1234570.0
    """
    return float(f"{value:.6g}")


def arm_name(arm: Arm, names: Sequence[str], cells: CellNames, version: int) -> str:
    """A bin in words; `names` are the categories of its reference, `cells` the app's topic cells, `version` the scorer's."""
    match METRICS[arm.metric].kind:
        case "rate":
            return arm.metric
        case "number" if arm.metric == "latency":
            return f"latency >= {log_bin_floor(arm.first) / 1000:g} ms"
        case "number":
            return f"{arm.metric} >= {log_bin_floor(arm.first)}"
        case "distance":
            return cells.novelty(arm.first, version)
        case "cells":
            return cells.topic(arm.first, version)
        case "category":
            return names[arm.first] if arm.first < len(names) else "other"


def explain(layout: Layout, state: SrState, position: int, cells: CellNames) -> Explanation:
    """Explain the alarm of one stream before it is held, by the bins with most evidence.

    Rates are exact counts since each bin's own onset; the effect's interval is the exact binomial one (95 %) given the
    estimated onset, so it says nothing about the onset's own error.
    """
    segment = layout.segment(position)
    share = (layout.weight * state.m)[:, segment]
    total = float(share.sum())
    tilts = share.argmax(axis=0)
    by_arm = share.sum(axis=0)
    at, x, n, rise = (array[:, segment] for array in (state.onset, state.x, state.n, state.rise))
    version = split_metric_key(layout.keys[position])[1]
    names = layout.names.get(f"{layout.arms[segment.start].metric}@{version}", ())
    suffix = " (later turns)" if layout.keys[position].startswith(LATER) else ""
    by_bin: dict[tuple[str, int], Contribution] = {}
    rungs: Counter[str] = Counter()
    for arm_at in np.argsort(-by_arm, kind="stable").tolist():
        arm, tilt = layout.arms[segment.start + arm_at], int(tilts[arm_at])
        part = float(by_arm[arm_at]) / total
        if (arm.metric, arm.first) in by_bin:  # the other direction of the same bin
            by_bin[arm.metric, arm.first].share += part
            continue
        ladder = METRICS[arm.metric].kind in ("number", "distance")
        weighty = not by_bin or part >= LEAST_SHARE or float(rise[:, arm_at].max()) >= LEAST_RISE
        if not weighty or len(by_bin) == MOST_CONTRIBUTIONS or (ladder and rungs[arm.metric] == MOST_RUNGS):
            continue
        rungs[arm.metric] += 1
        by_bin[arm.metric, arm.first] = Contribution(
            bin=f"{arm.metric}:{arm.first}",
            name=arm_name(arm, names, cells, version) + suffix,
            share=part,
            before=six_digits(arm.before),
            after=six_digits(int(x[tilt, arm_at]) / max(int(n[tilt, arm_at]), 1)),
        )
    kept = sorted(by_bin.values(), key=lambda c: (-c.share, c.bin))
    for contribution in kept:
        contribution.share = six_digits(contribution.share)
    tilt, arm_at = divmod(int(np.argmax(share)), share.shape[1])
    events, hits = int(n[tilt, arm_at]), int(x[tilt, arm_at])
    effect = Effect(
        before=six_digits(layout.arms[segment.start + arm_at].before),
        after=six_digits(hits / max(events, 1)),
        low=six_digits(float(lower_bound(np.array([hits], dtype=np.float64), events, 0.025)[0])),
        high=six_digits(float(upper_bound(np.array([hits], dtype=np.float64), events, 0.025)[0])),
        events=events,
    )
    return Explanation(int(at[tilt, arm_at]) * WINDOW_MS, effect, kept)
