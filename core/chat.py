"""Chat completions in OpenAI's format: what a request asks, how a version changes it, and the interaction that it becomes."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import msgspec

from core.chat_answer import Answer, read_answer, tool_calls
from schemas import codec
from schemas.codec import InvalidMessage, Outgoing
from schemas.limits import MAX_ID, MAX_ITEM_BYTES, MAX_NAME, MAX_SCHEMA, validate_interaction
from schemas.messages import CallConfiguration, ChatMessage, ContentPart, Interaction, ResponseFormat, Scalar
from schemas.topics import INTERACTIONS

SOURCE: Final = "bellbuoy/gateway"
CANCELLED: Final = "cancelled"
UNNAMED: Final = "unnamed"
"""The app of a request that names none."""
_OWN: Final = frozenset({"model", "messages", "tools", "stream", "stream_options", "n"})
"""Fields that say what the request is; a version's parameters do not touch them."""
_SYSTEM_ROLES: Final = ("system", "developer")
_CLIPS: Final = (100_000, 20_000)
"""Characters that are kept of each text of an interaction that is too large, tried in turn."""
_METADATA: Final = 16
_METADATA_VALUE: Final = 512

_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")
_TRACEPARENT: Final = re.compile(r"[0-9a-f]{2}-([0-9a-f]{32})-([0-9a-f]{16})-[0-9a-f]{2}")
_DATA_URL: Final = re.compile(r"data:([\w.+/-]{1,100})[;,]")

_fields: Final = msgspec.json.Decoder(dict[str, msgspec.Raw])
_raws: Final = msgspec.json.Decoder(list[msgspec.Raw])
_encoder: Final = msgspec.json.Encoder()


@dataclass(frozen=True)
class Asked:
    """A request's fields as they were sent, and what the gateway reads of them."""

    fields: Mapping[str, msgspec.Raw]
    model: str | None
    user: str | None
    turn: int
    """Number of user messages: 1 is the first of a conversation."""


@dataclass
class Exchange:
    """One request and what became of it. `sent` is the body that the upstream was given, `answer` what came back of it."""

    id: str
    app: str
    environment: str
    started_ms: int
    turn: int
    version: str | None = None
    arm: str | None = None
    route_epoch: int | None = None
    conversation: str | None = None
    user: str | None = None
    """Hashed."""
    traceparent: str | None = None
    sent: bytes = b""
    status: int | None = None
    streamed: bool = False
    answer: list[bytes] = field(default_factory=list)
    answer_bytes: int = 0
    encoding: str = ""
    """Content encoding of the answer."""
    latency_ms: float = 0.0
    first_chunk_ms: float | None = None
    error_type: str | None = None
    """What the gateway itself saw go wrong. CANCELLED says nothing of an answer that had ended: its client was done."""

    @property
    def size(self) -> int:
        """Bytes that it holds."""
        return len(self.sent) + self.answer_bytes


def read_request(body: bytes) -> Asked:
    """Read a request's body. Raises InvalidMessage (`not_json`) for one that is no JSON object."""
    try:
        fields = _fields.decode(body)
    except msgspec.ValidationError:
        raise InvalidMessage("not_json", "the body must be a JSON object") from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise InvalidMessage("not_json", "the body is not valid JSON") from None
    return Asked(
        fields=fields,
        model=_text_of(fields.get("model")),
        user=_text_of(fields.get("user")) or _text_of(fields.get("safety_identifier")),
        turn=sum(_role(message) == "user" for message in _messages_of(fields)),
    )


def configured(asked: Asked, configuration: CallConfiguration) -> bytes:
    """The request's body as the version wants it; what the version does not name stays as it was sent, to the byte."""
    fields: dict[str, Any] = dict(asked.fields)
    fields["model"] = configuration.model
    if configuration.system_prompt is not None and "messages" in fields:
        system = {"role": "system", "content": configuration.system_prompt}
        fields["messages"] = [system, *(m for m in _messages_of(asked.fields) if _role(m) not in _SYSTEM_ROLES)]
    fields |= {name: value for name, value in configuration.parameters.items() if name not in _OWN}
    if configuration.tools:
        fields["tools"] = configuration.tools
    return _encoder.encode(fields)


def name_of(value: str | None, limit: int = MAX_NAME) -> str | None:
    """A name or id that a stranger wrote, within what the log takes: no control characters, at most `limit` characters."""
    if not value:
        return None
    return (value if value.isprintable() else _CONTROL.sub("", value))[:limit] or None


def trace_of(traceparent: str | None) -> tuple[str, str] | None:
    """Trace id and span id of a W3C traceparent, None for anything else.

    >>> trace_of("00-" + "1" * 32 + "-" + "2" * 16 + "-01")
    ('11111111111111111111111111111111', '2222222222222222')
    """
    found = _TRACEPARENT.fullmatch(traceparent or "")
    return (found[1], found[2]) if found else None


def interaction_of(exchange: Exchange, answer: bytes) -> Interaction:
    """The interaction, with `answer` as the bytes that came (decompressed). What cannot be read of it is left out."""
    trace = trace_of(exchange.traceparent)
    interaction = Interaction(
        id=exchange.id,
        app=exchange.app,
        environment=exchange.environment,
        time=codec.rfc3339(exchange.started_ms),
        version=exchange.version,
        arm=exchange.arm,
        route_epoch=exchange.route_epoch,
        turn=exchange.turn,
        conversation=exchange.conversation,
        user=exchange.user,
        traceparent=exchange.traceparent if trace else None,
        trace_id=trace[0] if trace else None,
        parent_id=trace[1] if trace else None,
        latency_ms=exchange.latency_ms,
        time_to_first_chunk_ms=exchange.first_chunk_ms,
    )
    fields = _decoded(exchange.sent)
    if isinstance(fields, dict):
        interaction.request_model = name_of(_string(fields.get("model")))
        interaction.input = [_chat_message(m) for m in _listed(fields.get("messages"))]
        interaction.attributes = _attributes(fields.get("metadata"))
        interaction.response_format = _response_format(fields.get("response_format"))
    said = read_answer(answer, streamed=exchange.streamed)
    interaction.error_type = _error_type(exchange, said)
    interaction.response_model = name_of(said.model)
    interaction.finish_reasons = [name for reason in said.finish_reasons if (name := name_of(reason))]
    interaction.input_tokens, interaction.output_tokens = said.input_tokens, said.output_tokens
    interaction.output = [ChatMessage(role=name_of(c.role) or "assistant", content=c.text) for c in said.choices]
    interaction.tool_calls = [call for choice in said.choices for call in tool_calls(choice)]
    return interaction


def _attributes(metadata: object) -> dict[str, Scalar]:
    """The request's metadata as attributes: names and values of a bounded length, as many as the wire format allows."""
    if not isinstance(metadata, dict):
        return {}
    pairs = [(name_of(_string(key)), value) for key, value in list(metadata.items())[:_METADATA]]
    return {name: value[:_METADATA_VALUE] for name, value in pairs if name and isinstance(value, str)}


def _response_format(asked: object) -> ResponseFormat | None:
    """The form that the request asks for; a schema that is too large to keep is left out."""
    if not isinstance(asked, dict) or (kind := name_of(_string(asked.get("type")))) is None or kind == "text":
        return None
    wrapper = asked.get("json_schema")
    schema = wrapper.get("schema") if isinstance(wrapper, dict) else None
    try:
        text = _encoder.encode(schema).decode() if isinstance(schema, dict) else None
    except RecursionError:
        text = None
    return ResponseFormat(type=kind, schema=text if text and len(text) <= MAX_SCHEMA else None)


def record_of(interaction: Interaction, time_ms: int) -> Outgoing:
    """The record for llm.interactions, within its limits: a text that makes it too large is clipped, and at last left out."""
    try:
        validate_interaction(interaction)
    except InvalidMessage:
        interaction = bare(interaction)
    value = codec.encode(interaction)
    for limit in _CLIPS:
        if len(value) > MAX_ITEM_BYTES:
            value = codec.encode(_clipped(interaction, limit))
    if len(value) > MAX_ITEM_BYTES:
        interaction = bare(interaction)
        value = codec.encode(interaction)
    key = interaction.conversation or interaction.trace_id or interaction.id
    headers = codec.cloud_headers(
        Interaction, id_=interaction.id, time_ms=time_ms, source=SOURCE, traceparent=interaction.traceparent
    )
    return Outgoing(INTERACTIONS, key.encode(), value, headers)


def bare(interaction: Interaction) -> Interaction:
    """The interaction without its texts: what is kept when there is no room for them."""
    return msgspec.structs.replace(
        interaction, input=[], output=[], tool_calls=[], documents=[], response_format=None, attributes={"text": "shed"}
    )


def _clipped(interaction: Interaction, limit: int) -> Interaction:
    users = [m for m in interaction.input if m.role == "user"][-1:]
    return msgspec.structs.replace(
        interaction,
        input=[_clip(m, limit) for m in users],
        output=[_clip(m, limit) for m in interaction.output[:1]],
        tool_calls=[],
        response_format=None,
        attributes={"text": "clipped"},
    )


def _clip(message: ChatMessage, limit: int) -> ChatMessage:
    content = message.content
    if not isinstance(content, str):
        content = "\n".join(part.text for part in content if part.text)
    return ChatMessage(role=message.role, name=message.name, content=content[:limit])


def _error_type(exchange: Exchange, said: Answer) -> str | None:
    if exchange.error_type and not (exchange.error_type == CANCELLED and said.ended):
        return exchange.error_type
    status = exchange.status
    if status is not None and status >= 400:
        return "rate_limit" if status == 429 else f"http_{status}"
    if said.failed:
        return "stream_error"
    if exchange.streamed and not said.ended:
        return "incomplete"
    return None


def _chat_message(message: Any) -> ChatMessage:
    if not isinstance(message, dict):
        return ChatMessage(role="unknown")
    content = message.get("content")
    return ChatMessage(
        role=name_of(_string(message.get("role"))) or "unknown",
        name=name_of(_string(message.get("name"))),
        content=content if isinstance(content, str) else [_part(part) for part in _listed(content)] or "",
    )


def _part(part: Any) -> ContentPart:
    if not isinstance(part, dict):
        return ContentPart(type="unknown")
    kind = name_of(_string(part.get("type"))) or "unknown"
    text = _string(part.get(kind)) if kind in ("text", "refusal") else None
    if text is not None:
        return ContentPart(type="text", text=text)
    try:
        raw = _encoder.encode(part)
    except RecursionError:
        return ContentPart(type=kind)
    found = _DATA_URL.search(raw[:4_096].decode(errors="replace"))
    return ContentPart(type=kind, size=len(raw), media_type=found[1] if found else None)


def _messages_of(fields: Mapping[str, msgspec.Raw]) -> list[msgspec.Raw]:
    try:
        return _raws.decode(fields["messages"]) if "messages" in fields else []
    except (msgspec.DecodeError, RecursionError):
        return []


class _Role(msgspec.Struct):
    role: Any = None


_role_of: Final = msgspec.json.Decoder(_Role)


def _role(message: msgspec.Raw) -> str | None:
    try:
        return _string(_role_of.decode(message).role)
    except (msgspec.DecodeError, RecursionError):
        return None


def _text_of(raw: msgspec.Raw | None) -> str | None:
    return _string(_decoded(raw)) if raw is not None else None


def _decoded(raw: bytes | msgspec.Raw) -> Any:
    try:
        return msgspec.json.decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None


def _string(value: Any) -> str | None:
    return value if isinstance(value, str) else None


def _listed(value: Any) -> Iterable[Any]:
    return value if isinstance(value, list) else ()


__all__ = [
    "MAX_ID",
    "UNNAMED",
    "Asked",
    "Exchange",
    "bare",
    "configured",
    "interaction_of",
    "name_of",
    "read_request",
    "record_of",
    "trace_of",
]
