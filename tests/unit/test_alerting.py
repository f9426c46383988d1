"""The alert board, as timelines: a detection is raised at(…), transitions are wanted between(…)."""

from dataclasses import dataclass, field, replace

import msgspec
import pytest

from core.alerting import Board, BoardState
from core.incident import Moment
from schemas.messages import WINDOW_MS, AlertTransition, Command, CommandKind, Detection, Effect, PolicyRule, Rules

RULES = Rules(
    rules=(
        PolicyRule(id="refusal", metric="refusal", cooldown_s=600),
        PolicyRule(id="topic", metric="topic", cooldown_s=600, remind_s=0),
        PolicyRule(id="length", metric="length", pending_s=30, cooldown_s=600, inhibited_by=("refusal", "topic")),
    )
)
START = 1_700_000_000_000


@dataclass
class Desk:
    """A board with a clock in seconds since `START`."""

    board: Board = field(default_factory=Board)
    transitions: list[AlertTransition] = field(default_factory=list)
    catching_up: bool = False

    def moment(self, second: int) -> Moment:
        return Moment(0, START + second * 1000, "config", RULES, "rules", self.catching_up)

    def at(self, second: int, *detections: Detection, released: str | None = None, command: Command | None = None) -> None:
        moment = self.moment(second)
        if command is not None:
            self.transitions += self.board.command(command, moment)
        if released is not None:
            self.transitions += self.board.released("desk", "prod", released, "version=v2", moment, "normal again")
        for detection in detections:
            self.transitions += self.board.detected(replace_window(detection, moment.window), moment)
        self.transitions += self.board.advance(moment)

    def until(self, first: int, last: int) -> None:
        """Windows without news."""
        for second in range(first, last, WINDOW_MS // 1000):
            self.at(second)

    def between(self, first: int, last: int) -> list[tuple[str, str, bool]]:
        return [(t.metric, t.state, t.paged) for t in self.transitions if first <= (t.window - START) // 1000 < last]


def found(metric: str, slice_: str = "version=v2", onset: int = 0) -> Detection:
    return Detection(
        id="d", shard=0, app="desk", environment="prod", metric=metric, slice=slice_, window=0, onset=START + onset * 1000,
        statistic=2e7, threshold=1e7, effect=Effect(before=0.02, after=0.4, low=0.3, high=0.5, events=100),
    )  # fmt: skip


def replace_window(detection: Detection, window: int) -> Detection:
    return msgspec.structs.replace(detection, window=window)


def said(kind: CommandKind, **values: object) -> Command:
    return msgspec.convert({"id": "c", "kind": kind, "actor": "ann", "reason": "because", **values}, Command)


def test_without_a_pending_time_an_alert_fires_and_pages_at_once() -> None:
    desk = Desk()
    desk.at(0, found("refusal"))
    assert desk.between(0, 5) == [("refusal", "firing", True)]


def test_with_a_pending_time_it_fires_when_that_is_over() -> None:
    desk = Desk()
    desk.at(0, found("length"))
    desk.until(5, 60)
    assert desk.between(0, 30) == [("length", "pending", False)]
    assert desk.between(30, 60) == [("length", "firing", True)]


def test_what_is_over_while_pending_is_never_paged() -> None:
    desk = Desk()
    desk.at(0, found("length"))
    desk.at(15, released="length")
    desk.until(20, 100)
    assert desk.between(0, 100) == [("length", "pending", False), ("length", "resolved", False)]


def test_a_pending_alert_is_inhibited_by_the_one_that_explains_it() -> None:
    desk = Desk()
    desk.at(0, found("length"))
    desk.at(5, found("refusal"))
    desk.until(10, 100)
    assert desk.between(5, 100) == [("refusal", "firing", True), ("length", "inhibited", False)]


def test_when_the_explanation_is_over_it_is_pending_again_and_then_fires() -> None:
    desk = Desk()
    desk.at(0, found("refusal"))
    desk.at(5, found("length"))
    desk.at(50, released="refusal")
    desk.until(55, 120)
    assert desk.between(5, 120) == [
        ("length", "pending", False),
        ("length", "inhibited", False),
        ("refusal", "resolved", False),
        ("length", "pending", False),
        ("length", "firing", True),
    ]


def explanations(desk: Desk) -> list[str]:
    """What inhibited alerts were said to be explained by, without ids."""
    return [t.reason.rpartition("; ")[2].rpartition(" (")[0] for t in desk.transitions if t.state == "inhibited"]


def test_the_cause_on_the_same_version_explains_an_alert_before_an_older_one_of_the_whole_app() -> None:
    desk = Desk()
    desk.at(0, found("topic", "all"))
    desk.at(5, found("refusal", "version=v2", onset=600))
    desk.at(10, found("length", "version=v2"))
    assert explanations(desk) == ["explained by refusal on version=v2"]


def test_a_cause_of_the_whole_app_explains_before_one_on_another_version() -> None:
    desk = Desk()
    desk.at(0, found("refusal", "version=v3"))
    desk.at(5, found("topic", "all", onset=600))
    desk.at(10, found("length", "version=v2"))
    desk.until(15, 60)
    assert explanations(desk) == ["explained by topic"]


def test_among_causes_of_one_slice_the_rule_says_which_comes_first() -> None:
    desk = Desk()
    desk.at(0, found("topic", "version=v2"))
    desk.at(5, found("refusal", "version=v2", onset=600))
    desk.at(10, found("length", "version=v2"))
    assert explanations(desk) == ["explained by refusal on version=v2"]


def test_a_pending_alert_waits_for_a_better_explanation_than_one_from_elsewhere() -> None:
    desk = Desk()
    desk.at(0, found("topic", "all"))
    desk.at(5, found("length", "version=v2"))
    desk.until(10, 20)
    desk.at(20, found("refusal", "version=v2", onset=600))
    desk.until(25, 60)
    assert desk.between(5, 60) == [("length", "pending", False), ("refusal", "firing", True), ("length", "inhibited", False)]
    assert explanations(desk) == ["explained by refusal on version=v2"]


def test_an_explanation_from_elsewhere_holds_when_the_pending_time_is_over() -> None:
    desk = Desk()
    desk.at(0, found("topic", "all"))
    desk.at(5, found("length", "version=v2"))
    desk.until(10, 60)
    assert desk.between(5, 35) == [("length", "pending", False)]
    assert desk.between(35, 60) == [("length", "inhibited", False)]


def test_another_app_explains_nothing() -> None:
    desk = Desk()
    desk.at(0, msgspec.structs.replace(found("refusal"), app="else"))
    desk.at(5, found("length"))
    desk.until(10, 60)
    assert desk.between(5, 60) == [("length", "pending", False), ("length", "firing", True)]


def test_an_acknowledged_alert_stays_so_until_it_resolves() -> None:
    desk = Desk()
    desk.at(0, found("refusal"))
    desk.at(5, command=said("acknowledge", alert=desk.transitions[0].id))
    desk.until(10, 100)
    desk.at(100, released="refusal")
    assert desk.between(5, 105) == [("refusal", "acknowledged", False), ("refusal", "resolved", False)]


def test_an_alert_that_is_acknowledged_while_pending_never_pages() -> None:
    desk = Desk()
    desk.at(0, found("length"))
    desk.at(5, command=said("acknowledge", app="desk"))
    desk.until(10, 100)
    assert desk.between(5, 100) == [("length", "acknowledged", False)]


def test_an_inhibited_alert_that_was_acknowledged_stays_so_when_its_explanation_is_over() -> None:
    desk = Desk()
    desk.at(0, found("refusal"), found("length"))
    desk.at(5, command=said("acknowledge", app="desk", arguments={"metric": "length"}))
    desk.at(10, released="refusal")
    desk.until(15, 100)
    assert desk.between(5, 100) == [("length", "acknowledged", False), ("refusal", "resolved", False)]


def test_a_silence_does_not_undo_an_acknowledgement() -> None:
    desk = Desk()
    desk.at(0, found("refusal"))
    desk.at(5, command=said("acknowledge", app="desk"))
    desk.at(10, command=said("silence", app="desk", arguments={"seconds": 700}))
    desk.until(15, 800)
    assert desk.between(5, 800) == [("refusal", "acknowledged", False)]


def test_a_silence_by_app_and_metric_holds_back_the_page_until_it_ends() -> None:
    desk = Desk()
    desk.at(0, command=said("silence", app="desk", arguments={"metric": "refusal", "seconds": 60}))
    desk.at(5, found("refusal"))
    desk.until(10, 100)
    assert desk.between(0, 55) == [("refusal", "silenced", False)]
    assert desk.between(55, 100) == [("refusal", "firing", True)]


def test_a_silence_of_another_metric_holds_back_nothing() -> None:
    desk = Desk()
    desk.at(0, command=said("silence", app="desk", arguments={"metric": "length"}))
    desk.at(5, found("refusal"))
    assert desk.between(5, 10) == [("refusal", "firing", True)]


def test_unsilence_ends_a_silence() -> None:
    desk = Desk()
    desk.at(0, command=said("silence", app="desk"))
    desk.at(5, found("refusal"))
    desk.at(10, command=said("unsilence", app="desk"))
    assert desk.between(5, 15) == [("refusal", "silenced", False), ("refusal", "firing", True)]


def test_a_silenced_alert_is_quiet_at_once_and_pages_once_in_its_cooldown() -> None:
    desk = Desk()
    desk.at(0, found("refusal"))
    desk.at(5, command=said("silence", alert=desk.transitions[0].id, arguments={"seconds": 60}))
    desk.until(10, 100)
    assert desk.between(5, 100) == [("refusal", "silenced", False), ("refusal", "firing", False)]


def test_firing_again_within_the_cooldown_is_the_same_incident_and_no_second_page() -> None:
    desk = Desk()
    desk.at(0, found("refusal"))
    desk.at(50, released="refusal")
    desk.at(100, found("refusal"))
    assert desk.between(50, 105) == [("refusal", "resolved", False), ("refusal", "firing", False)]
    assert len({t.id for t in desk.transitions}) == 1
    assert [t.sequence for t in desk.transitions] == [1, 2, 3]
    assert desk.transitions[-1].previous == "resolved"


def test_firing_again_after_the_cooldown_is_a_new_incident() -> None:
    desk = Desk()
    desk.at(0, found("refusal"))
    desk.at(50, released="refusal")
    desk.at(700, found("refusal"))
    assert len({t.id for t in desk.transitions}) == 2
    assert desk.between(700, 705) == [("refusal", "firing", True)]


def test_what_fires_again_within_the_cooldown_and_still_does_at_its_end_pages_then() -> None:
    desk = Desk()
    desk.at(0, found("refusal"))
    desk.at(50, released="refusal")
    desk.at(100, found("refusal"))
    desk.until(105, 900)
    assert desk.between(100, 600) == [("refusal", "firing", False)]
    assert desk.between(600, 900) == [("refusal", "firing", True)]
    assert "still firing at the end of the cooldown" in desk.transitions[-1].reason


def test_what_fires_again_and_is_over_before_the_cooldown_pages_no_second_time() -> None:
    desk = Desk()
    desk.at(0, found("refusal"))
    desk.at(50, released="refusal")
    desk.at(100, found("refusal"))
    desk.at(300, released="refusal")
    desk.until(305, 900)
    assert [page for _, _, page in desk.between(5, 900)] == [False, False, False]


def test_what_still_fires_when_a_silence_ends_pages_as_soon_as_its_cooldown_allows() -> None:
    desk = Desk()
    desk.at(0, found("refusal"))
    desk.at(5, command=said("silence", alert=desk.transitions[0].id, arguments={"seconds": 60}))
    desk.until(10, 900)
    assert desk.between(5, 600) == [("refusal", "silenced", False), ("refusal", "firing", False)]
    assert desk.between(600, 900) == [("refusal", "firing", True)]


def test_a_silence_that_outlasts_the_cooldown_ends_with_a_page() -> None:
    desk = Desk()
    desk.at(0, found("refusal"))
    desk.at(5, command=said("silence", alert=desk.transitions[0].id, arguments={"seconds": 700}))
    desk.until(10, 900)
    assert desk.between(5, 900) == [("refusal", "silenced", False), ("refusal", "firing", True)]


@pytest.mark.parametrize(
    ("arguments", "state"),
    [
        ({"slice": "version=v2"}, "silenced"),
        ({"slice": "version=v3"}, "firing"),
        ({"rule": "refusal"}, "silenced"),
        ({"rule": "topic"}, "firing"),
        ({"metric": "refusal", "slice": "version=v2", "rule": "refusal"}, "silenced"),
        ({"metric": "refusal", "slice": "all"}, "firing"),
    ],
)
def test_a_silence_holds_for_what_matches_in_all_that_it_names(arguments: dict[str, str], state: str) -> None:
    desk = Desk()
    desk.at(0, command=said("silence", arguments=arguments))
    desk.at(5, found("refusal"))
    assert [s for _, s, _ in desk.between(5, 10)] == [state]


def test_unsilence_ends_only_the_silence_that_was_said_the_same_way() -> None:
    desk = Desk()
    desk.at(0, command=said("silence", app="desk", arguments={"slice": "version=v2"}))
    desk.at(5, found("refusal"), command=said("unsilence", app="desk"))
    desk.at(10, command=said("unsilence", app="desk", arguments={"slice": "version=v2"}))
    assert desk.between(5, 15) == [("refusal", "silenced", False), ("refusal", "firing", True)]


DAY = 86_400


def acknowledged(second: int = 5) -> Desk:
    """A desk whose refusal alert has been acknowledged."""
    desk = Desk()
    desk.at(0, found("refusal"))
    desk.at(second, command=said("acknowledge", app="desk"))
    return desk


def test_what_was_acknowledged_and_still_fires_a_day_later_pages_again() -> None:
    desk = acknowledged()
    desk.until(DAY - 100, DAY + 300)
    assert desk.between(10, DAY) == []
    assert desk.between(DAY, DAY + 300) == [("refusal", "firing", True)]
    assert "still firing 24 h after it was acknowledged" in desk.transitions[-1].reason


def test_another_acknowledgement_puts_the_reminder_off() -> None:
    desk = acknowledged()
    desk.at(3_600, command=said("acknowledge", app="desk"))
    desk.until(DAY - 100, DAY + 3_500)
    assert desk.between(10, DAY + 3_500) == []
    desk.until(DAY + 3_500, DAY + 3_700)
    assert desk.between(DAY + 3_500, DAY + 3_700) == [("refusal", "firing", True)]


def test_nobody_is_reminded_of_what_is_over_or_silenced() -> None:
    over, quiet = acknowledged(), acknowledged()
    over.at(60, released="refusal")
    quiet.at(60, command=said("silence", app="desk", arguments={"seconds": 2 * DAY}))
    for desk in (over, quiet):
        desk.until(DAY - 100, DAY + 300)
        assert not any(paged for _, _, paged in desk.between(10, DAY + 300))


def test_a_rule_may_want_nobody_reminded() -> None:
    desk = Desk()
    desk.at(0, found("topic", "all"))
    desk.at(5, command=said("acknowledge", app="desk"))
    desk.until(30 * DAY, 30 * DAY + 100)
    assert desk.between(10, 31 * DAY) == []


def test_an_acknowledgement_that_an_older_state_holds_without_its_time_is_left_alone() -> None:
    desk = acknowledged()
    state = msgspec.to_builtins(desk.board.state())
    for alert in state["open"]:
        del alert["acknowledged_window"]
    desk.board = Board(msgspec.convert(state, BoardState))
    desk.until(DAY, DAY + 100)
    assert desk.between(10, DAY + 100) == []


def test_every_transition_carries_the_digest_of_the_rules() -> None:
    desk = acknowledged()
    desk.at(20, command=said("silence", app="desk"))
    desk.at(30, found("length"), released="refusal")
    desk.until(35, 100)
    assert {t.state for t in desk.transitions} >= {"firing", "acknowledged", "resolved", "pending"}
    assert {(t.rules, t.config) for t in desk.transitions} == {("rules", "config")}


def test_slices_that_began_to_move_together_are_one_page() -> None:
    desk = Desk()
    desk.at(0, found("refusal", "version=v2"), found("refusal", "version=v3"))
    desk.at(60, found("refusal", "version=v4", onset=300))
    assert desk.between(0, 5) == [("refusal", "firing", True), ("refusal", "firing", False)]
    assert desk.between(60, 65) == [("refusal", "firing", True)]


def test_every_transition_gives_its_reason() -> None:
    desk = Desk()
    desk.at(0, found("refusal"))
    desk.at(5, found("length"))
    desk.at(10, command=said("acknowledge", app="desk"))
    desk.at(15, released="refusal")
    assert all(t.reason for t in desk.transitions)
    assert "went from 2 % to 40 %" in desk.transitions[0].reason


def test_during_a_catch_up_states_move_and_nothing_is_paged_until_its_end() -> None:
    desk = Desk(catching_up=True)
    desk.at(0, found("refusal"))
    desk.until(5, 50)
    assert desk.between(0, 50) == [("refusal", "firing", False)]
    desk.catching_up = False
    desk.until(50, 100)
    assert desk.between(50, 100) == [("refusal", "firing", True)]


def test_a_board_that_was_written_out_goes_on() -> None:
    desk = Desk()
    desk.at(0, found("length"))
    desk.at(5, command=said("silence", app="desk", arguments={"seconds": 20}))
    twin = replace(
        desk, board=Board(msgspec.json.decode(msgspec.json.encode(desk.board.state()), type=BoardState)), transitions=[]
    )
    desk.transitions = []
    for it in (desk, twin):
        it.until(10, 60)
        it.at(60, released="length")
    assert desk.transitions == twin.transitions


def test_a_silence_of_an_alert_that_an_older_state_holds_with_its_app_can_be_ended() -> None:
    desk = Desk()
    desk.at(0, found("refusal"))
    (alert,) = desk.board.open
    desk.at(5, command=said("silence", alert=alert))
    state = msgspec.to_builtins(desk.board.state())
    state["silences"][0] |= {"app": "desk", "environment": "prod"}
    desk.board = Board(msgspec.convert(state, BoardState))
    desk.at(10, command=said("unsilence", alert=alert))
    assert desk.board.silences == []


def test_a_reminder_that_is_due_within_the_cooldown_does_not_wait_for_its_end() -> None:
    desk = Desk()
    rule = msgspec.structs.replace(RULES.rules[0], remind_s=120)
    desk.moment = lambda second: replace(Desk.moment(desk, second), rules=Rules(rules=(rule,)))  # type: ignore[method-assign]
    desk.at(0, found("refusal"))
    desk.at(5, command=said("acknowledge", app="desk"))
    desk.until(10, 200)
    assert [state for _, state, paged in desk.between(100, 140) if paged] == ["firing"]
