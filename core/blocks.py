"""The block: everything that one partition was given in one 5-second window of append time, and the one function that scores it."""

import hashlib
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, Literal, NamedTuple, Protocol

import msgspec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from core.attribution import attribute
from core.event_time import canonical_time
from core.identity import FIRST_TURN, Turns, monitored_version, turn_of, turns_of
from core.metrics import RATING
from core.scored import scored_feedback, scored_interaction
from core.scoring import ScoredFeedbackText, ScoredText
from core.summary import Tallies, summaries
from schemas import codec
from schemas.codec import Headers, InvalidMessage, Outgoing, Record
from schemas.limits import validate_feedback, validate_interaction
from schemas.messages import (
    WINDOW_MS,
    BlockHeader,
    Config,
    Coordinates,
    DeadLetter,
    Feedback,
    Interaction,
    LedgerCounts,
    Message,
    ScoredFeedback,
    ScoredInteraction,
)
from schemas.topics import DEADLETTER, FEEDBACK, MAX_RECORD_BYTES, SCORED, SUMMARIES

MAX_SCORED_BYTES: Final = MAX_RECORD_BYTES - 64 * 1024
STEP_RECORDS: Final = 128
Stage = Literal["decode", "score", "encode"]
"""The parts of a step: bytes to messages, messages to scores, scores to bytes."""
_TRACEPARENT: Final = re.compile(rb"[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}")
_DETERMINISTIC: Final = msgspec.json.Encoder(order="deterministic")


class TextScorer(Protocol):
    """What a block asks of `core.scoring.Scoring`: the same result for any batching."""

    def interactions(self, batch: Sequence[Interaction]) -> list[ScoredText]: ...

    def feedback(self, batch: Sequence[Feedback]) -> list[ScoredFeedbackText]: ...


class Place(NamedTuple):
    """A partition of one incarnation of a topic."""

    topic: str
    topic_id: str
    partition: int


@dataclass(frozen=True)
class ActiveConfig:
    """A config ready to score with, and the records known to be poison."""

    digest: str
    config: Config
    scoring: TextScorer
    receipt_keys: Mapping[str, Ed25519PublicKey] = field(default_factory=dict)
    poison: frozenset[Coordinates] = frozenset()


@dataclass(frozen=True)
class ScoredBlock:
    """A block's whole output, in the order in which it is produced."""

    scored: list[Outgoing]
    dead_letters: list[Outgoing]
    summaries: list[Outgoing]


class BlockCutter:
    """Cuts one partition's records at block borders. A window never goes back, even where the append time does."""

    def __init__(self, window: int = -1) -> None:
        self.window = window

    def cut(self, records: Iterable[Record]) -> Iterator[tuple[int, list[Record]]]:
        """(window, its records), in order; the same window again where the previous call ended inside it."""
        part: list[Record] = []
        for record in records:
            window = record.timestamp - record.timestamp % WINDOW_MS
            if window > self.window:
                if part:
                    yield self.window, part
                    part = []
                self.window = window
            part.append(record)
        if part:
            yield self.window, part


class _Accepted(NamedTuple):
    """A record that can be scored, and where its output goes in the step's order."""

    place: int
    record: Record
    message: Interaction | Feedback
    traceparent: bytes | None


class OpenBlock:
    """A block while its records arrive. The same records give the same bytes, however they are divided into steps."""

    def __init__(self, place: Place, window: int, start: int, active: ActiveConfig) -> None:
        self.place, self.window, self.start, self.active = place, window, start, active
        self.counts = LedgerCounts()
        self.dead_reasons: Counter[str] = Counter()
        self.delivered = 0
        self.next = start
        """Offset after the last record taken."""
        self._key_prefix = f"{place.topic}/{place.topic_id}/{place.partition}/".encode()
        self._type: type[Message] = Feedback if place.topic == FEEDBACK else Interaction
        self._type_name = codec.TYPE_NAMES[self._type].encode()
        self._poison = frozenset(c.offset for c in active.poison if Place(c.topic, c.topic_id, c.partition) == place)
        self._tallies = Tallies(active.config.shards)
        self._rated: set[str] = set()
        """Interactions whose rating is in a cohort: the first one in a block counts."""
        self._spoken: set[tuple[str, str, str, Turns, str]] = set()
        """(app, environment, conversation or record, turns, what of it) that are judged: repetitions within a block are no further units."""
        self._time: tuple[int, bytes] = (-1, b"")

    def step(self, records: Sequence[Record], done: Callable[[Stage], None] = lambda _: None) -> list[Outgoing]:
        """Take the next records; returns their scored records and dead letters in the order of their offsets.

        `done` is told when a stage of the work is done, for whoever measures; nothing depends on it.
        """
        output: list[Outgoing | None] = []
        accepted: list[_Accepted] = []
        for record in records:
            type_name: bytes | None = None
            traceparent: bytes | None = None
            for name, value in record.headers:
                # Kafka knows headers without a value, and not every client tells them from empty ones.
                if "\0" in name:
                    name = name.partition("\0")[0]  # librdkafka's clients see no more of it
                if name == "ce_type":
                    type_name = value or None
                elif name == "traceparent":
                    traceparent = value or None
            if record.offset in self._poison:
                output.append(self._dead(record, InvalidMessage("poison", "the record killed its scorer"), traceparent))
            elif type_name == codec.TICK_TYPE:
                self.counts.tick += 1
            else:
                try:
                    message = self._read(record, type_name)
                except InvalidMessage as error:
                    output.append(self._dead(record, error, traceparent))
                else:
                    if traceparent is None and message.traceparent:
                        traceparent = message.traceparent.encode()
                    accepted.append(_Accepted(len(output), record, message, traceparent))
                    output.append(None)
        done("decode")
        if accepted:
            self._score(accepted, output, done)
        if records:
            self.delivered += len(records)
            self.next = records[-1].offset + 1
        return [out for out in output if out is not None]

    def end(self, end_offset: int) -> list[Outgoing]:
        """Close the block at the offset of the first record of a later window: one summary per shard, or its parts."""
        config, (topic, topic_id, partition) = self.active.config, self.place
        self.counts.control = end_offset - self.start - self.delivered
        header = BlockHeader(
            topic=topic,
            topic_id=topic_id,
            partition=partition,
            window=self.window,
            start=self.start,
            end=end_offset,
            config=self.active.digest,
            counts=self.counts,
            dead_reasons=dict(sorted(self.dead_reasons.items())),
        )
        admitted = frozenset((app, environment) for app, environment in config.admitted)
        output = []
        for shard in range(config.shards):
            groups = self._tallies.groups(shard, admitted, config.max_pairs_per_block)
            for summary in summaries(header, shard, groups, self._tallies.cohorts(shard, admitted)):
                id_ = f"{topic}/{topic_id}/{partition}/{self.window}/{shard}/{summary.part}"
                headers = codec.cloud_headers(type(summary), id_=id_, time_ms=self.window + WINDOW_MS)
                output.append(Outgoing(SUMMARIES, str(shard).encode(), codec.encode(summary), headers, shard))
        return output

    def _read(self, record: Record, type_name: bytes | None) -> Interaction | Feedback:
        if type_name is not None and type_name != self._type_name:
            raise InvalidMessage("type", "ce_type names no message of this topic", "ce_type")
        message: Interaction | Feedback
        if self._type is Interaction:
            message = codec.decode(Interaction, record.value, keep_unknown=False)
            validate_interaction(message)
        else:
            message = codec.decode(Feedback, record.value, keep_unknown=False)
            validate_feedback(message)
        if message.time is not None:
            message.time = canonical_time(message.time)
        return message

    def _score(self, accepted: Sequence[_Accepted], output: list[Outgoing | None], done: Callable[[Stage], None]) -> None:
        scoring = self.active.scoring
        if self._type is Interaction:
            texts = scoring.interactions([a.message for a in accepted])  # type: ignore[misc]  # one topic, one type
            done("score")
            for a, text in zip(accepted, texts, strict=True):
                output[a.place] = self._interaction(a, a.message, text)  # type: ignore[arg-type]  # one topic, one type
        else:
            remarks = scoring.feedback([a.message for a in accepted])  # type: ignore[misc]  # one topic, one type
            done("score")
            for a, remark in zip(accepted, remarks, strict=True):
                output[a.place] = self._feedback(a, a.message, remark)  # type: ignore[arg-type]  # one topic, one type
        done("encode")

    def _interaction(self, a: _Accepted, said: Interaction, text: ScoredText) -> Outgoing:
        version = monitored_version(said)
        value = _DETERMINISTIC.encode(
            scored_interaction(self._coordinates(a.record), a.record.timestamp, self.active.digest, said, version, text)
        )
        if len(value) > MAX_SCORED_BYTES:
            return self._too_large(a)
        self.counts.scored += 1
        counts, turn = said.part != "content", turn_of(said)
        turns = self._once(
            said.app, said.environment, said.conversation or said.id, turns_of(said, turn), f"{said.kind} {said.part}"
        )
        self._tallies.interaction((said.app, said.environment, version), text.scores, turns, counts=counts)
        if said.route_epoch is not None and turn == FIRST_TURN:
            unit = (said.app, said.environment, version, said.route_epoch)
            self._tallies.cohort_interaction(unit, text.scores, counts=counts)
        return self._out(SCORED, said.id.encode(), value, a.record, ScoredInteraction, a.traceparent)

    def _feedback(self, a: _Accepted, said: Feedback, text: ScoredFeedbackText) -> Outgoing:
        to = attribute(said, self.active.receipt_keys)
        value = _DETERMINISTIC.encode(
            scored_feedback(self._coordinates(a.record), a.record.timestamp, self.active.digest, said, to, text)
        )
        if len(value) > MAX_SCORED_BYTES:
            return self._too_large(a)
        self.counts.scored += 1
        if to.pair is not None:
            turns = self._once(to.pair[0], to.pair[1], said.interaction_id, to.turns, said.name)
            self._tallies.act(to.pair, text.scores, turns)
            proven = to.attribution == "receipt" and to.turn == FIRST_TURN
            if proven and to.route_epoch is not None and said.interaction_id not in self._rated:
                self._tallies.cohort_act((*to.pair, to.route_epoch), text.scores)
                if RATING in text.scores:
                    self._rated.add(said.interaction_id)
        return self._out(SCORED, said.interaction_id.encode(), value, a.record, ScoredFeedback, a.traceparent)

    def _once(self, app: str, environment: str, who: str, turns: Turns, what: str) -> Turns:
        """The same turns where they are judged for the first time in the block, else `rest`."""
        unit = (app, environment, who, turns, what)
        if turns == "rest" or unit in self._spoken:
            return "rest"
        self._spoken.add(unit)
        return turns

    def _too_large(self, a: _Accepted) -> Outgoing:
        return self._dead(a.record, InvalidMessage("too_large", "the scored record is too large for its topic"), a.traceparent)

    def _dead(self, record: Record, error: InvalidMessage, traceparent: bytes | None) -> Outgoing:
        self.counts.dead += 1
        self.counts.poison += error.code == "poison"
        self.dead_reasons[error.code] += 1
        payload = record.value or b""
        letter = DeadLetter(
            coordinates=self._coordinates(record),
            append_time=record.timestamp,
            code=error.code,
            reason=error.reason,
            field=error.field,
            size=len(payload),
            sha256=hashlib.sha256(payload).hexdigest(),
        )
        key = self._key_prefix + b"%d" % record.offset
        return self._out(DEADLETTER, key, _DETERMINISTIC.encode(letter), record, DeadLetter, traceparent)

    def _coordinates(self, record: Record) -> Coordinates:
        topic, topic_id, partition = self.place
        return Coordinates(topic=topic, topic_id=topic_id, partition=partition, offset=record.offset)

    def _out(
        self, topic: str, key: bytes, value: bytes, record: Record, type_: type[Message], traceparent: bytes | None
    ) -> Outgoing:
        """As `codec.cloud_headers` writes it, without making the constant ones anew for every record."""
        if self._time[0] != record.timestamp:
            self._time = (record.timestamp, codec.rfc3339(record.timestamp).encode())
        headers: Headers = [
            _SPECVERSION,
            ("ce_id", self._key_prefix + b"%d" % record.offset),
            _TYPE_HEADERS[type_],
            _SOURCE,
            ("ce_time", self._time[1]),
            _CONTENT_TYPE,
        ]
        if traceparent is not None and _TRACEPARENT.fullmatch(traceparent):
            headers.append(("traceparent", traceparent))
        return Outgoing(topic, key, value, headers)


_SPECVERSION: Final = ("ce_specversion", b"1.0")
_SOURCE: Final = ("ce_source", b"bellbuoy")
_CONTENT_TYPE: Final = ("content-type", b"application/json")
_TYPE_HEADERS: Final = {type_: ("ce_type", name.encode()) for type_, name in codec.TYPE_NAMES.items()}


def begin(place: Place, window: int, start: int, active: ActiveConfig) -> OpenBlock:
    """Open the block of `place` for the window that starts at `window`; `start` is the end of the block before it."""
    return OpenBlock(place, window, start, active)


def score_block(
    place: Place, window: int, start: int, end: int, records: Sequence[Record], active: ActiveConfig, *, step: int = STEP_RECORDS
) -> ScoredBlock:
    """Score a whole block at once: begin, step by step, end."""
    block = begin(place, window, start, active)
    output = [out for first in range(0, len(records), step) for out in block.step(records[first : first + step])]
    return ScoredBlock(
        scored=[out for out in output if out.topic == SCORED],
        dead_letters=[out for out in output if out.topic == DEADLETTER],
        summaries=block.end(end),
    )
