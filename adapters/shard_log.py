"""The log as one shard of the controller sees it: its partitions to read, and one fenced transaction at a time to write."""

import contextlib
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from typing import Final, Protocol

import confluent_kafka as ck
import kafka
import kafka.errors

from adapters.kafka import LogOffsets, control_consumer, control_producer, control_record
from adapters.settings import Settings
from adapters.transaction import write_all
from schemas.codec import Outgoing, Record
from schemas.topics import ACTIONS, COMMANDS, CONFIG, STATE, SUMMARIES, WINDOWS

FOLLOWED: Final = (SUMMARIES, COMMANDS, ACTIONS, CONFIG)
"""What a shard follows live."""
_STALL_S: Final = 30.0
READ: Final = (*FOLLOWED, STATE, WINDOWS)


class Fenced(RuntimeError):
    """Another controller took over this shard; this one must end and stay away for a while."""


class TransactionFailed(RuntimeError):
    """A transaction did not commit, or may not have: what was folded ahead of it must be thrown away with the process."""


class BrokerAway(RuntimeError):
    """No broker answers, or a partition has no leader: worth trying again."""


class ShardLog(Protocol):
    """One shard's partitions. `adapters.memory_shard_log` has the in-memory twin."""

    def fence(self) -> None:
        """End every predecessor's transaction and shut it out. Comes before anything is read."""

    def start(self, topic: str) -> int:
        """Log start offset of the shard's partition."""

    def ends(self, *topics: str) -> dict[str, int]:
        """Offsets after the last committed records of the shard's partitions, as of now."""

    def read(self, topic: str, start: int, end: int) -> Iterator[Record]:
        """Committed records with offsets in [start, end)."""

    def follow(self, positions: Mapping[str, int]) -> None:
        """Begin to follow the shard's partitions of FOLLOWED at these offsets."""

    def poll(self, timeout: float) -> dict[str, list[Record]]:
        """New committed records by topic, in order; nothing after `timeout` seconds."""

    def position(self, topic: str) -> int:
        """Offset up to which `poll` has delivered a followed topic."""

    def commit(self, outs: Sequence[Outgoing]) -> dict[str, int]:
        """Write all of them in one transaction or none; the last offset written, by topic.

        Raises Fenced or TransactionFailed, after which this log is of no more use.
        """

    def close(self) -> None: ...


class KafkaShardLog:
    """`ShardLog` on Kafka, through kafka-python. Every read but `commit`'s raises BrokerAway while there is no broker."""

    def __init__(self, settings: Settings, shard: int) -> None:
        self._settings = settings
        self._shard = shard
        self._places = {topic: kafka.TopicPartition(topic, 0 if topic == CONFIG else shard) for topic in READ}
        self._producer: kafka.KafkaProducer | None = None
        self._consumer: kafka.KafkaConsumer | None = None

    def fence(self) -> None:
        with _broker_errors():
            if self._producer is None:
                self._producer = control_producer(
                    self._settings,
                    f"controller-{self._shard}",
                    max_block_ms=20_000,
                    request_timeout_ms=15_000,
                    delivery_timeout_ms=30_000,
                )
            self._producer.init_transactions()
            if self._consumer is None:
                self._consumer = control_consumer(self._settings)

    def start(self, topic: str) -> int:
        with _broker_errors(), LogOffsets(self._settings) as offsets:
            return offsets.start(topic)[self._places[topic].partition]

    def ends(self, *topics: str) -> dict[str, int]:
        assert self._consumer is not None
        with _broker_errors():
            ends = self._consumer.end_offsets([self._places[topic] for topic in topics], timeout_ms=10_000)
        return {place.topic: int(end) for place, end in ends.items()}

    def read(self, topic: str, start: int, end: int) -> Iterator[Record]:
        if start >= end:
            return
        place = self._places[topic]
        with _broker_errors(), closing(control_consumer(self._settings)) as consumer:
            consumer.assign([place])
            consumer.seek(place, start)
            moved = time.monotonic()
            while consumer.position(place, timeout_ms=10_000) < end:
                for r in consumer.poll(timeout_ms=500).get(place, ()):
                    if r.offset >= end:
                        return
                    yield control_record(r)
                    moved = time.monotonic()
                if time.monotonic() - moved > _STALL_S:
                    raise TimeoutError(f"{topic}/{place.partition}: nothing comes below offset {end}")

    def follow(self, positions: Mapping[str, int]) -> None:
        assert self._consumer is not None
        with _broker_errors():
            self._consumer.assign([self._places[topic] for topic in FOLLOWED])
            for topic in FOLLOWED:
                self._consumer.seek(self._places[topic], positions[topic])

    def poll(self, timeout: float) -> dict[str, list[Record]]:
        assert self._consumer is not None
        with _broker_errors():
            polled = self._consumer.poll(timeout_ms=int(timeout * 1000))
        return {place.topic: [control_record(r) for r in records] for place, records in polled.items()}

    def position(self, topic: str) -> int:
        assert self._consumer is not None
        with _broker_errors():
            return int(self._consumer.position(self._places[topic], timeout_ms=10_000))

    def commit(self, outs: Sequence[Outgoing]) -> dict[str, int]:
        assert self._producer is not None
        try:
            return write_all(self._producer, outs)
        except kafka.errors.KafkaError as error:
            if is_fencing(error):
                raise Fenced(f"shard {self._shard}: another controller has taken over") from error
            raise TransactionFailed(f"shard {self._shard}: {type(error).__name__}: {error}") from error

    def close(self) -> None:
        if self._consumer is not None:
            self._consumer.close()
        if self._producer is not None:
            self._producer.close(timeout=2)


def shard_count(settings: Settings) -> int:
    """How many shards the cluster has. Raises BrokerAway, also while the topics have not been made."""
    try:
        with _broker_errors(), LogOffsets(settings) as offsets:
            return len(offsets.partitions(SUMMARIES))
    except KeyError as error:
        raise BrokerAway(f"{error.args[0]}: has `bellbuoy topics ensure` run?") from None


_FENCING = ("ProducerFenced", "InvalidProducerEpoch")


def is_fencing(error: BaseException | None) -> bool:
    """Whether another producer took the transactional id over.

    kafka-python gives the cause as text only once its transaction manager is in an error state.
    """
    while error is not None:
        if any(word in f"{type(error).__name__} {error!r}" for word in _FENCING):
            return True
        error = error.__cause__ or error.__context__
    return False


@contextlib.contextmanager
def _broker_errors() -> Iterator[None]:
    """Turn what a later try can cure into BrokerAway, fencing into Fenced; the rest passes and ends the process."""
    try:
        yield
    except kafka.errors.KafkaError as error:
        if is_fencing(error):
            raise Fenced(str(error)) from error
        if isinstance(error, kafka.errors.RetriableError | kafka.errors.KafkaTimeoutError | kafka.errors.KafkaConnectionError):
            raise BrokerAway(f"{type(error).__name__}: {error}") from error
        raise
    except ck.KafkaException as error:
        cause = error.args[0]
        if cause.fatal():
            raise
        raise BrokerAway(f"{cause.name()}: {cause.str()}") from error
    except TimeoutError as error:
        raise BrokerAway(str(error)) from error
