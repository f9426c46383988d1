"""The summaries of a range of time as they stand on a broker."""

from collections.abc import Iterator

from adapters.kafka import LogOffsets, read_all
from adapters.settings import Settings
from schemas.codec import Record
from schemas.topics import SUMMARIES


def recorded_summaries(settings: Settings, first: int) -> dict[int, Iterator[Record]]:
    """By shard, the records of llm.summaries that were appended at `first` (ms) or later, up to the present end."""
    with LogOffsets(settings) as offsets:
        starts = offsets.at(SUMMARIES, first)
    return {shard: read_all(settings, SUMMARIES, shard, start) for shard, start in starts.items() if start is not None}
