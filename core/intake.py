"""What a client's JSON item becomes: records for the raw topics with id, key, stamps, hashed person and receipt, or a reason."""

import hashlib
import hmac
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import msgspec

from core.event_time import canonical_time
from core.identity import monitored_version, turn_of, turns_of
from core.lines import Line, interaction_from_line
from schemas import codec
from schemas.codec import InvalidMessage, Outgoing
from schemas.limits import MAX_ITEM_BYTES, validate_feedback, validate_interaction
from schemas.messages import Feedback, Interaction, Receipt
from schemas.topics import FEEDBACK, INTERACTIONS

SOURCE: Final = "bellbuoy/collector"

_fields_decoder = msgspec.json.Decoder(dict[str, msgspec.Raw])
_LINE_FIELDS: Final = frozenset(field.encode_name for field in msgspec.structs.fields(Line))
_INTERACTION_FIELDS: Final = frozenset(field.encode_name for field in msgspec.structs.fields(Interaction))


class _Interaction(Interaction, kw_only=True, omit_defaults=True):
    """An interaction whose id the collector may have to give."""

    id: str = ""


class _Feedback(Feedback, kw_only=True, omit_defaults=True):
    """A feedback act whose id the collector may have to give."""

    id: str = ""


@dataclass(frozen=True)
class Request:
    """What all items of one request share. `id_seed` is set where the client sent an Idempotency-Key."""

    now_ms: int
    id_seed: bytes | None
    receipts: bool = True


@dataclass(frozen=True)
class Taken:
    """An item that was understood: its records (an interaction's feedback follows it) and what the client is told."""

    id: str
    records: list[Outgoing]
    size: int
    receipt: str | None = None
    retry_counts_twice: bool = False


@dataclass(frozen=True)
class Intake:
    """The rules with their keys. `fresh_id` and `next_sequence` (by topic) are the only sources of anything new."""

    subject_key: bytes
    sign: Callable[[Receipt], str]
    instance: str
    fresh_id: Callable[[], str]
    next_sequence: Callable[[str], int]

    def interaction(self, item: bytes, index: int, request: Request) -> Taken:
        """Read an Interaction, or a short line (an object with `prompt` and no `input`). Raises InvalidMessage."""
        _check_size(len(item), 2 * MAX_ITEM_BYTES)  # escapes may make JSON longer than it is when written again
        given = self._id(index, request)
        if b'"prompt"' in item and (fields := _line_fields(item)) is not None:
            interaction, acts = self._line(fields, given, request)
            fresh = "id" not in fields and request.id_seed is None
        else:
            interaction, acts = codec.decode(_Interaction, item), []
            fresh = False
            if not interaction.id:
                if interaction.trace_id and interaction.span_id:
                    interaction.id = f"{interaction.trace_id}-{interaction.span_id}"
                else:
                    fresh = request.id_seed is None
                    interaction.id = given()
        validate_interaction(interaction)
        if interaction.time is not None:
            canonical_time(interaction.time)
        interaction.user = self._hashed(interaction.user)
        self._stamp(interaction, INTERACTIONS)
        key = interaction.conversation or interaction.trace_id or interaction.id
        records = [_record(INTERACTIONS, key, interaction, Interaction, request)]
        receipt = self.sign(_receipt_of(interaction)) if request.receipts else None
        for act in acts:
            act.receipt = receipt
            records.append(self._feedback(act, request))
        return Taken(interaction.id, records, _size(records), receipt, fresh)

    def feedback(self, item: bytes, index: int, request: Request) -> Taken:
        """Read a Feedback act. Raises InvalidMessage."""
        _check_size(len(item), 2 * MAX_ITEM_BYTES)
        act = codec.decode(_Feedback, item)
        fresh = not act.id and request.id_seed is None
        if not act.id:
            act.id = self._id(index, request)()
        records = [self._feedback(act, request)]
        return Taken(act.id, records, _size(records), None, fresh)

    def _id(self, index: int, request: Request) -> Callable[[], str]:
        seed = request.id_seed
        if seed is None:
            return self.fresh_id
        return lambda: hashlib.sha256(seed + b"\0" + str(index).encode()).hexdigest()[:32]

    def _line(
        self, fields: dict[str, msgspec.Raw], given: Callable[[], str], request: Request
    ) -> tuple[Interaction, list[Feedback]]:
        now = msgspec.Raw(str(request.now_ms).encode())
        line = {name: value for name, value in ({"time": now} | fields).items() if name in _LINE_FIELDS}
        interaction, acts = interaction_from_line(msgspec.json.encode(line), default_id=given)
        unknown = fields.keys() - _LINE_FIELDS - _INTERACTION_FIELDS
        interaction.extra = {name: fields[name] for name in fields if name in unknown}
        return interaction, acts

    def _feedback(self, act: Feedback, request: Request) -> Outgoing:
        validate_feedback(act)
        if act.time is not None:
            canonical_time(act.time)
        act.actor = self._hashed(act.actor)
        self._stamp(act, FEEDBACK)
        return _record(FEEDBACK, act.interaction_id, act, Feedback, request)

    def _stamp(self, message: Interaction | Feedback, topic: str) -> None:
        message.producer_instance = self.instance
        message.producer_sequence = self.next_sequence(topic)

    def _hashed(self, person: str | None) -> str | None:
        """A person's id as the log holds it: keyed, so that nobody without the key can try names."""
        return hmac.digest(self.subject_key, person.encode(), "sha256").hex()[:32] if person else None


def id_seed(api_key: str, idempotency_key: str | None) -> bytes | None:
    """What the ids of a request's items are hashed from, so that a retry with the same key gives the same ids."""
    if idempotency_key is None:
        return None
    return hashlib.sha256(f"{api_key}\0{idempotency_key}".encode()).digest()


def _line_fields(item: bytes) -> dict[str, Any] | None:
    """The fields of a short line; None for anything else, which the codec then judges."""
    try:
        fields = _fields_decoder.decode(item)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    return fields if "prompt" in fields and "input" not in fields else None


def _receipt_of(interaction: Interaction) -> Receipt:
    turn = turn_of(interaction)
    return Receipt(
        interaction_id=interaction.id,
        app=interaction.app,
        environment=interaction.environment,
        version=monitored_version(interaction),
        turn=turn,
        route_epoch=interaction.route_epoch,
        sampled=turns_of(interaction, turn) == "later",
    )


def _record(
    topic: str, key: str, message: Interaction | Feedback, type_: type[Interaction] | type[Feedback], request: Request
) -> Outgoing:
    value = codec.encode(message)
    _check_size(len(value), MAX_ITEM_BYTES)
    headers = codec.cloud_headers(type_, id_=message.id, time_ms=request.now_ms, source=SOURCE, traceparent=message.traceparent)
    return Outgoing(topic, key.encode(), value, headers)


def _check_size(size: int, limit: int) -> None:
    if size > limit:
        raise InvalidMessage("too_large", f"the item is larger than {limit} bytes")


def _size(records: list[Outgoing]) -> int:
    return sum(len(record.value or b"") for record in records)
