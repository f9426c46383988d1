"""What `actions` and `alerts` show and say."""

import msgspec
import pytest
from typer.testing import CliRunner

from adapters.settings import Settings
from bellbuoy.cli import actions, alerts
from bellbuoy.cli.printing import safe
from bellbuoy.control import Entry, NotFound, command_records, find, standing
from bellbuoy.watch import Seen, Told
from schemas.codec import decode, header
from schemas.messages import ActionStep, ActionTarget, AlertTransition, Command, Contribution, Effect

ALERT = AlertTransition(
    id="alert-1",
    shard=1,
    sequence=1,
    app="desk",
    environment="production",
    rule="refusal-on-version",
    metric="refusal",
    slice="version=v2",
    state="firing",
    previous=None,
    window=1_700_000_000_000,
    opened_window=1_700_000_000_000,
    onset=1_699_999_990_000,
    reason="went up",
    effect=Effect(before=0.02, after=0.6, low=0.5, high=0.7, events=100),
    contributions=[Contribution(bin="1", name="refused", share=1.0, before=0.02, after=0.6)],
    paged=True,
)
STEP = ActionStep(
    id="action-1",
    shard=1,
    sequence=1,
    incident="alert-1",
    kind="rollback",
    target=ActionTarget(app="desk", environment="production", version="v2", to_version="v1"),
    mode="approve",
    state="waiting",
    attempt=1,
    window=1_700_000_000_000,
    ttl_s=3_600,
    reason="because",
    evidence=["refusal 2 % → 60 %"],
)


def test_the_story_of_an_action_begins_with_its_alert_and_tells_actor_reason_and_evidence() -> None:
    rejected = msgspec.structs.replace(STEP, state="rejected", actor="ada", evidence=[])
    lines = actions.story([Entry(2_000, STEP), Entry(9_000, rejected)], [Entry(1_000, ALERT)])
    assert [word in line for word, line in zip(("firing", "waiting", "2 % → 60 %", "by ada"), lines, strict=True)] == [True] * 4


def test_a_rollback_says_from_what_to_what() -> None:
    assert actions.describe_target(STEP) == "desk, v2 → v1"


def test_an_answer_names_action_alert_and_app() -> None:
    command = actions.answer("reject", STEP, id_="1", who="ada@host", reason="no")
    assert (command.kind, command.action, command.alert, command.app) == ("reject", "action-1", "alert-1", "desk")


def test_the_story_of_an_alert_tells_what_moved_and_what_carries_it() -> None:
    text = "\n".join(alerts.story([Entry(1_000, msgspec.structs.replace(ALERT, rules="0d6d3d0f84098d0a"))]))
    assert "rule refusal-on-version of rules 0d6d3d0f8409;" in text
    assert "2 % before, 60 % since" in text
    assert "refused: 2 % → 60 % (100% of the evidence)" in text
    assert "(paged)" in text


def test_a_listed_alert_has_its_whole_id_and_says_what_moved_in_two_lines() -> None:
    staging = msgspec.structs.replace(ALERT, id="60211a0bfc1571864644ba41610d3404", environment="staging")
    acknowledged = msgspec.structs.replace(staging, state="acknowledged", effect=None)
    assert alerts.listed([Entry(1_000, staging), Entry(9_000, acknowledged)]).splitlines() == [
        "acknowledged  1970-01-01 00:00:01  60211a0bfc1571864644ba41610d3404",
        "              refusal on desk (staging), version=v2: 2 % → 60 %",
    ]


def test_a_listed_action_has_its_whole_id_and_says_what_is_asked_for_in_two_lines() -> None:
    step = msgspec.structs.replace(STEP, id="de0920ba2f83f5910d70c7f88dcaa79c")
    assert actions.listed([Entry(1_000, step)]).splitlines() == [
        "waiting       1970-01-01 00:00:01  de0920ba2f83f5910d70c7f88dcaa79c",
        "              rollback desk, v2 → v1 (mode approve)",
    ]


def test_a_name_from_outside_cannot_steer_the_terminal_from_a_list() -> None:
    hostile = msgspec.structs.replace(ALERT, app="x\x1b[2J\ny")
    assert "x\ufffd[2J\ufffdy" in alerts.listed([Entry(1_000, hostile)])
    step = msgspec.structs.replace(STEP, id="x\x1b[2J")
    assert "\x1b" not in actions.listed([Entry(1_000, step)])


def test_a_step_that_was_read_before_its_alert_is_told_after_it() -> None:
    told: list[str] = []
    watch = Told("desk", lambda seen: told.append(seen.message.id))
    watch.take(Seen(STEP, 1_001))
    assert (told, watch.actions()) == ([], {})
    watch.take(Seen(ALERT, 1_000))
    watch.take(Seen(msgspec.structs.replace(STEP, state="waiting", sequence=2), 2_000))
    assert told == ["alert-1", "action-1", "action-1"]


def test_what_concerns_another_app_is_not_told() -> None:
    watch = Told("else", lambda _: None)
    watch.take(Seen(ALERT, 1_000))
    assert watch.seen == []


def test_a_silence_carries_its_seconds() -> None:
    command = alerts.about("silence", ALERT, id_="1", who="ada", reason="", arguments={"seconds": 60})
    assert (command.alert, command.arguments) == ("alert-1", {"seconds": 60})


@pytest.mark.parametrize("text", ["", "1", "h", "1w", "-1h", "0s", "1h 30m"])
def test_what_is_no_duration_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="duration"):
        alerts.parse_duration(text)


def test_an_id_is_found_by_an_unambiguous_beginning() -> None:
    histories = {"abc": [Entry(1, STEP)], "abd": [Entry(2, STEP)], "a": [Entry(3, STEP)]}
    assert find(histories, "abc")[0].time == 1
    assert find(histories, "a")[0].time == 3
    with pytest.raises(NotFound, match="beginning of 2 ids"):
        find(histories, "ab")
    with pytest.raises(NotFound, match="there is no x"):
        find(histories, "x")


def test_a_command_for_everybody_is_one_record_per_shard_with_one_id() -> None:
    command = Command(id="c", kind="kill_switch", actor="ada", arguments={"on": True})
    records = command_records(command, range(2), time_ms=0)
    assert [(r.partition, r.key, header(r.headers, "ce_id")) for r in records] == [(0, b"0", b"c"), (1, b"1", b"c")]
    assert {decode(Command, r.value).id for r in records} == {"c"}


def test_text_from_outside_can_neither_mark_up_nor_steer_the_terminal() -> None:
    assert safe("[red]x[/] \x1b[2J\n") == "\\[red]x\\[/] \ufffd[2J\ufffd"


def test_a_word_after_an_actions_end_does_not_change_how_it_stands() -> None:
    steps = [
        msgspec.structs.replace(STEP, state=state, sequence=n) for n, state in enumerate(("requested", "failed", "started"), 1)
    ]
    assert standing([Entry(n, step) for n, step in enumerate(steps)]) == steps[1]


@pytest.mark.parametrize("words", [["silence"], ["unsilence"], ["silence", "60211a0b", "--metric", "latency"]])
def test_a_silence_is_about_one_alert_or_about_what_matches_but_not_both(words: list[str]) -> None:
    result = CliRunner().invoke(alerts.app, words)
    assert result.exit_code == 1
    assert "say which alert by its id, or which ones by --app" in result.stderr


def test_a_silence_of_what_matches_goes_to_every_shard_unless_one_app_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    sent: list[tuple[Command, list[int]]] = []
    monkeypatch.setattr(alerts, "_reached", Settings)
    monkeypatch.setattr(alerts, "shards", lambda settings: 4)
    monkeypatch.setattr(alerts, "shard_for", lambda settings, app, environment: 3)
    monkeypatch.setattr(alerts, "send", lambda settings, command, to: sent.append((command, list(to))))
    for words in (["--metric", "latency", "--slice", "version=v2"], ["--app", "desk", "--environment", "staging"]):
        assert CliRunner().invoke(alerts.app, ["silence", "--for", "2h", *words]).exit_code == 0
    (everywhere, all_shards), (of_app, one) = sent
    assert (all_shards, one) == ([0, 1, 2, 3], [3])
    assert everywhere.arguments == {"metric": "latency", "slice": "version=v2", "seconds": 7_200}
    assert (of_app.app, of_app.environment, of_app.alert) == ("desk", "staging", None)
