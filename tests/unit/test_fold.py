"""The fold as a story, its independence of batches and restarts, its bounds, and how it catches up."""

import time
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core.fold import MAX_APPS, ControlRecord, Fold, FoldOutput
from core.windows import ClosedWindow, Problem, cut_of
from schemas.messages import WINDOW_MS, ActionStep, Command, Config, Group, StateSection
from tests.timeline import FIRST, Behaviour, FixedConfigs, Timeline, config, rules, traffic

NORMAL = Behaviour()
SHIFTED = Behaviour(new_topic=0.25)
BAD = Behaviour(refusal=0.4)


def rng(seed: int = 7) -> np.random.Generator:
    return np.random.default_rng(seed)


def windows(random: np.random.Generator, count: int, n: int = 200, **versions: Behaviour) -> list[list[Group]]:
    """Windows in which each version answers n requests."""
    return [[traffic(random, n, behaviour, version=version) for version, behaviour in versions.items()] for _ in range(count)]


def texts(outputs: Sequence[FoldOutput]) -> list[bytes]:
    """Rows apart, everything that was put out, in order."""
    return [
        msgspec.json.encode([out.detections, out.alerts, out.actions])
        for out in outputs
        if out.detections or out.alerts or out.actions
    ]


# --- stories --------------------------------------------------------------------------------------------------------


def test_without_a_change_nothing_happens() -> None:
    it = Timeline()
    it.at(windows(rng(), 600, v1=NORMAL, v2=NORMAL))
    assert (it.between(0, 600), it.actions) == ([], [])


def test_a_new_topic_is_an_alert_and_a_suggested_retrain() -> None:
    it = Timeline()
    random = rng()
    it.at(windows(random, 40, v1=NORMAL))
    it.at(windows(random, 20, v1=SHIFTED))
    assert it.between(0, 40) == []
    alert = it.between(40, 45)[0]
    assert (alert.metric, alert.state, alert.paged, alert.slice) == ("topic.mix", "firing", True, "all")
    assert alert.onset == FIRST + 40 * WINDOW_MS
    (action,) = it.actions
    assert (action.kind, action.state, action.incident, action.target.app) == ("retrain", "suggested", alert.id, "desk")


def test_a_bad_version_is_an_alert_on_it_and_a_suggested_rollback_to_the_good_one() -> None:
    it = Timeline()
    random = rng()
    it.at(windows(random, 40, v1=NORMAL))
    it.at(windows(random, 20, v1=NORMAL, v2=BAD))
    alert = next(a for a in it.between(40, 45) if a.metric == "refusal")
    assert (alert.state, alert.slice) == ("firing", "version=v2")
    assert alert.effect is not None
    assert alert.effect.low < alert.effect.after < alert.effect.high
    assert abs(alert.effect.after - 0.4) < 0.1
    (action,) = it.actions
    assert (action.kind, action.target.version, action.target.to_version) == ("rollback", "v2", "v1")


def test_what_a_rollback_explains_is_not_paged() -> None:
    it = Timeline()
    random = rng()
    it.at(windows(random, 40, v1=NORMAL))
    it.at(windows(random, 30, v1=NORMAL, v2=Behaviour(refusal=0.4, thumbs_down=0.7, acts=0.5)))
    assert [a.metric for a in it.between(40, 70) if a.paged] == ["refusal"]
    assert [a.state for a in it.between(40, 70) if a.metric == "thumbs.down"][-1] == "inhibited"


def test_a_bad_version_with_no_other_before_it_has_no_target() -> None:
    it = Timeline()
    random = rng()
    it.at(windows(random, 40, v1=NORMAL))
    it.at(windows(random, 20, v1=BAD))
    (action,) = it.actions
    assert action.state == "no_target"
    assert "no other version" in action.reason


def test_a_rate_that_falls_is_an_alert_without_an_action() -> None:
    it = Timeline()
    random = rng()
    it.at(windows(random, 40, v1=Behaviour(refusal=0.3)))
    it.at(windows(random, 20, v1=NORMAL, v2=NORMAL))
    assert {a.metric for a in it.between(40, 60)} == {"refusal"}
    assert it.actions == []
    assert "the rate fell" in it.between(40, 60)[0].reason


def test_an_alert_resolves_when_the_rate_is_normal_again() -> None:
    it = Timeline()
    random = rng()
    it.at(windows(random, 40, v1=NORMAL))
    it.at(windows(random, 10, v1=NORMAL, v2=BAD))
    it.at(windows(random, 20, v1=NORMAL, v2=NORMAL))
    assert [a.state for a in it.between(0, 70)] == ["firing", "resolved"]


def test_an_alert_stays_open_while_the_whole_app_has_no_traffic() -> None:
    it = Timeline()
    random = rng()
    it.at(windows(random, 40, v1=NORMAL))
    it.at(windows(random, 10, v1=NORMAL, v2=BAD))
    it.at([[]] * 8_000)
    it.at(windows(random, 10, v1=NORMAL, v2=BAD))
    assert [a.state for a in it.between(0, 8_100)] == ["firing"]


def test_an_alert_on_a_version_without_traffic_resolves_after_an_hour_for_want_of_data() -> None:
    it = Timeline()
    random = rng()
    it.at(windows(random, 40, v1=NORMAL))
    it.at(windows(random, 10, v1=NORMAL, v2=BAD))
    it.at(windows(random, 800, n=100, v1=NORMAL))
    last = it.between(50, 850)[-1]
    assert (last.slice, last.state, (last.window - FIRST) // WINDOW_MS) == ("version=v2", "resolved", 50 + 719)
    assert "no data" in last.reason


def test_a_bad_version_that_comes_back_after_it_was_rolled_back_is_a_new_alert_and_a_new_action() -> None:
    it = Timeline()
    random = rng()
    it.at(windows(random, 40, v1=NORMAL))
    it.at(windows(random, 10, v1=NORMAL, v2=BAD))
    it.at(windows(random, 1_500, n=100, v1=NORMAL))
    it.at(windows(random, 10, v1=NORMAL, v2=BAD))
    assert [a.slice for a in it.between(1_550, 1_560) if a.paged] == ["version=v2"]
    assert [(s.kind, s.state) for s in it.actions if s.state == "suggested"] == [("rollback", "suggested")] * 2


def test_a_new_version_of_the_scorers_is_no_change() -> None:
    it = Timeline()
    random = rng()
    it.at(windows(random, 40, v1=NORMAL))
    it.at(windows(random, 60, v1=Behaviour(refusal=0.2, scorer=2)))
    assert it.between(0, 100) == []


def test_a_rebaseline_resolves_and_begins_again() -> None:
    it = Timeline()
    random = rng()
    it.at(windows(random, 40, v1=NORMAL))
    it.at(windows(random, 20, v1=SHIFTED))
    it.at(
        windows(random, 60, v1=SHIFTED),
        Command(id="c", kind="rebaseline", actor="ann", app="desk", arguments={"metric": "topic.mix"}),
    )
    assert [(a.state, a.reason) for a in it.between(60, 120)] == [("resolved", "re-baselined")]


class TwoConfigs:
    """Another config holds from a window on."""

    def __init__(self, first: Config, second: Config, since: int) -> None:
        self.values = {"first": first, "second": second}
        self.since = since

    def config_for(self, window: int) -> str:
        return "second" if window >= self.since else "first"

    def config(self, digest_: str) -> Config:
        return self.values[digest_]


def test_the_rules_are_those_of_the_config_that_holds_for_the_window() -> None:
    stopped = msgspec.structs.replace(rules(), kill_switch=True)
    it = Timeline()
    it.fold = Fold(0, TwoConfigs(config(stopped), config(rules()), FIRST + 45 * WINDOW_MS))
    random = rng()
    it.at(windows(random, 40, v1=NORMAL))
    it.at(windows(random, 20, v1=SHIFTED))
    assert it.between(40, 60)[0].config == "first"
    assert [((a.window - FIRST) // WINDOW_MS, a.config) for a in it.actions] == [(45, "second")]


# --- batches and restarts -------------------------------------------------------------------------------------------


def story(seed: int = 3) -> list[ClosedWindow]:
    """Two apps; a shift, a bad version that comes and goes, gaps in time, empty windows."""
    random = rng(seed)
    behaviours = [NORMAL] * 25 + [SHIFTED] * 10 + [NORMAL] * 25
    out, at = [], 0
    for number, behaviour in enumerate(behaviours):
        groups = [traffic(random, 120, behaviour), traffic(random, 30, NORMAL, app="other-desk")]
        if 30 <= number < 40:
            groups.append(traffic(random, 100, BAD, version="v2"))
        if number % 9 == 5:
            groups = []
        if number == 50:
            at += 500
        out.append(ClosedWindow(FIRST + at * WINDOW_MS, (), tuple(sorted(groups, key=lambda g: (g.app, g.version)))))
        at += 1
    return out


STORY = story()
COMMANDS = {
    32: Command(id="1", kind="silence", actor="ann", app="desk", arguments={"metric": "refusal", "seconds": 60}),
    28: Command(id="2", kind="acknowledge", actor="ann", app="desk", arguments={"metric": "topic.mix"}),
    45: Command(id="3", kind="roll_back", actor="ann", app="desk"),
}


def told(batches: Sequence[tuple[int, int]], *, restart: bool = False) -> tuple[list[bytes], list[bytes]]:
    """Fold the story in batches [first, last); with `restart` the fold is written out and read back after each."""
    configs = FixedConfigs(config(rules(reference_events=2_000, mode="auto")))
    fold = Fold(0, configs)
    kept: dict[str, StateSection] = {}
    outputs, rows = [], []
    for first, last in batches:
        said = [ControlRecord("llm.commands", 0, at, 0, command) for at, command in COMMANDS.items() if at == first]
        out = fold.fold(STORY[first:last], said, cut_of(STORY[first:last]))
        outputs.append(out)
        rows += [msgspec.json.encode(row) for row in out.rows]
        if restart:
            kept |= {section.section: section for section in fold.sections(changed_only=True)}
            fold = Fold.restore(
                0, configs, msgspec.json.decode(msgspec.json.encode(list(kept.values())), type=list[StateSection])
            )
    merged = FoldOutput()
    for out in outputs:
        merged.detections += out.detections
        merged.alerts += out.alerts
        merged.actions += out.actions
    return texts([merged]), rows


def cuts(points: Sequence[int]) -> list[tuple[int, int]]:
    """Batches that end at these windows, and wherever a command must begin one."""
    ends = sorted({*points, *COMMANDS, 0, len(STORY)})
    return list(pairwise(ends))


WHOLE = told(cuts([]))


def test_the_story_has_detections_alerts_and_actions() -> None:
    assert WHOLE[0]
    detections, alerts, actions = msgspec.json.decode(WHOLE[0][0])
    assert {d["metric"] for d in detections} >= {"topic.mix", "refusal"}
    assert {a["state"] for a in alerts} >= {"firing", "resolved", "acknowledged", "silenced"}
    assert {a["kind"] for a in actions} == {"retrain", "rollback"}


@given(st.sets(st.integers(1, len(STORY) - 1)))
@settings(max_examples=25, deadline=None)
def test_batches_of_any_size_give_the_same(points: set[int]) -> None:
    assert told(cuts(sorted(points))) == WHOLE


@given(st.sets(st.integers(1, len(STORY) - 1), min_size=1, max_size=12))
@settings(max_examples=15, deadline=None)
def test_a_restored_fold_goes_on_as_if_it_had_never_stopped(points: set[int]) -> None:
    assert told(cuts(sorted(points)), restart=True) == WHOLE


def test_order_of_control_records_is_theirs_not_the_callers() -> None:
    said = [
        ControlRecord("llm.commands", 0, 1, 0, Command(id="a", kind="kill_switch", actor="ann", arguments={"on": True})),
        ControlRecord("llm.commands", 0, 2, 0, Command(id="b", kind="kill_switch", actor="ann", arguments={"on": False})),
    ]
    results = []
    for records in (said, said[::-1]):
        fold = Fold(0, FixedConfigs(config(rules())))
        fold.fold(STORY, records, cut_of(STORY))
        results.append([bytes(s.data) for s in fold.sections()])
    assert results[0] == results[1]


# --- rows and bounds ------------------------------------------------------------------------------------------------


def test_a_minute_row_comes_once_when_a_later_minute_closes() -> None:
    it = Timeline()
    it.at(windows(rng(), 60, n=10, v1=NORMAL))
    rows = [r for _, out in it.outputs for r in out.rows if r.metric == "refusal@1"]
    fine = [r for r in rows if r.resolution == 5]
    coarse = [r for r in rows if r.resolution == 60]
    assert (len(fine), [r.window % 60_000 for r in coarse]) == (60, [0] * 5)
    last = coarse[-1].window + 60_000
    assert sum(r.n for r in coarse) == sum(r.n for r in fine if r.window < last)
    assert sum(sum(r.counts) for r in coarse) == sum(sum(r.counts) for r in fine if r.window < last)


def test_a_row_names_at_most_thirty_two_categories_however_many_blocks_brought_others() -> None:
    it = Timeline()
    for number in range(13):
        names = [(f"model-{number}-{n:02}", 2 if n == 7 else 1) for n in range(30)]
        it.at([[Group(app="a", environment="e", version="v", n=31, names={"response.model@1": names})]])
    (minute,) = [r for _, out in it.outputs for r in out.rows if r.resolution == 60][:1]
    assert (len(minute.names), sum(minute.counts)) == (33, 31 * ((minute.window + 60_000 - FIRST) // WINDOW_MS))
    assert {name for name, count in zip(minute.names, minute.counts, strict=True) if count == 2} >= {"model-0-07", "model-1-07"}


def test_rows_of_feedback_count_acts() -> None:
    out = Timeline().at(windows(rng(), 1, n=50, v1=replace(NORMAL, acts=0.2)))
    assert {r.metric: r.n for r in out.rows}["thumbs.down@1"] == 10


def test_apps_beyond_the_bound_are_summed_into_other_with_an_alert() -> None:
    it = Timeline()
    groups = [
        Group(app=f"app-{n:05}", environment="e", version="v", n=1, bins={"error@1": [(0, 1)]}) for n in range(MAX_APPS + 500)
    ]
    out = it.at([groups])
    assert sum(r.n for r in out.rows) == MAX_APPS + 500
    assert {r.app: r.n for r in out.rows}["other"] == 500
    assert [(a.rule, a.state) for a in out.alerts] == [("apps.overflow", "firing")]


def test_an_app_that_is_silent_for_a_week_leaves_and_its_section_too() -> None:
    it = Timeline()
    it.at(windows(rng(), 1, v1=NORMAL))
    assert sum(s.section.startswith("app/") for s in it.fold.sections(changed_only=True)) == 1
    it.at([[]] * (7 * 17_280 + 720))
    assert [bytes(s.data) for s in it.fold.sections(changed_only=True) if s.section.startswith("app/")] == [b"null"]


def test_an_unequal_repetition_is_an_alert() -> None:
    it = Timeline()
    problem = Problem("unequal_repetition", "llm.interactions", 3, FIRST, "twice")
    out = it.push([ClosedWindow(FIRST, (), (), (problem,))])
    assert [(a.rule, a.state, a.paged) for a in out.alerts] == [("blocks.unequal", "firing", True)]


def test_missing_records_are_an_alert_until_nothing_is_missing() -> None:
    it = Timeline()
    place = {"topic": "llm.interactions", "partition": 1, "start": 5, "end": 6}
    first = it.at([[]], Command(id="c", kind="ledger_missing", actor="ledger", arguments=place))
    again = it.at([[]], Command(id="d", kind="ledger_missing", actor="ledger", arguments=place))
    last = it.at([[]], Command(id="e", kind="ledger_missing", actor="ledger", arguments=place | {"missing": 0}))
    assert [a.state for out in (first, again, last) for a in out.alerts] == ["firing", "resolved"]


def test_control_records_without_a_window_are_refused() -> None:
    record = ControlRecord("llm.commands", 0, 0, 0, Command(id="c", kind="acknowledge", actor="ann"))
    with pytest.raises(ValueError, match="without windows"):
        Fold(0, FixedConfigs(config(rules()))).fold([], [record], cut_of(STORY))


# --- catching up ----------------------------------------------------------------------------------------------------

OFF = 5_760
"""Windows of 8 hours."""


def after_a_catch_up(shift_from: int, shift_to: int = OFF) -> Timeline:
    it = Timeline()
    random = rng()
    it.at(windows(random, 40, v1=NORMAL))
    it.catch_up_until = FIRST + (40 + OFF - 1) * WINDOW_MS
    quiet: list[list[Group]] = [[]] * (shift_from - 20)
    busy = windows(random, 20, v1=NORMAL) + windows(random, shift_to - shift_from, v1=SHIFTED)
    back = windows(random, 20, v1=NORMAL) if shift_to < OFF else []
    rest: list[list[Group]] = [[]] * (OFF - shift_to - len(back))
    it.at(quiet + busy + back + rest)
    it.catch_up_until = None
    it.at(windows(random, 5, v1=SHIFTED if shift_to == OFF else NORMAL))
    return it


def test_a_catch_up_pages_once_for_what_still_fires() -> None:
    it = after_a_catch_up(OFF - 50)
    alerts = it.between(0, 40 + OFF + 5)
    assert [a.state for a in alerts] == ["firing", "firing"]
    assert [(a.window - FIRST) // WINDOW_MS for a in alerts if a.paged] == [40 + OFF - 1]
    assert [a.kind for a in it.actions] == ["retrain"]


def test_a_catch_up_asks_for_nothing_that_is_stale() -> None:
    it = after_a_catch_up(OFF - 1_500)
    assert sum(a.paged for a in it.between(0, 40 + OFF + 5)) == 1
    assert it.actions == []
    assert "stale" in it.between(0, 40 + OFF + 5)[-1].reason


def test_a_catch_up_pages_nothing_that_is_over() -> None:
    it = after_a_catch_up(OFF - 3_000, OFF - 2_900)
    alerts = it.between(0, 40 + OFF + 5)
    assert [a.state for a in alerts] == ["firing", "resolved"]
    assert not any(a.paged for a in alerts)
    assert it.actions == []


def test_eight_hours_of_windows_are_folded_quickly(capsys: pytest.CaptureFixture[str]) -> None:
    some = windows(rng(), 50, v1=NORMAL, v2=NORMAL)
    for name, groups in (("empty", [[]] * OFF), ("with two groups", [some[n % 50] for n in range(OFF)])):
        it = Timeline()
        began = time.perf_counter()
        it.at(groups)
        with capsys.disabled():
            print(f"{OFF} windows, {name}: {time.perf_counter() - began:.2f} s")
        assert it.between(0, OFF) == []


def test_a_step_of_a_worker_that_nobody_asked_for_changes_nothing() -> None:
    it = Timeline()
    before = [bytes(s.data) for s in it.fold.sections()]
    step = msgspec.convert(
        {
            "id": "x", "shard": 0, "sequence": 2, "incident": "i", "kind": "retrain", "target": {"app": "a", "environment": "e"},
            "mode": "auto", "state": "started", "attempt": 1, "window": 0, "ttl_s": 1, "reason": "", "actor": "worker",
        },
        ActionStep,
    )  # fmt: skip
    it.at([[]], step)
    after = {s.section: bytes(s.data) for s in it.fold.sections()}
    assert after["policy"] == before[3]
