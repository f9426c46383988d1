"""What the block consumer makes of fetched records, told apart from Faust."""

import asyncio
from collections import Counter
from collections.abc import Mapping

from faust.types import TP

from schemas.codec import Record
from schemas.topics import INTERACTIONS
from streams.block_consumer import BlockConsumer
from streams.block_runner import Chunk

PLACE = TP(INTERACTIONS, 0)


class Told(BlockConsumer):
    """A block consumer without a broker: it is told where the log starts."""

    def __init__(self, *, log_start: int, committed: int | None = None) -> None:
        self.log_start, self.windows = log_start, {}
        self._epochs, self._numbers, self._due = Counter(), {PLACE: 0}, {}
        self._committed_starts = {PLACE: committed}

    async def earliest_offsets(self, *partitions: TP) -> Mapping[TP, int]:
        return dict.fromkeys(partitions, self.log_start)

    def fetched(self, *offsets: int) -> Chunk | None:
        return asyncio.run(self._chunk(PLACE, [Record(offset, 1_000, None, b"x") for offset in offsets]))


def starts(*chunks: Chunk | None) -> list[int | None]:
    assert None not in chunks
    return [chunk.start for chunk in chunks if chunk is not None]


def test_only_the_first_chunk_says_where_its_block_begins() -> None:
    consumer = Told(log_start=0, committed=3)
    assert starts(consumer.fetched(3, 4), consumer.fetched(5)) == [3, None]


def test_a_block_begins_at_the_logs_start_where_retention_took_what_was_committed() -> None:
    assert starts(Told(log_start=8, committed=3).fetched(9)) == [8]


def test_offsets_without_a_record_between_chunks_are_control_records() -> None:
    consumer = Told(log_start=0)
    assert starts(consumer.fetched(0, 1), consumer.fetched(4)) == [0, None]


def test_records_that_retention_took_while_they_were_due_begin_everything_anew() -> None:
    consumer = Told(log_start=0)
    assert consumer.fetched(0, 1) is not None
    consumer.log_start = 10
    assert consumer.fetched(10) is None
