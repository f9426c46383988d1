"""The Kafka clients against a real broker."""

import os
import time
import uuid
from itertools import pairwise
from pathlib import Path

import kafka
import pytest
from kafka.errors import ProducerFencedError

from adapters import kafka as k
from adapters.kafka_admin import admin_client
from adapters.settings import Settings
from schemas import topics
from schemas.codec import Outgoing

pytestmark = pytest.mark.integration


@pytest.fixture
def scratch(broker: Settings) -> str:
    """A topic of the test's own with three partitions, stamped by the broker."""
    name = f"scratch-{uuid.uuid4().hex}"
    admin = admin_client(broker)
    configs = {"message.timestamp.type": "LogAppendTime"}
    admin.create_topics({name: {"num_partitions": 3, "replication_factor": 1, "configs": configs}}, wait_for_metadata=True)
    admin.close()
    return name


def test_ensured_topics_are_as_the_registry_says(broker: Settings) -> None:
    assert k.check_topics(broker, embedded=True) == []
    assert k.ensure_topics(broker, embedded=True) == []


def test_a_single_node_does_not_pass_for_a_cluster(broker: Settings) -> None:
    found = k.check_topics(broker, embedded=False)
    assert "llm.interactions: 4 partitions, 32 wanted" in found
    assert "llm.config: replication 1, 3 wanted" in found
    assert "llm.config: min.insync.replicas is 1, 2 wanted" in found


def test_a_missing_topic_and_a_changed_setting_are_named(fresh_broker: Settings) -> None:
    admin = admin_client(fresh_broker)
    admin.delete_topics([topics.DEADLETTER])
    resource = kafka.admin.ConfigResource(
        kafka.admin.ConfigResourceType.TOPIC, topics.FEEDBACK, configs={"message.timestamp.type": "CreateTime"}
    )
    admin.alter_configs([resource])
    admin.create_partitions({topics.STATE: 3})
    admin.close()
    time.sleep(1)
    found = k.check_topics(fresh_broker, embedded=True)
    assert "llm.deadletter: the topic is missing" in found
    assert "llm.feedback: message.timestamp.type is CreateTime, LogAppendTime wanted" in found
    assert any(line.startswith("sharded topics must have one number of partitions") and "llm.state 3" in line for line in found)


def test_topic_ids_are_stable_and_differ(broker: Settings) -> None:
    ids = k.topic_ids(broker, topics.RAW_TOPICS)
    assert ids == k.topic_ids(broker, topics.RAW_TOPICS)
    assert len(set(ids.values())) == len(topics.RAW_TOPICS)
    assert all(len(id_) == 22 for id_ in ids.values())


def test_topic_ids_are_spelled_as_the_broker_spells_them(broker: Settings) -> None:
    on_disk = {
        file.parent.name.rpartition("-")[0]: file.read_text().partition("topic_id: ")[2].strip()
        for file in (broker.data_dir / "kafka").rglob("partition.metadata")
    }
    assert k.topic_ids(broker, topics.TOPICS) == {topic: on_disk[topic] for topic in topics.TOPICS}


def test_the_delivery_callback_gets_the_brokers_append_time(broker: Settings, scratch: str) -> None:
    producer = k.HotProducer(broker)
    stamps: list[int | None] = []
    for number in range(50):
        producer.produce(
            Outgoing(scratch, b"key", str(number).encode(), [("ce_id", b"x")], partition=1),
            lambda stamp, error: stamps.append(stamp if error is None else None),
        )
    producer.flush(30)
    records = list(k.read_all(broker, scratch, 1))
    assert [r.value for r in records] == [str(n).encode() for n in range(50)]
    assert [r.timestamp for r in records] == stamps
    assert records[0].key == b"key"
    assert list(records[0].headers) == [("ce_id", b"x")]


def test_a_key_goes_to_the_partition_of_its_crc32(broker: Settings, scratch: str) -> None:
    producer = k.HotProducer(broker)
    keys = [f"conversation-{n}".encode() for n in range(30)]
    for key in keys:
        producer.produce(Outgoing(scratch, key, b"v", []))
    producer.flush(30)
    for partition in range(3):
        expected = [key for key in keys if k.partition_by_key(key, 3) == partition]
        assert [r.key for r in k.read_all(broker, scratch, partition)] == expected


def test_a_record_that_is_too_large_is_counted_reported_and_noted_without_its_text(
    broker: Settings, scratch: str, tmp_path: Path
) -> None:
    file = tmp_path / "run" / "collector.dead.jsonl"
    producer = k.HotProducer(broker, dead_letter_file=file)
    told: list[tuple[int | None, str | None]] = []
    secret = b"my secret text " * 400_000
    producer.produce(Outgoing(scratch, b"k", secret, [], partition=0), lambda *report: told.append(report))
    producer.produce(Outgoing(scratch, b"k", b"small", [], partition=0))
    with pytest.raises(k.ProduceFailed, match="MSG_SIZE_TOO_LARGE"):
        producer.flush(30)
    producer.flush(30)
    assert (producer.failed, producer.delivered) == (1, 1)
    assert told[0][0] is None
    assert "MSG_SIZE_TOO_LARGE" in str(told[0][1])
    assert b"secret" not in file.read_bytes()
    assert [r.value for r in k.read_all(broker, scratch, 0)] == [b"small"]


def test_a_record_too_large_for_a_raw_topic_is_refused_by_the_broker_and_the_next_is_taken(broker: Settings) -> None:
    producer = k.HotProducer(broker)
    told: list[tuple[int | None, str | None]] = []
    noise = os.urandom(2_000_000)
    producer.produce(Outgoing(topics.FEEDBACK, b"k", noise, [], partition=0), lambda *report: told.append(report))
    with pytest.raises(k.ProduceFailed, match="MSG_SIZE_TOO_LARGE"):
        producer.flush(30)
    producer.produce(Outgoing(topics.FEEDBACK, b"k", b"{}", [], partition=0), lambda *report: told.append(report))
    producer.flush(30)
    assert told[0][0] is None
    assert told[1][1] is None


def test_readers_see_committed_transactions_only_and_offsets_count_the_markers(broker: Settings, scratch: str) -> None:
    producer = k.control_producer(broker, f"writer-{scratch}")
    producer.init_transactions()
    for number in range(4):
        producer.begin_transaction()
        for part in range(3):
            producer.send(scratch, value=f"{number}.{part}".encode(), partition=0)
        producer.flush()
        producer.commit_transaction() if number % 2 == 0 else producer.abort_transaction()
    while k.end_offsets(broker, scratch)[0] < 16:
        time.sleep(0.1)
    assert k.end_offsets(broker, scratch)[0] == 16
    assert [r.value for r in k.read_all(broker, scratch, 0)] == [b"0.0", b"0.1", b"0.2", b"2.0", b"2.1", b"2.2"]
    producer.begin_transaction()
    producer.send(scratch, value=b"open", partition=0).get(30)
    with k.LogOffsets(broker) as offsets:
        assert offsets.end(scratch)[0] == 16
        assert offsets.end(scratch, committed=False)[0] == 17
    assert len(list(k.read_all(broker, scratch, 0))) == 6
    producer.abort_transaction()
    producer.close()


def test_a_second_controller_with_the_same_id_fences_the_first(broker: Settings, scratch: str) -> None:
    first, second = (k.control_producer(broker, f"fenced-{scratch}") for _ in range(2))
    first.init_transactions()
    first.begin_transaction()
    second.init_transactions()
    first.send(scratch, value=b"zombie", partition=0)
    with pytest.raises(ProducerFencedError):
        first.commit_transaction()
    assert list(k.read_all(broker, scratch, 0)) == []
    second.close()
    first.close()


def test_read_all_reads_a_part_between_two_offsets(broker: Settings, scratch: str) -> None:
    producer = k.HotProducer(broker)
    for number in range(100):
        producer.produce(Outgoing(scratch, None, str(number).encode(), [], partition=2))
    producer.flush(30)
    assert [r.offset for r in k.read_all(broker, scratch, 2, start=10, end=20)] == list(range(10, 20))
    assert list(k.read_all(broker, scratch, 2, start=100)) == []
    offsets = [r.offset for r in k.read_all(broker, scratch, 2)]
    assert all(after == before + 1 for before, after in pairwise(offsets))


@pytest.mark.parametrize("codec", ["gzip", "lz4", "snappy", "zstd", "none"])
def test_both_clients_read_what_any_client_compressed(broker: Settings, scratch: str, codec: str) -> None:
    text = b"the same text again and again " * 100
    producer = k.HotProducer(broker, extra={"compression.type": codec})
    producer.produce(Outgoing(scratch, None, text, [], partition=0))
    producer.flush(30)
    assert [r.value for r in k.read_all(broker, scratch, 0)] == [text]
    consumer = k.control_consumer(broker, consumer_timeout_ms=20_000)
    consumer.assign([kafka.TopicPartition(scratch, 0)])
    assert next(consumer).value == text
    consumer.close()


def test_a_restarted_member_goes_on_from_the_committed_offset(broker: Settings, scratch: str) -> None:
    producer = k.HotProducer(broker)
    for number in range(10):
        producer.produce(Outgoing(scratch, None, str(number).encode(), [], partition=0))
    producer.flush(30)
    first = k.hot_consumer(broker, f"group-{scratch}", [scratch])
    seen = [m for m in first.consume(10, timeout=30) if m.error() is None]
    assert len(seen) == 10
    first.commit(message=seen[4], asynchronous=False)
    first.close()
    second = k.hot_consumer(broker, f"group-{scratch}", [scratch])
    assert second.consume(1, timeout=30)[0].offset() == 5
    second.close()
