"""The short line that a person writes by hand: one JSON object with `time`, `app`, `prompt` becomes an Interaction and its feedback."""

from collections.abc import Callable, Mapping
from typing import Any, Final

import msgspec

from core.event_time import time_ms
from core.identity import monitored_version
from schemas.codec import InvalidMessage, decode, rfc3339
from schemas.limits import validate_feedback, validate_interaction
from schemas.messages import ChatMessage, Feedback, FeedbackKind, Interaction, Message, Scalar

THUMBS: Final = "thumbs"
_THUMB_LABELS: Final[Mapping[str, float]] = {"up": 1.0, "down": 0.0, "positive": 1.0, "negative": 0.0, "good": 1.0, "bad": 0.0}


class LineFeedback(msgspec.Struct, kw_only=True):
    """Feedback on a short line in full; shorter forms are a label (`"down"`), true or false, or a score in [0, 1]."""

    name: str = THUMBS
    kind: FeedbackKind = "explicit"
    id: str | None = None
    score: float | None = None
    label: str | None = None
    comment: str | None = None
    correction: str | None = None
    actor: str | None = None


class Line(Message):
    """What a short line may say; other fields are ignored. `time` is RFC 3339, or seconds or milliseconds since 1970."""

    time: str | int | float
    app: str
    prompt: str | list[ChatMessage]
    id: str | None = None
    environment: str = "production"
    response: str | None = None
    model_version: str | None = None
    response_model: str | None = None
    latency_ms: float | None = None
    user: str | None = None
    conversation: str | None = None
    attributes: dict[str, Scalar] = {}
    feedback: bool | int | float | str | LineFeedback | list[bool | int | float | str | LineFeedback] | None = None


def read_line(line: Mapping[str, Any] | bytes) -> Line:
    """A short line's fields, typed. Raises InvalidMessage."""
    return decode(Line, line if isinstance(line, bytes) else msgspec.json.encode(line), keep_unknown=False)


def _feedback_of(value: bool | float | str | LineFeedback) -> LineFeedback:
    if isinstance(value, LineFeedback):
        return value
    if isinstance(value, bool):
        return LineFeedback(score=float(value), label="up" if value else "down")
    if isinstance(value, str):
        return LineFeedback(label=value, score=_THUMB_LABELS.get(value.lower()))
    return LineFeedback(score=float(value))


def interaction_from_line(
    line: Mapping[str, Any] | bytes, *, default_id: Callable[[], str]
) -> tuple[Interaction, list[Feedback]]:
    """`interaction_of` a line that is still to be read."""
    return interaction_of(read_line(line), default_id=default_id)


def interaction_of(short: Line, *, default_id: Callable[[], str]) -> tuple[Interaction, list[Feedback]]:
    """The interaction that a short line describes and its feedback acts, which carry the interaction's app and version.

    `default_id` gives the id of a line without one. Raises InvalidMessage with the field that is wrong.
    """
    interaction = Interaction(
        id=short.id if short.id is not None else default_id(),
        app=short.app,
        environment=short.environment,
        time=rfc3339(time_ms(short.time)),
        version=short.model_version,
        response_model=short.response_model,
        conversation=short.conversation,
        user=short.user,
        input=[ChatMessage(role="user", content=short.prompt)] if isinstance(short.prompt, str) else short.prompt,
        output=[ChatMessage(role="assistant", content=short.response)] if short.response is not None else [],
        latency_ms=short.latency_ms,
        attributes=short.attributes,
    )
    validate_interaction(interaction)
    several = isinstance(short.feedback, list)
    given = short.feedback if isinstance(short.feedback, list) else [] if short.feedback is None else [short.feedback]
    acts = []
    for index, value in enumerate(given):
        path = f"feedback[{index}]" if several else "feedback"
        said = _feedback_of(value)
        act = Feedback(
            id=said.id if said.id is not None else f"{interaction.id[:200]}/feedback/{index}",
            interaction_id=interaction.id,
            name=said.name,
            kind=said.kind,
            time=interaction.time,
            app=interaction.app,
            environment=interaction.environment,
            version=monitored_version(interaction),
            score=said.score,
            label=said.label,
            comment=said.comment,
            correction=said.correction,
            actor=said.actor if said.actor is not None else interaction.user,
        )
        try:
            validate_feedback(act)
        except InvalidMessage as error:
            raise InvalidMessage(error.code, error.reason, f"{path}.{error.field}") from None
        acts.append(act)
    return interaction, acts
