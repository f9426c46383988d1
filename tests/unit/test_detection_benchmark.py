"""The benchmark of detectors measures what it says: nulls, budgets and peers on streams whose answer is known."""

import numpy as np

from benchmarks import detection_feedback as feedback
from benchmarks.detection_budget import simulate, singles
from benchmarks.detection_canary import Arm, equal
from benchmarks.detection_core import Detector, layout_of, one_direction, own_delta, point_null, quantiles
from benchmarks.no_change import Pool


def layout(seed: int = 0, n0: int = 2_000) -> feedback.Reference:
    return feedback.reference(n0, np.random.default_rng(seed), own_delta(feedback.STREAM))


def test_a_point_null_is_the_references_own_rate_and_finds_smaller_changes() -> None:
    banded = layout_of([layout()])
    point = point_null(banded, 2_000)
    up = [at for at, arm in enumerate(banded.arms) if arm.up]
    # At the same count a wider null is less surprised.
    x, n = 25, 100
    assert (point.gain[:, up] * x + point.base[:, up] * n > banded.gain[:, up] * x + banded.base[:, up] * n).all()


def test_one_direction_takes_the_whole_weight() -> None:
    whole = layout_of([layout()])
    up = one_direction(whole, up=True)
    assert abs(up.weight.sum() - 1.0) < 1e-12
    assert [bool(column.any()) for column in up.weight.T] == [arm.up for arm in whole.arms]


def test_a_large_change_is_found_at_once_and_none_is_not() -> None:
    detector = Detector(layout_of([layout()]), 1e6)
    rng = np.random.default_rng(1)
    for _ in range(50):
        down = int(rng.binomial(100, feedback.BEFORE))
        assert detector.feed(np.array([100 - down, down]), 100) == []
    assert any(detector.feed(np.array([40, 60]), 100) for _ in range(2))


def test_the_control_exceeds_where_bands_do_not() -> None:
    rng = np.random.default_rng(2)
    codes = 1 + (rng.random((4_000, 1)) < 0.1).astype(np.int64)
    pool = Pool(codes, np.zeros(4_000, dtype=np.int64), [("", 0), ("refusal@1", 0), ("refusal@1", 1)], np.arange(4_001))
    alarms = {}
    for control in (False, True):
        found = 0
        for seed in range(6):
            draw_rng = np.random.default_rng(seed)
            draw = singles(pool, draw_rng)
            outcome = simulate(pool, draw, draw, 1_000, 2e4, draw_rng, control=control)
            assert outcome.events >= 4e4
            found += sum(outcome.alarms.values())
        alarms[control] = found
    assert alarms[False] == 0
    assert alarms[True] > 0


def test_a_tuned_window_is_slower_at_a_longer_run_length() -> None:
    x0 = np.random.default_rng(3).binomial(5_000, feedback.BEFORE, 50)
    short, long = (feedback._tuned_delay(feedback.z_score, x0, 5_000, 500, budget, "average") for budget in (1e4, 1e7))
    assert short <= long


def test_turns_of_a_conversation_fail_together() -> None:
    rng = np.random.default_rng(4)
    cohort, refused, outcomes = Arm("new", 0.5).window(400, rng, every_turn=True)
    assert cohort.n == outcomes > 1_500
    assert 0.4 < refused / outcomes < 0.6
    assert Arm("new", 0.5).window(400, rng, every_turn=False)[2] == 400


def test_an_equal_canary_is_a_pair_of_verdicts_and_the_same_for_the_same_seed() -> None:
    assert equal(3, every_turn=False) == equal(3, every_turn=False)


def test_what_never_came_is_beyond_every_quantile() -> None:
    assert quantiles([1.0, 2.0, float("inf")]) == (2.0, float("inf"))
