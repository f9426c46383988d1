"""The false-alarm budget by simulation: streams without change keep it with an estimated reference, and the detector that
believes its reference to the digit does not. Constant rate: 100 events in 5 s, so D seconds are 20 D events."""

from dataclasses import replace
from statistics import median

import numpy as np
import pytest
from scipy.stats import poisson

from core.detection import sr
from core.detection.reference import Arm, Reference, arms
from core.detection.sr import SrState, build_layout, step

STEP = 100
D = 5_000.0
STEPS = 2_000
"""Twice D."""
TOPICS = np.arange(1, 257) ** -1.2
MIX = TOPICS / TOPICS.sum()


def layout_of(random: np.random.Generator, n0: int, delta: float) -> sr.Layout:
    """Topic cells with a Zipf mix; no distances (their weight is left unused)."""
    counts = {cell: int(count) for cell, count in enumerate(random.multinomial(n0, MIX)) if count}
    own = Reference("topic.mix@1", counts={"topic": counts, "novelty": {0: n0}})
    own.delta = delta / own.stream.weight
    return build_layout([own])


def alarms(random: np.random.Generator, layout: sr.Layout, budget: float = D) -> int:
    state = SrState.new(layout, 0)
    raised = 0
    for counts in random.multinomial(STEP, MIX, size=STEPS):
        bins = np.flatnonzero(counts)
        brought = dict(zip(bins.tolist(), counts[bins].tolist(), strict=True)) | {256: STEP}
        if step(layout, state, brought, 5.0, 0, np.array([budget])).alarms:
            raised += 1
            state.reset(slice(0, len(layout.arms)), 0)
    return raised


def share_of_exceeding(seeds: int, n0: int) -> float:
    limit = poisson.ppf(0.99, STEPS * 5.0 / D)
    counted = []
    for seed in range(seeds):
        random = np.random.default_rng(seed)
        counted.append(alarms(random, layout_of(random, n0, 0.05)) > limit)
    return sum(counted) / seeds


@pytest.mark.parametrize("n0", [1_000, 5_000])
def test_the_budget_is_kept_with_an_estimated_reference(n0: int) -> None:
    assert share_of_exceeding(20, n0) <= 0.05


def test_a_point_estimate_as_null_breaks_the_budget(monkeypatch: pytest.MonkeyPatch) -> None:
    def believing(reference: Reference) -> list[Arm]:
        return [replace(arm, p0=min(max(arm.before, 1e-4), 1 - 1e-4)) for arm in arms(reference)]

    monkeypatch.setattr(sr, "arms", believing)
    assert share_of_exceeding(8, 5_000) > 0.5


def delay(n0: int, seeds: int = 60) -> float:
    """Median delay in events of 15 % becoming 20 %, with a budget of 1e6 events, one stream with all weight, upwards."""
    delays = []
    for seed in range(seeds):
        random = np.random.default_rng(seed)
        hits = int(random.binomial(n0, 0.15))
        own = Reference("error@1", counts={"error": {0: n0 - hits, 1: hits}})
        own.delta = 0.05 / own.stream.weight
        layout = build_layout([own])
        state = SrState.new(layout, 0)
        events = 0
        while True:
            x = int(random.binomial(STEP, 0.2))
            events += STEP
            if step(layout, state, {0: STEP - x, 1: x}, 5.0, 0, np.array([1e6 * 5.0 / STEP])).alarms:
                break
        delays.append(events)
    return median(delays)


def test_a_change_is_found_after_about_as_many_events_as_measured_before() -> None:
    assert delay(20_000) <= 1_500
    assert delay(5_000) <= 1_900
