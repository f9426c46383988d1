"""What is asked of the cluster itself: topics made and checked against the registry, topic ids, offsets."""

from collections.abc import Iterable, Mapping
from typing import Any, Self

import confluent_kafka as ck
import confluent_kafka.admin
import kafka.admin

from adapters.settings import Settings
from schemas.topics import TOPICS, Topic

_TIMEOUT_S = 15.0
_KAFKAS_ALPHABET = str.maketrans("+/", "-_")
_OffsetSpec: Any = confluent_kafka.admin.OffsetSpec  # type: ignore[attr-defined]  # documented, missing from its __all__


def group_id(settings: Settings, name: str) -> str:
    """Consumer group or transactional id under the configured prefix."""
    return f"{settings.consumer_group_prefix}-{name}"


class NoTopic(KeyError):
    """The cluster has no such topic; its name is the argument."""


class LogOffsets:
    """Offsets, partitions and ids of topics, over one connection; a context manager."""

    def __init__(self, settings: Settings) -> None:
        self._admin: Any = confluent_kafka.admin.AdminClient(
            {
                "bootstrap.servers": settings.bootstrap_servers(),
                "client.id": f"bellbuoy-admin-{settings.instance}",
                "reconnect.backoff.max.ms": 1_000,
                "log_level": 2,  # what fails is raised
            }
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the connection."""
        self._admin = None

    def partitions(self, topic: str) -> list[int]:
        """Partition numbers of a topic; NoTopic (a KeyError) where there is no such topic."""
        found = self._admin.list_topics(topic, timeout=_TIMEOUT_S).topics[topic]
        if found.error is not None:
            if found.error.code() == ck.KafkaError.UNKNOWN_TOPIC_OR_PART:
                raise NoTopic(topic)
            raise ck.KafkaException(found.error)
        return sorted(found.partitions)

    def start(self, topic: str) -> dict[int, int]:
        """Log start offsets by partition."""
        return self._offsets(topic, _OffsetSpec.earliest(), committed=False)

    def end(self, topic: str, *, committed: bool = True) -> dict[int, int]:
        """End offsets by partition: the last stable offset, or the high watermark where `committed` is off."""
        return self._offsets(topic, _OffsetSpec.latest(), committed=committed)

    def at(self, topic: str, time_ms: int) -> dict[int, int | None]:
        """By partition, the first offset whose timestamp is ≥ `time_ms`; None where there is none."""
        return {
            p: o if o >= 0 else None for p, o in self._offsets(topic, _OffsetSpec.for_timestamp(time_ms), committed=False).items()
        }

    def topic_ids(self, topics: Iterable[str]) -> dict[str, str]:
        """The ids that the broker gave the topics, as its own tools print them (22 characters, base64 for URLs)."""
        futures = self._admin.describe_topics(ck.TopicCollection(list(topics)), request_timeout=_TIMEOUT_S)
        return {topic: spelled(future.result().topic_id) for topic, future in futures.items()}

    def committed(self, group: str, *, timeout_s: float = _TIMEOUT_S) -> dict[tuple[str, int], int]:
        """Committed offsets of a group (its whole name) by (topic, partition)."""
        (future,) = self._admin.list_consumer_group_offsets(
            [ck.ConsumerGroupTopicPartitions(group)], request_timeout=timeout_s
        ).values()
        return {
            (place.topic, place.partition): int(place.offset) for place in future.result().topic_partitions if place.offset >= 0
        }

    def _offsets(self, topic: str, spec: Any, *, committed: bool) -> dict[int, int]:
        level = ck.IsolationLevel.READ_COMMITTED if committed else ck.IsolationLevel.READ_UNCOMMITTED
        wanted = {ck.TopicPartition(topic, partition): spec for partition in self.partitions(topic)}
        futures = self._admin.list_offsets(wanted, isolation_level=level, request_timeout=_TIMEOUT_S)
        return {place.partition: int(future.result().offset) for place, future in futures.items()}


def spelled(topic_id: ck.Uuid) -> str:
    """A topic id in Kafka's alphabet. librdkafka's has `/`, which divides the parts of coordinates, and `+`.

    >>> spelled(ck.Uuid(-1, -257))
    '___________________-_w'
    """
    return str(topic_id).translate(_KAFKAS_ALPHABET)


def end_offsets(settings: Settings, topic: str) -> dict[int, int]:
    """Last stable offsets by partition."""
    with LogOffsets(settings) as offsets:
        return offsets.end(topic)


def start_offsets(settings: Settings, topic: str) -> dict[int, int]:
    """Log start offsets by partition."""
    with LogOffsets(settings) as offsets:
        return offsets.start(topic)


def topic_ids(settings: Settings, topics: Iterable[str]) -> dict[str, str]:
    """Topic name → topic id."""
    with LogOffsets(settings) as offsets:
        return offsets.topic_ids(topics)


def admin_client(settings: Settings, **extra: Any) -> kafka.admin.KafkaAdminClient:
    """kafka-python's admin client; close() it."""
    return kafka.admin.KafkaAdminClient(bootstrap_servers=settings.bootstrap_servers(), **extra)


def ensure_topics(settings: Settings, *, embedded: bool) -> list[str]:
    """Make the registry's topics that are missing; returns their names. Existing ones are left as they are."""
    admin = admin_client(settings)
    try:
        existing = set(admin.list_topics())
        missing = [topic for name, topic in TOPICS.items() if name not in existing]
        if missing:
            admin.create_topics(
                {
                    topic.name: {
                        "num_partitions": topic.partitions(embedded=embedded),
                        "replication_factor": topic.replication(embedded=embedded),
                        "configs": topic.config(embedded=embedded),
                    }
                    for topic in missing
                },
                timeout_ms=30_000,
                wait_for_metadata=True,
            )
    finally:
        admin.close()
    return [topic.name for topic in missing]


def check_topics(settings: Settings, *, embedded: bool | None = None) -> list[str]:
    """What of the cluster differs from the registry, one sentence each; nothing where all is well.

    `embedded` chooses the sizes to compare with (one node, or a cluster); by default as the settings say.
    """
    embedded = settings.embedded_kafka if embedded is None else embedded
    admin = admin_client(settings)
    try:
        existing = set(admin.list_topics())
        present = [name for name in TOPICS if name in existing]
        described = {topic["name"]: topic for topic in admin.describe_topics(present)} if present else {}
        resources = [kafka.admin.ConfigResource(kafka.admin.ConfigResourceType.TOPIC, name) for name in present]
        configs = admin.describe_configs(resources, config_filter="all").get("topic", {}) if present else {}
    finally:
        admin.close()
    return differences(
        {name: len(topic["partitions"]) for name, topic in described.items()},
        {name: min(len(p["replica_nodes"]) for p in topic["partitions"]) for name, topic in described.items()},
        {name: {key: str(entry["value"]) for key, entry in entries.items()} for name, entries in configs.items()},
        embedded=embedded,
    )


def differences(
    partitions: Mapping[str, int],
    replication: Mapping[str, int],
    configs: Mapping[str, Mapping[str, str]],
    *,
    embedded: bool,
    registry: Mapping[str, Topic] = TOPICS,
) -> list[str]:
    """Compare what a cluster has with the registry. More partitions, replicas or retention than asked for are fine."""
    found: list[str] = []
    for name, topic in registry.items():
        if name not in partitions:
            found.append(f"{name}: the topic is missing")
            continue
        if not topic.sharded and partitions[name] < topic.partitions(embedded=embedded):
            found.append(f"{name}: {partitions[name]} partitions, {topic.partitions(embedded=embedded)} wanted")
        if replication[name] < topic.replication(embedded=embedded):
            found.append(f"{name}: replication {replication[name]}, {topic.replication(embedded=embedded)} wanted")
        has = configs[name]
        found += [
            f"{name}: {key} is {has.get(key, 'not set')}, {value} wanted"
            for key, value in topic.config(embedded=embedded).items()
            if not _suffices(key, has.get(key), value)
        ]
    shards = {name: partitions[name] for name, topic in registry.items() if topic.sharded and name in partitions}
    if len(set(shards.values())) > 1:
        counts = ", ".join(f"{name} {count}" for name, count in shards.items())
        found.append(f"sharded topics must have one number of partitions: {counts}")
    return found


def _suffices(key: str, has: str | None, wanted: str) -> bool:
    if has is None:
        return False
    if key in ("retention.ms", "min.insync.replicas", "max.message.bytes"):
        return has == "-1" or int(has) >= int(wanted)
    if key in ("segment.ms", "segment.bytes"):
        return int(has) <= int(wanted)
    return has == wanted


def committed_offsets(settings: Settings, group: str) -> dict[tuple[str, int], int]:
    """Committed offsets of a group (its name without the prefix) by (topic, partition)."""
    with LogOffsets(settings) as offsets:
        return offsets.committed(group_id(settings, group))
