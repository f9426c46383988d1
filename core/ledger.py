"""The loss ledger: every offset that a raw partition gave out is in exactly one class, and the store is counted against it.

Below the frontier, the end of a partition's last stored block: received = scored + dead, and received = stored + dead +
missing. Above it: in flight.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from itertools import groupby
from operator import attrgetter
from typing import Final, Literal

from schemas.messages import WINDOW_MS

Place = tuple[str, int]
"""Topic and partition."""

ROW_LIFE_MS: Final = 89 * 24 * 3_600_000
"""Blocks older than the rows' time to live less a day are not counted against rows."""


@dataclass(frozen=True)
class Run:
    """Stored blocks of one partition that follow each other without a gap, summed; a single block is a run too.

    Offsets [start, end); windows are the first's and last's starts (ms). Counts as in the blocks' headers.
    """

    topic: str
    topic_id: str
    partition: int
    start: int
    end: int
    first_window: int
    last_window: int
    scored: int = 0
    dead: int = 0
    poison: int = 0
    tick: int = 0
    control: int = 0


@dataclass(frozen=True)
class Block:
    """A stored block whose rows in the store differ from its header. `deleted`: of its records, on purpose."""

    topic: str
    topic_id: str
    partition: int
    window: int
    start: int
    end: int
    scored: int
    held: int
    dead: int
    dead_held: int
    deleted: int = 0

    @property
    def missing(self) -> int:
        """Records that the header counts and the store does not hold."""
        return max(self.scored - self.held - self.deleted, 0) + max(self.dead - self.dead_held, 0)


@dataclass(frozen=True)
class Log:
    """One partition of the log as the broker tells it: its topic's id and offsets [start, end)."""

    topic: str
    topic_id: str
    partition: int
    start: int
    end: int


@dataclass(frozen=True)
class Gap:
    """Offsets [start, end) of a partition of which `records` are missing: a block's header, or rows of a stored block."""

    topic: str
    topic_id: str
    partition: int
    start: int
    end: int
    records: int
    what: Literal["header", "rows"]
    window: int | None = None

    @property
    def id(self) -> str:
        """The same for the same loss, however often it is found."""
        return sha256(f"{self.topic_id}/{self.partition}/{self.start}/{self.end}/{self.records}".encode()).hexdigest()[:32]


@dataclass(frozen=True)
class PartitionLedger:
    """One partition's account. `frontier` is where it ends; `start` where its chain began."""

    topic: str
    topic_id: str
    partition: int
    start: int
    frontier: int
    log_start: int
    log_end: int
    scored: int
    dead: int
    poison: int
    tick: int
    control: int
    stored: int
    """Rows counted in the store below the frontier, and those that were deleted on purpose."""
    expired: int
    missing: int
    deleted: int
    in_flight_age_s: float | None

    @property
    def received(self) -> int:
        return self.frontier - self.start - self.tick - self.control - self.expired

    @property
    def in_flight(self) -> int:
        return max(self.log_end - self.frontier, 0)


@dataclass(frozen=True)
class Ledger:
    """All partitions' accounts. `problems` are contradictions, in words; `gaps` name what is missing."""

    partitions: Sequence[PartitionLedger]
    gaps: Sequence[Gap] = ()
    problems: Sequence[str] = ()
    repeated: int = 0
    _frontiers: Mapping[Place, int] = field(default_factory=dict, repr=False)

    def frontier(self, place: Place) -> int:
        """The offset below which a partition is accounted for; 0 for one without blocks."""
        return self._frontiers.get(place, 0)

    @property
    def received(self) -> int:
        return sum(p.received for p in self.partitions)

    @property
    def stored(self) -> int:
        return sum(p.stored for p in self.partitions)

    @property
    def missing(self) -> int:
        return sum(p.missing for p in self.partitions)

    @property
    def dead(self) -> int:
        return sum(p.dead for p in self.partitions)

    @property
    def poison(self) -> int:
        return sum(p.poison for p in self.partitions)

    @property
    def tick(self) -> int:
        return sum(p.tick for p in self.partitions)

    @property
    def control(self) -> int:
        return sum(p.control for p in self.partitions)

    @property
    def expired(self) -> int:
        return sum(p.expired for p in self.partitions)

    @property
    def deleted(self) -> int:
        return sum(p.deleted for p in self.partitions)

    @property
    def in_flight(self) -> int:
        return sum(p.in_flight for p in self.partitions)

    @property
    def in_flight_age_s(self) -> float | None:
        """Age of the oldest record in flight, at most: time since the end of the last stored window."""
        return max((p.in_flight_age_s for p in self.partitions if p.in_flight_age_s is not None), default=None)


def account(runs: Iterable[Run], blocks: Iterable[Block], logs: Iterable[Log], *, now_ms: int, repeated: int = 0) -> Ledger:
    """Settle the accounts.

    `runs` are all stored headers, `blocks` those whose rows differ from their header, `logs` the raw partitions.
    Of a topic that was made again only the log's present incarnation is counted; earlier ones keep their blocks' gaps.
    """
    place = attrgetter("topic_id", "partition")
    chains = {key: list(chain) for key, chain in groupby(sorted(runs, key=lambda r: (*place(r), r.start, r.end)), key=place)}
    short = {key: list(found) for key, found in groupby(sorted(blocks, key=lambda b: (*place(b), b.start)), key=place)}
    partitions, gaps, problems, frontiers = list[PartitionLedger](), list[Gap](), list[str](), dict[Place, int]()
    for log in sorted(logs, key=attrgetter("topic", "partition")):
        one, found, said = _partition(log, chains.get(place(log), []), short.get(place(log), []), now_ms)
        partitions.append(one)
        gaps += found
        problems += said
        frontiers[log.topic, log.partition] = one.frontier
    return Ledger(partitions, gaps, problems, repeated, frontiers)


def _partition(
    log: Log, chain: Sequence[Run], short: Sequence[Block], now_ms: int
) -> tuple[PartitionLedger, list[Gap], list[str]]:
    where = f"{log.topic}/{log.partition}"
    problems, gaps, expired = list[str](), list[Gap](), 0
    start = frontier = chain[0].start if chain else log.start
    if start > log.start:
        gaps.append(Gap(log.topic, log.topic_id, log.partition, log.start, start, start - log.start, "header"))
        start = log.start
    for run in chain:
        if run.start < frontier:
            problems.append(f"{where}: headers contradict each other at offset {run.start}, window {run.first_window}")
        elif run.start > frontier:
            taken = min(max(log.start, frontier), run.start)
            expired += taken - frontier
            if taken < run.start:
                gaps.append(Gap(log.topic, log.topic_id, log.partition, taken, run.start, run.start - taken, "header"))
        frontier = max(frontier, run.end)
    if frontier > log.end:
        problems.append(f"{where}: blocks are stored up to offset {frontier}, but the log ends at {log.end}")
    for block in short:
        if block.missing:
            gaps.append(Gap(log.topic, log.topic_id, log.partition, block.start, block.end, block.missing, "rows", block.window))
        if block.held + block.deleted > block.scored:
            problems.append(f"{where}: window {block.window} has {block.held} rows, but its header says {block.scored} scored")
    account = PartitionLedger(
        topic=log.topic,
        topic_id=log.topic_id,
        partition=log.partition,
        start=start,
        frontier=frontier,
        log_start=log.start,
        log_end=log.end,
        scored=sum(r.scored for r in chain),
        stored=sum(r.scored for r in chain) - sum(max(b.scored - b.held - b.deleted, 0) for b in short),
        dead=sum(r.dead for r in chain) - sum(max(b.dead - b.dead_held, 0) for b in short),
        poison=sum(r.poison for r in chain),
        tick=sum(r.tick for r in chain),
        control=sum(r.control for r in chain),
        expired=expired,
        missing=sum(g.records for g in gaps),
        deleted=sum(b.deleted for b in short),
        in_flight_age_s=(now_ms - chain[-1].last_window - WINDOW_MS) / 1000 if chain and log.end > frontier else None,
    )
    if not problems and account.received != account.stored + account.dead + account.missing:
        problems.append(
            f"{where}: the headers do not add up: {account.received} received, {account.stored} stored, {account.dead} dead"
        )
    return account, gaps, problems


def ranges(offsets: Iterable[int]) -> list[tuple[int, int]]:
    """Sorted offsets as half-open ranges.

    >>> ranges([7, 3, 4, 5])
    [(3, 6), (7, 8)]
    """
    found: list[tuple[int, int]] = []
    for offset in sorted(offsets):
        if found and found[-1][1] == offset:
            found[-1] = (found[-1][0], offset + 1)
        else:
            found.append((offset, offset + 1))
    return found
