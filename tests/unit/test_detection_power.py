"""Power as shown against power as simulated with the detector itself."""

import numpy as np
import pytest

from core.detection.budget import budget_seconds, slice_weight, stream_weight
from core.detection.power import DAY, chance, powers, seconds_to_find, smallest_change, step_of
from core.detection.reference import Reference, arms
from core.detection.sr import SrState, build_layout, step
from schemas.messages import Rules

RULES = Rules()
CASES = 200
VERSION = 1


def reference(stream: str, hits: int, n: int) -> Reference:
    return Reference(f"{stream}@1", counts={stream: {0: n - hits, 1: hits}}, delta=0.05)


def threshold(own: Reference) -> float:
    return budget_seconds(RULES) / (stream_weight(own.key) * slice_weight(VERSION))


def share_found(own: Reference, after: float, per_day: float, seconds: float) -> float:
    """Of the simulated cases, how many raise an alarm in time after the rate has changed."""
    layout = build_layout([own])
    events, long = step_of(per_day)
    random = np.random.default_rng(11)
    steps = int(seconds / long)
    found = 0
    for _ in range(CASES):
        state = SrState.new(layout, 0)
        for n in random.poisson(events, steps).tolist():
            x = int(random.binomial(n, after))
            if step(layout, state, {0: n - x, 1: x}, long, 0, np.array([threshold(own)])).alarms:
                found += 1
                break
    return found / CASES


@pytest.mark.parametrize(
    ("stream", "hits", "n0", "per_day", "seconds", "up"),
    [
        ("refusal", 412, 5_000, 5_000, DAY, True),
        ("refusal", 412, 5_000, 500, DAY, True),
        ("refusal", 412, 5_000, 50_000, 3_600.0, True),
        ("refusal", 2_000, 5_000, 50_000, 3_600.0, False),
        ("error", 0, 1_000, 20_000, DAY, True),
    ],
)
def test_the_shown_change_is_found_in_time_and_is_hardly_larger_than_the_smallest_that_is(
    stream: str, hits: int, n0: int, per_day: float, seconds: float, up: bool
) -> None:
    own = reference(stream, hits, n0)
    (arm,) = (arm for arm in arms(own) if arm.up == up)
    after = smallest_change(arm, threshold(own), per_day, seconds)
    assert after is not None
    assert share_found(own, after, per_day, seconds) >= 0.8
    assert share_found(own, arm.before + (after - arm.before) / 1.5, per_day, seconds) < 0.8


def test_more_traffic_more_time_and_a_larger_reference_show_smaller_changes() -> None:
    def after(hits: int, n0: int, per_day: float, seconds: float = DAY) -> float:
        own = reference("refusal", hits, n0)
        return smallest_change(arms(own)[0], threshold(own), per_day, seconds) or 1.0

    assert after(82, 1_000, 5_000) > after(410, 5_000, 5_000) > after(410, 5_000, 50_000)
    assert after(410, 5_000, 5_000) > after(410, 5_000, 5_000, 7 * DAY)


def test_the_time_for_a_change_is_the_inverse_of_the_change_for_a_time() -> None:
    own = reference("refusal", 412, 5_000)
    arm = arms(own)[0]
    after = smallest_change(arm, threshold(own), 5_000, DAY)
    assert after is not None
    assert seconds_to_find(arm, threshold(own), 5_000, after) == pytest.approx(DAY, rel=0.02)


def test_a_change_inside_the_band_is_never_found() -> None:
    own = reference("refusal", 412, 5_000)
    arm = arms(own)[0]
    assert seconds_to_find(arm, threshold(own), 1_000_000, (arm.before + arm.p0) / 2) is None


@pytest.mark.parametrize("per_day", [0.0, 1.0])
def test_with_hardly_any_traffic_no_change_is_found_in_a_day(per_day: float) -> None:
    own = reference("refusal", 412, 5_000)
    shown = powers(own, RULES, per_day, k=VERSION)
    assert [power.after for power in shown] == [None, None]
    assert str(shown[0]) == "412 of 5,000 events; today no change at all in a day"
    assert chance(arms(own)[0], threshold(own), per_day, 0.99, DAY) == 0.0


def test_every_bin_of_a_ladder_says_what_it_could_show() -> None:
    own = Reference("latency@1", counts={"latency": {10: 2_500, 20: 2_000, 30: 500}}, delta=0.05)
    shown = powers(own, RULES, 5_000, k=VERSION)
    assert [(power.first, power.x, power.n) for power in shown] == [(11, 2_500, 5_000), (21, 500, 5_000), (31, 0, 5_000)]
    assert all(power.after is not None and power.after > power.before for power in shown)
