"""A log as it stands on a broker, read whole: what recomputation and verification work on."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from adapters.kafka import LogOffsets, read_all
from adapters.settings import Settings
from schemas.codec import Record
from schemas.topics import ACTIONS, ALERTS, COMMANDS, CONFIG, DEADLETTER, RAW_TOPICS, SCORED, SUMMARIES, WINDOWS

RECORDED_TOPICS = (WINDOWS, ALERTS, ACTIONS, COMMANDS, SUMMARIES, SCORED, DEADLETTER, CONFIG, *RAW_TOPICS)
"""Outputs before what they were made of, so that everything recorded can be recomputed while traffic goes on."""


@dataclass
class RecordedLog:
    """Committed records of each (topic, partition) in order, the offsets at which it starts and ends, and topic ids."""

    records: dict[tuple[str, int], list[Record]] = field(default_factory=dict)
    starts: dict[tuple[str, int], int] = field(default_factory=dict)
    ends: dict[tuple[str, int], int] = field(default_factory=dict)
    topic_ids: Mapping[str, str] = field(default_factory=dict)

    def places(self, topic: str) -> list[tuple[str, int]]:
        """The topic's partitions."""
        return sorted(place for place in self.records if place[0] == topic)

    def of(self, topic: str, partition: int = 0) -> list[Record]:
        """The records of one partition; none where it was not recorded."""
        return self.records.get((topic, partition), [])


def record_log(settings: Settings, topics: Iterable[str] = RECORDED_TOPICS) -> RecordedLog:
    """Read topics in the given order, each up to the end that it has when its turn comes."""
    log = RecordedLog()
    with LogOffsets(settings) as offsets:
        log.topic_ids = offsets.topic_ids(topics := tuple(topics))
        for topic in topics:
            starts, ends = offsets.start(topic), offsets.end(topic)
            for partition, end in ends.items():
                log.starts[topic, partition], log.ends[topic, partition] = starts[partition], end
        for topic, partition in log.ends:
            log.records[topic, partition] = list(read_all(settings, topic, partition, end=log.ends[topic, partition]))
    return log
