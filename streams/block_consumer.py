"""Faust's consumer, changed in three ways: a fetched chunk is one message, only committed data is read, commits are block ends.

Faust's private hooks that this leans on are pinned by tests/contract/test_faust_hooks.py.
"""

from collections import Counter
from collections.abc import AsyncIterator, Iterable
from typing import Any, Final, cast

from aiokafka.consumer import fetcher
from faust.transport.drivers import aiokafka as driver
from faust.types import TP, ConsumerMessage

from schemas.messages import WINDOW_MS
from streams.block_runner import Chunk
from streams.lenient_records import LenientRecords

HOOKS: Final = (
    "getmany",
    "_wait_next_records",
    "_new_offset",
    "_add_gap",
    "perform_seek",
    "seek",
    "on_partitions_revoked",
    "_drain_messages",
    "_commit_offsets",
)
"""Methods of Faust's consumer that are overridden here, or whose code this relies on."""


FETCH_MIN_BYTES: Final = 256 * 1024
FETCH_MAX_WAIT_MS: Final = 250
"""The broker answers a fetch when so much has come or so long has passed: a chunk costs the same, be it large or small."""


class ReadCommittedThread(driver.AIOKafkaConsumerThread):
    """Reads committed data only, which Faust offers together with its exactly_once alone, and in larger pieces."""

    def _create_worker_consumer(self, transport: Any) -> Any:
        fetcher.MemoryRecords = LenientRecords  # the whole process's: Faust's is its only aiokafka
        consumer = super()._create_worker_consumer(transport)
        consumer._isolation_level = "read_committed"
        consumer._fetch_min_bytes, consumer._fetch_max_wait_ms = FETCH_MIN_BYTES, FETCH_MAX_WAIT_MS
        return consumer


class BlockConsumer(driver.Consumer):
    """Yields chunks numbered within an epoch. A seek begins a new epoch: whatever came before it counts no more."""

    consumer_thread = ReadCommittedThread

    recreated: frozenset[str] = frozenset()
    """Topics that were made anew since the last header: what is committed of them means offsets of the old ones."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.windows: dict[TP, int] = {}
        """The newest window of which a record was read, by partition."""
        self._seeks = 0
        self._seek_again = False
        self._epochs: Counter[TP] = Counter()
        self._numbers: dict[TP, int] = {}
        self._due: dict[TP, int] = {}
        """Offset after the last record of the newest chunk."""
        self._committed_starts: dict[TP, int | None] = {}
        self._ends: dict[TP, int] = {}
        self._committed_here: set[TP] = set()

    def _new_consumer_thread(self) -> ReadCommittedThread:
        return ReadCommittedThread(self, loop=self.loop, beacon=self.beacon)

    def stale(self, chunk: Chunk) -> bool:
        """Whether the chunk's partition was taken away or sought since it was fetched."""
        tp = TP(chunk.topic, chunk.partition)
        return chunk.epoch != self._epochs[tp] or tp not in self._numbers

    def block_ended(self, chunk: Chunk, offset: int) -> None:
        """Everything below `offset`, the start of the partition's open block, may be committed."""
        if not self.stale(chunk):
            self._ends[TP(chunk.topic, chunk.partition)] = offset

    def stand(self, tp: TP) -> tuple[int, int] | None:
        """(next offset to read, end of the log at the last fetch) of a partition; None while it is not owned or not fetched.

        Asking Faust's consumer thread for a position fails, and ends the process, where a rebalance comes in between.
        """
        inner = self._thread._consumer
        subscription = inner._subscription.subscription if inner is not None else None
        assignment = subscription.assignment if subscription is not None else None
        state = assignment.state_value(tp) if assignment is not None else None
        if state is None or not state.has_valid_position or state.highwater is None:
            return None
        return state.position, state.highwater

    async def getmany(self, timeout: float) -> AsyncIterator[tuple[TP, Any]]:  # noqa: ASYNC109 - Faust's own signature
        if not self.flow_active:
            await self.wait(self.can_resume_flow)  # type: ignore[arg-type]  # as Faust itself calls it
        if self._seek_again and not self.should_stop:
            await self.perform_seek()
        seeks = self._seeks
        records, active = await self._wait_next_records(timeout)
        generation = self.app.consumer_generation_id
        if not records or self.should_stop:
            return
        if seeks != self._seeks or not self.flow_active:
            # Whether these come from before or after the seek cannot be told: read again from what is committed.
            self._seek_again = True
            return
        for tp, fetched in records.items():
            if not fetched or not (active is None or tp in active or tp in self._buffered_partitions):
                continue
            stand = self.stand(tp)
            if stand is not None:
                self.app.monitor.track_tp_end_offset(tp, stand[1])
            chunk = await self._chunk(tp, fetched)
            if chunk is None or seeks != self._seeks or not self.flow_active or self.app.consumer_generation_id != generation:
                self._seek_again = True
                return
            last = fetched[-1]
            yield (
                tp,
                ConsumerMessage(
                    last.topic,
                    last.partition,
                    last.offset,
                    last.timestamp / 1000.0,
                    last.timestamp_type,
                    [],
                    None,
                    cast(Any, chunk),
                    None,
                    -1,
                    -1,
                    tp,
                    generation_id=generation,
                ),
            )

    async def _chunk(self, tp: TP, fetched: list[Any]) -> Chunk | None:
        """The next chunk; None where retention took records between the last one and this: they are no control records."""
        number, due = self._numbers.get(tp, 0), self._due.get(tp, 0)
        if number > 0 and fetched[0].offset > due and (await self.earliest_offsets(tp))[tp] > due:
            return None
        start = await self._start(tp, fetched[0].offset) if number == 0 else None
        self._numbers[tp] = number + 1
        self._due[tp] = fetched[-1].offset + 1
        newest = max(record.timestamp for record in fetched)
        self.windows[tp] = max(self.windows.get(tp, -1), newest - newest % WINDOW_MS)
        return Chunk(tp.topic, tp.partition, self._epochs[tp], number, fetched, start)

    async def _start(self, tp: TP, first: int) -> int:
        """Where the first block begins: the committed offset, or the log's start where that lies above or nothing is committed."""
        committed = self._committed_starts.get(tp)
        log_start = (await self.earliest_offsets(tp))[tp]
        if committed is not None and committed >= log_start:
            return committed
        return min(log_start, first)

    async def _add_gap(self, tp: TP, offset_from: int, offset_to: int) -> None:
        """Offsets between chunks are no gap: commits do not follow single acknowledgements."""

    def _new_offset(self, tp: TP) -> int | None:
        self._acked[tp] = []
        self._acked_index[tp].clear()
        end = self._ends.pop(tp, None)
        if end is not None:
            self._committed_here.add(tp)
        return end

    def _begin_epochs(self, tps: Iterable[TP]) -> None:
        self._seeks += 1
        for tp in list(tps):
            self._epochs[tp] += 1
            for held in (self._numbers, self._ends, self.windows):
                held.pop(tp, None)

    async def on_partitions_revoked(self, revoked: set[TP]) -> None:
        self._begin_epochs(set(self._epochs) | set(revoked))
        await super().on_partitions_revoked(revoked)

    async def perform_seek(self) -> None:
        self._seek_again = False
        self._begin_epochs(set(self._epochs) | set(self.assignment()))
        await super().perform_seek()
        starts = dict(self._read_offset)
        for tp in self.assignment():
            if tp.topic in self.recreated and tp not in self._committed_here:
                await self._seek(tp, 0)
                self._read_offset[tp] = self._committed_offset[tp] = starts[tp] = None
        # A fetch that came back in between was numbered after the old epoch.
        self._begin_epochs(set(self._epochs) | set(self.assignment()))
        self._committed_starts = starts
        for tp in self.assignment():
            self._numbers[tp] = 0

    async def seek(self, partition: TP, offset: int) -> None:
        raise NotImplementedError("a partition is read on from what is committed, never from elsewhere")
