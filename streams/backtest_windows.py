"""The lines of a file cut into windows: one partition, offset = line number, append time = running maximum of `time`.

A window is 5 s of append time, and ends also after 1,000 lines; where that happens the next window takes the next 5 s, so
that windows stay distinct. A line whose id came before counts once, as an exporter that repeats itself is no traffic.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Final

from core.event_time import time_ms
from core.lines import Line, interaction_of, read_line
from schemas import codec
from schemas.codec import InvalidMessage, Record
from schemas.messages import WINDOW_MS, Feedback, Interaction, Message

MAX_LINES: Final = 1_000
AHEAD_MS: Final = 86_400_000
LOOK_AHEAD: Final = 100
IDS_REMEMBERED: Final = 1_000_000
"""Ids are compared with at least so many before them."""


@dataclass(frozen=True)
class DeadLine:
    """A line that is not counted, and why; lines count from 1."""

    line: int
    code: str
    reason: str
    field: str | None = None


@dataclass
class FileWindow:
    """What one window of the file brought, ready to be scored; `first_line`, `last_line` count from 0."""

    start: int
    first_line: int
    last_line: int
    interactions: list[Record] = field(default_factory=list)
    acts: list[Record] = field(default_factory=list)
    lines: int = 0


@dataclass(frozen=True)
class _Timed:
    """A line with its own time, or with what is wrong with it; `number` counts from 1."""

    number: int
    line: Line | None
    time: int | None
    error: InvalidMessage | None = None


class LineReader:
    """Cuts lines into windows; tells `reject` what cannot be counted, and `see` each interaction with its acts."""

    def __init__(
        self, reject: Callable[[DeadLine], None], see: Callable[[Interaction, list[Feedback]], None] = lambda *_: None
    ) -> None:
        self.lines = 0
        """Lines read, blank ones not counted."""
        self.repeated = 0
        """Lines whose id came before."""
        self.first_time: int | None = None
        self.last_time: int | None = None
        self._reject, self._see = reject, see
        self._ids, self._acts = _Seen(), _Seen()

    def windows(self, lines: Iterable[bytes]) -> Iterator[FileWindow]:
        """The good lines, window by window."""
        window: FileWindow | None = None
        newest, acts = 0, 0
        for timed in _judged(lines):
            self.lines += 1
            try:
                if timed.error is not None or timed.line is None or timed.time is None:
                    raise timed.error or InvalidMessage("invalid", "time is missing", "time")
                interaction, feedback = interaction_of(timed.line, default_id=_numbered(timed.number))
            except InvalidMessage as error:
                self._reject(DeadLine(timed.number, error.code, error.reason, error.field))
                continue
            again = timed.line.id is not None and self._ids.add((interaction.app, interaction.environment, interaction.id))
            feedback = [
                act for act in feedback if timed.line.id is None or not self._acts.add((act.app, act.environment, act.id))
            ]
            self.repeated += again
            if again and not feedback:
                continue
            newest = max(newest, timed.time)
            self.first_time = newest if self.first_time is None else self.first_time
            self.last_time = newest
            due = newest - newest % WINDOW_MS
            line = timed.number - 1
            if window is None:
                window = FileWindow(due, line, line)
            elif due > window.start or window.lines >= MAX_LINES:
                yield window
                window = FileWindow(max(due, window.start + WINDOW_MS), line, line)
            window.lines += 1
            window.last_line = line
            if not again:
                window.interactions.append(_record(timed.number, newest, interaction))
                self._see(interaction, feedback)
            for act in feedback:
                window.acts.append(_record(acts, newest, act))
                acts += 1
        if window is not None:
            yield window


class _Seen:
    """Which keys came before, in bounded memory: two generations of hashes."""

    def __init__(self) -> None:
        self._new: set[int] = set()
        self._old: set[int] = set()

    def add(self, key: tuple[str | None, ...]) -> bool:
        """Remember a key; whether it was there."""
        digest = hash(key)
        if digest in self._new or digest in self._old:
            return True
        if len(self._new) >= IDS_REMEMBERED:
            self._new, self._old = set(), self._new
        self._new.add(digest)
        return False


def _judged(lines: Iterable[bytes]) -> Iterator[_Timed]:
    """Lines with their times; one that is more than a day ahead of each of the next 100 gets an error instead."""
    ahead: deque[_Timed] = deque()
    for number, line in enumerate(lines, 1):
        if line.strip():
            ahead.append(_timed(number, line))
        if len(ahead) > LOOK_AHEAD:
            yield _unless_ahead(ahead)
    while ahead:
        yield _unless_ahead(ahead)


def _unless_ahead(ahead: deque[_Timed]) -> _Timed:
    one = ahead.popleft()
    if one.time is None:
        return one
    followed = False
    for other in ahead:
        if other.time is not None:
            followed = True
            if one.time - other.time <= AHEAD_MS:
                return one
    if not followed:
        return one
    error = InvalidMessage("time_ahead", f"time is more than a day ahead of each of the next {LOOK_AHEAD} lines", "time")
    return _Timed(one.number, None, None, error)


def _timed(number: int, line: bytes) -> _Timed:
    try:
        short = read_line(line)
        return _Timed(number, short, time_ms(short.time))
    except InvalidMessage as error:
        return _Timed(number, None, None, error)


def _numbered(number: int) -> Callable[[], str]:
    return lambda: f"line-{number}"


def _record(offset: int, time: int, message: Message) -> Record:
    return Record(offset, time, None, codec.encode(message))
