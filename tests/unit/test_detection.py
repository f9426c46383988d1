"""References, bands, the SR recursion, explanations, and steps in monitored time."""

import math

import msgspec
import numpy as np
import pytest
from scipy.stats import binom

from core.cells import CellNames
from core.detection.application import AppMonitor
from core.detection.budget import STREAM_OF, STREAMS, slice_weight
from core.detection.explain import explain
from core.detection.history import BEFORE_MS, Busiest
from core.detection.reference import Reference, arms, lower_bound, upper_bound
from core.detection.slices import Judged
from core.detection.sr import MAX_EXPONENT, TILTS, Layout, SrState, build_layout, hold, step
from core.metrics import METRICS
from schemas.messages import WINDOW_MS, Group, Rules

RULES = Rules(reference_events=1_000)


def reference(stream: str, counts: dict[str, dict[int, int]], names: list[str] | None = None, delta: float = 0.05) -> Reference:
    return Reference(f"{stream}@1", counts=counts, names=names, delta=delta)


def error_layout(hits: int = 50, n: int = 1_000) -> Layout:
    return build_layout([reference("error", {"error": {0: n - hits, 1: hits}})])


def test_the_weights_of_an_app_sum_to_one() -> None:
    assert math.isclose(sum(stream.weight for stream in STREAMS.values()), 1.0)


def test_every_metric_that_is_judged_has_a_stream() -> None:
    assert {name for name, metric in METRICS.items() if metric.detect} == set(STREAM_OF)


def test_the_weights_of_any_number_of_versions_sum_to_at_most_one() -> None:
    assert sum(slice_weight(k) for k in range(1, 10_000)) <= 1.0


@pytest.mark.parametrize(("x", "n"), [(0, 50), (3, 50), (25, 50), (50, 50)])
def test_a_band_is_exact(x: int, n: int) -> None:
    low, high = (float(bound(np.array([float(x)]), n, 0.01)[0]) for bound in (lower_bound, upper_bound))
    if high < 1.0:
        assert math.isclose(binom.cdf(x, n, high), 0.01, rel_tol=1e-6)
    if low > 0.0:
        assert math.isclose(binom.sf(x - 1, n, low), 0.01, rel_tol=1e-6)
    assert (low == 0.0, high == 1.0) == (x == 0, x == n)


def test_a_bin_that_the_reference_never_saw_is_tested_upwards_only() -> None:
    own = arms(reference("refusal", {"refusal": {0: 1_000}}))
    assert [arm.up for arm in own] == [True]


def test_a_ladder_has_rungs_at_the_quantiles_of_the_reference() -> None:
    own = arms(reference("latency", {"latency": {10: 500, 20: 450, 30: 50}}))
    assert [(arm.first, arm.last, arm.up) for arm in own] == [(11, 64, True), (21, 64, True), (31, 64, True)]


def test_topic_mix_has_every_cell_and_an_upward_ladder_of_distances() -> None:
    own = arms(reference("topic.mix", {"topic": {3: 900, 4: 100}, "novelty": {5: 950, 6: 50}}))
    assert sum(arm.metric == "topic" and arm.up for arm in own) == 256
    assert [arm.first for arm in own if arm.metric == "topic" and not arm.up] == [3, 4]
    assert all(arm.up for arm in own if arm.metric == "novelty")


def test_categories_are_named_by_the_first_fifth_and_counted_on_the_rest() -> None:
    it = Reference("prompt.language@1")
    for number in range(10):
        names = [("en", 95), ("fr", 5)] if number < 5 else [("de", 5), ("en", 95)]
        it.add([Group(app="a", environment="e", version="v", n=100, names={"prompt.language@1": names})], 1_000, 0.05)
    assert it.complete
    assert it.names == ["en", "fr"]
    assert it.counts["prompt.language"] == {0: 760, 1: 15, 2: 25}


def test_a_step_follows_the_recursion() -> None:
    layout = error_layout()
    state = SrState.new(layout, 0)
    p0, m = layout.arms[0].p0, 0.0
    for hits in (7, 3, 12):
        step(layout, state, {0: 100 - hits, 1: hits}, 5.0, 1, np.array([1e300]))
        q = 1 / (1 + math.exp(-(math.log(p0 / (1 - p0)) + TILTS[2])))
        m = (m + 5.0) * math.exp(hits * math.log(q / p0) + (100 - hits) * math.log((1 - q) / (1 - p0)))
    assert math.isclose(state.m[2, 0], m, rel_tol=1e-9)


def test_numbers_stay_finite() -> None:
    layout = error_layout(hits=0)
    state = SrState.new(layout, 0)
    for _ in range(20):
        step(layout, state, {1: 100_000}, 5.0, 1, np.array([np.inf]))
    assert np.isfinite(state.m).all()
    assert state.m.max() > math.exp(MAX_EXPONENT)


def test_silence_alone_raises_no_alarm() -> None:
    layout = error_layout()
    assert step(layout, SrState.new(layout, 0), {}, 1e12, 1, np.array([1.0])).alarms == ()


def changed(layout: Layout, hits: int, steps: int, threshold: float = 1e6) -> tuple[SrState, int]:
    state = SrState.new(layout, 0)
    for number in range(10):
        step(layout, state, {0: 95, 1: 5}, 5.0, number + 1, np.array([threshold]))
    for number in range(10, 10 + steps):
        if step(layout, state, {0: 100 - hits, 1: hits}, 5.0, number + 1, np.array([threshold])).alarms:
            return state, number
    raise AssertionError("no alarm")


def test_an_alarm_tells_its_onset_and_effect() -> None:
    layout = error_layout()
    state, at = changed(layout, 20, 30)
    told = explain(layout, state, 0, CellNames())
    assert told.onset == 10 * WINDOW_MS
    assert (told.effect.before, told.effect.after, told.effect.events) == (0.05, 0.2, (at - 9) * 100)
    assert told.effect.low < 0.2 < told.effect.high


def test_a_held_stream_raises_nothing_and_resolves_on_evidence_for_normal() -> None:
    layout = error_layout()
    state, _ = changed(layout, 20, 30)
    hold(layout, state, 0)
    held = [step(layout, state, {0: 80, 1: 20}, 5.0, 99, np.array([1e6])) for _ in range(20)]
    assert all(result.alarms == () and result.resolved == () for result in held)
    normal = [step(layout, state, {0: 95, 1: 5}, 5.0, 99, np.array([1e6])) for _ in range(20)]
    assert sum(len(result.resolved) for result in normal) == 1


def test_a_shifted_topic_is_named_beside_the_distance_that_carries_it() -> None:
    own = reference("topic.mix", {"topic": dict.fromkeys(range(40), 50), "novelty": dict.fromkeys(range(10), 200)})
    layout = build_layout([own])
    state = SrState.new(layout, 0)
    counts = dict.fromkeys(range(40), 2) | {200: 20} | {256 + 4: 80, 256 + 20: 20}
    for number in range(3):
        step(layout, state, counts, 5.0, number + 1, np.array([1e300]))
    told = explain(layout, state, 0, CellNames([f"cell-{n}" for n in range(256)]))
    assert "cell-200" in [c.name for c in told.contributions]
    assert told.contributions[0].name.startswith("distance to the nearest topic")


# --- monitored time -------------------------------------------------------------------------------------------------


def errors(n: int, hits: int) -> Group:
    return Group(app="a", environment="e", version="v", n=n, bins={"error@1": [(0, n - hits), (1, hits)]})


def ready() -> AppMonitor:
    monitor = AppMonitor("a", "e")
    tell(monitor, 0, 1, errors(1_000, 50))
    assert monitor.layouts
    return monitor


def tell(monitor: AppMonitor, window: int, clock: int, group: Group, rules: Rules = RULES) -> Judged:
    return monitor.observe(window * WINDOW_MS, clock, monitor.admit([group], clock), rules, CellNames())


def m_of(monitor: AppMonitor) -> list[float]:
    (part,) = monitor.slices.values()
    return part.state.m.ravel().tolist()


def test_a_step_ends_with_a_hundred_events() -> None:
    monitor = ready()
    tell(monitor, 1, 2, errors(60, 3))
    assert max(m_of(monitor)) == 0.0
    tell(monitor, 2, 3, errors(60, 3))
    assert min(m_of(monitor)) > 0.0


def test_a_step_ends_after_five_minutes() -> None:
    monitor = ready()
    tell(monitor, 1, 2, errors(60, 3))
    assert monitor.due == 61
    monitor.close_steps(60 * WINDOW_MS, 61, RULES, CellNames())
    assert min(m_of(monitor)) > 0.0
    assert monitor.due is None


def test_time_without_traffic_counts_as_if_every_step_had_been_taken() -> None:
    monitor = ready()
    tell(monitor, 1, 2, errors(100, 5))
    first = m_of(monitor)
    tell(monitor, 1_000, 1_001, errors(100, 5))
    layout = monitor.layouts["version", "interaction"]
    gained = (layout.gain * 5 + layout.base * 100).ravel()
    expected = [(m + (1_001 - 2) * 5.0) * math.exp(one) for m, one in zip(first, gained, strict=True)]
    assert m_of(monitor) == pytest.approx(expected, rel=1e-12)


def test_a_new_scorer_version_has_a_reference_of_its_own() -> None:
    monitor = ready()
    later = Group(app="a", environment="e", version="v", n=999, bins={"error@2": [(0, 500), (1, 499)]})
    assert tell(monitor, 1, 2, later).alarms == []
    tell(monitor, 2, 3, later)
    assert list(monitor.references) == ["error@2"]


def test_versions_beyond_fifty_are_judged_together() -> None:
    monitor = AppMonitor("a", "e")
    groups = [Group(app="a", environment="e", version=f"v{n:03}", n=1, bins={"error@1": [(0, 1)]}) for n in range(60)]
    admitted = monitor.admit(groups, 1)
    assert len(admitted) == 51
    assert next(g.n for g in admitted if g.version == "other") == 10


def test_the_busiest_version_is_looked_for_in_the_ten_minutes_before_the_onset() -> None:
    monitor = AppMonitor("a", "e")
    for clock in range(1, 241):
        version, n = ("old", 50) if clock <= 100 else ("new", 20)
        group = Group(app="a", environment="e", version=version, n=n, bins={"error@1": [(0, n)]})
        monitor.observe(clock * WINDOW_MS, clock, monitor.admit([group], clock), RULES, CellNames())
    onset = 230 * WINDOW_MS
    assert monitor.history.busiest_before(onset, ()) == Busiest("new", onset - BEFORE_MS, onset)
    assert monitor.history.busiest_before(onset, ["new"]).version is None


def test_where_the_onset_is_older_than_what_is_remembered_the_time_that_was_looked_at_is_told() -> None:
    monitor = AppMonitor("a", "e")
    for clock in range(1, 601):
        tell(monitor, clock, clock, errors(10, 1))
    oldest = (600 - 360) * WINDOW_MS
    assert monitor.history.busiest_before(100 * WINDOW_MS, ()) == Busiest("v", oldest, oldest + BEFORE_MS)
    assert monitor.history.busiest_before(300 * WINDOW_MS, ()) == Busiest("v", oldest, 300 * WINDOW_MS)


def test_a_larger_share_of_the_budget_lowers_a_metrics_threshold() -> None:
    def threshold(shares: dict[str, float]) -> float:
        rules = msgspec.structs.replace(RULES, shares=shares)
        monitor, window = ready(), 100
        while not (found := [a for a in tell(monitor, window, window, errors(100, 60), rules).alarms if a.metric == "error"]):
            window += 1
        return found[0].threshold

    assert threshold({"error": 1.0}) < threshold({})
