"""From a raw record to redacted text: which text is the prompt, which the response, and what else may hold any."""

import hashlib
import re
from dataclasses import dataclass
from typing import Final

from core.pii_rules import is_secret_name
from core.redaction import EMPTY, Redacted, Redactor, Span
from core.redaction_policy import DROPPED
from schemas.messages import ChatMessage, ContentPart, Document, Feedback, Interaction, Scalar, ToolCall

_MAX_LABEL: Final = 128
_SHA256: Final = re.compile(r"[0-9a-fA-F]{64}")
_FINISH_REASONS: Final = frozenset(("stop", "length", "tool_calls", "content_filter", "end_turn", "stop_sequence", "max_tokens"))
_ROLES: Final = frozenset(("user", "assistant", "system", "developer", "tool", "function"))
_SMALLEST_PERSONAL_NUMBER: Final = 1_000_000


@dataclass(slots=True)
class RedactedInteraction:
    """Everything textual of an interaction, redacted. `scored_…` is None where there is nothing to score."""

    prompt: str
    response: str
    scored_prompt: Redacted | None
    scored_response: Redacted | None
    messages: list[ChatMessage]
    tool_calls: list[ToolCall]
    documents: list[Document]
    attributes: dict[str, Scalar]
    error_type: str | None
    finish_reasons: list[str]
    user: str | None
    parts_not_scored: int
    truncated: bool


@dataclass(slots=True)
class RedactedAct:
    """Everything textual of a feedback act, redacted."""

    label: str | None
    comment: str | None
    correction: str | None
    actor: str | None
    attributes: dict[str, Scalar]
    truncated: bool


class _Reader:
    """Redacts one record's fields and remembers whether any was cut."""

    __slots__ = ("_redactor", "truncated")

    def __init__(self, redactor: Redactor) -> None:
        self._redactor = redactor
        self.truncated = False

    def redacted(self, text: str, room: int | None = None) -> Redacted:
        result = self._redactor.redact(text, room)
        if result.truncated:
            self.truncated = True
        return result

    def text(self, text: str) -> str:
        return self.redacted(text).text

    def optional(self, text: str | None) -> str | None:
        return text if text is None else self.text(text)

    def message(self, message: ChatMessage) -> tuple[ChatMessage, Redacted, int]:
        """The message without what redaction finds, its text, and how many of its parts are not text."""
        name = self.optional(message.name)
        role = message.role if message.role in _ROLES else self.text(message.role)
        if isinstance(message.content, str):
            text = self.redacted(message.content)
            return ChatMessage(role=role, content=text.text, name=name), text, 0
        parts: list[ContentPart] = []
        texts: list[Redacted] = []
        room = self._redactor.max_bytes
        for part in message.content:
            if part.type == "text":
                texts.append(self.redacted(part.text or "", room))
                room -= len(texts[-1].text.encode())
                parts.append(ContentPart(text=texts[-1].text))
            else:
                parts.append(self._described(part))
        return ChatMessage(role=role, content=parts, name=name), joined(texts), len(parts) - len(texts)

    def _described(self, part: ContentPart) -> ContentPart:
        """A part that is not text, without its data: type, media type, size and sha256."""
        size, digest = part.size, part.sha256
        if digest is not None and not _SHA256.fullmatch(digest):
            digest = None
        if part.text is not None:
            data = part.text.encode()
            size = len(data) if size is None else size
            digest = hashlib.sha256(data).hexdigest() if digest is None else digest
        media_type = part.media_type and self.text(part.media_type.partition(",")[0])[:_MAX_LABEL]
        return ContentPart(type=self.text(part.type)[:_MAX_LABEL], media_type=media_type, size=size, sha256=digest)

    def attributes(self, attributes: dict[str, Scalar]) -> dict[str, Scalar]:
        return {self.text(key): self._value(key, value) for key, value in attributes.items()}

    def _value(self, key: str, value: Scalar) -> Scalar:
        """A value is read together with its key, which may be what makes it personal."""
        if isinstance(value, bool):
            return value
        if isinstance(value, str):
            if value and is_secret_name(key):
                return self._redactor.named_secret(value)
        elif abs(value) < _SMALLEST_PERSONAL_NUMBER:
            return value
        own = self.redacted(str(value))
        named = self.redacted(f"{key}: {value}")
        if own.dropped or named.dropped:
            return DROPPED
        shown = self.text(key)
        start = len(shown) + 2
        if not named.text.startswith(f"{shown}: "):
            return own.text if own.spans else named.text
        if any(span.start >= start for span in named.spans):
            return named.text[start:]
        if own.spans or any(span.end > start for span in named.spans):
            return own.text if own.spans else named.text
        return own.text if isinstance(value, str) else value


def joined(texts: list[Redacted]) -> Redacted:
    """Texts with line breaks between them, as one."""
    if len(texts) == 1:
        return texts[0]
    if not texts:
        return EMPTY
    spans: list[Span] = []
    offset = 0
    for text in texts:
        spans += [Span(span.rule, span.start + offset, span.end + offset) for span in text.spans]
        offset += len(text.text) + 1
    return Redacted("\n".join(text.text for text in texts), tuple(spans), any(text.truncated for text in texts))


def redact_interaction(interaction: Interaction, redactor: Redactor) -> RedactedInteraction:
    """Redact all text as the app's policy wants it; the prompt is the last user message, the response all output messages."""
    reader = _Reader(redactor.of(interaction.app, interaction.environment))
    asked = [reader.message(message) for message in interaction.input]
    answered = [reader.message(message) for message in interaction.output]
    prompt = next((text for message, text, _ in reversed(asked) if message.role == "user"), EMPTY)
    response = joined([text for _, text, _ in answered])
    other_parts = sum(others for _, _, others in answered)
    return RedactedInteraction(
        prompt=prompt.text,
        response=response.text,
        scored_prompt=prompt if prompt.text and not prompt.text.isspace() else None,
        scored_response=response if _answers(interaction, response, other_parts) else None,
        messages=[] if _is_plain(interaction) else [message for message, _, _ in (*asked, *answered)],
        tool_calls=[
            ToolCall(
                name=reader.text(call.name),
                id=reader.optional(call.id),
                arguments=reader.text(call.arguments),
                result=reader.optional(call.result),
                error=reader.optional(call.error),
            )
            for call in interaction.tool_calls
        ],
        documents=[
            Document(text=reader.text(document.text), id=reader.optional(document.id), score=document.score)
            for document in interaction.documents
        ],
        attributes=reader.attributes(interaction.attributes) if interaction.attributes else {},
        error_type=reader.optional(interaction.error_type),
        finish_reasons=[r if r in _FINISH_REASONS else reader.text(r) for r in interaction.finish_reasons],
        user=reader.optional(interaction.user),
        parts_not_scored=other_parts + sum(others for _, _, others in asked),
        truncated=reader.truncated,
    )


def redact_act(act: Feedback, redactor: Redactor) -> RedactedAct:
    """Redact what people wrote as the app's policy wants it; an act that names no environment counts as production."""
    reader = _Reader(redactor.of(act.app, act.environment or "production"))
    return RedactedAct(
        label=reader.optional(act.label),
        comment=reader.optional(act.comment),
        correction=reader.optional(act.correction),
        actor=reader.optional(act.actor),
        attributes=reader.attributes(act.attributes),
        truncated=reader.truncated,
    )


def _answers(interaction: Interaction, response: Redacted, other_parts: int) -> bool:
    """Whether there is a response to score: a blank one counts unless a tool call, an error or an image explains it."""
    if not interaction.output:
        return False
    blank = not response.text or response.text.isspace()
    return not (blank and (interaction.tool_calls or interaction.error_type or other_parts))


def _is_plain(interaction: Interaction) -> bool:
    """Whether prompt and response already say everything that the messages say."""
    return (
        len(interaction.input) <= 1
        and len(interaction.output) <= 1
        and all(m.role == "user" and m.name is None and isinstance(m.content, str) for m in interaction.input)
        and all(m.role == "assistant" and m.name is None and isinstance(m.content, str) for m in interaction.output)
    )
