"""The in-memory twin of the shard log: partitions as lists, transactions with their markers, fencing by epoch."""

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence

from adapters.shard_log import FOLLOWED, Fenced, TransactionFailed
from schemas.codec import Outgoing, Record


def _offset(record: Record) -> int:
    return record.offset


class MemoryPartitions:
    """What survives a controller: one shard's partitions and who holds the transactional id."""

    def __init__(self, *, clock_ms: int = 0) -> None:
        self.records: dict[str, list[Record]] = defaultdict(list)
        self.ends: dict[str, int] = defaultdict(int)
        self.starts: dict[str, int] = defaultdict(int)
        self.epoch = 0
        self.now_ms = clock_ms

    def append(self, out: Outgoing) -> int:
        """Append one committed record, stamped with `now_ms`; returns its offset."""
        offset = self.ends[out.topic]
        self.records[out.topic].append(Record(offset, self.now_ms, out.key, out.value, list(out.headers)))
        self.ends[out.topic] = offset + 1
        return offset

    def between(self, topic: str, start: int, end: int) -> list[Record]:
        records = self.records[topic]
        return records[bisect_left(records, start, key=_offset) : bisect_left(records, end, key=_offset)]


class MemoryShardLog:
    """`ShardLog` over MemoryPartitions. `fail_commits`: how many of the next commits are aborted."""

    def __init__(self, partitions: MemoryPartitions, *, poll_records: int = 500) -> None:
        self._partitions = partitions
        self._epoch = -1
        self._positions: dict[str, int] = {}
        self._poll_records = poll_records
        self.fail_commits = 0
        self.commits = 0

    def fence(self) -> None:
        self._partitions.epoch += 1
        self._epoch = self._partitions.epoch

    def start(self, topic: str) -> int:
        return self._partitions.starts[topic]

    def ends(self, *topics: str) -> dict[str, int]:
        return {topic: self._partitions.ends[topic] for topic in topics}

    def read(self, topic: str, start: int, end: int) -> Iterator[Record]:
        yield from self._partitions.between(topic, start, end)

    def follow(self, positions: Mapping[str, int]) -> None:
        self._positions = {topic: positions[topic] for topic in FOLLOWED}

    def poll(self, timeout: float) -> dict[str, list[Record]]:
        del timeout
        polled = {}
        for topic, position in self._positions.items():
            records = self._partitions.between(topic, position, self._partitions.ends[topic])[: self._poll_records]
            self._positions[topic] = (
                records[-1].offset + 1 if len(records) == self._poll_records else max(position, self._partitions.ends[topic])
            )
            if records:
                polled[topic] = records
        return polled

    def position(self, topic: str) -> int:
        return self._positions[topic]

    def commit(self, outs: Sequence[Outgoing]) -> dict[str, int]:
        if self._epoch != self._partitions.epoch:
            raise Fenced("another controller has taken over")
        touched = {o.topic for o in outs}
        if self.fail_commits:
            self.fail_commits -= 1
            for o in outs:
                self._partitions.ends[o.topic] += 1
            self._mark(touched)
            raise TransactionFailed("aborted")
        last = {o.topic: self._partitions.append(o) for o in outs}
        self._mark(touched)
        self.commits += 1
        return last

    def _mark(self, topics: set[str]) -> None:
        """A commit or abort marker takes an offset in every partition of the transaction."""
        for topic in topics:
            self._partitions.ends[topic] += 1

    def close(self) -> None:
        self._positions = {}
