"""What follows a firing alert: actions, and the reasons for none."""

from dataclasses import dataclass, field

import msgspec
import pytest

from core.alerting import Board
from core.detection.history import BEFORE_MS, Busiest
from core.incident import Moment
from core.policy import MAX_ATTEMPTS, Policy, PolicyState
from schemas.messages import ActionState, ActionStep, AppPolicy, Command, CommandKind, Detection, Effect, Mode, PolicyRule, Rules

START = 1_700_000_000_000


@dataclass
class Desk:
    """A board and a policy with a clock in seconds since `START`."""

    mode: Mode = "suggest"
    ttl_s: int = 3_600
    pending_s: int = 0
    kill_switch: bool = False
    catching_up: bool = False
    apps: tuple[AppPolicy, ...] = ()
    busiest: str | None = "v1"
    forgotten_ms: int = 0
    board: Board = field(default_factory=Board)
    policy: Policy = field(default_factory=Policy)
    steps: list[ActionStep] = field(default_factory=list)
    excluded: list[str] = field(default_factory=list)

    def moment(self, second: int) -> Moment:
        rules = Rules(
            kill_switch=self.kill_switch,
            apps=self.apps,
            rules=(
                PolicyRule(
                    id="refusal",
                    metric="refusal",
                    action="rollback",
                    mode=self.mode,
                    cooldown_s=600,
                    ttl_s=self.ttl_s,
                    pending_s=self.pending_s,
                ),
                PolicyRule(id="topic", metric="topic.mix", action="retrain", mode=self.mode, cooldown_s=600, ttl_s=self.ttl_s),
                PolicyRule(id="error", metric="error"),
            ),
        )
        return Moment(0, START + second * 1000, "config", rules, "rules", self.catching_up)

    def at(
        self,
        second: int,
        *detections: Detection,
        command: Command | None = None,
        step: ActionStep | None = None,
        over: str | None = None,
    ) -> list[ActionStep]:
        moment = self.moment(second)
        out: list[ActionStep] = []
        if command is not None:
            self.board.command(command, moment)
            out += self.policy.command(command, moment)
        if step is not None:
            self.policy.step(step, self.board, moment)
        for alert in self.board.matching("desk", "prod", over) if over else []:
            self.board.resolve(alert, moment, "over")
        for detection in detections:
            self.board.detected(detection, moment)
        self.board.advance(moment)
        out += self.policy.advance(self.board, moment, self._busiest_before)
        self.steps += out
        return out

    def _busiest_before(self, app: str, environment: str, onset: int, excluded: object) -> Busiest:
        self.excluded = list(excluded)  # type: ignore[call-overload] - a sequence of names
        return Busiest(self.busiest, onset - BEFORE_MS + self.forgotten_ms, onset + self.forgotten_ms)

    @property
    def note(self) -> str:
        (alert,) = self.board.open.values()
        return alert.note


def found(metric: str, slice_: str = "version=v2", after: float = 0.4, onset: int = 0) -> Detection:
    return Detection(
        id="d", shard=0, app="desk", environment="prod", metric=metric, slice=slice_, window=0, onset=START + onset * 1000,
        statistic=2e7, threshold=1e7, effect=Effect(before=0.2, after=after, low=0.0, high=1.0, events=100),
    )  # fmt: skip


def said(kind: CommandKind, **values: object) -> Command:
    return msgspec.convert({"id": "c", "kind": kind, "actor": "ann", "reason": "because", **values}, Command)


def worker(step: ActionStep, state: ActionState) -> ActionStep:
    return msgspec.structs.replace(step, state=state, sequence=step.sequence + 1, actor="worker-1")


@pytest.mark.parametrize(("mode", "state"), [("suggest", "suggested"), ("approve", "waiting"), ("auto", "requested")])
def test_the_first_state_follows_the_mode(mode: Mode, state: str) -> None:
    (step,) = Desk(mode=mode).at(0, found("refusal"))
    assert (step.kind, step.state, step.target.version, step.target.to_version) == ("rollback", state, "v2", "v1")
    assert (step.sequence, step.attempt, step.precondition.version) == (1, 1, "v2")
    assert any(step.incident in sentence for sentence in step.evidence)


def test_an_alert_without_an_action_asks_for_none() -> None:
    assert Desk().at(0, found("error")) == []


def test_a_cause_acts_once() -> None:
    desk = Desk(mode="auto")
    desk.at(0, found("topic.mix", "all"))
    for second in range(5, 1_000, 5):
        desk.at(second, found("topic.mix", "all"))
    assert len(desk.steps) == 1


def test_the_bad_version_and_others_that_alert_are_no_targets() -> None:
    desk = Desk()
    desk.at(0, found("refusal", "version=v3"))
    desk.at(700, found("refusal", "version=v2"))
    assert desk.excluded == ["v2", "v3"]


def test_without_another_version_there_is_no_target_and_it_says_so() -> None:
    (step,) = Desk(busiest=None, mode="auto").at(0, found("refusal"))
    assert step.state == "no_target"
    assert step.reason.startswith("no target")


def test_the_evidence_says_when_the_time_before_the_onset_is_no_longer_remembered() -> None:
    (known,) = Desk().at(0, found("refusal"))
    (late,) = Desk(forgotten_ms=60_000).at(0, found("refusal"))
    assert known.evidence[-1] == "v1 had most records in the 10 minutes before 2023-11-14T22:13:20.000Z"
    assert "from 2023-11-14T22:04:20.000Z to 2023-11-14T22:14:20.000Z (all that is remembered" in late.evidence[-1]


def test_a_rate_that_falls_rolls_nothing_back() -> None:
    desk = Desk()
    assert desk.at(0, found("refusal", after=0.1)) == []
    assert desk.note == "no action: the rate fell"


def test_a_second_incident_within_the_cooldown_waits() -> None:
    desk = Desk(mode="auto")
    (first,) = desk.at(0, found("refusal", "version=v2"))
    desk.at(100, step=worker(first, "succeeded"))
    assert desk.at(200, found("refusal", "version=v3")) == []
    assert [step.target.version for step in desk.at(605)] == ["v3"]


def test_one_action_of_a_kind_at_a_time_for_an_app() -> None:
    desk = Desk(mode="auto", ttl_s=10_000)
    (first,) = desk.at(0, found("refusal", "version=v2"))
    desk.at(5, step=worker(first, "started"))
    assert desk.at(900, found("refusal", "version=v3")) == []
    assert [step.target.version for step in desk.at(905, step=worker(worker(first, "started"), "succeeded"))] == ["v3"]


def test_what_nobody_starts_expires_and_is_not_asked_for_again() -> None:
    desk = Desk(mode="approve", ttl_s=60)
    desk.at(0, found("refusal"))
    assert [step.state for step in desk.at(55)] == []
    assert [(step.state, step.sequence) for step in desk.at(60)] == [("expired", 2)]
    assert desk.at(1_000) == []


def test_what_was_started_does_not_expire() -> None:
    desk = Desk(mode="auto", ttl_s=60)
    (first,) = desk.at(0, found("refusal"))
    desk.at(10, step=worker(first, "started"))
    assert desk.at(600) == []


def test_the_attempt_rises_when_an_expired_incident_fires_again() -> None:
    desk = Desk(mode="auto", ttl_s=60)
    (first,) = desk.at(0, found("refusal"))
    desk.at(60)
    desk.at(100, over="refusal")
    (second,) = desk.at(300, found("refusal", onset=290))
    assert (second.incident, second.attempt) == (first.incident, 2)
    assert second.id != first.id


def test_the_attempt_rises_when_a_worker_found_it_superseded() -> None:
    desk = Desk(mode="auto")
    (first,) = desk.at(0, found("refusal"))
    (second,) = desk.at(10, step=worker(first, "superseded"))
    assert second.attempt == 2


def test_what_workers_find_superseded_again_and_again_is_given_up() -> None:
    desk = Desk(mode="auto")
    (step,) = desk.at(0, found("refusal"))
    for second in range(5, 100, 5):
        again = desk.at(second, step=msgspec.structs.replace(worker(step, "superseded"), reason="it does not answer"))
        step = again[0] if again else step
    assert len(desk.steps) == MAX_ATTEMPTS
    assert "the last time because it does not answer" in desk.note


def test_the_rules_of_an_environment_say_in_which_mode_its_actions_run() -> None:
    desk = Desk(mode="suggest", apps=(AppPolicy(environment="prod", mode="auto"),))
    assert [(s.mode, s.state) for s in desk.at(0, found("refusal"))] == [("auto", "requested")]


def test_a_rollback_holds_for_the_newest_route_epoch_that_was_spoken_of() -> None:
    desk = Desk(mode="auto")
    desk.at(0, command=said("deploy_marker", app="desk", environment="prod", arguments={"version": "v2", "epoch": 4}))
    desk.at(5, command=said("deploy_marker", app="desk", environment="prod", arguments={"epoch": 3}))
    desk.at(10, command=said("deploy_marker", app="desk", environment="staging", arguments={"epoch": 9}))
    (step,) = desk.at(15, found("refusal"))
    assert (step.precondition.route_epoch, step.precondition.version) == (4, "v2")


def test_a_rollback_asks_for_no_epoch_where_none_is_known() -> None:
    desk = Desk(mode="auto")
    desk.at(0, command=said("deploy_marker", app="desk", environment="prod", arguments={"epoch": "many"}))
    (step,) = desk.at(5, found("refusal"))
    assert step.precondition.route_epoch is None


def test_what_was_started_once_is_never_attempted_again() -> None:
    desk = Desk(mode="auto")
    (first,) = desk.at(0, found("refusal"))
    started = worker(first, "started")
    desk.at(5, step=started)
    assert desk.at(10, step=worker(started, "superseded")) == []


def test_a_step_of_a_worker_that_does_not_say_who_it_is_counts_all_the_same() -> None:
    desk = Desk(mode="auto", ttl_s=60)
    (first,) = desk.at(0, found("refusal"))
    desk.at(10, step=msgspec.structs.replace(first, state="started", sequence=2))
    assert desk.at(600) == []


def test_approval_makes_a_request_and_names_who_approved() -> None:
    desk = Desk(mode="approve")
    (first,) = desk.at(0, found("refusal"))
    (second,) = desk.at(10, command=said("approve", action=first.id))
    assert (second.state, second.sequence, second.actor) == ("requested", 2, "ann")
    assert desk.at(15, step=second) == []


def test_a_suggestion_cannot_be_approved() -> None:
    desk = Desk()
    (first,) = desk.at(0, found("refusal"))
    assert desk.at(10, command=said("approve", action=first.id)) == []


def test_rejection_ends_it_and_the_cause_does_not_ask_again() -> None:
    desk = Desk(mode="approve")
    (first,) = desk.at(0, found("refusal"))
    assert [s.state for s in desk.at(10, command=said("reject", action=first.id))] == ["rejected"]
    assert desk.at(1_000) == []


def test_the_kill_switch_of_the_rules_stops_everything() -> None:
    desk = Desk(mode="auto", kill_switch=True)
    assert desk.at(0, found("refusal")) == []
    assert "kill switch" in desk.note


def test_a_kill_switch_command_supersedes_what_has_not_begun_until_it_is_off() -> None:
    desk = Desk(mode="auto")
    desk.at(0, found("refusal"))
    assert [s.state for s in desk.at(10, command=said("kill_switch", arguments={"on": True}))] == ["superseded"]
    assert desk.at(20, found("topic.mix", "all")) == []
    assert [s.kind for s in desk.at(30, command=said("kill_switch", arguments={"on": False}))] == ["retrain"]


def test_what_is_acknowledged_before_its_pending_time_is_over_asks_for_nothing() -> None:
    desk = Desk(mode="auto", pending_s=30)
    desk.at(0, found("refusal"))
    desk.at(5, command=said("acknowledge", app="desk"))
    assert [desk.at(second) for second in range(10, 100, 5)] == [[]] * 18


def test_a_persons_rollback_stands_against_ours() -> None:
    desk = Desk(mode="auto")
    desk.at(0, command=said("roll_back", app="desk"))
    assert desk.at(10, found("refusal")) == []
    assert "ann rolled this app back" in desk.note


def test_a_persons_rollback_supersedes_ours_and_leaves_retrains_alone() -> None:
    desk = Desk(mode="approve")
    desk.at(0, found("refusal"), found("topic.mix", "all"))
    steps = desk.at(10, command=said("roll_back", app="desk", environment="prod"))
    assert [(s.kind, s.state) for s in steps] == [("rollback", "superseded")]


def test_during_a_catch_up_nothing_is_requested() -> None:
    desk = Desk(mode="auto", catching_up=True)
    assert desk.at(0, found("refusal")) == []
    desk.catching_up = False
    assert [s.state for s in desk.at(10)] == ["requested"]


def test_what_began_long_before_the_end_of_a_catch_up_is_stale() -> None:
    desk = Desk(mode="auto", catching_up=True, ttl_s=600)
    desk.at(0, found("refusal", onset=-700))
    desk.catching_up = False
    assert desk.at(10) == []
    assert "stale" in desk.note


def test_a_policy_that_was_written_out_goes_on() -> None:
    desk = Desk(mode="approve", ttl_s=60)
    desk.at(0, found("refusal"), command=said("roll_back", app="else"))
    state = desk.policy.state()
    twin = Policy(msgspec.json.decode(msgspec.json.encode(state), type=PolicyState))
    assert twin.state() == state
    assert twin.advance(desk.board, desk.moment(60), desk._busiest_before) == desk.at(60)


def released(version: str, epoch: int) -> Command:
    return said("deploy_marker", app="desk", environment="prod", arguments={"version": version, "epoch": epoch})


def test_a_rollback_goes_to_the_champion_before_and_not_to_the_busiest() -> None:
    desk = Desk(mode="auto", busiest="v0")
    for second, version in enumerate(("v0", "v1", "v2")):
        desk.at(second, command=released(version, second + 1))
    (step,) = desk.at(10, found("refusal"))
    assert step.target.to_version == "v1"
    assert step.evidence[-1] == "v1 was the champion before"


def test_a_version_that_was_rolled_back_itself_is_nobodys_target() -> None:
    desk = Desk(mode="auto", busiest="v0")
    for second, version in enumerate(("v0", "v1")):
        desk.at(second, command=released(version, second + 1))
    (first,) = desk.at(10, found("refusal", "version=v1"))
    desk.at(12, step=worker(first, "started"))
    desk.at(15, step=worker(worker(first, "started"), "succeeded"), over="refusal")
    desk.at(20, command=released("v2", 4))
    (second_step,) = desk.at(2_000, found("refusal", onset=1_990))
    assert (first.target.to_version, second_step.target.to_version) == ("v0", "v0")


def test_champions_survive_a_restart_of_the_fold() -> None:
    desk = Desk(mode="auto", busiest="v0")
    for second, version in enumerate(("v0", "v1", "v2")):
        desk.at(second, command=released(version, second + 1))
    desk.policy = Policy(msgspec.json.decode(msgspec.json.encode(desk.policy.state()), type=PolicyState))
    (step,) = desk.at(10, found("refusal"))
    assert step.target.to_version == "v1"


def test_every_step_of_ours_carries_the_digest_of_the_rules() -> None:
    desk = Desk(mode="approve")
    desk.at(0, found("refusal"))
    desk.at(5, command=Command(id="c", kind="approve", actor="ann", action=desk.steps[0].id))
    desk.at(10, command=Command(id="d", kind="kill_switch", actor="ann"))
    assert [step.state for step in desk.steps] == ["waiting", "requested", "superseded"]
    assert {(step.rules, step.config) for step in desk.steps} == {("rules", "config")}
