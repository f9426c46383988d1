"""Conversations whose turns move together: the budget holds, and what later turns alone show is found."""

import msgspec
import numpy as np
from scipy.stats import poisson

from core.cells import CellNames
from core.detection.application import AppMonitor
from core.detection.budget import LATER, STREAMS, stream_weight
from core.detection.slices import Alarm, Released
from core.detection.state import dump, load
from schemas.messages import WINDOW_MS, Counts, Group, Rules

BUDGET_WINDOWS = 1_000
RULES = Rules(per_days=BUDGET_WINDOWS * WINDOW_MS / 86_400_000, reference_events=2_000)
LARGE: Rules = msgspec.structs.replace(RULES, reference_events=100_000)
TURNS = 30
STARTED = 25
"""Conversations that start in a window; each of their turns comes a window after the one before it."""
REFUSED = 0.2
"""Of the conversations: in these every answer is a refusal."""


def counts(hits: int, n: int) -> dict[str, list[tuple[int, int]]]:
    return {"refusal@1": [(bin_, count) for bin_, count in ((0, n - hits), (1, hits)) if count]}


def group(hits: int, n: int, first: tuple[int, int] | None = None, later: tuple[int, int] | None = None) -> Group:
    made = Group(app="a", environment="e", version="v", n=n, bins=counts(hits, n))
    if first is not None:
        made.first = Counts(n=first[1], bins=counts(*first))
    if later is not None:
        made.later = Counts(n=later[1], bins=counts(*later))
    return made


def simulated(seed: int, windows: int, *, told_apart: bool) -> list[Group]:
    """Refusals of whole conversations, by window."""
    random = np.random.default_rng(seed)
    refused = random.binomial(STARTED, REFUSED, windows + TURNS)
    sampled = 1 + np.floor(1 / (1 - random.random((windows + TURNS, STARTED))))
    made = []
    for window in range(TURNS, windows + TURNS):
        hits = [int(refused[window - turn]) for turn in range(TURNS)]
        whole = (sum(hits), TURNS * STARTED)
        if not told_apart:
            made.append(group(*whole))
            continue
        speak = [sampled[window - turn] == turn + 1 for turn in range(TURNS)]
        later = [int(speak[turn][: hits[turn]].sum()) for turn in range(1, TURNS)]
        n = [int(speak[turn].sum()) for turn in range(1, TURNS)]
        made.append(group(*whole, first=(hits[0], STARTED), later=(sum(later), sum(n))))
    return made


def tell(monitor: AppMonitor, window: int, said: Group, rules: Rules = RULES) -> tuple[list[Alarm], list[Released]]:
    judged = monitor.observe(window * WINDOW_MS, window, monitor.admit([said], window), rules, CellNames())
    return judged.alarms, judged.released


def alarms(seed: int, *, told_apart: bool, windows: int = 2 * BUDGET_WINDOWS) -> int:
    monitor = AppMonitor("a", "e")
    said = simulated(seed, windows, told_apart=told_apart)
    return sum(len(tell(monitor, window, one, LARGE)[0]) for window, one in enumerate(said, 1))


def test_the_weights_of_first_and_later_turns_are_shares_of_one_budget() -> None:
    whole = sum(stream_weight(f"{prefix}{name}@1") for name in STREAMS for prefix in ("", LATER))
    assert abs(whole - 1.0) < 1e-12


def test_conversations_keep_the_budget_and_break_it_where_their_turns_are_not_told_apart() -> None:
    limit = poisson.ppf(0.99, 2.0)
    assert sum(alarms(seed, told_apart=True) > limit for seed in range(8)) == 0
    assert sum(alarms(seed, told_apart=False) > limit for seed in range(3)) == 3


def watched() -> AppMonitor:
    monitor = AppMonitor("a", "e")
    for window in range(1, 60):
        assert tell(monitor, window, group(30, 300, first=(10, 100), later=(8, 80)))[0] == []
    return monitor


def test_a_change_in_first_turns_is_found_as_before() -> None:
    monitor = watched()
    found = [one for window in range(60, 90) for one in tell(monitor, window, group(70, 300, first=(30, 100), later=(8, 80)))[0]]
    assert [(one.metric, one.key, one.slice) for one in found] == [("refusal", "refusal@1", "version=v")]


def test_a_change_in_later_turns_alone_is_found_and_says_so() -> None:
    monitor = watched()
    found = [one for window in range(60, 90) for one in tell(monitor, window, group(70, 300, first=(10, 100), later=(40, 80)))[0]]
    assert [(one.metric, one.key, one.slice) for one in found] == [("refusal", "later:refusal@1", "version=v")]
    assert [said.name for said in found[0].explanation.contributions] == ["refusal (later turns)"]


def test_what_no_turn_speaks_for_is_not_judged() -> None:
    monitor = watched()
    for window in range(60, 120):
        assert tell(monitor, window, group(200, 300, first=(10, 100), later=(8, 80)))[0] == []


def test_an_alert_lives_on_until_both_kinds_of_turns_are_back_to_normal() -> None:
    monitor = watched()
    bad, half, good = (group(70, 300, first=(first, 100), later=(later, 80)) for first, later in ((30, 40), (10, 40), (10, 8)))
    found = [one.key for window in range(60, 90) for one in tell(monitor, window, bad)[0]]
    assert sorted(found) == ["later:refusal@1", "refusal@1"]
    assert [one for window in range(90, 150) for one in tell(monitor, window, half)[1]] == []
    released = [one for window in range(150, 250) for one in tell(monitor, window, good)[1]]
    assert [(one.metric, one.slice) for one in released] == [("refusal", "version=v")]


def test_a_restored_monitor_goes_on_with_both_kinds_of_turns() -> None:
    monitor = watched()
    restored = load(msgspec.Raw(bytes(dump(monitor))))
    assert set(restored.references) == {"refusal@1", "later:refusal@1"}
    bad = group(70, 300, first=(10, 100), later=(40, 80))
    for window in range(60, 80):
        assert [one.statistic for one in tell(monitor, window, bad)[0]] == [
            one.statistic for one in tell(restored, window, bad)[0]
        ]
    assert bytes(dump(monitor)) == bytes(dump(restored))


def test_rebaselining_a_metric_begins_both_kinds_of_turns_again() -> None:
    monitor = watched()
    monitor.rebaseline("refusal", 60 * WINDOW_MS)
    assert monitor.references == {}
