"""Which windows are closed, and what each brought: one block per partition, summed.

Window W is closed when every partition of the closing set has given a header with a window >= W. A window in which no
partition has a header is absent: Bellbuoy was off.
"""

import hashlib
import heapq
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final, Literal

import msgspec

from schemas import codec
from schemas.messages import BlockHeader, BlockSummary, Command, Group, StateSection

REMEMBERED: Final = 360
"""Blocks per partition whose digests are kept, so that a repetition can be compared: half an hour."""
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
    """A window [window, window + 5 s) that is complete: its headers, its groups summed over partitions (sorted), and the
    problems that were met since the window before it."""

    window: int
    headers: tuple[BlockHeader, ...]
    groups: tuple[Group, ...] = ()
    problems: tuple[Problem, ...] = ()


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


def merge_groups(groups: Iterable[Group]) -> tuple[Group, ...]:
    """Sum groups of the same (app, environment, version); sorted by that key, bins and names sorted.

    >>> g = Group(app="a", environment="e", version="v", n=1, bins={"refusal@1": [(0, 1)]})
    >>> merge_groups([g, g])[0].bins
    {'refusal@1': [(0, 2)]}
    """
    by_key: dict[tuple[str, str, str], list[Group]] = {}
    for group in groups:
        by_key.setdefault((group.app, group.environment, group.version), []).append(group)
    return tuple(same[0] if len(same) == 1 else _sum(key, same) for key, same in sorted(by_key.items()))


def _sum(key: tuple[str, str, str], groups: list[Group]) -> Group:
    bins: dict[str, dict[int, int]] = {}
    names: dict[str, dict[str, int]] = {}
    for group in groups:
        for metric, pairs in group.bins.items():
            counts = bins.setdefault(metric, {})
            for bin_, count in pairs:
                counts[bin_] = counts.get(bin_, 0) + count
        for metric, named in group.names.items():
            labels = names.setdefault(metric, {})
            for name, count in named:
                labels[name] = labels.get(name, 0) + count
    return Group(
        app=key[0],
        environment=key[1],
        version=key[2],
        n=sum(g.n for g in groups),
        acts=sum(g.acts for g in groups),
        bins={metric: sorted(counts.items()) for metric, counts in sorted(bins.items())},
        names={metric: sorted(labels.items()) for metric, labels in sorted(names.items())},
    )


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
        self._problems: list[Problem] = []
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
            self._compare(header, known[summary.part - 1] if summary.part <= len(known) else None, digest)
            return
        link = self._links.get(place)
        if link is not None and link.topic_id == header.topic_id and header.window <= link.window:
            self._problem("old_repetition", header, "a block that is no longer remembered came again")
            return
        partial = self._partials.setdefault((place, header.window), _Partial(offset))
        if summary.part in partial.parts:
            self._compare(header, partial.parts[summary.part][0], digest)
            return
        partial.parts[summary.part] = (digest, summary)
        if len(partial.parts) == summary.parts:
            del self._partials[place, header.window]
            self._complete(place, partial)

    def _compare(self, header: BlockHeader, known: str | None, digest: str) -> None:
        if known != digest:
            self._problem("unequal_repetition", header, "a block was published twice with different bytes; the first counts")

    def _complete(self, place: Place, partial: _Partial) -> None:
        ordered = [partial.parts[part] for part in sorted(partial.parts)]
        header = ordered[0][1].header
        remembered = self._digests.setdefault(place, OrderedDict())
        remembered[header.window] = [digest for digest, _ in ordered]
        while len(remembered) > REMEMBERED:
            remembered.popitem(last=False)
        self._check_chain(place, header)
        link = _Link(header.topic_id, header.window, header.end)
        self._links[place] = link
        if place not in self._closing:
            self._problem("unknown_partition", header, "the partition is not in the closing set; its block is not folded")
            self._folded_links[place] = link
        elif self._folded_to is not None and header.window <= self._folded_to:
            self._folded_links[place] = link
        else:
            groups = [group for _, part in ordered for group in part.groups]
            if header.window not in self._waiting:
                self._waiting[header.window] = {}
                heapq.heappush(self._order, header.window)
            self._waiting[header.window][place] = _Block(header, partial.offset, groups)

    def _check_chain(self, place: Place, header: BlockHeader) -> None:
        link = self._links.get(place)
        if link is None:
            return
        if link.topic_id != header.topic_id:
            self._problem("recreated", header, f"the topic was re-created: id {link.topic_id} became {header.topic_id}")
        elif header.start > link.end:
            self._problem("gap", header, f"offsets {link.end} to {header.start - 1} are in no block")
        elif header.start < link.end:
            self._problem("overlap", header, f"offsets {header.start} to {link.end - 1} are in two blocks")

    def _problem(self, kind: ProblemKind, header: BlockHeader, detail: str) -> None:
        self._problems.append(Problem(kind, header.topic, header.partition, header.window, detail))

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
    def resume_offset(self) -> int:
        """Where to read summaries from after a restart: the first that is not part of a window given out."""
        blocks = (b.offset for w in self._waiting.values() for b in w.values())
        return min([self._next_offset, *blocks, *(p.offset for p in self._partials.values())])

    def closed(self, *, until: int | None = None, limit: int | None = None) -> list[ClosedWindow]:
        """The closed windows that were not given out yet, in order: up to window `until`, at most `limit` of them."""
        frontier = self._frontier()
        out: list[ClosedWindow] = []
        if frontier is None:
            return out
        last = frontier if until is None else min(frontier, until)
        while self._order and self._order[0] <= last and (limit is None or len(out) < limit):
            window = heapq.heappop(self._order)
            blocks = self._waiting.pop(window)
            self._pass(blocks)
            counted = [blocks[place] for place in sorted(blocks) if place not in self._excluded]
            if counted:
                groups = merge_groups(group for block in counted for group in block.groups)
                out.append(ClosedWindow(window, tuple(b.header for b in counted), groups, tuple(self._problems)))
                self._problems = []
                self._folded_to = window
        return out

    def _pass(self, blocks: dict[Place, _Block]) -> None:
        for place, block in blocks.items():
            self._folded_links[place] = _Link(block.header.topic_id, block.header.window, block.header.end)

    def section(self) -> StateSection:
        """What must survive a restart, as of the last window given out; reading goes on at `resume_offset`."""
        folded_to = self._folded_to
        state = _CloserState(
            folded_to=folded_to,
            resume_offset=self.resume_offset,
            excluded=sorted(self._excluded),
            links=[(topic, partition, link) for (topic, partition), link in sorted(self._folded_links.items())],
            digests=[
                (topic, partition, [(w, d) for w, d in known.items() if folded_to is not None and w <= folded_to])
                for (topic, partition), known in sorted(self._digests.items())
            ],
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
        return closer, state.resume_offset


def _digest(value: bytes) -> str:
    return hashlib.blake2b(value, digest_size=12).hexdigest()
