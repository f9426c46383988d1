"""Everything that is judged about one app: its references, and the detectors of the app and of each of its versions.

Time is monitored time: `clock` counts the windows that the shard folded, 5 s each, so the time in which Bellbuoy was off
is no time (the budget D promises something about the time in which somebody watched). A step of a slice ends with the
first window that brings its events to >= 100, or 5 minutes (60 windows) after its start. Steps without events only add
their length to M, so they are made up for when the slice is next touched: an app without traffic costs nothing.
"""

from bisect import bisect_right
from collections.abc import Collection, Iterable, Mapping, Sequence
from functools import lru_cache
from typing import Final

import msgspec
import numpy as np

from core.cells import CellNames
from core.detection.budget import (
    LATER,
    MAX_VERSIONS,
    STREAM_OF,
    STREAMS,
    budget_seconds,
    slice_weight,
    stream_name,
    stream_weight,
)
from core.detection.explain import explain
from core.detection.growth import Growth, suspected
from core.detection.history import History
from core.detection.reference import Floats, Reference, judged_of, name_bin
from core.detection.slices import BANKS, OTHER_TURNS, Alarm, Bank, Judged, Released, Slice, slice_name, slice_version
from core.detection.sr import Layout, SrState, build_layout, hold, step
from core.groups import merge_groups
from core.identity import OTHER
from core.metrics import TOPIC_MIX, WHOLE_APP, split_metric_key
from schemas.messages import WINDOW_MS, Group, Rules

STEP_EVENTS: Final = 100
STEP_WINDOWS: Final = 60
SILENT_WINDOWS: Final = 7 * 86_400_000 // WINDOW_MS
"""After 7 days of monitored time without a record, an app, a version or a metric leaves."""
ABSENT_WINDOWS: Final = 3_600_000 // WINDOW_MS
"""After an hour of windows with traffic of the app and none of a version, the version's alarms are over for want of data: it
has been rolled back, and should it come back as bad, that is an alarm of its own."""


class AppMonitor:
    """State of one (app, environment). `clock` arguments count the shard's windows, the present one included."""

    def __init__(self, app: str, environment: str) -> None:
        self.app, self.environment = app, environment
        self.references: dict[str, Reference] = {}
        self.versions: dict[str, int] = {}
        """Version → k: it is the app's k-th."""
        self.next_k = 1
        self.seen: dict[str, int] = {}
        """Version or metric key → clock of its last record."""
        self.last_seen = 0
        self.begun: set[str] = set()
        """Streams whose reference began with what the config counted; never twice, so that a re-baselined one begins empty."""
        self.history = History()
        self.slices: dict[tuple[str, Bank], Slice] = {}
        self.layouts: dict[Bank, Layout] = {}
        self.growth: dict[Bank, Growth] = {}
        self._weights: dict[Bank, Floats] = {}

    @property
    def due(self) -> int | None:
        """The clock at which an open step with events ends for its age; None without one."""
        return min((s.start + STEP_WINDOWS for s in self.slices.values() if s.events), default=None)

    def admit(self, groups: Sequence[Group], clock: int) -> Sequence[Group]:
        """The same groups (all of this app), with versions that there is no room for summed into `other`."""
        self.last_seen = clock
        out = []
        renamed = False
        for named in groups:
            group, version = named, named.version
            if version not in self.versions:
                if len(self.versions) >= MAX_VERSIONS:
                    version = OTHER
                if version not in self.versions:
                    self.versions[version] = self.next_k
                    self.next_k += 1
            self.seen[slice_name(version)] = clock
            if version != named.version:
                renamed = True
                group = msgspec.structs.replace(group, version=version)
            out.append(group)
        return merge_groups(out) if renamed else groups

    def observe(self, window: int, clock: int, groups: Sequence[Group], rules: Rules, cells: CellNames) -> Judged:
        """Judge one window's groups, as admitted (all of this app, sorted by version)."""
        self.history.add(window, groups)
        for group in groups:
            for bank in self.layouts:
                if bank[0] == "version":
                    self._count(slice_name(group.version), slice_weight(self.versions[group.version]), bank, group, window, clock)
                else:
                    self._count(WHOLE_APP, 1.0, bank, group, window, clock)
        completed = self._refer(clock, groups, rules, cells)
        judged = self.close_steps(window, clock, rules, cells, everything=bool(completed))
        judged.released += self._release_absent(window, clock, groups)
        if self._grow(window, clock, rules.reference_events):
            self.lay_out(window)
        if completed:
            replaced = [key for key in self.references if any(_supersedes(new, key) for new in completed)]
            judged.released += self.forget(replaced, window, "a new version of its scorer has its own reference")
        return judged

    def _count(self, name: str, weight: float, bank: Bank, group: Group, window: int, clock: int) -> None:
        counts = judged_of(group, later=bank[1].startswith("later"))
        if counts is None:
            return
        events = counts.n if bank[1].endswith("interaction") else counts.acts
        if not events:
            return
        layout = self.layouts[bank]
        part = self.slices.get((name, bank))
        if part is None:
            part = self.slices[name, bank] = Slice(SrState.new(layout, window // WINDOW_MS), weight, clock - 1)
        elif not part.events:
            steps = (clock - 1 - part.start) // STEP_WINDOWS
            if steps > 0:
                part.state.idle(float(steps * STEP_WINDOWS * WINDOW_MS // 1000), window // WINDOW_MS)
                part.start += steps * STEP_WINDOWS
        part.events += events
        columns, pending = layout.columns, part.pending
        for key, pairs in counts.bins.items():
            at = columns.get(key)
            if at is not None:
                for bin_, count in pairs:
                    pending[at + bin_] = pending.get(at + bin_, 0) + count
        for key, named in counts.names.items():
            at = columns.get(key)
            if at is not None:
                names = layout.names[key]
                for label, count in named:
                    column = at + name_bin(names, label)
                    pending[column] = pending.get(column, 0) + count

    def close_steps(self, window: int, clock: int, rules: Rules, cells: CellNames, *, everything: bool = False) -> Judged:
        """End the open steps that are long or old enough (or everything, before streams join)."""
        judged = Judged()
        budget = budget_seconds(rules)
        for (name, bank), part in self.slices.items():
            seconds = (clock - part.start) * WINDOW_MS / 1000
            if everything and not part.events:
                part.state.idle(seconds, window // WINDOW_MS + 1)
                part.start = clock
            if not part.events or not (everything or part.events >= STEP_EVENTS or clock - part.start >= STEP_WINDOWS):
                continue
            layout = self.layouts[bank]
            thresholds = budget / (self._weights_by(rules, bank) * part.weight)
            result = step(layout, part.state, part.pending, seconds, window // WINDOW_MS + 1, thresholds)
            for position, statistic in result.alarms:
                explanation = explain(layout, part.state, position, cells)
                threshold = float(thresholds[position])
                judged.alarms.append(Alarm(layout.keys[position], name, statistic, threshold, explanation))
                hold(layout, part.state, position)
                part.absent = 0
            self._learn(bank, part, result.resolved, window, clock)
            judged.released += [
                Released(stream_name(key), name, "the evidence for the reference's rate is 100 to 1")
                for key in result.resolved
                if not self._held_by_other_turns(name, bank, key)
            ]
            part.pending, part.events, part.start = {}, 0, clock
        return judged

    def _learn(self, bank: Bank, part: Slice, resolved: Sequence[str], window: int, clock: int) -> None:
        """Keep a step's counts for the references; of a stream that was held none."""
        layout = self.layouts[bank]
        growth = self.growth.get(bank)
        if growth is None:
            growth = self.growth[bank] = Growth(layout.width, clock, window // WINDOW_MS)
        growth.younger[np.fromiter(part.pending.keys(), np.int64)] += np.fromiter(part.pending.values(), np.int64)
        growth.events += part.events
        for key in resolved:
            self._unlearn(bank, key)

    def _unlearn(self, bank: Bank, key: str) -> None:
        if bank in self.growth:
            for columns in self.layouts[bank].columns_of(self.references[key]).values():
                self.growth[bank].drop(columns)

    def _grow(self, window: int, clock: int, reference_events: int) -> bool:
        """Give the references what is old enough to be learned; True where that has doubled one."""
        doubled = False
        for bank, growth in self.growth.items():
            if not growth.due(clock, reference_events):
                continue
            layout, since = self.layouts[bank], growth.since
            states = [part.state for (_, of), part in self.slices.items() if of == bank]
            older = growth.turn(clock, window // WINDOW_MS + 1)
            for position, key in enumerate(layout.keys):
                if any(key in state.holds for state in states):
                    self._unlearn(bank, key)
                elif not suspected(layout, states, position, since):
                    reference = self.references[key]
                    columns = layout.columns_of(reference)
                    doubled |= reference.grow({metric: _counted(older[one].tolist()) for metric, one in columns.items()})
        return doubled

    def _held_by_other_turns(self, name: str, bank: Bank, key: str) -> bool:
        of = bank[1]
        other: Bank = (bank[0], OTHER_TURNS[of])
        twin = key.removeprefix(LATER) if key.startswith(LATER) else LATER + key
        return (name, other) in self.slices and twin in self.slices[name, other].state.holds

    def _release_absent(self, window: int, clock: int, groups: Sequence[Group]) -> list[Released]:
        """End the alarms of versions that have had no record for long while the app had."""
        present = {slice_name(group.version) for group in groups}
        released = []
        for (name, bank), part in self.slices.items():
            if not part.state.holds or name == WHOLE_APP:
                continue
            part.absent = 0 if name in present else part.absent + 1
            if part.absent < ABSENT_WINDOWS or part.events:
                continue
            part.state.idle((clock - part.start) * WINDOW_MS / 1000, window // WINDOW_MS + 1)
            part.start, part.absent = clock, 0
            for key in sorted(part.state.holds):
                self._unlearn(bank, key)
                segment = self.layouts[bank].segment(self.layouts[bank].keys.index(key))
                part.state.reset(segment, window // WINDOW_MS + 1)
                released.append(Released(stream_name(key), name, "no data: it had no record in an hour of the app's traffic"))
            part.state.holds.clear()
        return released

    def _refer(self, clock: int, groups: Sequence[Group], rules: Rules, cells: CellNames) -> list[str]:
        """Count the window into references that are not complete; keys of those that now are."""
        for group in groups:
            for key in (*group.bins, *group.names):
                stream = _stream_key(key)
                if stream is None:
                    continue
                self.seen[stream] = clock
                if stream not in self.references:
                    self.references[stream] = self._beginning(stream, cells, rules.reference_events)
            if group.later is not msgspec.UNSET:
                for key in (*group.later.bins, *group.later.names):
                    stream = _stream_key(key)
                    if stream is not None:
                        self.seen[LATER + stream] = clock
                        self.references.setdefault(LATER + stream, Reference(LATER + stream))
        return [
            key
            for key, reference in self.references.items()
            if not reference.complete and reference.add(groups, rules.reference_events, rules.delta)
        ]

    def _beginning(self, key: str, cells: CellNames, size: int) -> Reference:
        """A new reference: empty, or with the prompts that the app's own cells were counted on when they were fitted (the second
        half of those, which is all that it waits for)."""
        own = cells.by(split_metric_key(key)[1])
        if own is None or key in self.begun or split_metric_key(key)[0] != TOPIC_MIX:
            return Reference(key)
        self.begun.add(key)
        counts = {metric: _counted(bins) for metric, bins in (("topic", own.topics), ("novelty", own.novelty))}
        return Reference(key, seen=size, counts=counts)

    def forget(self, keys: Iterable[str], window: int, reason: str) -> list[Released]:
        """Drop references and their detectors, and lay the rest out anew."""
        gone = set(keys)
        released = [
            Released(stream_name(key), name, reason)
            for (name, _), part in self.slices.items()
            for key in sorted(part.state.holds)
            if key in gone
        ]
        for key in gone:
            self.references.pop(key, None)
            self.seen.pop(key, None)
        self.lay_out(window)
        return released

    def _weights_by(self, rules: Rules, bank: Bank) -> Floats:
        """The weights of a bank's streams, with the shares that the rules give them in place of the built-in ones."""
        if not rules.shares:
            return self._weights[bank]
        return np.array([stream_weight(key, rules) for key in self.layouts[bank].keys])

    def lay_out(self, window: int) -> None:
        """Build the layouts of all complete references and carry the detectors and their open steps over."""
        old, self.layouts, self._weights = self.layouts, {}, {}
        for bank in BANKS:
            chosen = [
                self.references[key]
                for key in sorted(self.references)
                if self.references[key].complete
                and (stream := STREAMS[stream_name(key)]).scope == bank[0]
                and (f"later.{stream.of}" if key.startswith(LATER) else stream.of) == bank[1]
            ]
            layout = build_layout(chosen) if chosen else None
            if layout is not None and layout.keys:
                self.layouts[bank] = layout
                self._weights[bank] = np.array([stream_weight(key) for key in layout.keys])
        for bank in list(self.growth):
            if bank in self.layouts:
                self.growth[bank].lay_out(old[bank].columns, self.layouts[bank].columns, self.layouts[bank].width)
            else:
                del self.growth[bank]
        for name, bank in list(self.slices):
            if bank in self.layouts:
                part = self.slices[name, bank]
                part.state = part.state.relaid(old[bank], self.layouts[bank], window // WINDOW_MS + 1)
                part.pending = dict(_moved(part.pending, old[bank].columns, self.layouts[bank].columns))
            else:
                del self.slices[name, bank]

    def rebaseline(self, metric: str | None, window: int) -> list[Released]:
        """Begin the references of a stream (None: of all) again, by a person's command."""
        keys = [key for key in self.references if metric is None or stream_name(key) == metric]
        return self.forget(keys, window, "re-baselined")

    def silent(self, clock: int) -> set[str]:
        """Slices and streams without a record for 7 days of monitored time."""
        return {key for key, seen in self.seen.items() if clock - seen >= SILENT_WINDOWS}

    def leave(self, window: int, silent: Collection[str]) -> list[Released]:
        """Drop what is silent."""
        reason = "nothing came for 7 days"
        released = []
        for name, bank in [place for place in self.slices if place[0] in silent]:
            part = self.slices.pop((name, bank))
            for key in sorted(part.state.holds):
                self._unlearn(bank, key)
                if not self._held_by_other_turns(name, bank, key):
                    released.append(Released(stream_name(key), name, reason))
        for key in silent:
            self.versions.pop(slice_version(key) or "", None)
            self.seen.pop(key, None)
        metrics = [key for key in self.references if key in silent]
        return released + (self.forget(metrics, window, reason) if metrics else [])


@lru_cache(1_024)
def _stream_key(metric_key: str) -> str | None:
    """The stream that judges a metric's counts, of the same scorer version; None where none does."""
    metric, version = split_metric_key(metric_key)
    return f"{STREAM_OF[metric].name}@{version}" if metric in STREAM_OF else None


def _counted(bins: Sequence[int]) -> dict[int, int]:
    return {bin_: count for bin_, count in enumerate(bins) if count}


def _moved(pending: Mapping[int, int], old: Mapping[str, int], new: Mapping[str, int]) -> Iterable[tuple[int, int]]:
    starts = sorted(old.values())
    keys = {start: key for key, start in old.items()}
    for column, count in pending.items():
        start = starts[bisect_right(starts, column) - 1]
        if keys[start] in new:
            yield new[keys[start]] + column - start, count


def _supersedes(new: str, old: str) -> bool:
    """Whether a stream is of a newer scorer version than another of the same name."""
    (name, version), (old_name, old_version) = split_metric_key(new), split_metric_key(old)
    return name == old_name and version > old_version
