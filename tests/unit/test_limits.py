"""Names, ids and numbers that no reader could keep are refused with their field."""

from typing import Any

import pytest

from schemas.codec import InvalidMessage
from schemas.limits import MAX_ID, MAX_NAME, validate_feedback, validate_interaction
from schemas.messages import ChatMessage, ContentPart, Feedback, Interaction, ToolCall


def interaction(**fields: Any) -> Interaction:
    return Interaction(**({"id": "i-1", "app": "help-desk"} | fields))


def feedback(**fields: Any) -> Feedback:
    return Feedback(**({"id": "f-1", "interaction_id": "i-1", "name": "thumbs"} | fields))


@pytest.mark.parametrize(
    ("field", "value", "code"),
    [
        ("id", "", "invalid"),
        ("id", "x" * (MAX_ID + 1), "too_long"),
        ("id", "a\nb", "invalid"),
        ("app", "", "invalid"),
        ("app", "x" * (MAX_NAME + 1), "too_long"),
        ("app", "a\x00b", "invalid"),
        ("app", "a\u2028b", "invalid"),
        ("app", "a\x85b", "invalid"),
        ("environment", "", "invalid"),
        ("version", "", "invalid"),
        ("response_model", "x" * 10_000_000, "too_long"),
        ("latency_ms", -1.0, "invalid"),
        ("latency_ms", float("nan"), "invalid"),
        ("input_tokens", 2**70, "invalid"),
        ("turn", 10**400, "invalid"),
        ("route_epoch", -1, "invalid"),
        ("attributes", {"n": 2**63}, "invalid"),
        ("attributes", {"n\x00": 1}, "invalid"),
        ("attributes", {str(n): n for n in range(300)}, "too_many"),
        ("finish_reasons", ["x" * 200], "too_long"),
        ("tool_calls", [ToolCall(name="x" * 200)], "too_long"),
        ("input", [ChatMessage(role="x" * 200)], "too_long"),
        ("output", [ChatMessage(role="assistant", content=[ContentPart(size=2**70)])], "invalid"),
    ],
    ids=lambda value: repr(value)[:30],
)
def test_an_interaction_out_of_bounds_is_refused_with_its_field(field: str, value: Any, code: str) -> None:
    with pytest.raises(InvalidMessage) as refused:
        validate_interaction(interaction(**{field: value}))
    assert (refused.value.field, refused.value.code) == (field, code)


@pytest.mark.parametrize(
    ("field", "value", "code"),
    [
        ("interaction_id", "", "invalid"),
        ("name", "x" * (MAX_NAME + 1), "too_long"),
        ("app", "", "invalid"),
        ("score", 1.5, "invalid"),
        ("score", float("nan"), "invalid"),
        ("attributes", {"n": -(2**63) - 1}, "invalid"),
    ],
    ids=lambda value: repr(value)[:30],
)
def test_feedback_out_of_bounds_is_refused_with_its_field(field: str, value: Any, code: str) -> None:
    with pytest.raises(InvalidMessage) as refused:
        validate_feedback(feedback(**{field: value}))
    assert (refused.value.field, refused.value.code) == (field, code)


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"app": "x" * MAX_NAME, "id": "x" * MAX_ID},
        {"app": "Auskunft für Größen 東京 \U0001f600"},
        {"app": "<script>alert(1)</script>"},
        {"input": [ChatMessage(role="user", content="a\x00b\x1b[31m")]},
        {"attributes": {"n": 2**63 - 1, "f": 1e300, "s": "\x00", "b": True}},
        {"latency_ms": 0.0, "input_tokens": 0},
    ],
    ids=lambda fields: repr(fields)[:40],
)
def test_an_interaction_within_bounds_passes(fields: dict[str, Any]) -> None:
    validate_interaction(interaction(**fields))


@pytest.mark.parametrize("score", [None, 0.0, 0.5, 1.0])
def test_feedback_within_bounds_passes(score: float | None) -> None:
    validate_feedback(feedback(score=score))
