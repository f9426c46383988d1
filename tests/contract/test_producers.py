"""One suite of behaviour for the real producer and for its in-memory twin."""

import contextlib
import signal
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from adapters.broker import Broker
from adapters.kafka import HotProducer, ProduceFailed, Producer, partition_by_key, read_all
from adapters.kafka_admin import admin_client
from adapters.memory import MemoryLog, MemoryProducer
from schemas.codec import Outgoing, Record
from schemas.topics import MAX_RECORD_BYTES
from tests.conftest import broker_settings, connected

PARTITIONS = 3
Reports = list[tuple[int | None, str | None]]


@dataclass(frozen=True)
class Side:
    """A topic with PARTITIONS partitions, producers for it, and what arrived. In `away` no broker answers the given one."""

    topic: str
    producer: Callable[..., Any]
    read: Callable[[int], list[Record]]
    away: Callable[[Any], contextlib.AbstractContextManager[None]]

    def out(self, value: bytes, *, key: bytes | None = b"k", partition: int | None = 0) -> Outgoing:
        return Outgoing(self.topic, key, value, [("ce_id", value[:20])], partition)

    def values(self, partition: int = 0) -> list[bytes | None]:
        return [record.value for record in self.read(partition)]


def _memory() -> Side:
    topic = "scratch"
    log = MemoryLog({topic: PARTITIONS})

    def producer(max_queued: int = 1_000) -> MemoryProducer:
        return MemoryProducer(log, clock_ms=1_700_000_000_000, max_queued=max_queued)

    @contextlib.contextmanager
    def away(producer: MemoryProducer) -> Iterator[None]:
        producer.broker_away = True
        yield
        producer.broker_away = False

    return Side(topic, producer, lambda partition: log.read(topic, partition, 0, 10_000), away)


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[], Side]]:
    """A function that makes a topic on a broker of this module's own, which may be stopped for a while."""
    data_dir = tmp_path_factory.mktemp("producers")
    broker = Broker(broker_settings(data_dir))
    broker.start()
    settings = connected(data_dir, broker)

    @contextlib.contextmanager
    def away(_: HotProducer) -> Iterator[None]:
        assert broker.process is not None
        broker.process.send_signal(signal.SIGSTOP)
        threads = Path(f"/proc/{broker.process.pid}/task")
        while not all(") T" in (thread / "stat").read_text() for thread in threads.iterdir()):
            time.sleep(0.01)
        try:
            yield
        finally:
            broker.process.send_signal(signal.SIGCONT)

    def side() -> Side:
        topic = f"scratch-{uuid.uuid4().hex}"
        admin = admin_client(settings)
        configs = {"message.timestamp.type": "LogAppendTime", "max.message.bytes": str(MAX_RECORD_BYTES + 4_096)}
        wanted = {"num_partitions": PARTITIONS, "replication_factor": 1, "configs": configs}
        admin.create_topics({topic: wanted}, wait_for_metadata=True)
        admin.close()

        def producer(max_queued: int = 1_000) -> HotProducer:
            made = HotProducer(settings, max_queued_records=max_queued)
            made.partitions(topic)
            return made

        return Side(topic, producer, lambda partition: list(read_all(settings, topic, partition)), away)

    yield side
    broker.stop(10)


@pytest.fixture(params=["memory", pytest.param("kafka", marks=pytest.mark.integration)])
def side(request: pytest.FixtureRequest) -> Side:
    if request.param == "memory":
        return _memory()
    made: Side = request.getfixturevalue("real")()
    return made


def noting(reports: Reports) -> Callable[[int | None, str | None], None]:
    return lambda stamp, reason: reports.append((stamp, reason))


def test_it_is_a_producer(side: Side) -> None:
    producer: Producer = side.producer()
    producer.flush(30)


def test_records_arrive_whole_and_in_the_order_in_which_they_were_handed_over(side: Side) -> None:
    producer = side.producer()
    outgoing = [side.out(b"%d" % number, key=b"key-%d" % number) for number in range(200)]
    for out in outgoing:
        producer.produce(out)
    producer.flush(30)
    arrived = [(r.key, r.value, list(r.headers)) for r in side.read(0)]
    assert arrived == [(out.key, out.value, out.headers) for out in outgoing]


def test_without_a_partition_the_key_decides(side: Side) -> None:
    producer = side.producer()
    keys = [b"conversation-%d" % number for number in range(20)]
    for key in keys:
        producer.produce(side.out(key, key=key, partition=None))
    producer.flush(30)
    for partition in range(PARTITIONS):
        assert side.values(partition) == [key for key in keys if partition_by_key(key, PARTITIONS) == partition]


def test_each_record_is_reported_once_with_its_append_time_and_not_before_somebody_asks(side: Side) -> None:
    producer, reports = side.producer(), Reports()
    for number in range(20):
        producer.produce(side.out(b"%d" % number), noting(reports))
    assert reports == []
    producer.flush(30)
    producer.poll()
    assert reports == [(record.timestamp, None) for record in side.read(0)]


def test_a_full_queue_raises_and_takes_again_once_it_is_polled(side: Side) -> None:
    producer = side.producer(max_queued=5)
    for number in range(5):
        producer.produce(side.out(b"%d" % number))
    with pytest.raises(BufferError):
        producer.produce(side.out(b"refused"))
    assert len(producer) == 5
    producer.flush(30)
    producer.produce(side.out(b"5"))
    producer.flush(30)
    assert side.values() == [b"%d" % number for number in range(6)]
    assert len(producer) == 0


def test_while_the_broker_is_away_a_flush_fails_and_what_was_handed_over_arrives_once_later(side: Side) -> None:
    producer, reports = side.producer(), Reports()
    producer.produce(side.out(b"before"), noting(reports))
    producer.flush(30)
    with side.away(producer):
        for number in range(3):
            producer.produce(side.out(b"%d" % number), noting(reports))
        with pytest.raises(ProduceFailed, match="3 records"):
            producer.flush(0.3)
        producer.poll()
        assert (len(reports), len(producer)) == (1, 3)
    producer.flush(60)
    assert side.values() == [b"before", b"0", b"1", b"2"]
    assert [reason for _, reason in reports] == [None] * 4


def test_a_record_that_is_too_large_is_reported_and_fails_the_next_flush_alone(side: Side) -> None:
    producer, reports = side.producer(), Reports()
    producer.produce(side.out(b"first"))
    producer.produce(side.out(bytes(MAX_RECORD_BYTES + 1)), noting(reports))
    producer.produce(side.out(b"last"))
    with pytest.raises(ProduceFailed, match="MSG_SIZE_TOO_LARGE"):
        producer.flush(30)
    producer.flush(30)
    [(stamp, reason)] = reports
    assert stamp is None
    assert str(reason).startswith("MSG_SIZE_TOO_LARGE")
    assert side.values() == [b"first", b"last"]
