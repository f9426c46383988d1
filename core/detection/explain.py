"""What an alarm says: what moved, since when, by how much, and which bins carry it."""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from core.cells import CellNames
from core.detection.budget import LATER, STREAMS, stream_name
from core.detection.reference import Arm, lower_bound, upper_bound
from core.detection.sr import TILTS, Layout, SrState
from core.metrics import METRICS, log_bin_floor, split_metric_key
from schemas.messages import WINDOW_MS, BinCounts, Contribution, Effect

MOST_CONTRIBUTIONS: Final = 8
MOST_RUNGS: Final = 3
"""Of a ladder that is a stream's only metric."""
LEAST_RISE: Final = math.log(100.0)
"""A bin is named beside the first when its own evidence is 100 to 1."""


@dataclass(frozen=True)
class Explanation:
    """`onset` is the start (ms) of the first window after the minimum of the cumulative L of the arm with most evidence."""

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

    A bin's evidence is its own log-likelihood ratio since its own onset (of the test that has most); shares are those of the
    evidence of all bins in which it is 100 to 1, so that they add up to 1. Rungs of a ladder say the same again: beside other
    metrics only the best one counts. Rates are exact counts since each bin's onset; the effect is that of the first bin, and
    its interval the exact binomial one (95 %) given the estimated onset, so it says nothing about the onset's own error.
    """
    segment = layout.segment(position)
    at, x, n, rise = (array[:, segment] for array in (state.onset, state.x, state.n, state.rise))
    tilts, evidence = rise.argmax(axis=0), rise.max(axis=0)
    key = layout.keys[position]
    version = split_metric_key(key)[1]
    names = layout.names.get(f"{layout.arms[segment.start].metric}@{version}", ())
    suffix = " (later turns)" if key.startswith(LATER) else ""
    most_rungs = MOST_RUNGS if len(STREAMS[stream_name(key)].parts) == 1 else 1
    moved: dict[tuple[str, int], int] = {}
    rungs: Counter[str] = Counter()
    for arm_at in np.argsort(-evidence, kind="stable").tolist():
        arm = layout.arms[segment.start + arm_at]
        if moved and evidence[arm_at] < LEAST_RISE:
            break
        ladder = METRICS[arm.metric].kind in ("number", "distance")
        if (arm.metric, arm.first) in moved or (ladder and rungs[arm.metric] == most_rungs):
            continue
        rungs[arm.metric] += 1
        moved[arm.metric, arm.first] = arm_at
    total = max(float(evidence[list(moved.values())].sum()), 1e-300)
    contributions = []
    for arm_at in list(moved.values())[:MOST_CONTRIBUTIONS]:
        arm, tilt = layout.arms[segment.start + arm_at], int(tilts[arm_at])
        contributions.append(
            Contribution(
                bin=f"{arm.metric}:{arm.first}",
                name=arm_name(arm, names, cells, version) + suffix,
                share=six_digits(float(evidence[arm_at]) / total),
                before=six_digits(arm.before),
                after=six_digits(int(x[tilt, arm_at]) / max(int(n[tilt, arm_at]), 1)),
                counts=BinCounts(
                    up=arm.up,
                    onset=int(at[tilt, arm_at]) * WINDOW_MS,
                    hits=int(x[tilt, arm_at]),
                    events=int(n[tilt, arm_at]),
                    band=six_digits(arm.p0),
                    tilt=TILTS[tilt],
                    log_likelihood=six_digits(float(rise[tilt, arm_at])),
                    grown=arm.grown,
                ),
            )
        )
    lead = next(iter(moved.values()))
    tilt = int(tilts[lead])
    events, hits = int(n[tilt, lead]), int(x[tilt, lead])
    effect = Effect(
        before=six_digits(layout.arms[segment.start + lead].before),
        after=six_digits(hits / max(events, 1)),
        low=six_digits(float(lower_bound(np.array([hits], dtype=np.float64), events, 0.025)[0])),
        high=six_digits(float(upper_bound(np.array([hits], dtype=np.float64), events, 0.025)[0])),
        events=events,
    )
    return Explanation(int(at[tilt, lead]) * WINDOW_MS, effect, contributions)
