"""Bytes to messages and back: JSON values, CloudEvents headers, and one exception for everything that is wrong."""

import hashlib
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache, lru_cache
from typing import Any, Final, TypeVar, cast

import msgspec

from schemas import messages as m

SUPPORTED_MAJOR: Final = 1
MAX_DEPTH: Final = 400
"""Nesting that is read. It is far below the interpreter's recursion limit, which depends on the caller's stack."""
Headers = list[tuple[str, bytes]]
M = TypeVar("M", bound=m.Message)

TYPE_NAMES: Final[dict[type[m.Message], str]] = {
    m.Interaction: "bellbuoy.interaction.v1",
    m.Feedback: "bellbuoy.feedback.v1",
    m.Tick: "bellbuoy.tick.v1",
    m.ScoredInteraction: "bellbuoy.scored_interaction.v1",
    m.ScoredFeedback: "bellbuoy.scored_feedback.v1",
    m.BlockSummary: "bellbuoy.block_summary.v1",
    m.DeadLetter: "bellbuoy.dead_letter.v1",
    m.Config: "bellbuoy.config.v1",
    m.Activation: "bellbuoy.activation.v1",
    m.Poison: "bellbuoy.poison.v1",
    m.Command: "bellbuoy.command.v1",
    m.WindowRows: "bellbuoy.window_rows.v1",
    m.Detection: "bellbuoy.detection.v1",
    m.Cut: "bellbuoy.cut.v1",
    m.AlertTransition: "bellbuoy.alert_transition.v1",
    m.ActionStep: "bellbuoy.action_step.v1",
    m.StateSection: "bellbuoy.state_section.v1",
    m.RouteTable: "bellbuoy.route_table.v1",
    m.GatewayReport: "bellbuoy.gateway_report.v1",
}
MESSAGE_TYPES: Final[dict[str, type[m.Message]]] = {name: type_ for type_, name in TYPE_NAMES.items()}
TICK_TYPE: Final = TYPE_NAMES[m.Tick].encode()
UNREADABLE_HEADERS: Final = (("ce_type", b"\xff"),)
"""Stands for headers of which a name is not UTF-8. Clients differ in what they give of them; nowhere is such a record of a type."""


class InvalidMessage(ValueError):
    """Bytes that are not a valid message. `code` is from a short fixed list, `field` a JSON path; neither quotes the payload."""

    def __init__(self, code: str, reason: str, field: str | None = None) -> None:
        super().__init__(reason)
        self.code, self.reason, self.field = code, reason, field


@dataclass(frozen=True)
class Record:
    """A record as a runtime delivers it: its place in its partition, the broker's append time (ms), and its bytes."""

    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None
    headers: Sequence[tuple[str, bytes]] = ()
    partition: int | None = None
    """None where whoever reads knows it, since it reads one."""


@dataclass(frozen=True)
class Outgoing:
    """A record to be produced: `partition` None means by key (`partition_by_key`)."""

    topic: str
    key: bytes | None
    value: bytes | None
    headers: Headers
    partition: int | None = None


_encoder = msgspec.json.Encoder(order="deterministic")
_raw_fields: msgspec.json.Decoder[dict[str, msgspec.Raw]] = msgspec.json.Decoder(dict[str, msgspec.Raw])


_STRING = re.compile(rb'"(?:[^"\\]|\\.)*+(?:"|\\?\Z)', re.DOTALL)
_NOT_BRACKETS = bytes(sorted(set(range(256)) - set(b"[]{}")))


def _too_deep(value: bytes) -> bool:
    """Whether brackets outside strings nest deeper than MAX_DEPTH."""
    if value.count(b"[") + value.count(b"{") <= MAX_DEPTH:
        return False
    depth = 0
    for bracket in _STRING.sub(b"", value).translate(None, _NOT_BRACKETS):
        depth += 1 if bracket in b"[{" else -1
        if depth > MAX_DEPTH:
            return True
    return False


def _invalid(error: msgspec.ValidationError) -> InvalidMessage:
    """msgspec's words, with the name of a missing field as the field, without the value that it quotes for an enumeration."""
    reason, found, path = str(error).rpartition(" - at `")
    if not found:
        reason, path = path, ""
    path = path.rstrip("`").removeprefix("$").removeprefix(".")
    missing = reason.partition("missing required field `")[2].rstrip("`")
    if missing:
        return InvalidMessage("invalid", f"{missing} is missing", f"{path}.{missing}" if path else missing)
    if reason.startswith("Invalid enum value"):
        reason = "not one of the allowed values"
    return InvalidMessage("invalid", reason, path or None)


@cache
def _known(type_: type[m.Message]) -> frozenset[str]:
    return frozenset(f.encode_name for f in msgspec.structs.fields(type_))


@cache
def _decoder(type_: type[m.Message]) -> Callable[[bytes], m.Message]:
    return cast(Callable[[bytes], m.Message], msgspec.json.Decoder(type_).decode)


def encode(message: m.Message) -> bytes:
    """Canonical JSON bytes: the same message always gives the same bytes. Unknown fields that were read are written back."""
    if not message.extra:
        return _encoder.encode(message)
    fields = msgspec.to_builtins(message, builtin_types=(msgspec.Raw,))
    extra = fields.pop("__extra__")
    return _encoder.encode(fields | {k: v for k, v in extra.items() if k not in fields})


def decode(type_: type[M], value: bytes | None, *, keep_unknown: bool = True) -> M:
    """Read a message; unknown fields go to `extra` unless `keep_unknown` is off (the hot path, which writes nothing on).

    Raises InvalidMessage with code `empty`, `not_json`, `invalid` (with the field) or `version`.
    """
    if not value:
        raise InvalidMessage("empty", "the record has no value")
    if _too_deep(value):
        raise InvalidMessage("not_json", "the value is nested too deeply")
    try:
        value.decode()  # msgspec does not look into the strings of fields that it skips
        message = cast(M, _decoder(type_)(value))
    except msgspec.ValidationError as error:
        raise _invalid(error) from None
    except (msgspec.DecodeError, UnicodeDecodeError):
        raise InvalidMessage("not_json", "the value is not valid UTF-8 JSON") from None
    except RecursionError:
        raise InvalidMessage("not_json", "the value is nested too deeply") from None
    major = message.schema_version.partition(".")[0]
    if major != str(SUPPORTED_MAJOR):
        raise InvalidMessage("version", f"schema major version {SUPPORTED_MAJOR} is supported", "schema_version")
    if message.extra:
        raise InvalidMessage("invalid", "the field name __extra__ is reserved", "__extra__")
    if keep_unknown:
        known = _known(type_)
        message.extra = {k: v.copy() for k, v in _raw_fields.decode(value).items() if k not in known}
    return message


def cloud_headers(
    message_type: type[m.Message], *, id_: str, time_ms: int, source: str = "bellbuoy", traceparent: str | None = None
) -> Headers:
    """CloudEvents attributes in Kafka's binary mode, plus W3C trace context where there is one."""
    headers = [
        ("ce_specversion", b"1.0"),
        ("ce_id", id_.encode()),
        ("ce_type", TYPE_NAMES[message_type].encode()),
        ("ce_source", source.encode()),
        ("ce_time", rfc3339(time_ms).encode()),
        ("content-type", b"application/json"),
    ]
    if traceparent:
        headers.append(("traceparent", traceparent.encode()))
    return headers


def header(headers: Iterable[tuple[str, bytes]], name: str) -> bytes | None:
    """The first header of that name."""
    return next((value for key, value in headers if key == name), None)


def message_type(headers: Iterable[tuple[str, bytes]]) -> type[m.Message] | None:
    """The type that `ce_type` names; None where there is no such header; InvalidMessage for one that is not ours."""
    name = header(headers, "ce_type")
    if name is None:
        return None
    try:
        return MESSAGE_TYPES[name.decode()]
    except (KeyError, UnicodeDecodeError):
        raise InvalidMessage("type", "ce_type names no message of this topic", "ce_type") from None


def read(record: Record) -> m.Message:
    """Decode a record of one of our own topics by its `ce_type` header."""
    type_ = message_type(record.headers)
    if type_ is None:
        raise InvalidMessage("type", "the record has no ce_type header", "ce_type")
    return decode(type_, record.value)


def digest(message: m.Message | msgspec.Struct) -> str:
    """sha256 (hex) of a message's canonical bytes."""
    value = encode(message) if isinstance(message, m.Message) else _encoder.encode(message)
    return hashlib.sha256(value).hexdigest()


def coordinates_key(c: m.Coordinates) -> str:
    """`topic/topic id/partition/offset`: the ce_id of everything that comes from one record."""
    return f"{c.topic}/{c.topic_id}/{c.partition}/{c.offset}"


@lru_cache(maxsize=1024)
def rfc3339(ms: int) -> str:
    """Milliseconds since 1970 as RFC 3339 in UTC.

    >>> rfc3339(1_700_000_000_123)
    '2023-11-14T22:13:20.123Z'
    """
    seconds, rest = divmod(ms, 1000)  # a float of seconds loses milliseconds from the year 2242 on
    time = datetime.fromtimestamp(seconds, UTC).replace(microsecond=rest * 1000)
    return time.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def to_builtins(message: msgspec.Struct) -> Any:
    """Plain dicts and lists, for printing as JSON."""
    return msgspec.to_builtins(message)
