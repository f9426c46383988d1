"""Which windows are closed, and what each brought: one block per partition, summed.

Window W is closed when every partition of the closing set has given a header with a window >= W. A window in which no
partition has a header is absent: Bellbuoy was off.
"""

import hashlib
import heapq
import zlib
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, Literal

import msgspec

from core.groups import merge_cohorts, merge_groups
from schemas import codec
from schemas.messages import WINDOW_MS, BlockHeader, BlockSummary, Cohort, Command, Cut, Group, StateSection

REMEMBERED: Final = 360
"""Blocks per partition whose digests are kept, so that a repetition can be compared: half an hour."""
PACKED_AHEAD: Final = 120
"""Blocks this many windows ahead of what can close are kept deflated: a partition that is stuck holds up all the others."""
SECTION: Final = "windows"

Place = tuple[str, int]
ProblemKind = Literal["unequal_repetition", "old_repetition", "gap", "overlap", "recreated", "unknown_partition"]


@dataclass(frozen=True)
class Problem:
    """Something in the chain of headers that is not as it should be. `unequal_repetition` and `recreated` are alarms."""

    kind: ProblemKind
    topic: str
    partition: int
    window: int
    detail: str


@dataclass(frozen=True)
class ClosedWindow:
    """A window [window, window + 5 s) that is complete: its headers, its groups and cohorts summed over partitions
    (sorted), and the problems that were met since the window before it."""

    window: int
    headers: tuple[BlockHeader, ...]
    groups: tuple[Group, ...] = ()
    problems: tuple[Problem, ...] = ()
    cohorts: tuple[Cohort, ...] = ()


def cut_of(windows: Sequence[ClosedWindow], catch_up_until: int | None = None) -> Cut:
    """The cut of windows that are folded without any record from a broker."""
    return Cut(
        shard=0,
        first_window=windows[0].window,
        last_window=windows[-1].window,
        windows=len(windows),
        summaries_end=0,
        commands_end=0,
        actions_end=0,
        config_end=0,
        catch_up_until=catch_up_until,
    )


class _Link(msgspec.Struct):
    """Where the chain of one partition stands."""

    topic_id: str
    window: int
    end: int


@dataclass
class _Block:
    header: BlockHeader
    offset: int
    groups: list[Group]
    cohorts: list[Cohort]
    packed: bytes = b""

    def pack(self) -> None:
        if self.groups or self.cohorts:
            self.packed = zlib.compress(msgspec.json.encode((self.groups, self.cohorts)), 1)
            self.groups, self.cohorts = [], []

    def unpacked(self) -> tuple[list[Group], list[Cohort]]:
        if not self.packed:
            return self.groups, self.cohorts
        return msgspec.json.decode(zlib.decompress(self.packed), type=tuple[list[Group], list[Cohort]])


@dataclass
class _Partial:
    offset: int
    parts: dict[int, tuple[str, BlockSummary]] = field(default_factory=dict)


class _CloserState(msgspec.Struct):
    folded_to: int | None
    resume_offset: int
    excluded: list[Place]
    links: list[tuple[str, int, _Link]]
    digests: list[tuple[str, int, list[tuple[int, list[str]]]]]
    problems: list[Problem] = []
    """Those that reading on from `resume_offset` does not meet again."""


class WindowCloser:
    """Reads one shard's summaries in the order of their offsets and gives out closed windows in order.

    What `closed` returns depends only on the summaries added, the closing set, and the exclusions in force when it is
    called; so a recomputation adds up to a cut's `summaries_end`, applies that cut's commands, and calls
    `closed(until=cut.last_window)`.
    """

    def __init__(self, shard: int, partitions: Mapping[str, int]) -> None:
        self.shard = shard
        self._closing: frozenset[Place] = frozenset()
        self._excluded: set[Place] = set()
        self._links: dict[Place, _Link] = {}
        self._folded_links: dict[Place, _Link] = {}
        self._digests: dict[Place, OrderedDict[int, list[str]]] = {}
        self._partials: dict[tuple[Place, int], _Partial] = {}
        self._waiting: dict[int, dict[Place, _Block]] = {}
        self._order: list[int] = []
        self._problems: list[tuple[int, Problem]] = []
        """Each with the offset from which reading on meets it again; -1 where it never does."""
        self._folded_to: int | None = None
        self._next_offset = 0
        self.set_partitions(partitions)

    def set_partitions(self, partitions: Mapping[str, int]) -> None:
        """The closing set: all partitions of these topics (it may grow at an activation, never shrink)."""
        self._closing = frozenset((topic, p) for topic, count in partitions.items() for p in range(count))

    def exclude(self, topic: str, partition: int) -> None:
        """Take a stuck partition out of the closing set: from the next `closed` on its blocks are not folded."""
        self._excluded.add((topic, partition))

    def include(self, topic: str, partition: int) -> None:
        """Undo `exclude`: its blocks of windows that are not folded yet count again, and are waited for."""
        self._excluded.discard((topic, partition))

    def apply(self, command: Command) -> bool:
        """Apply an `exclude_partition` or `include_partition` command (arguments `topic`, `partition`); False: another kind."""
        change = {"exclude_partition": self.exclude, "include_partition": self.include}.get(command.kind)
        if change is None:
            return False
        change(str(command.arguments.get("topic", "")), int(command.arguments.get("partition", -1)))
        return True

    def add(self, summary: BlockSummary, *, offset: int = 0, value: bytes | None = None) -> None:
        """Take the next summary of the shard; `value` are its bytes where they are at hand.

        A byte-equal repetition is dropped; of an unequal one the first counts and a problem is recorded.
        """
        self._next_offset = max(self._next_offset, offset + 1)
        header = summary.header
        place = (header.topic, header.partition)
        digest = _digest(value if value is not None else codec.encode(summary))
        known = self._digests[place].get(header.window) if place in self._digests else None
        if known is not None:
            self._compare(header, known[summary.part - 1] if summary.part <= len(known) else None, digest, offset)
            return
        link = self._links.get(place)
        if link is not None and link.topic_id == header.topic_id and header.window <= link.window:
            self._problem("old_repetition", header, "a block that is no longer remembered came again", offset)
            return
        partial = self._partials.setdefault((place, header.window), _Partial(offset))
        if summary.part in partial.parts:
            self._compare(header, partial.parts[summary.part][0], digest, offset)
            return
        partial.parts[summary.part] = (digest, summary)
        if len(partial.parts) == summary.parts:
            del self._partials[place, header.window]
            self._complete(place, partial)

    def _compare(self, header: BlockHeader, known: str | None, digest: str, offset: int) -> None:
        if known != digest:
            detail = "a block was published twice with different bytes; the first counts"
            self._problem("unequal_repetition", header, detail, offset)

    def _complete(self, place: Place, partial: _Partial) -> None:
        ordered = [partial.parts[part] for part in sorted(partial.parts)]
        header = ordered[0][1].header
        remembered = self._digests.setdefault(place, OrderedDict())
        remembered[header.window] = [digest for digest, _ in ordered]
        while len(remembered) > REMEMBERED:
            remembered.popitem(last=False)
        late = self._folded_to is not None and header.window <= self._folded_to
        self._check_chain(place, header, -1 if late or place not in self._closing else partial.offset)
        link = _Link(header.topic_id, header.window, header.end)
        self._links[place] = link
        if place not in self._closing:
            self._problem("unknown_partition", header, "the partition is not in the closing set; its block is not folded", -1)
            self._folded_links[place] = link
        elif late:
            self._folded_links[place] = link
        else:
            groups = [group for _, part in ordered for group in part.groups]
            cohorts = [cohort for _, part in ordered for cohort in part.cohorts]
            if header.window not in self._waiting:
                self._waiting[header.window] = {}
                heapq.heappush(self._order, header.window)
            block = self._waiting[header.window][place] = _Block(header, partial.offset, groups, cohorts)
            if self._is_far_ahead(header.window):
                block.pack()

    def _is_far_ahead(self, window: int) -> bool:
        if len(self._waiting) <= PACKED_AHEAD:
            return False
        frontier = self._frontier()
        return frontier is None or window > frontier + PACKED_AHEAD * WINDOW_MS

    def _check_chain(self, place: Place, header: BlockHeader, offset: int) -> None:
        link = self._links.get(place)
        if link is None:
            return
        if link.topic_id != header.topic_id:
            self._problem("recreated", header, f"the topic was re-created: id {link.topic_id} became {header.topic_id}", offset)
        elif header.start > link.end:
            self._problem("gap", header, f"offsets {link.end} to {header.start - 1} are in no block", offset)
        elif header.start < link.end:
            self._problem("overlap", header, f"offsets {header.start} to {link.end - 1} are in two blocks", offset)

    def _problem(self, kind: ProblemKind, header: BlockHeader, detail: str, offset: int) -> None:
        self._problems.append((offset, Problem(kind, header.topic, header.partition, header.window, detail)))

    def _frontier(self) -> int | None:
        """The newest window that is closed; None while a partition has given no header at all."""
        waited = self._closing - self._excluded
        if not waited or any(place not in self._links for place in waited):
            return None
        return min(self._links[place].window for place in waited)

    def _closed_windows(self) -> Iterator[int]:
        frontier = self._frontier()
        if frontier is not None:
            for window, blocks in self._waiting.items():
                if window <= frontier and not self._excluded.issuperset(blocks):
                    yield window

    @property
    def newest_closed(self) -> int | None:
        """The newest closed window that has not been given out."""
        return max(self._closed_windows(), default=None)

    @property
    def behind(self) -> int:
        """How many closed windows have not been given out."""
        return sum(1 for _ in self._closed_windows())

    @property
    def held(self) -> int:
        """How many windows cannot close yet, for want of headers."""
        frontier = self._frontier()
        return sum(1 for window in self._waiting if frontier is None or window > frontier)

    @property
    def holding(self) -> list[Place]:
        """The partitions that the next window to close waits for."""
        frontier = self._frontier()
        waited = sorted(self._closing - self._excluded)
        if frontier is None:
            return [place for place in waited if place not in self._links]
        return [place for place in waited if self._links[place].window == frontier]

    @property
    def resume_offset(self) -> int:
        """Where to read summaries from after a restart: the first that is not part of a window given out."""
        blocks = (b.offset for w in self._waiting.values() for b in w.values())
        return min([self._next_offset, *blocks, *(p.offset for p in self._partials.values())])

    def closed(
        self,
        *,
        until: int | None = None,
        limit: int | None = None,
        costs: Mapping[int, int] | None = None,
        most: int | None = None,
    ) -> list[ClosedWindow]:
        """The closed windows that were not given out yet, in order: up to window `until`, at most `limit` of them, and none
        after the one with which their `costs` together reach `most`."""
        frontier = self._frontier()
        out: list[ClosedWindow] = []
        if frontier is None:
            return out
        last = frontier if until is None else min(frontier, until)
        cost = 0
        while self._order and self._order[0] <= last and (limit is None or len(out) < limit):
            window = heapq.heappop(self._order)
            blocks = self._waiting.pop(window)
            self._pass(blocks)
            if costs is not None:
                cost += costs.get(window, 0)
            counted = [blocks[place] for place in sorted(blocks) if place not in self._excluded]
            if counted:
                counts = [block.unpacked() for block in counted]
                groups = merge_groups(group for one in counts for group in one[0])
                cohorts = merge_cohorts(cohort for one in counts for cohort in one[1])
                problems = tuple(problem for _, problem in self._problems)
                out.append(ClosedWindow(window, tuple(b.header for b in counted), groups, problems, cohorts))
                self._problems = []
                self._folded_to = window
            if most is not None and cost >= most and out:
                break
        return out

    def _pass(self, blocks: dict[Place, _Block]) -> None:
        for place, block in blocks.items():
            self._folded_links[place] = _Link(block.header.topic_id, block.header.window, block.header.end)

    def section(self) -> StateSection:
        """What must survive a restart, as of the last window given out; reading goes on at `resume_offset`."""
        folded_to, resume = self._folded_to, self.resume_offset
        state = _CloserState(
            folded_to=folded_to,
            resume_offset=resume,
            excluded=sorted(self._excluded),
            links=[(topic, partition, link) for (topic, partition), link in sorted(self._folded_links.items())],
            digests=[
                (topic, partition, [(w, d) for w, d in known.items() if folded_to is not None and w <= folded_to])
                for (topic, partition), known in sorted(self._digests.items())
            ],
            problems=[problem for offset, problem in self._problems if offset < resume],
        )
        data = msgspec.Raw(msgspec.json.encode(state))
        return StateSection(shard=self.shard, section=SECTION, window=folded_to or 0, data=data)

    @classmethod
    def restore(cls, partitions: Mapping[str, int], section: StateSection) -> tuple["WindowCloser", int]:
        """A closer that goes on as the one that wrote `section`, and the summaries offset to read from."""
        state = msgspec.json.decode(section.data, type=_CloserState)
        closer = cls(section.shard, partitions)
        closer._folded_to = state.folded_to
        closer._next_offset = state.resume_offset
        closer._excluded = set(state.excluded)
        closer._links = {(topic, partition): link for topic, partition, link in state.links}
        closer._folded_links = dict(closer._links)
        closer._digests = {(topic, partition): OrderedDict(known) for topic, partition, known in state.digests}
        closer._problems = [(-1, problem) for problem in state.problems]
        return closer, state.resume_offset


def _digest(value: bytes) -> str:
    return hashlib.blake2b(value, digest_size=12).hexdigest()
