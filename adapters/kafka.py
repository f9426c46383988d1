"""Kafka clients as this project uses them: idempotent producers, read_committed readers, partitions chosen explicitly.

The hot path (collector, processor, sink) goes through confluent-kafka, the control path through kafka-python.
"""

import operator
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final, cast

import confluent_kafka as ck
import kafka

from adapters.kafka_admin import (
    LogOffsets,
    check_topics,
    committed_offsets,
    end_offsets,
    ensure_topics,
    group_id,
    start_offsets,
    topic_ids,
)
from adapters.kafka_producer import HotProducer, OnDelivery, ProduceFailed, Producer, client_log, partition_by_key
from adapters.settings import Settings
from schemas.codec import UNREADABLE_HEADERS, Record
from schemas.topics import MAX_RECORD_BYTES

__all__ = [
    "HotProducer",
    "LogOffsets",
    "OnDelivery",
    "ProduceFailed",
    "Producer",
    "check_topics",
    "committed_offsets",
    "control_consumer",
    "control_producer",
    "control_record",
    "end_offsets",
    "ensure_topics",
    "group_id",
    "headers_of",
    "hot_consumer",
    "offset_of",
    "partition_by_key",
    "read_all",
    "start_offsets",
    "to_record",
    "topic_ids",
]

TRANSACTION_TIMEOUT_MS: Final = 20_000
"""Below the broker's transaction.max.timeout.ms: an open transaction freezes every read_committed reader for this long."""

SESSION_TIMEOUT_MS: Final = 10_000
_headers: Final = operator.methodcaller("headers")


def hot_consumer(
    settings: Settings,
    group: str,
    topics: Sequence[str],
    *,
    from_beginning: bool = True,
    on_assign: Callable[..., None] | None = None,
    on_revoke: Callable[..., None] | None = None,
    extra: Mapping[str, Any] | None = None,
) -> ck.Consumer:
    """A read_committed confluent consumer, subscribed where `topics` is not empty; offsets are committed by hand.

    Membership is static (`settings.instance`), so that a restarted process gets its partitions back at once.
    """
    consumer = ck.Consumer(
        {
            "bootstrap.servers": settings.bootstrap_servers(),
            "group.id": group_id(settings, group),
            "group.instance.id": f"{group}-{settings.instance}",
            "client.id": f"bellbuoy-{group}-{settings.instance}",
            "isolation.level": "read_committed",
            "enable.auto.commit": False,
            "enable.auto.offset.store": False,
            "auto.offset.reset": "earliest" if from_beginning else "latest",
            "session.timeout.ms": SESSION_TIMEOUT_MS,
            "reconnect.backoff.max.ms": 1_000,
            "fetch.wait.max.ms": 100,
            "log.connection.close": False,
            "logger": client_log,
            **(extra or {}),
        }
    )
    if topics:
        callbacks = {"on_assign": on_assign, "on_revoke": on_revoke}
        consumer.subscribe(list(topics), **{name: call for name, call in callbacks.items() if call is not None})
    return consumer


def control_consumer(settings: Settings, **extra: Any) -> kafka.KafkaConsumer:
    """A read_committed kafka-python consumer without a group: assign() its partitions and seek() where to begin."""
    return kafka.KafkaConsumer(
        **{
            "bootstrap_servers": settings.bootstrap_servers(),
            "client_id": f"bellbuoy-{settings.instance}",
            "isolation_level": "read_committed",
            "enable_auto_commit": False,
            "auto_offset_reset": "earliest",
            "allow_auto_create_topics": False,
            "max_partition_fetch_bytes": MAX_RECORD_BYTES,
            "fetch_max_wait_ms": 100,
            "max_poll_records": 2_000,
            "reconnect_backoff_max_ms": 1_000,
            **extra,
        }
    )


def control_producer(settings: Settings, transactional_id: str | None, **extra: Any) -> kafka.KafkaProducer:
    """A kafka-python producer, acks=all and idempotent.

    With a transactional id (prefixed by `group_id`) the caller runs init_transactions(), which fences the producer
    that had the id before: its next call raises kafka.errors.ProducerFencedError.
    """
    config: dict[str, Any] = {
        "bootstrap_servers": settings.bootstrap_servers(),
        "client_id": f"bellbuoy-{settings.instance}",
        "acks": "all",
        "enable_idempotence": True,
        "compression_type": "lz4",
        "linger_ms": 5,
        "batch_size": 256 * 1024,
        "max_request_size": MAX_RECORD_BYTES,
        "allow_auto_create_topics": False,
        "reconnect_backoff_max_ms": 1_000,
    }
    if transactional_id is not None:
        config["transactional_id"] = group_id(settings, transactional_id)
        config["transaction_timeout_ms"] = TRANSACTION_TIMEOUT_MS
    return kafka.KafkaProducer(**(config | extra))


def to_record(message: ck.Message) -> Record:
    """A confluent message as our Record. A header without a value becomes an empty one."""
    return Record(
        offset=offset_of(message),
        timestamp=message.timestamp()[1],
        key=message.key(),
        value=message.value(),
        headers=[(name, value or b"") for name, value in headers_of(message)],
    )


def control_record(r: Any) -> Record:
    """A kafka-python record as our Record. A header without a value becomes an empty one."""
    return Record(r.offset, r.timestamp, r.key, r.value, [(name, value or b"") for name, value in r.headers], r.partition)


def headers_of(message: ck.Message) -> Sequence[tuple[str, bytes]]:
    """A message's headers as they are, or UNREADABLE_HEADERS.

    Never call `message.headers()`: for a name that is not UTF-8 it returns broken tuples with an error set, which the
    interpreter's shortcut for such calls overlooks, and crashes.
    """
    try:
        return cast(Sequence[tuple[str, bytes]], _headers(message) or ())
    except SystemError:
        return UNREADABLE_HEADERS


def offset_of(message: ck.Message) -> int:
    """The offset of a delivered message."""
    return cast(int, message.offset())


def read_all(
    settings: Settings,
    topic: str,
    partition: int,
    start: int | None = None,
    end: int | None = None,
    *,
    stall_timeout: float = 30.0,
) -> Iterator[Record]:
    """Committed records of a partition with offsets in [start, end), by default all there are when the call is made.

    `end` defaults to the last stable offset. TimeoutError when nothing moves for `stall_timeout` seconds, which
    happens when `end` lies beyond an open transaction.
    """
    with LogOffsets(settings) as offsets:
        first = offsets.start(topic)[partition]
        start = first if start is None else max(start, first)
        end = offsets.end(topic)[partition] if end is None else end
    if start >= end:
        return
    consumer = hot_consumer(
        settings, "read-all", (), extra={"group.instance.id": "", "enable.partition.eof": True, "auto.offset.reset": "error"}
    )
    try:
        consumer.assign([ck.TopicPartition(topic, partition, start)])
        moved = time.monotonic()
        while True:
            for message in consumer.consume(1_000, timeout=0.5):
                error = message.error()
                if error is None:
                    moved = time.monotonic()
                    if offset_of(message) >= end:
                        return
                    yield to_record(message)
                    if offset_of(message) + 1 >= end:
                        return
                elif error.code() == ck.KafkaError._PARTITION_EOF:
                    if offset_of(message) >= end:
                        return
                elif not error.retriable():
                    raise ck.KafkaException(error)
            if time.monotonic() - moved > stall_timeout:
                raise TimeoutError(f"{topic}/{partition}: nothing between the records read and offset {end}")
    finally:
        consumer.close()
