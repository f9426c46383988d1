"""One shard of the fold: which windows go into the next transaction, and the very same batches again from recorded cuts.

The caller feeds summaries and control records in the order of their offsets and says how far it has read; nothing here
reads a clock. A live controller calls `next_batch`, a recovering one (or a backtest) `recorded_batch`; both `fold` it.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple, Self

import msgspec

from core.commands import check_step, checked
from core.configs import ConfigLog
from core.fold import ControlRecord, Fold, FoldOutput
from core.windows import SECTION as WINDOWS_SECTION
from core.windows import ClosedWindow, WindowCloser
from schemas.codec import InvalidMessage, Record, decode, header, message_type, read
from schemas.messages import WINDOW_MS, ActionStep, BlockSummary, Command, Config, Cut, StateSection
from schemas.topics import ACTIONS, COMMANDS

MAX_WINDOWS: Final = 10_000
MAX_OUTPUT_BYTES: Final = 4 * 1024 * 1024
CATCH_UP_WINDOWS: Final = 12
SECTION: Final = "cursor"
SOURCE: Final = "bellbuoy.controller"
"""`ce_source` of everything that the controller writes, also where a step's actor is the person who asked for it."""
_ROW_BYTES: Final = 260
_BIN_BYTES: Final = 12


class RecoveryFailed(RuntimeError):
    """The log no longer holds what the recorded cuts were made of."""


class Ends(NamedTuple):
    """Offsets up to which a shard's inputs have been read."""

    summaries: int
    commands: int
    actions: int
    config: int


@dataclass(frozen=True)
class Batch:
    """What one transaction folds."""

    cut: Cut
    windows: tuple[ClosedWindow, ...]
    control: tuple[ControlRecord, ...]


class Cursor(msgspec.Struct, kw_only=True):
    """The state's own place in the log: the last cut it reflects, and where llm.windows and llm.summaries are read on from."""

    cut: Cut
    windows_from: int
    summaries_from: int


class Shard:
    """A shard's fold with everything that waits for it."""

    def __init__(self, shard: int, configs: ConfigLog, fold: Fold, closer: WindowCloser, cut: Cut | None = None) -> None:
        self.shard = shard
        self.configs = configs
        self.cut = cut
        """The last cut that was folded."""
        self._fold = fold
        self._closer = closer
        self._control: list[ControlRecord] = []
        self._costs: dict[int, int] = {}
        self._early: list[tuple[int, BlockSummary, bytes | None]] = []
        """Blocks of partitions that join the closing set at an activation that is still to come."""
        self._closing: Mapping[str, int] = {}
        self._saved = cut.last_window if cut else None

    @classmethod
    def begin(cls, shard: int, configs: ConfigLog, *, cell_names: Sequence[str] = ()) -> Self:
        """A shard that has folded nothing."""
        return cls(shard, configs, Fold(shard, configs, cell_names=cell_names), WindowCloser(shard, {}))

    @classmethod
    def restore(
        cls, shard: int, configs: ConfigLog, sections: Mapping[str, StateSection], *, cell_names: Sequence[str] = ()
    ) -> tuple[Self, Cursor]:
        """The shard as it stood when `sections` were written, and its cursor."""
        cursor = msgspec.json.decode(sections[SECTION].data, type=Cursor)
        partitions = configs.config(configs.config_for(cursor.cut.last_window + WINDOW_MS)).partitions
        closer, _ = WindowCloser.restore(partitions, sections[WINDOWS_SECTION])
        others = [section for name, section in sections.items() if name not in (SECTION, WINDOWS_SECTION)]
        fold = Fold.restore(shard, configs, others, cell_names=cell_names)
        return cls(shard, configs, fold, closer, cursor.cut), cursor

    @property
    def waiting(self) -> int:
        """Closed windows that are not folded yet."""
        return self._closer.behind

    @property
    def held(self) -> int:
        """Windows that cannot close yet, for want of headers of the partitions of `holding`."""
        return self._closer.held

    @property
    def holding(self) -> list[str]:
        """The partitions that the next window to close waits for, as topic/partition."""
        return [f"{topic}/{partition}" for topic, partition in self._closer.holding]

    @property
    def open_alerts(self) -> int:
        """Alerts that are not resolved."""
        return self._fold.open_alerts

    @property
    def waiting_bytes(self) -> int:
        """About how much output the waiting windows make."""
        return sum(self._costs.values())

    @property
    def catching_up_until(self) -> int | None:
        """R, while it has not been folded yet."""
        if self.cut is None or self.cut.catch_up_until is None or self.cut.catch_up_until <= self.cut.last_window:
            return None
        return self.cut.catch_up_until

    @property
    def unsaved_ms(self) -> int:
        """How much time of windows was folded since `sections` was last called."""
        if self.cut is None:
            return 0
        return self.cut.last_window - (self._saved if self._saved is not None else 0)

    @property
    def closing(self) -> frozenset[tuple[str, int]]:
        """Partitions that the next window waits for, excluded ones too."""
        self._set_partitions(self._after)
        return frozenset((topic, p) for topic, count in self._closing.items() for p in range(count))

    def add_summary(self, record: Record) -> None:
        """Take a record of llm.summaries. A block counts if its own config has its partition in the closing set.

        Raises InvalidMessage for one that cannot be read, and UnknownConfig where llm.config must be read on first.
        """
        if message_type(record.headers) is not BlockSummary:
            raise InvalidMessage("type", "llm.summaries holds block summaries only", "ce_type")
        summary = decode(BlockSummary, record.value, keep_unknown=False)
        block = summary.header
        if block.partition >= self.configs.config(block.config).partitions.get(block.topic, 0):
            return
        if not self._closing:
            self._set_partitions(self._after)
        if block.partition >= self._closing.get(block.topic, 0):
            self._early.append((record.offset, summary, record.value))
        else:
            self._add(record.offset, summary, record.value)

    def _add(self, offset: int, summary: BlockSummary, value: bytes | None) -> None:
        self._closer.add(summary, offset=offset, value=value)
        window = summary.header.window
        if self.cut is None or window > self.cut.last_window:
            self._costs[window] = self._costs.get(window, 0) + output_bytes(summary)

    def add_control(self, topic: str, record: Record) -> None:
        """Take a record of llm.commands or llm.actions; the controller's own steps are no input. Raises InvalidMessage."""
        message = read(record)
        match topic, message:
            case ("llm.commands", Command()):
                message = checked(message)
            case ("llm.actions", ActionStep()):
                if is_own(record):
                    return
                check_step(record.value)
            case _:
                raise InvalidMessage("type", f"not a message of {topic}", "ce_type")
        self._control.append(ControlRecord(topic, self.shard, record.offset, record.timestamp, message))

    def due(self) -> bool:
        """Whether reading the control topics to their end would let a window be folded."""
        self._set_partitions(self._after)
        return self._closer.behind > 0 or any(
            isinstance(c.message, Command) and c.message.kind in ("exclude_partition", "include_partition") for c in self._control
        )

    def next_batch(self, ends: Ends, *, newest_in_log: int | None = None) -> Batch | None:
        """The next windows to fold, after everything below `ends` was fed; None where no window is closed.

        `newest_in_log`: the newest closed window of the whole log where that is known to lie beyond what was fed.
        """
        control = self._control
        self._apply(control)
        after, windows = self._after, list[ClosedWindow]()
        while not windows:
            until = self._set_partitions(after)
            newest = self._closer.newest_closed
            if newest is None:
                return None
            catch_up_until = self._catch_up(newest_in_log, newest)
            windows = self._take(until)
            if not windows:
                if until is None or newest <= until:
                    return None
                after = until + 1  # nothing can come any more before the closing set changes
        cut = Cut(
            shard=self.shard,
            first_window=windows[0].window,
            last_window=windows[-1].window,
            windows=len(windows),
            summaries_end=ends.summaries,
            commands_end=ends.commands,
            actions_end=ends.actions,
            config_end=ends.config,
            catch_up_until=catch_up_until if catch_up_until is not None and catch_up_until >= windows[0].window else None,
        )
        return Batch(cut, tuple(windows), _ordered(control))

    def recorded_batch(self, cut: Cut) -> Batch:
        """The batch that a recorded cut was made of, after everything below its ends was fed. Raises RecoveryFailed."""
        ends = {COMMANDS: cut.commands_end, ACTIONS: cut.actions_end}
        control = [c for c in self._control if c.offset < ends[c.topic]]
        self._apply(control)
        self._set_partitions(cut.first_window)
        windows = self._closer.closed(until=cut.last_window)
        if len(windows) != cut.windows or (windows and windows[0].window != cut.first_window):
            found = f"{len(windows)} windows from {windows[0].window}" if windows else "none"
            raise RecoveryFailed(
                f"shard {self.shard}: a recorded cut folded {cut.windows} windows from {cut.first_window} to {cut.last_window}, "
                f"the summaries below offset {cut.summaries_end} give {found}"
            )
        return Batch(cut, tuple(windows), _ordered(control))

    def fold(self, batch: Batch) -> FoldOutput:
        """Fold a batch; what it was made of no longer waits. There is no way back: an output that is not committed ends the fold."""
        output = self._fold.fold(batch.windows, batch.control, batch.cut)
        self.cut = batch.cut
        folded = {(c.topic, c.offset) for c in batch.control}
        self._control = [c for c in self._control if (c.topic, c.offset) not in folded]
        self._costs = {window: cost for window, cost in self._costs.items() if window > batch.cut.last_window}
        return output

    def sections(self, *, windows_from: int, changed_only: bool) -> list[StateSection]:
        """The state as of the last cut, cursor included; `windows_from`: an offset of llm.windows before the next cut."""
        assert self.cut is not None
        self._saved = self.cut.last_window
        cursor = Cursor(
            cut=self.cut,
            windows_from=windows_from,
            summaries_from=min([self._closer.resume_offset, *(offset for offset, _, _ in self._early)]),
        )
        data = msgspec.Raw(msgspec.json.encode(cursor))
        return [
            *self._fold.sections(changed_only=changed_only),
            self._closer.section(),
            StateSection(shard=self.shard, section=SECTION, window=self.cut.last_window, data=data),
        ]

    def _apply(self, control: Iterable[ControlRecord]) -> None:
        """Exclusions count from the cut that holds them; applied again they change nothing."""
        for record in control:
            if isinstance(record.message, Command):
                self._closer.apply(record.message)

    def _take(self, until: int | None) -> list[ClosedWindow]:
        """Closed windows up to `until` within the bounds of a transaction: one may cost all of it, thousands of empty ones nothing."""
        return self._closer.closed(until=until, limit=MAX_WINDOWS, costs=self._costs, most=MAX_OUTPUT_BYTES)

    @property
    def _after(self) -> int:
        """The first window that may come next."""
        return self.cut.last_window + WINDOW_MS if self.cut else 0

    def _set_partitions(self, after: int) -> int | None:
        """Let the closer wait for the partitions of the config that holds at `after`; the last moment before that set changes."""
        if not self.configs.activations:
            return None
        now = self._partitions(after)
        if now != self._closing:
            self._closing = now
            self._closer.set_partitions(now)
            early, self._early = self._early, []
            for offset, summary, value in early:
                if summary.header.partition < now.get(summary.header.topic, 0):
                    self._add(offset, summary, value)
                else:
                    self._early.append((offset, summary, value))
        later = sorted(start for start, _ in self.configs.activations if start is not None and start > after)
        return next((start - 1 for start in later if self._partitions(start) != now), None)

    def _partitions(self, window: int) -> Mapping[str, int]:
        config: Config = self.configs.config(self.configs.config_for(window))
        return config.partitions

    def _catch_up(self, newest_in_log: int | None, newest: int) -> int | None:
        """R: the newest closed window whenever more than 12 wait, and until it is reached."""
        if newest_in_log is not None or self._closer.behind > CATCH_UP_WINDOWS:
            return max(newest, newest_in_log or 0, self.catching_up_until or 0)
        return self.catching_up_until


def is_own(record: Record) -> bool:
    """Whether the controller itself wrote a record: such a step is an output of the fold, not an input."""
    return header(record.headers, "ce_source") == SOURCE.encode()


def output_bytes(summary: BlockSummary) -> int:
    """About how many bytes of window rows a summary becomes, rather more than less."""
    return sum(
        _ROW_BYTES + _BIN_BYTES * len(pairs)
        for group in summary.groups
        for metrics in (group.bins, group.names)
        for pairs in metrics.values()
    )


def _ordered(control: Iterable[ControlRecord]) -> tuple[ControlRecord, ...]:
    return tuple(sorted(control, key=lambda c: (c.topic, c.partition, c.offset)))
