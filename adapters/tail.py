"""A small compacted topic of one partition, followed from its beginning: read what came, or read to where it ends now."""

import contextlib
from collections.abc import Iterator
from typing import Any, Final

import kafka
import kafka.errors

from adapters.kafka import control_consumer
from adapters.settings import Settings
from adapters.shard_log import BrokerAway
from schemas.codec import Record

_OFFSETS_TIMEOUT_MS: Final = 10_000


class Tail:
    """Committed records of partition 0 of a topic, in order, once each. Every method raises BrokerAway while there is no broker."""

    def __init__(self, settings: Settings, topic: str) -> None:
        self._settings, self._place = settings, kafka.TopicPartition(topic, 0)
        self._consumer: kafka.KafkaConsumer | None = None

    def poll(self, timeout: float) -> list[Record]:
        """What came; nothing after `timeout` seconds."""
        consumer = self._opened()
        with broker_errors():
            polled = consumer.poll(timeout_ms=int(timeout * 1000))
        return [_record(r) for records in polled.values() for r in records]

    def read_to_end(self) -> list[Record]:
        """Everything up to the last committed record, as of now."""
        consumer = self._opened()
        with broker_errors():
            end = consumer.end_offsets([self._place], timeout_ms=_OFFSETS_TIMEOUT_MS)[self._place]
        records: list[Record] = []
        while self._position(consumer) < end:
            records += self.poll(0.2)
        return records

    def close(self) -> None:
        if self._consumer is not None:
            self._consumer.close()
            self._consumer = None

    def _opened(self) -> kafka.KafkaConsumer:
        if self._consumer is None:
            with broker_errors():
                consumer = control_consumer(self._settings, fetch_max_wait_ms=20)
                consumer.assign([self._place])
                consumer.seek_to_beginning(self._place)
            self._consumer = consumer
        return self._consumer

    def _position(self, consumer: kafka.KafkaConsumer) -> int:
        with broker_errors():
            return int(consumer.position(self._place, timeout_ms=_OFFSETS_TIMEOUT_MS))


def _record(r: Any) -> Record:
    return Record(r.offset, r.timestamp, r.key, r.value, [(name, value or b"") for name, value in r.headers])


@contextlib.contextmanager
def broker_errors() -> Iterator[None]:
    """Turn what a later try can cure into BrokerAway; the rest passes and ends the process."""
    try:
        yield
    except kafka.errors.KafkaError as error:
        if isinstance(error, kafka.errors.RetriableError | kafka.errors.KafkaTimeoutError | kafka.errors.KafkaConnectionError):
            raise BrokerAway(f"{type(error).__name__}: {error}") from error
        raise
