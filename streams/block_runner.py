"""Carries fetched records through blocks to the topics: the same steps live, in tests and in the careful scan.

No clock and no broker of its own: it is told what was fetched, and says up to where that may be committed.
"""

import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

from adapters.kafka import Producer
from core.blocks import STEP_RECORDS, ActiveConfig, BlockCutter, OpenBlock, Place, begin
from schemas.codec import Outgoing, Record
from schemas.messages import LedgerCounts

FLUSH_TIMEOUT_S: Final = 60.0
_FULL_WAIT_S: Final = 0.005


class OffsetSteppedBack(RuntimeError):
    """A partition gave an offset below one that it gave before: its topic was re-created, or the log was truncated."""


class ChunkMissing(RuntimeError):
    """A fetched chunk never arrived; going on would call its records control."""


class Dropped(Exception):
    """The partition was taken away, or read again from its committed offset, while its chunk was being scored."""


@dataclass(frozen=True)
class Chunk:
    """What one fetch brought of one partition.

    Each seek starts a new `epoch`, in which chunks are numbered from 0; the first of them carries `start`, the offset
    that its first block begins with: the committed one, or the log's start where that lies above.
    """

    topic: str
    partition: int
    epoch: int
    number: int
    records: Sequence[Record]
    start: int | None = None


class Configs(Protocol):
    def for_window(self, window: int) -> ActiveConfig: ...


class Observer(Protocol):
    """What the runner tells whoever watches it."""

    def stepped(self, topic: str, records: int, seconds: float) -> None: ...

    def spent(self, stage: str, seconds: float) -> None:
        """CPU seconds of this thread: decode, score, encode or produce."""

    def closed(self, topic: str, counts: LedgerCounts, dead_reasons: Mapping[str, int]) -> None: ...


class Silent:
    """An observer that does not look."""

    def stepped(self, topic: str, records: int, seconds: float) -> None: ...

    def spent(self, stage: str, seconds: float) -> None: ...

    def closed(self, topic: str, counts: LedgerCounts, dead_reasons: Mapping[str, int]) -> None: ...


class _Laps:
    """CPU seconds of this thread since the last lap, told to the observer stage by stage."""

    def __init__(self, observer: Observer) -> None:
        self._observer, self._before = observer, time.thread_time()

    def __call__(self, stage: str) -> None:
        now = time.thread_time()
        self._observer.spent(stage, now - self._before)
        self._before = now


@dataclass
class _Partition:
    """One partition since its last seek."""

    place: Place
    epoch: int
    start: int
    cutter: BlockCutter
    next_chunk: int = 0
    next_offset: int = -1
    block: OpenBlock | None = None


class BlockRunner:
    """The open blocks of a process. `process` is called by one thread at a time."""

    def __init__(
        self, topic_ids: Mapping[str, str], configs: Configs, producer: Producer, observer: Observer | None = None
    ) -> None:
        self._topic_ids, self._configs, self._producer = topic_ids, configs, producer
        self._observer: Observer = observer if observer is not None else Silent()
        self._partitions: dict[tuple[str, int], _Partition] = {}

    def process(self, chunk: Chunk, dropped: Callable[[], bool] = lambda: False) -> int | None:
        """Score a chunk; the offset to commit where it closed a block: everything of that block is delivered by then.

        `dropped` is asked between steps and before anything is closed: true raises Dropped and forgets the open block.
        Other exceptions (ProduceFailed, UnknownConfig, OffsetSteppedBack, ChunkMissing) end the process; nothing that
        is not delivered has been offered for commit.
        """
        state = self._state(chunk)
        headers: list[Outgoing] = []
        end: int | None = None
        for window, records in state.cutter.cut(chunk.records):
            block = state.block
            if block is not None and window > block.window:
                end = records[0].offset
                headers += block.end(end)
                self._observer.closed(chunk.topic, block.counts, block.dead_reasons)
                block, state.start = None, end
            if block is None:
                block = state.block = begin(state.place, window, state.start, self._configs.for_window(window))
            for first in range(0, len(records), STEP_RECORDS):
                if dropped():
                    self._partitions.pop((chunk.topic, chunk.partition), None)
                    raise Dropped
                self._step(chunk.topic, block, records[first : first + STEP_RECORDS])
        if headers:
            self._producer.flush(FLUSH_TIMEOUT_S)
            for out in headers:
                self._produce(out)
            self._producer.flush(FLUSH_TIMEOUT_S)
        return end

    def forget(self, topic: str, partition: int) -> None:
        """Drop what is held of a partition."""
        self._partitions.pop((topic, partition), None)

    def open_blocks(self) -> Counter[str]:
        """Open blocks by topic."""
        return Counter(state.place.topic for state in self._partitions.values() if state.block is not None)

    def _state(self, chunk: Chunk) -> _Partition:
        key = (chunk.topic, chunk.partition)
        state = self._partitions.get(key)
        if state is None or state.epoch != chunk.epoch:
            if chunk.start is None:
                raise ChunkMissing(f"{chunk.topic}/{chunk.partition}: chunk {chunk.number} came without those before it")
            place = Place(chunk.topic, self._topic_ids[chunk.topic], chunk.partition)
            state = self._partitions[key] = _Partition(place, chunk.epoch, chunk.start, BlockCutter())
        if chunk.number != state.next_chunk:
            raise ChunkMissing(f"{chunk.topic}/{chunk.partition}: chunk {chunk.number} came, {state.next_chunk} was due")
        if chunk.records[0].offset < max(state.next_offset, state.start):
            raise OffsetSteppedBack(
                f"{chunk.topic}/{chunk.partition}: offset {chunk.records[0].offset} came, {max(state.next_offset, state.start)} was due"
            )
        state.next_chunk += 1
        state.next_offset = chunk.records[-1].offset + 1
        return state

    def _step(self, topic: str, block: OpenBlock, records: Sequence[Record]) -> None:
        started, done = time.perf_counter(), _Laps(self._observer)
        for out in block.step(records, done):
            self._produce(out)
        self._producer.poll()
        done("produce")
        self._observer.stepped(topic, len(records), time.perf_counter() - started)

    def _produce(self, out: Outgoing) -> None:
        while True:
            try:
                return self._producer.produce(out)
            except BufferError:
                self._producer.poll()
                time.sleep(_FULL_WAIT_S)
