"""The hot path's producer: idempotent, every partition chosen explicitly, permanent errors counted and reported."""

import hashlib
import json
import logging
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final, Protocol
from zlib import crc32

import confluent_kafka as ck

from adapters.settings import Settings
from schemas.codec import Outgoing
from schemas.topics import MAX_RECORD_BYTES

OnDelivery = Callable[[int | None, str | None], None]
"""Called once per record with (append time in ms, None) when the broker has it, or (None, reason) when it never will."""

_METADATA_TIMEOUT_S: Final = 5.0
_FAILURES_KEPT: Final = 5
client_log: Final = logging.getLogger("bellbuoy.kafka")
"""Where confluent-kafka's own lines go."""


class ProduceFailed(RuntimeError):
    """Records that were handed over did not reach the broker."""


def partition_by_key(key: bytes, partitions: int) -> int:
    """The partition of a key: crc32(key) mod partitions, the same in every client and language.

    >>> partition_by_key(b"conversation-1", 4)
    0
    """
    return crc32(key) % partitions


class Producer(Protocol):
    """What the hot path needs of a producer. `adapters.memory` has the in-memory twin."""

    def produce(self, out: Outgoing, on_delivery: OnDelivery | None = None) -> None:
        """Hand a record over. BufferError: nothing more can be taken now; poll and try again, or refuse upstream."""

    def poll(self) -> None:
        """Run the delivery callbacks that are due."""

    def flush(self, timeout: float) -> None:
        """Wait until everything is delivered. ProduceFailed: it was not in time, or something failed since the last flush."""


class HotProducer:
    """confluent-kafka behind `Producer`: acks=all, idempotent, lz4.

    Retriable errors (broker away, leader moving) are waited out without end, which fills the queue and so pushes back
    by BufferError. Permanent ones (record too large) are counted, reported and written to `dead_letter_file`
    (one JSON line with topic, key, size and digest; no payload).
    """

    def __init__(
        self,
        settings: Settings,
        *,
        linger_ms: int = 5,
        max_queued_kb: int = 65_536,
        max_queued_records: int = 200_000,
        dead_letter_file: Path | None = None,
        extra: Mapping[str, Any] | None = None,
    ) -> None:
        self.delivered = 0
        self.failed = 0
        self._failures: list[str] = []
        self._fatal: str | None = None
        self._partitions: dict[str, int] = {}
        self._dead_letter_file = dead_letter_file
        self._producer = ck.Producer(
            {
                "bootstrap.servers": settings.bootstrap_servers(),
                "client.id": f"bellbuoy-{settings.instance}",
                "enable.idempotence": True,
                "acks": "all",
                "compression.type": "lz4",
                "linger.ms": linger_ms,
                "batch.size": 512 * 1024,
                "message.max.bytes": MAX_RECORD_BYTES,
                "message.timeout.ms": 0,
                "queue.buffering.max.kbytes": max_queued_kb,
                "queue.buffering.max.messages": max_queued_records,
                "reconnect.backoff.max.ms": 1_000,
                "log.connection.close": False,
                "logger": client_log,
                "error_cb": self._on_error,
                **(extra or {}),
            }
        )

    def partitions(self, topic: str) -> int:
        """Partition count from the broker's metadata, asked once. BufferError while no broker answers."""
        count = self._partitions.get(topic)
        if count is None:
            try:
                metadata = self._producer.list_topics(topic, timeout=_METADATA_TIMEOUT_S).topics[topic]
            except ck.KafkaException as error:
                raise BufferError(f"no broker tells the partitions of {topic}: {error.args[0].str()}") from error
            if metadata.error is not None or not metadata.partitions:
                raise BufferError(f"topic {topic}: {metadata.error or 'no partitions'}")
            count = self._partitions[topic] = len(metadata.partitions)
        return count

    def produce(self, out: Outgoing, on_delivery: OnDelivery | None = None) -> None:
        if self._fatal is not None:
            raise ProduceFailed(self._fatal)
        partition = out.partition
        if partition is None:
            partition = partition_by_key(out.key or b"", self.partitions(out.topic))

        def report(error: ck.KafkaError | None, message: ck.Message) -> None:
            if error is None:
                self.delivered += 1
                if on_delivery is not None:
                    on_delivery(message.timestamp()[1], None)
            else:
                self._failed(out, error, on_delivery)

        try:
            self._producer.produce(
                out.topic, value=out.value, key=out.key, headers=list(out.headers), partition=partition, on_delivery=report
            )
        except ck.KafkaException as error:
            self._failed(out, error.args[0], on_delivery)

    def poll(self) -> None:
        self._producer.poll(0)
        if self._fatal is not None:
            raise ProduceFailed(self._fatal)

    def flush(self, timeout: float) -> None:
        waiting = self._producer.flush(timeout)
        failures, self._failures = self._failures, []
        if self._fatal is not None:
            raise ProduceFailed(self._fatal)
        if failures:
            raise ProduceFailed("; ".join(failures))
        if waiting:
            raise ProduceFailed(f"{waiting} records were not delivered within {timeout:g} s")

    def __len__(self) -> int:
        """Records handed over and not yet answered."""
        return len(self._producer)

    def _failed(self, out: Outgoing, error: ck.KafkaError, on_delivery: OnDelivery | None) -> None:
        self.failed += 1
        reason = f"{error.name()}: {error.str()}"
        if len(self._failures) < _FAILURES_KEPT:
            self._failures.append(f"{out.topic}: {reason}")
        if self._dead_letter_file is not None:
            value = out.value or b""
            line = {
                "time": int(time.time() * 1000),
                "topic": out.topic,
                "key": (out.key or b"").decode(errors="replace"),
                "size": len(value),
                "sha256": hashlib.sha256(value).hexdigest(),
                "reason": reason,
            }
            self._dead_letter_file.parent.mkdir(parents=True, exist_ok=True)
            with self._dead_letter_file.open("a") as file:
                file.write(json.dumps(line) + "\n")
        if on_delivery is not None:
            on_delivery(None, reason)

    def _on_error(self, error: ck.KafkaError) -> None:
        if error.fatal():
            self._fatal = f"{error.name()}: {error.str()}"
