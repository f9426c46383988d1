"""Topics followed from their beginning by one consumer, and the broker's time as their records tell it."""

import contextlib
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Self

import confluent_kafka as ck
import kafka
import kafka.errors

from adapters.kafka import LogOffsets, control_consumer, control_record
from adapters.settings import Settings
from adapters.shard_log import BrokerAway
from schemas.codec import Record


class BrokerClock:
    """The broker's time now, ms: the newest append time, and what the machine's monotonic clock counted since it was read.

    A record is read after it was appended, so this never runs ahead of a broker whose clock goes on evenly.
    """

    def __init__(self, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._monotonic = monotonic
        self._append_time: int | None = None
        self._read_at = 0.0

    def take(self, append_time: int) -> None:
        """A record with this append time (ms) has just been read."""
        self._append_time, self._read_at = append_time, self._monotonic()

    def now(self) -> int:
        """Before the first record: 0, at which nothing is over."""
        if self._append_time is None:
            return 0
        return self._append_time + int((self._monotonic() - self._read_at) * 1000)


class Follower:
    """Committed records of all partitions of some topics, from the start of the log.

    Methods raise BrokerAway while there is no broker: worth trying again.
    """

    def __init__(self, settings: Settings, topics: Sequence[str]) -> None:
        with reading():
            with LogOffsets(settings) as offsets:
                starts = {
                    kafka.TopicPartition(topic, partition): offset
                    for topic in topics
                    for partition, offset in offsets.start(topic).items()
                }
            self._consumer = control_consumer(settings)
            self._consumer.assign(list(starts))
            for place, offset in starts.items():
                self._consumer.seek(place, offset)
        self._places = list(starts)
        self._kept: list[tuple[str, Record]] = []
        self.clock = BrokerClock()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def poll(self, timeout: float) -> list[tuple[str, Record]]:
        """(topic, record) of what came, at once when something has; nothing after `timeout` seconds. In order by partition."""
        if self._kept:
            records, self._kept = self._kept, []
            return records
        with reading():
            polled = self._consumer.poll(timeout_ms=int(timeout * 1000))
        records = [(place.topic, control_record(r)) for place, records in polled.items() for r in records]
        if records:
            self.clock.take(max(record.timestamp for _, record in records))
        return records

    def read_to_end(self) -> list[tuple[str, Record]]:
        """Everything up to where the log ends now (the last stable offsets)."""
        with reading():
            ends = self._consumer.end_offsets(self._places, timeout_ms=10_000)
        records: list[tuple[str, Record]] = []
        try:
            while self._kept or any(self._position(place) < end for place, end in ends.items()):
                records += self.poll(0.2)
        except BrokerAway:
            self._kept = records
            raise
        return records

    def close(self) -> None:
        self._consumer.close()

    def _position(self, place: kafka.TopicPartition) -> int:
        with reading():
            return int(self._consumer.position(place, timeout_ms=10_000))


@contextlib.contextmanager
def reading() -> Iterator[None]:
    """Turn what a later try can cure into BrokerAway."""
    try:
        yield
    except (kafka.errors.RetriableError, kafka.errors.KafkaTimeoutError, kafka.errors.KafkaConnectionError) as error:
        raise BrokerAway(f"{type(error).__name__}: {error}") from error
    except ck.KafkaException as error:
        if error.args[0].fatal():
            raise
        raise BrokerAway(f"{error.args[0].name()}: {error.args[0].str()}") from error
    except KeyError as error:
        raise BrokerAway(f"{error.args[0]}: has `bellbuoy topics ensure` run?") from None
