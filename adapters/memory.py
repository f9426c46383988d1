"""In-memory twins of the log and of the hot producer; they behave as the real ones do where the data path can tell."""

from bisect import bisect_left
from collections.abc import Iterable, Mapping
from typing import Final

from adapters.kafka import OnDelivery, ProduceFailed, partition_by_key
from adapters.recorded import RecordedLog
from schemas.codec import Outgoing, Record
from schemas.topics import MAX_RECORD_BYTES

_DEFAULT_QUEUE: Final = 100_000
_TOO_LARGE: Final = "MSG_SIZE_TOO_LARGE: the record is larger than any topic takes"


class MemoryLog:
    """Partitions as lists. `append` stamps a record as the broker would; `skip` leaves offsets that no reader is given."""

    def __init__(self, partitions: Mapping[str, int], *, topic_ids: Mapping[str, str] | None = None) -> None:
        self.recorded = RecordedLog(topic_ids=dict(topic_ids or {topic: f"id-of-{topic}" for topic in partitions}))
        for topic, count in partitions.items():
            for partition in range(count):
                self.recorded.records[topic, partition] = []
                self.recorded.starts[topic, partition] = self.recorded.ends[topic, partition] = 0

    def partitions(self, topic: str) -> int:
        return len(self.recorded.places(topic))

    def append(
        self,
        topic: str,
        partition: int,
        value: bytes | None,
        *,
        time: int,
        key: bytes | None = None,
        headers: Iterable[tuple[str, bytes]] = (),
    ) -> Record:
        """Append one record with its append time in ms."""
        record = Record(self.end(topic, partition), time, key, value, list(headers))
        self.recorded.records[topic, partition].append(record)
        self.recorded.ends[topic, partition] += 1
        return record

    def skip(self, topic: str, partition: int, offsets: int = 1) -> None:
        """Offsets of transaction markers or aborted records."""
        self.recorded.ends[topic, partition] += offsets

    def cut_head(self, topic: str, partition: int, start: int) -> None:
        """Retention takes everything below `start`."""
        self.recorded.starts[topic, partition] = start
        self.recorded.records[topic, partition] = [r for r in self.recorded.of(topic, partition) if r.offset >= start]

    def start(self, topic: str, partition: int) -> int:
        return self.recorded.starts[topic, partition]

    def end(self, topic: str, partition: int) -> int:
        return self.recorded.ends[topic, partition]

    def read(self, topic: str, partition: int, start: int, limit: int) -> list[Record]:
        """At most `limit` records from offset `start` on."""
        records = self.recorded.of(topic, partition)
        first = bisect_left(records, start, key=lambda r: r.offset)
        return records[first : first + limit]


class MemoryProducer:
    """`adapters.kafka.Producer` over a MemoryLog: what is handed over reaches the log when it is polled or flushed.

    `lose(keep)` is the process's death: only the first `keep` of the records still queued reach the log.
    """

    def __init__(self, log: MemoryLog, *, clock_ms: int = 0, max_queued: int = _DEFAULT_QUEUE) -> None:
        self.clock_ms = clock_ms
        self.broker_away = False
        self._log, self._max_queued = log, max_queued
        self._queued: list[tuple[Outgoing, OnDelivery | None]] = []
        self._failures: list[str] = []

    def produce(self, out: Outgoing, on_delivery: OnDelivery | None = None) -> None:
        if len(out.value or b"") > MAX_RECORD_BYTES:
            self._failures.append(f"{out.topic}: {_TOO_LARGE}")
            if on_delivery is not None:
                on_delivery(None, _TOO_LARGE)
            return
        if len(self._queued) >= self._max_queued:
            raise BufferError("the queue is full")
        self._queued.append((out, on_delivery))

    def poll(self) -> None:
        if not self.broker_away:
            self._deliver(len(self._queued))

    def flush(self, timeout: float) -> None:
        self.poll()
        failures, self._failures = self._failures, []
        if failures:
            raise ProduceFailed("; ".join(failures))
        if self._queued:
            raise ProduceFailed(f"{len(self._queued)} records were not delivered within {timeout:g} s")

    def lose(self, keep: int = 0) -> None:
        self._deliver(min(keep, len(self._queued)))
        self._queued.clear()

    def __len__(self) -> int:
        return len(self._queued)

    def _deliver(self, count: int) -> None:
        due, self._queued = self._queued[:count], self._queued[count:]
        for out, on_delivery in due:
            partition = out.partition
            if partition is None:
                partition = partition_by_key(out.key or b"", self._log.partitions(out.topic))
            self._log.append(out.topic, partition, out.value, time=self.clock_ms, key=out.key, headers=out.headers)
            if on_delivery is not None:
                on_delivery(self.clock_ms, None)
