"""A candidate's way to champion in the fold: what is asked for, what its evidence leads to, and what stands in its way."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import msgspec
import numpy as np
import pytest

from core.actions import next_step
from core.fold import Fold
from core.windows import ClosedWindow
from schemas.messages import (
    WINDOW_MS,
    ActionStep,
    AppPolicy,
    CanaryRules,
    Cohort,
    Command,
    CommandKind,
    Group,
    Mode,
    Rules,
    StateSection,
)
from tests.timeline import FIRST, Behaviour, FixedConfigs, Timeline, config, rules, traffic

CANARY = CanaryRules(weights=(1_000, 5_000), step_s=10, step_units=100, margin=3.0, tolerable=0.03, max_s=300)
UNITS = 400
"""Units of assignment in a window."""


@dataclass(frozen=True)
class Answers:
    """How a version answers: its share of refusals, its latency (half-octave bin), whether anybody rates it."""

    refusal: float = 0.01
    latency: int = 34
    rated: bool = True


GOOD, BAD = Answers(), Answers(refusal=0.3)


def policy(mode: Mode = "auto", canary: CanaryRules = CANARY) -> Rules:
    return msgspec.structs.replace(rules(), apps=(AppPolicy(environment="production", mode=mode, canary=canary),))


def cohort(version: str, epoch: int, n: int, how: Answers, rng: np.random.Generator) -> Cohort:
    refused, down = int(rng.binomial(n, how.refusal)), int(rng.binomial(n // 2, 0.1))
    bins = {
        "error@1": [(0, n)],
        "latency@1": [(how.latency, n)],
        "refusal@1": [(0, n - refused), (1, refused)],
        "thumbs.down@1": [(0, n // 2 - down), (1, down)] if how.rated else [],
    }
    return Cohort(app="desk", environment="production", version=version, route_epoch=epoch, n=n, acts=n // 2, bins=bins)


@dataclass
class Desk:
    """An app with its route, and a deploy worker that answers every step in the next window."""

    rules: Rules = field(default_factory=policy)
    answers: dict[str, Answers] = field(default_factory=dict)
    champion: str = "v1"
    candidate: str | None = None
    weight: int = 0
    epoch: int = 1
    deaf: bool = False
    """The worker is away."""
    owed: list[ActionStep] = field(default_factory=list)
    it: Timeline = field(init=False)
    rng: np.random.Generator = field(default_factory=lambda: np.random.default_rng(11))

    def __post_init__(self) -> None:
        self.it = Timeline(rules=self.rules)

    def window(self, *said: Command | ActionStep, groups: Sequence[Group] = ()) -> list[ActionStep]:
        """One more window; returns what the fold wrote in it."""
        cohorts = []
        if self.epoch:
            mine = int(self.rng.binomial(UNITS, self.weight / 10_000))
            for version, n in ((self.candidate, mine), (self.champion, UNITS - mine)):
                if version is not None and n:
                    cohorts.append(cohort(version, self.epoch, n, self.answers.get(version, GOOD), self.rng))
        answered, self.owed = self.owed, []
        start = FIRST + self.it.now * WINDOW_MS
        cohorts.sort(key=lambda c: (c.version, c.route_epoch))
        out = self.it.push([ClosedWindow(start, (), tuple(groups), (), tuple(cohorts))], *answered, *said)
        if not self.deaf:
            self.owed = [answer for step in out.actions if (answer := self.answer(step)) is not None]
        return out.actions

    def answer(self, step: ActionStep) -> ActionStep | None:
        if step.kind != "canary" or step.state not in ("requested", "started"):
            return None
        self.epoch += 1
        data = {"epoch": self.epoch}
        match step.phase:
            case "promote":
                self.champion, self.candidate, self.weight = str(step.target.version), None, 0
                return next_step(step, "succeeded", "promoted", "done", actor="deploy", data=data)
            case "abort":
                self.candidate, self.weight = None, 0
                return next_step(step, "failed", "aborted", step.reason, actor="deploy", data=data)
            case _:
                self.candidate, self.weight = step.target.version, int(step.data["weight"])
                return next_step(step, "started", "step", "done", actor="deploy", data=data)

    def windows(self, count: int) -> list[ActionStep]:
        return [step for _ in range(count) for step in self.window()]

    @property
    def canary(self) -> list[ActionStep]:
        return [step for step in self.it.actions if step.kind == "canary"]


def said(kind: CommandKind, id_: str = "c", **values: object) -> Command:
    return msgspec.convert(
        {"id": id_, "kind": kind, "actor": "ann", "app": "desk", "environment": "production", **values}, Command
    )


def release(version: str = "v2", *, gate: bool = False, id_: str = "c") -> Command:
    return said("release", id_, arguments={"version": version, "gate": gate})


def phases(steps: Sequence[ActionStep]) -> list[str]:
    return [f"{step.state}/{step.phase}" if step.phase else step.state for step in steps]


def begun(**answers: Answers) -> Desk:
    """A desk whose canary of v2 is at its first step."""
    desk = Desk(answers=dict(answers))
    desk.window(release())
    desk.window()
    return desk


# --- what is asked for ----------------------------------------------------------------------------------------------


def test_a_candidate_that_passed_the_gate_is_asked_to_be_tried_against_the_champion_that_it_was_judged_by() -> None:
    desk = Desk()
    (asked,) = desk.window(release(gate=True))
    assert (asked.kind, asked.state, asked.mode, asked.actor, asked.target.version) == (
        "evaluate", "requested", "auto", "ann", "v2",
    )  # fmt: skip
    passed = next_step(asked, "succeeded", "candidate", "better", actor="tune", data={"version": "v2", "champion": "v1"})
    (canary,) = desk.window(passed)
    assert (canary.kind, canary.state, canary.target.version, canary.precondition.version) == ("canary", "requested", "v2", "v1")
    assert canary.data == {"gate": "passed", "parent": asked.id, "weight": 1_000, "step": 0}


def test_a_retrain_ends_in_a_canary_of_its_own_mode() -> None:
    desk = Desk(rules=policy("approve"))
    rng = np.random.default_rng(7)
    for _ in range(40):
        desk.window(groups=[traffic(rng, 200, Behaviour())])
    steps = [step for _ in range(10) for step in desk.window(groups=[traffic(rng, 200, Behaviour(new_topic=0.3))])]
    (retrain,) = [step for step in steps if step.kind == "retrain"]
    assert (retrain.mode, retrain.state) == ("approve", "waiting")
    (requested,) = desk.window(said("approve", action=retrain.id))
    (canary,) = desk.window(next_step(requested, "succeeded", "candidate", "better", actor="tune", data={"version": "v9"}))
    assert (canary.kind, canary.state, canary.mode, canary.incident) == ("canary", "waiting", "approve", retrain.incident)
    assert canary.target.version == "v9"


def test_an_evaluation_that_failed_ends_there() -> None:
    desk = Desk()
    (asked,) = desk.window(release(gate=True))
    assert desk.window(next_step(asked, "failed", "gate", "no improvement", actor="tune", data={"version": "v2"})) == []


def test_a_release_without_the_gate_names_who_wanted_it() -> None:
    (canary,) = Desk().window(release())
    assert (canary.kind, canary.state, canary.actor) == ("canary", "requested", "ann")
    assert canary.data == {"ungated_by": "ann", "weight": 1_000, "step": 0}


def test_one_candidate_at_a_time() -> None:
    desk = begun()
    (second,) = desk.window(release("v3", id_="d"))
    assert (second.target.version, second.state) == ("v3", "superseded")
    assert second.reason == f"no canary: {desk.canary[0].id} is under way, and there is one candidate at a time"


def test_a_persons_hold_stands_against_a_release() -> None:
    desk = Desk()
    desk.window(said("roll_back"))
    (canary,) = desk.window(release(id_="d"))
    assert (canary.state, "ann rolled this app back" in canary.reason) == ("superseded", True)


def test_the_kill_switch_stands_against_a_release() -> None:
    desk = Desk()
    desk.window(said("kill_switch"))
    (canary,) = desk.window(release(id_="d"))
    assert (canary.state, canary.reason) == ("superseded", "no canary: the kill switch is on")


def test_what_is_released_during_a_catch_up_is_asked_for_at_its_end() -> None:
    desk = Desk()
    desk.it.catch_up_until = FIRST + 3 * WINDOW_MS
    assert [len(desk.window(*([release()] if n == 0 else []))) for n in range(4)] == [0, 0, 0, 1]


# --- what the evidence leads to -------------------------------------------------------------------------------------


def test_a_good_candidate_goes_step_by_step_and_is_promoted_for_evidence_at_the_last() -> None:
    desk = Desk()
    desk.window(release())
    desk.windows(40)
    assert phases(desk.canary) == ["requested", "started/advance", "started/promote"]
    advance, promote = desk.canary[1:]
    assert (advance.data["step"], advance.data["weight"]) == (1, 5_000)
    assert promote.reason.startswith("v2 is not worse than the champion on refusal, error, thumbs.down, latency")
    assert len(promote.evidence) == 1 + 4
    assert (desk.champion, desk.candidate) == ("v2", None)


def test_a_step_lasts_as_long_as_the_rules_say() -> None:
    desk = Desk(rules=policy(canary=msgspec.structs.replace(CANARY, step_s=60)))
    desk.window(release())
    steps = desk.windows(30)
    begins, advance = desk.it.outputs[1][0], next(step for step in steps if step.phase == "advance")
    assert (advance.window - FIRST) // WINDOW_MS - begins == 60_000 // WINDOW_MS


def test_a_step_lasts_until_the_candidate_has_answered_enough() -> None:
    desk = Desk(rules=policy(canary=msgspec.structs.replace(CANARY, step_units=1_000, weights=(1_000, 5_000))))
    desk.window(release())
    steps = desk.windows(40)
    advance = next(step for step in steps if step.phase == "advance")
    assert 20 <= (advance.window - FIRST) // WINDOW_MS <= 32  # about 40 of the candidate's in a window


@pytest.mark.parametrize(("guardrail", "bad"), [("refusal", BAD), ("latency", Answers(latency=44))])
def test_a_bad_candidate_is_taken_back_at_its_first_step(guardrail: str, bad: Answers) -> None:
    desk = begun(v2=bad)
    desk.windows(12)
    assert phases(desk.canary) == ["requested", "started/abort"]
    abort = desk.canary[-1]
    assert abort.reason.startswith(f"harm: {guardrail}")
    assert (abort.data["harm"], desk.candidate, desk.champion) == (guardrail, None, "v1")
    assert abort.reason.split("; ")[0].removeprefix("harm: ") in abort.evidence


def test_without_evidence_by_the_deadline_a_candidate_is_taken_back() -> None:
    desk = begun(v1=Answers(rated=False), v2=Answers(rated=False))
    desk.windows(80)
    assert phases(desk.canary) == ["requested", "started/advance", "started/abort"]
    abort = desk.canary[-1]
    assert abort.reason == (
        "no evidence by the deadline: thumbs.down: no data to compare (0 from the candidate, 0 from the champion)"
    )
    assert abort.window - FIRST >= 300_000


def test_a_candidate_without_any_traffic_is_taken_back_at_the_deadline() -> None:
    desk = begun()
    desk.epoch = 0
    desk.windows(70)
    assert phases(desk.canary) == ["requested", "started/abort"]


def test_nothing_is_written_while_the_worker_owes_an_answer() -> None:
    desk = begun()
    desk.deaf = True
    desk.windows(100)
    assert phases(desk.canary) == ["requested", "started/advance"]


def test_what_was_answered_before_the_canary_does_not_count() -> None:
    """The version has answered badly under an earlier epoch, and its ratings still come in."""
    desk = begun()
    old = [cohort("v2", 1, 300, BAD, desk.rng) for _ in range(10)]
    for late in old:
        start = FIRST + desk.it.now * WINDOW_MS
        good = [cohort(v, desk.epoch, 200, GOOD, desk.rng) for v in ("v1", "v2")]
        desk.it.push([ClosedWindow(start, (), (), (), (good[0], late, good[1]))])
    assert "started/abort" not in phases(desk.canary)


def test_units_that_do_not_fit_the_weight_are_a_warning_in_the_steps_reason() -> None:
    desk = begun()
    desk.weight = 3_000
    (advance,) = [step for step in desk.windows(6) if step.phase == "advance"]
    assert "warning: the candidate has" in advance.reason


def test_during_a_catch_up_evidence_is_gathered_and_nothing_decided() -> None:
    desk = begun()
    desk.answers["v2"] = BAD
    desk.it.catch_up_until = FIRST + 30 * WINDOW_MS
    desk.windows(28)
    assert phases(desk.canary) == ["requested"]
    desk.windows(2)
    assert phases(desk.canary) == ["requested", "started/abort"]


# --- what stands in its way -----------------------------------------------------------------------------------------


def test_a_persons_rollback_ends_a_canary_under_way() -> None:
    desk = begun()
    desk.window(said("roll_back", "d", arguments={"epoch": 9}))
    assert phases(desk.canary) == ["requested", "started/abort"]
    assert desk.canary[-1].reason == "ann rolled this app back"


def test_a_persons_rollback_supersedes_a_canary_that_nobody_has_started() -> None:
    desk = Desk(deaf=True)
    desk.window(release())
    desk.window(said("roll_back", "d"))
    assert phases(desk.canary) == ["requested", "superseded"]


def test_a_release_past_the_canary_ends_it_and_a_deploy_marker_without_an_epoch_does_not() -> None:
    desk = begun()
    assert desk.window(said("deploy_marker", "d", arguments={"version": "v7"})) == []
    desk.window(said("deploy_marker", "e", arguments={"version": "v7", "epoch": 9}))
    assert desk.canary[-1].reason == "ann released v7"


def test_a_kill_switch_lets_a_canary_go_no_further_and_still_takes_a_bad_candidate_back() -> None:
    desk = begun()
    desk.window(said("kill_switch", "d"))
    assert desk.windows(20) == []
    desk.answers["v2"] = BAD
    assert phases(desk.windows(10))[0] == "started/abort"


def test_a_worker_that_started_what_was_superseded_starts_no_canary() -> None:
    desk = Desk(deaf=True)
    (asked,) = desk.window(release())
    desk.window(said("kill_switch", "d"))
    desk.window(next_step(asked, "started", "step", "", actor="deploy", data={"epoch": 2, "step": 0, "weight": 1_000}))
    desk.window(said("kill_switch", "e", arguments={"on": False}))
    (second,) = desk.window(release("v3", id_="f"))
    assert second.state == "requested"


# --- rollbacks ------------------------------------------------------------------------------------------------------


def desk_with_a_bad_candidate(mode: Mode = "auto") -> tuple[Desk, ActionStep]:
    """The canary's own test is blind to it (its cohorts are good); the version's alert asks for a rollback."""
    desk = Desk(rules=policy(mode, msgspec.structs.replace(CANARY, max_s=10_000, step_s=200)))
    rng = np.random.default_rng(7)
    for _ in range(40):
        desk.window(groups=[traffic(rng, 200, Behaviour())])
    desk.window(release())
    for _ in range(20):
        both = [traffic(rng, 200, Behaviour()), traffic(rng, 200, Behaviour(refusal=0.4), version="v2")]
        steps = [step for step in desk.window(groups=both) if step.kind == "rollback"]
        if steps:
            return desk, steps[0]
    raise AssertionError("no rollback was asked for")


def test_a_candidate_that_alerts_is_rolled_back_at_the_newest_epoch_that_a_worker_spoke_of() -> None:
    desk, rollback = desk_with_a_bad_candidate()
    assert (rollback.target.version, rollback.target.to_version, rollback.state) == ("v2", "v1", "requested")
    assert rollback.precondition.route_epoch == desk.epoch == 2


def test_a_canary_waits_for_the_rollback_of_its_candidate_and_ends_with_it() -> None:
    desk, rollback = desk_with_a_bad_candidate()
    assert desk.windows(50) == []
    routed = next_step(rollback, "started", "routed", "", actor="deploy", data={"epoch": 3})
    assert desk.window(routed) == []
    (abort,) = desk.window(next_step(routed, "succeeded", "verified", "", actor="deploy"))
    assert (abort.phase, abort.reason) == ("abort", f"v2 was rolled back by {rollback.id}")


def test_a_canary_is_not_promoted_while_a_person_is_asked_to_roll_its_candidate_back() -> None:
    desk, rollback = desk_with_a_bad_candidate("approve")
    assert rollback.state == "waiting"
    assert desk.windows(200) == []
    desk.window(said("reject", "r", action=rollback.id))
    assert "started/promote" in phases(desk.windows(100))


def test_a_canary_goes_on_when_its_rollback_came_to_nothing() -> None:
    desk, rollback = desk_with_a_bad_candidate()
    desk.window(next_step(rollback, "failed", "", "no version to go back to", actor="deploy"))
    assert "started/promote" in phases(desk.windows(100))


def test_a_candidate_whose_canary_was_aborted_is_not_rolled_back_again() -> None:
    desk = Desk(answers={"v2": BAD})
    rng = np.random.default_rng(7)
    for _ in range(40):
        desk.window(groups=[traffic(rng, 200, Behaviour())])
    desk.window(release())
    desk.windows(2)
    for _ in range(20):
        desk.window(groups=[traffic(rng, 200, Behaviour()), traffic(rng, 100, Behaviour(refusal=0.4), version="v2")])
    assert phases(desk.it.actions) == ["requested", "started/abort"]
    alert = next(a for a in desk.it.between(40, 70) if a.slice == "version=v2")
    assert f"its canary {desk.canary[0].id} has been aborted" in alert.reason


def test_nobody_goes_back_to_a_candidate_that_is_being_tried() -> None:
    desk = Desk(rules=policy(canary=msgspec.structs.replace(CANARY, max_s=10_000, step_s=5_000)))
    rng = np.random.default_rng(7)
    for _ in range(40):
        desk.window(groups=[traffic(rng, 200, Behaviour())])
    desk.window(release())
    both = [(Behaviour(), 20)] * 20 + [(Behaviour(refusal=0.4), 20)] * 20
    steps = [
        step
        for champion, n in both
        for step in desk.window(groups=[traffic(rng, 150, champion), traffic(rng, n * 10, Behaviour(), version="v2")])
    ]
    (rollback,) = [step for step in steps if step.kind == "rollback"]
    assert (rollback.target.version, rollback.state) == ("v1", "no_target")


def test_a_rollback_that_gateways_do_not_confirm_pages_with_their_names_until_they_do() -> None:
    desk, rollback = desk_with_a_bad_candidate()
    routed = next_step(rollback, "started", "routed", "", actor="deploy", data={"epoch": 3})
    late = next_step(routed, "unverified", "unverified", "not confirmed", actor="deploy", data={"waiting": "gateway-7"})
    desk.window(routed)
    desk.window(late)
    (alert,) = desk.it.outputs[-1][1].alerts
    assert (alert.rule, alert.state, alert.paged, alert.slice) == ("rollback.unverified", "firing", True, f"action={rollback.id}")
    assert "gateway-7" in alert.reason
    desk.window(next_step(late, "succeeded", "verified", "all confirmed", actor="deploy"))
    (resolved,) = [a for a in desk.it.outputs[-1][1].alerts if a.rule == "rollback.unverified"]
    assert (resolved.state, resolved.reason) == ("resolved", "succeeded: all confirmed")


# --- restarts -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", [GOOD, BAD])
def test_a_fold_that_is_restored_after_every_window_of_a_canary_decides_the_same(how: Answers) -> None:
    def told(*, restart: bool) -> tuple[list[ActionStep], dict[str, bytes]]:
        desk, kept = Desk(answers={"v2": how}), dict[str, StateSection]()
        for number in range(40):
            desk.window(*([release()] if number == 0 else []))
            if restart:
                kept |= {section.section: section for section in desk.it.fold.sections(changed_only=True)}
                desk.it.fold = Fold.restore(0, FixedConfigs(config(desk.rules)), kept.values())
        return desk.it.actions, {section.section: bytes(section.data) for section in desk.it.fold.sections()}

    assert told(restart=True) == told(restart=False)
