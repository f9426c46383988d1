"""References that grow: what is learned, what never is, and that half of the evidence stays with the first."""

import msgspec
import numpy as np
import pytest
from scipy.stats import poisson

from core.cells import CellNames
from core.detection.application import AppMonitor
from core.detection.growth import LEAST_WINDOWS
from core.detection.reference import Arm, Reference, arms, growth_delta
from core.detection.slices import Alarm, Released
from core.detection.state import dump, load
from schemas.messages import WINDOW_MS, Group, Rules

RULES = Rules(reference_events=2_000)
N = 100
BUCKET = LEAST_WINDOWS


def tell(
    monitor: AppMonitor, window: int, hits: int, version: str = "v", rules: Rules = RULES
) -> tuple[list[Alarm], list[Released]]:
    bins = [(bin_, count) for bin_, count in ((0, N - hits), (1, hits)) if count]
    said = Group(app="a", environment="e", version=version, n=N, bins={"error@1": bins})
    judged = monitor.observe(window * WINDOW_MS, window, monitor.admit([said], window), rules, CellNames())
    return judged.alarms, judged.released


def told(windows: int, hits: int = 5) -> AppMonitor:
    monitor = AppMonitor("a", "e")
    for window in range(1, windows + 1):
        assert tell(monitor, window, hits) == ([], [])
    return monitor


def learned(monitor: AppMonitor) -> int:
    reference = monitor.references["error@1"]
    return sum(sum(counts.get("error", {}).values()) for counts in (reference.grown, reference.learned))


def up(reference: Reference, *, grown: bool) -> Arm:
    (arm,) = (arm for arm in arms(reference) if arm.up and arm.grown == grown)
    return arm


def test_the_shares_of_delta_of_all_doublings_are_shares_of_one() -> None:
    assert 0.99 < sum(growth_delta(j) for j in range(200)) < 1.0


def test_nothing_of_the_last_hour_is_learned() -> None:
    assert learned(told(2 * BUCKET)) == 0
    assert learned(told(2 * BUCKET + 30)) > 0


def test_a_doubled_reference_has_a_narrower_band_for_half_of_the_weight() -> None:
    reference = told(5 * BUCKET).references["error@1"]
    assert reference.doublings >= 1
    first, grown = up(reference, grown=False), up(reference, grown=True)
    assert first.weight == grown.weight == 0.5
    assert 0.05 < grown.p0 < first.p0
    assert reference.counts == {"error": {0: 1_900, 1: 100}}


def test_a_reference_grows_only_at_doublings() -> None:
    reference = Reference("error@1", counts={"error": {0: 900, 1: 100}}, delta=0.05)
    before = arms(reference)
    assert not reference.grow({"error": {0: 899, 1: 100}})
    assert arms(reference) == before
    assert reference.grow({"error": {0: 1}})
    assert reference.grown == {"error": {0: 1_800, 1: 200}}
    assert not reference.grow({"error": {0: 1_000}})
    assert reference.grow({"error": {0: 1_000}})


def test_evidence_is_carried_over_a_doubling() -> None:
    monitor = told(60)
    (part,) = monitor.slices.values()
    part.state.m *= 1_000.0

    def evidence() -> float:
        (layout,) = monitor.layouts.values()
        return float((layout.weight * part.state.m).sum())

    before = evidence()
    for more in (10, 100):
        assert monitor.references["error@1"].grow({"error": {0: 950 * more, 1: 50 * more}})
        monitor.lay_out(0)
        assert evidence() == pytest.approx(before)


def test_what_an_alarm_was_about_is_never_learned() -> None:
    monitor = told(3 * BUCKET)
    window = 3 * BUCKET
    alarmed = 0
    for _ in range(2 * BUCKET):
        window += 1
        alarmed += len(tell(monitor, window, 30)[0])
    assert alarmed == 1
    for _ in range(6 * BUCKET):
        window += 1
        tell(monitor, window, 5)
    reference = monitor.references["error@1"]
    counts = reference.grown["error"]
    assert reference.doublings >= 2
    assert counts[1] / sum(counts.values()) == pytest.approx(0.05, rel=0.01)


def test_a_change_that_is_suspected_and_not_yet_found_is_not_learned() -> None:
    monitor = told(3 * BUCKET)
    (part,) = monitor.slices.values()
    part.state.rise[0, 0], part.state.onset[0, 0] = 20.0, 0
    before = learned(monitor)
    for window in range(3 * BUCKET + 1, 3 * BUCKET + 40):
        part.state.rise[0, 0] = 20.0
        tell(monitor, window, 5)
    assert learned(monitor) == before


def test_a_slow_ramp_is_found_although_the_reference_grows_with_it() -> None:
    monitor = AppMonitor("a", "e")
    random = np.random.default_rng(3)
    for window in range(1, 40 * BUCKET):
        rate = 0.05 + max(0.0, window / BUCKET - 4) * 0.001
        if tell(monitor, window, int(random.binomial(N, rate)))[0]:
            break
    else:
        raise AssertionError("the ramp was learned as normal")
    assert monitor.references["error@1"].doublings >= 1


def test_a_growing_reference_keeps_the_budget() -> None:
    rules = Rules(per_days=1_000 * WINDOW_MS / 86_400_000, reference_events=2_000)
    windows = 6 * BUCKET
    limit = poisson.ppf(0.99, windows / 1_000)
    for seed in range(4):
        random = np.random.default_rng(seed)
        monitor = AppMonitor("a", "e")
        raised = sum(len(tell(monitor, at, int(x), rules=rules)[0]) for at, x in enumerate(random.binomial(N, 0.05, windows), 1))
        assert monitor.references["error@1"].doublings >= 2
        assert raised <= limit


def test_a_restored_monitor_grows_on_as_if_it_had_never_stopped() -> None:
    monitor = told(3 * BUCKET + 100)
    restored = load(msgspec.Raw(bytes(dump(monitor))))
    for window in range(3 * BUCKET + 101, 5 * BUCKET):
        tell(monitor, window, 5)
        tell(restored, window, 5)
    assert monitor.references["error@1"].doublings >= 1
    assert bytes(dump(monitor)) == bytes(dump(restored))


def test_what_a_held_alert_waits_for_stays_the_same_over_a_doubling() -> None:
    monitor = told(5 * BUCKET)
    for window in range(5 * BUCKET + 1, 5 * BUCKET + 60):
        tell(monitor, window, 30)
    (part,) = monitor.slices.values()
    (layout,) = monitor.layouts.values()
    held = layout.arms[part.state.holds["error@1"].arm].place
    monitor.references["error@1"].grow({"error": {0: 95_000, 1: 5_000}})
    monitor.lay_out(0)
    (layout,) = monitor.layouts.values()
    assert layout.arms[part.state.holds["error@1"].arm].place == held


def test_a_state_that_a_release_without_growth_left_goes_on() -> None:
    monitor = told(60)
    state = msgspec.json.decode(dump(monitor))
    del state["growth"]
    for reference in state["references"]:
        for field in ("doublings", "grown", "learned"):
            del reference[field]
    older = load(msgspec.Raw(msgspec.json.encode(state)))
    (part,), (other,) = monitor.slices.values(), older.slices.values()
    assert part.state.m.tolist() == other.state.m.tolist()
    for window in range(61, 61 + 4 * BUCKET):
        tell(older, window, 5)
    assert older.references["error@1"].doublings >= 1
