"""The `sink` process: writes what the log says into ClickHouse, and stores a block's header only after the block's rows."""

import gc
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

import confluent_kafka as ck
import pyarrow as pa

from adapters.clickhouse import Client, connect, patiently
from adapters.kafka import headers_of, hot_consumer
from adapters.settings import Settings
from adapters.telemetry import Telemetry, set_up_logging
from schemas import codec
from schemas import messages as m
from schemas.topics import ACTIONS, ALERTS, DEADLETTER, SCORED, SUMMARIES, TOPICS, WINDOWS
from services import sink_rows
from services.ledger_watch import LedgerWatch

ROW_TOPICS: Final = (SCORED, DEADLETTER)
"""A block's rows come from these; its header waits for their ends."""
CONSUMED: Final = (SCORED, DEADLETTER, SUMMARIES, WINDOWS, ALERTS, ACTIONS)
BATCH_RECORDS: Final = 6_000
BATCH_BYTES: Final = 48 * 1024 * 1024
BATCH_S: Final = 1.0
_FETCH: Final = {"queued.max.messages.kbytes": 32_768, "fetch.min.bytes": 512 * 1024}
"""Rows are written once a second: fewer and larger fetches cost less."""
_KEPT_DIGESTS: Final = 20_000
_STALE: Final = frozenset({"ILLEGAL_GENERATION", "UNKNOWN_MEMBER_ID", "REBALANCE_IN_PROGRESS", "_ASSIGNMENT_LOST"})
"""Why a commit may fail without harm. A fenced consumer is not among these: it never reads again, only a new process does."""

Position = tuple[str, int]
Offsets = dict[Position, int]


class Tables(Protocol):
    """Where rows go: one insert per call, which returns when they are stored."""

    def insert(self, table: str, rows: pa.Table) -> None: ...


class ClickHouseTables:
    """Inserts into ClickHouse, waiting without end while it is away."""

    def __init__(
        self, connect_: Callable[[], Client], on_wait: Callable[[BaseException], None], on_done: Callable[[], None]
    ) -> None:
        self._connect, self._on_wait, self._on_done = connect_, on_wait, on_done
        self._client: Client | None = None

    def insert(self, table: str, rows: pa.Table) -> None:
        patiently(lambda: self._insert(table, rows), on_wait=self._wait)
        self._on_done()

    def _insert(self, table: str, rows: pa.Table) -> None:
        if self._client is None:
            self._client = self._connect()
        self._client.insert_arrow(table, rows)

    def _wait(self, error: BaseException) -> None:
        """A client that lost its server is not used again."""
        if self._client is not None:
            self._client.close()
            self._client = None
        self._on_wait(error)


@dataclass
class Batch:
    """Decoded records by message type, headers apart, and how far each partition was read."""

    messages: dict[type[m.Message], list[Any]] = field(default_factory=dict)
    places: dict[type[m.Message], list[sink_rows.Place]] = field(default_factory=dict)
    headers: list[m.BlockHeader] = field(default_factory=list)
    read: Offsets = field(default_factory=dict)
    records: int = 0
    size: int = 0


@dataclass(frozen=True)
class Waiting:
    """Headers that may be stored when the row topics are stored up to `until`; then `read` of llm.summaries is done."""

    headers: list[m.BlockHeader]
    until: Offsets
    read: Offsets


class Sink:
    """Takes batches, writes them, and says what may be committed. Knows nothing of consumers."""

    def __init__(self, tables: Tables, on_bad: Callable[[Position, int, codec.InvalidMessage], None]) -> None:
        self._tables, self._on_bad = tables, on_bad
        self._waiting: list[Waiting] = []
        self._digests: dict[str, None] = {}
        self.stored: Offsets = {}
        """Next offset per partition of the row topics: everything below it is stored."""

    @property
    def waiting(self) -> bool:
        return bool(self._waiting)

    def assigned(self, positions: Mapping[Position, int]) -> None:
        """Begin again from these positions: whatever waits is read again by whoever owns its partition now."""
        self._waiting.clear()
        self.stored = {place: offset for place, offset in positions.items() if place[0] in ROW_TOPICS}

    def add(self, batch: Batch, topic: str, partition: int, record: codec.Record) -> None:
        """Decode one record into the batch. One that is no message of ours is told and passed over."""
        batch.read[topic, partition] = record.offset + 1
        batch.records += 1
        batch.size += len(record.value or b"")
        try:
            type_ = codec.message_type(record.headers)
            if type_ is None or type_ not in TOPICS[topic].messages:
                raise codec.InvalidMessage("type", f"the record is no message of {topic}", "ce_type")
            message = codec.decode(type_, record.value, keep_unknown=False)
        except codec.InvalidMessage as error:
            self._on_bad((topic, partition), record.offset, error)
            return
        if isinstance(message, m.BlockSummary):
            batch.headers.append(message.header)
            return
        batch.messages.setdefault(type_, []).append(message)
        batch.places.setdefault(type_, []).append((partition, record.offset, record.timestamp))

    def write(self, batch: Batch, ends: Callable[[], Offsets]) -> Offsets:
        """Store a batch's rows; returns the offsets that are done. `ends` are those of the row topics, asked for headers only."""
        for type_, messages in batch.messages.items():
            table, shape = sink_rows.TABLES[type_]
            if rows := sink_rows.table(shape(messages, batch.places[type_])):
                self._tables.insert(table, rows)
        done = {place: offset for place, offset in batch.read.items() if place[0] != SUMMARIES}
        self.stored |= {place: offset for place, offset in done.items() if place[0] in ROW_TOPICS}
        summaries = {place: offset for place, offset in batch.read.items() if place[0] == SUMMARIES}
        if summaries:
            self._waiting.append(Waiting(batch.headers, ends(), summaries))
        return done

    def release(self, elsewhere: Callable[[Sequence[Position]], Offsets]) -> Offsets:
        """Store the headers whose rows are stored, in order; returns the offsets of llm.summaries that are done.

        `elsewhere` tells how far other members of the group have stored partitions that are not this one's.
        """
        if not self._waiting:
            return {}
        foreign = [place for waiting in self._waiting for place in waiting.until if place not in self.stored]
        known = self.stored | (elsewhere(sorted(set(foreign))) if foreign else {})
        headers, done = list[m.BlockHeader](), Offsets()
        while self._waiting and all(known.get(place, 0) >= end for place, end in self._waiting[0].until.items()):
            waiting = self._waiting.pop(0)
            headers += waiting.headers
            done |= waiting.read
        self._store(headers)
        return done

    def _store(self, headers: Sequence[m.BlockHeader]) -> None:
        """Every shard and part carries the header; equal copies are stored once, as far as is remembered."""
        new = {codec.digest(h): h for h in headers}
        fresh = {digest: h for digest, h in new.items() if digest not in self._digests}
        if fresh:
            self._tables.insert("headers", sink_rows.table(sink_rows.headers(list(fresh.values()))))
        self._digests |= dict.fromkeys(fresh)
        while len(self._digests) > _KEPT_DIGESTS:
            del self._digests[next(iter(self._digests))]


class SinkProcess:
    """The loop around a Sink: reads a batch, writes it, commits."""

    def __init__(self, sink: Sink, consumer: ck.Consumer, telemetry: Telemetry, watch: LedgerWatch | None = None) -> None:
        self._sink, self._consumer, self._telemetry, self._watch = sink, consumer, telemetry, watch
        self._batch = Batch()
        self._written = telemetry.counter("sink_records", "Records written")
        self._size = telemetry.gauge("sink_batch_records", "Records in the last batch")
        self._seconds = telemetry.histogram("sink_batch_seconds", "Time to write and commit a batch")

    def start(self) -> None:
        """Join the group, and start the ledger's checks."""
        if self._watch is not None:
            self._watch.start()
        self._consumer.subscribe(list(CONSUMED), on_assign=self._assigned, on_revoke=self._revoked, on_lost=self._revoked)

    def run(self, stop: threading.Event) -> None:
        """Until `stop`; what was read and not written is read again after the next start."""
        while not stop.is_set():
            if self._watch is not None and self._watch.failure is not None:
                raise self._watch.failure
            self._read(stop)
            began = time.monotonic()
            batch, self._batch = self._batch, Batch()
            if batch.records or self._sink.waiting:
                self._commit(self._sink.write(batch, self._ends))
                self._commit(self._sink.release(self._elsewhere))
                self._seconds.observe(time.monotonic() - began)
            self._size.set(batch.records)
            self._written.inc(batch.records)

    def close(self) -> None:
        """Leave the group."""
        if self._watch is not None:
            self._watch.stop()
        self._consumer.close()

    def _read(self, stop: threading.Event) -> None:
        deadline = time.monotonic() + BATCH_S
        while not stop.is_set():
            left = deadline - time.monotonic()
            batch = self._batch
            if left <= 0 or batch.records >= BATCH_RECORDS or batch.size >= BATCH_BYTES:
                return
            for topic, partition, record in _records(self._consumer.consume(2_000, timeout=min(left, 0.2))):
                self._sink.add(self._batch, topic, partition, record)

    def _commit(self, done: Mapping[Position, int]) -> None:
        if not done:
            return
        offsets = [ck.TopicPartition(topic, partition, offset) for (topic, partition), offset in done.items()]
        try:
            self._consumer.commit(offsets=offsets, asynchronous=False)
        except ck.KafkaException as error:
            if error.args[0].name() not in _STALE:
                raise
            self._telemetry.event(
                "another member owns these partitions now: they are written again, unchanged", partitions=len(offsets)
            )

    def _ends(self) -> Offsets:
        ends = Offsets()
        for topic in ROW_TOPICS:
            found = self._consumer.list_topics(topic, timeout=10).topics[topic]
            if found.error is not None:
                raise ck.KafkaException(found.error)  # without partitions, headers would not wait for their rows
            for partition in found.partitions:
                _, end = self._consumer.get_watermark_offsets(ck.TopicPartition(topic, partition), timeout=10, cached=False)
                ends[topic, partition] = end
        return ends

    def _elsewhere(self, places: Sequence[Position]) -> Offsets:
        committed = self._consumer.committed([ck.TopicPartition(topic, partition) for topic, partition in places], timeout=10)
        return {(p.topic, p.partition): max(p.offset, 0) for p in committed}

    def _assigned(self, consumer: ck.Consumer, partitions: list[ck.TopicPartition]) -> None:
        self._batch = Batch()
        positions = Offsets()
        for place in consumer.committed(partitions, timeout=10) if partitions else []:
            low, _ = consumer.get_watermark_offsets(place, timeout=10, cached=False)
            positions[place.topic, place.partition] = max(place.offset, low)
        self._sink.assigned(positions)
        if self._watch is not None:
            self._watch.active = (SUMMARIES, 0) in positions
        self._telemetry.ready("partitions", True)

    def _revoked(self, _: ck.Consumer, partitions: list[ck.TopicPartition]) -> None:
        self._batch = Batch()
        self._sink.assigned({})
        self._telemetry.ready("partitions", False, "no partitions at the moment")
        self._telemetry.event("partitions revoked", count=len(partitions))


def _records(messages: Sequence[ck.Message]) -> Iterator[tuple[str, int, codec.Record]]:
    for message in messages:
        error = message.error()
        if error is None:
            record = codec.Record(message.offset(), message.timestamp()[1], None, message.value(), headers_of(message))  # type: ignore[arg-type]  # of a delivered message
            yield message.topic(), message.partition(), record  # type: ignore[misc]
        elif error.fatal() or error.code() == ck.KafkaError._FATAL:
            raise ck.KafkaException(error)


def build_sink(settings: Settings, telemetry: Telemetry) -> SinkProcess:
    """Wire consumer, ClickHouse and the ledger watch."""
    bad = telemetry.counter("sink_bad_records", "Records of our own topics that are no valid message", ["topic", "code"])

    def on_bad(place: Position, offset: int, error: codec.InvalidMessage) -> None:
        bad.labels(place[0], error.code).inc()
        telemetry.event("a record of our own topic is not valid and was passed over", topic=place[0], partition=place[1],
                        offset=offset, code=error.code, field=error.field, reason=error.reason)  # fmt: skip

    def waits(error: BaseException) -> None:
        telemetry.ready("store", False, f"ClickHouse is away: {type(error).__name__}")

    telemetry.ready("store", True)
    telemetry.ready("partitions", False, "no partitions yet")
    tables = ClickHouseTables(lambda: connect(settings, timeout_s=120), waits, lambda: telemetry.ready("store", True))
    # While ClickHouse is away nothing is polled, for as long as it takes: heartbeats alone keep the membership.
    consumer = hot_consumer(settings, "sink", (), extra=_FETCH | {"max.poll.interval.ms": 86_400_000})
    return SinkProcess(Sink(tables, on_bad), consumer, telemetry, LedgerWatch(settings, telemetry))


def quiet_collector() -> None:
    """A batch is some hundred thousand objects without a cycle; at its default the collector walks them again and again."""
    gc.freeze()
    gc.set_threshold(200_000, 50, 100)


def main(settings: Settings) -> None:
    """Write until a signal."""
    set_up_logging("sink", settings)
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    with Telemetry("sink", settings) as telemetry:
        process = build_sink(settings, telemetry)
        process.start()
        quiet_collector()
        process.run(stop)
        process.close()
