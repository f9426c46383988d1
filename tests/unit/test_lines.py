"""Short lines: what a person writes by hand becomes an interaction with its feedback, or an error that names the field."""

from typing import Any

import pytest

from core.identity import monitored_version
from core.lines import interaction_from_line
from schemas.codec import InvalidMessage

LINE: dict[str, Any] = {"time": "2026-01-02T03:04:05Z", "app": "desk", "prompt": "How?"}


def _read(line: Any, default: str = "made-up") -> Any:
    return interaction_from_line(line, default_id=lambda: default)


def test_time_app_and_prompt_are_enough() -> None:
    interaction, acts = _read(LINE)
    assert (interaction.id, interaction.app, interaction.time) == ("made-up", "desk", "2026-01-02T03:04:05.000Z")
    assert [(m.role, m.content) for m in interaction.input] == [("user", "How?")]
    assert (interaction.output, acts) == ([], [])


def test_bytes_are_read_as_one_json_object() -> None:
    interaction, _ = _read(b'{"time":"2026-01-02T03:04:05Z","app":"desk","prompt":"How?","id":"i"}')
    assert interaction.id == "i"


def test_every_optional_field_finds_its_place() -> None:
    interaction, _ = _read(
        LINE
        | {"response": "So.", "model_version": "v1", "response_model": "m", "latency_ms": 1.5, "user": "u", "conversation": "c"}
        | {"attributes": {"k": 1}}
    )
    assert interaction.output[0].content == "So."
    assert (interaction.version, interaction.response_model, interaction.latency_ms) == ("v1", "m", 1.5)
    assert (interaction.user, interaction.conversation, interaction.attributes) == ("u", "c", {"k": 1})


@pytest.mark.parametrize(
    "time", [1_767_323_045, 1_767_323_045.0, 1_767_323_045_000, "2026-01-02T04:04:05+01:00", "2026-01-02T03:04:05"]
)
def test_a_time_may_be_written_in_several_ways(time: Any) -> None:
    assert _read(LINE | {"time": time})[0].time == "2026-01-02T03:04:05.000Z"


@pytest.mark.parametrize("time", ["1970-01-01T00:00:00Z", "2100-01-01T00:00:00Z"])
def test_times_long_ago_and_far_ahead_are_taken_as_said(time: str) -> None:
    assert _read(LINE | {"time": time})[0].time == time.replace("Z", ".000Z")


@pytest.mark.parametrize(
    ("feedback", "said"),
    [
        ("down", [("thumbs", 0.0, "down")]),
        ("up", [("thumbs", 1.0, "up")]),
        (True, [("thumbs", 1.0, "up")]),
        (False, [("thumbs", 0.0, "down")]),
        (0.25, [("thumbs", 0.25, None)]),
        ({"name": "helpful", "score": 1}, [("helpful", 1.0, None)]),
        (["down", {"name": "tone", "label": "rude"}], [("thumbs", 0.0, "down"), ("tone", None, "rude")]),
        (None, []),
    ],
)
def test_feedback_has_short_forms(feedback: Any, said: list[tuple[str, float | None, str | None]]) -> None:
    _, acts = _read(LINE | {"feedback": feedback})
    assert [(a.name, a.score, a.label) for a in acts] == said


def test_feedback_names_the_interaction_with_its_app_and_monitored_version() -> None:
    interaction, acts = _read(LINE | {"id": "i", "response_model": "m", "feedback": ["up", "down"]})
    assert [(a.id, a.interaction_id, a.app) for a in acts] == [("i/feedback/0", "i", "desk"), ("i/feedback/1", "i", "desk")]
    assert {a.version for a in acts} == {monitored_version(interaction)}


@pytest.mark.parametrize(
    ("line", "field"),
    [
        (b"{", None),
        (b"\xff", None),
        (b"[1]", None),
        ({"app": "a", "prompt": "p"}, "time"),
        ({"time": 1, "prompt": "p"}, "app"),
        (LINE | {"app": ""}, "app"),
        (LINE | {"app": "a\x00"}, "app"),
        (LINE | {"prompt": 3}, "prompt"),
        (LINE | {"time": "yesterday"}, "time"),
        (LINE | {"time": -1}, "time"),
        (LINE | {"latency_ms": "fast"}, "latency_ms"),
        (LINE | {"feedback": 2}, "feedback.score"),
        (LINE | {"feedback": [{"name": ""}]}, "feedback[0].name"),
    ],
)
def test_what_is_wrong_is_named(line: Any, field: str | None) -> None:
    with pytest.raises(InvalidMessage) as caught:
        _read(line)
    assert caught.value.field == field
