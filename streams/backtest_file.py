"""A file of short lines played through the same blocks and the same fold: what would have been detected, and what asked for.

One partition: offset = line number, append time = running maximum of `time`. A window is 5 s of append time, and ends
also after 1,000 lines; where that happens the next window takes the next 5 s, so that windows stay distinct.
"""

from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final

from core.blocks import ActiveConfig, Place, score_block
from core.cells import cells_of, with_cells
from core.configs import ConfigLog
from core.event_time import time_ms
from core.fitter import AppKey, CannotFit, Prompt, due, fit_cells, fit_events, prompt_of
from core.fold import Fold
from core.lines import interaction_from_line, read_line
from core.rules import DEFAULT_RULES, default_config
from core.scoring import SCORER_VERSIONS, EmbeddingTable, HeadTable, Scoring
from core.scoring.words import WordSums
from core.windows import ClosedWindow, WindowCloser
from schemas import codec
from schemas.codec import InvalidMessage, Outgoing, Record
from schemas.messages import (
    WINDOW_MS,
    ActionStep,
    Activation,
    AlertTransition,
    BlockSummary,
    Config,
    Cut,
    DeadLetter,
    Detection,
    Message,
    Rules,
    ScoredInteraction,
)
from schemas.topics import FEEDBACK, INTERACTIONS

MAX_LINES: Final = 1_000
AHEAD_MS: Final = 86_400_000
LOOK_AHEAD: Final = 100
_FOLD_EVERY: Final = 500
_DEAD_KEPT: Final = 100
_ID: Final = "file"
_FIT_APPS: Final = 50
"""Apps whose prompts are kept for a fit at the same time."""


@dataclass(frozen=True)
class DeadLine:
    """A line that is not counted, and why."""

    line: int
    code: str
    reason: str
    field: str | None = None


@dataclass(frozen=True)
class Fitted:
    """An app's own cells (their names), and the start (ms) of the first window that was scored with them."""

    app: str
    environment: str
    window: int
    cells: tuple[str, ...]


@dataclass
class BacktestReport:
    """What a file would have led to."""

    lines: int = 0
    scored: int = 0
    acts: int = 0
    dead: int = 0
    dead_lines: list[DeadLine] = field(default_factory=list)
    """The first of them."""
    windows: int = 0
    first_time: int | None = None
    last_time: int | None = None
    versions: Counter[tuple[str, str, str]] = field(default_factory=Counter)
    """Interactions by (app, environment, version)."""
    detections: list[Detection] = field(default_factory=list)
    alerts: list[AlertTransition] = field(default_factory=list)
    actions: list[ActionStep] = field(default_factory=list)
    fitted: list[Fitted] = field(default_factory=list)
    """Apps that got topic cells of their own on the way."""

    def reject(self, dead: DeadLine) -> None:
        self.dead += 1
        if len(self.dead_lines) < _DEAD_KEPT:
            self.dead_lines.append(dead)


@dataclass(frozen=True)
class _Timed:
    """A line with its own time, or with what is wrong with it."""

    number: int
    line: bytes
    time: int | None
    error: InvalidMessage | None = None


@dataclass
class _Window:
    start: int
    interactions: list[Record] = field(default_factory=list)
    acts: list[Record] = field(default_factory=list)
    lines: int = 0


def backtest_file(
    lines: Iterable[bytes], embedding: EmbeddingTable, heads: HeadTable, *, rules: Rules = DEFAULT_RULES
) -> BacktestReport:
    """Play the lines; blank ones are passed over. What a line says wrong is in the report, never an exception."""
    report = BacktestReport()
    config = default_config(
        scorers=SCORER_VERSIONS,
        embedding=embedding.digest,
        heads=heads.digest,
        partitions={INTERACTIONS: 1, FEEDBACK: 1},
        shards=1,
        receipt_keys={},
        rules=rules,
    )
    player = _Player(config, embedding, heads, report)
    for window in _windows(_judged(lines), report):
        player.play(window)
    player.finish()
    return report


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
    following = [other.time for other in ahead if other.time is not None]
    if one.time is None or not following or one.time - max(following) <= AHEAD_MS:
        return one
    error = InvalidMessage("time_ahead", f"time is more than a day ahead of each of the next {LOOK_AHEAD} lines", "time")
    return _Timed(one.number, one.line, None, error)


def _timed(number: int, line: bytes) -> _Timed:
    try:
        return _Timed(number, line, time_ms(read_line(line).time))
    except InvalidMessage as error:
        return _Timed(number, line, None, error)


def _windows(lines: Iterable[_Timed], report: BacktestReport) -> Iterator[_Window]:
    """Cut the good lines at the file's window borders."""
    window: _Window | None = None
    newest = 0
    acts = 0
    for timed in lines:
        report.lines += 1
        try:
            if timed.error is not None or timed.time is None:
                raise timed.error or InvalidMessage("invalid", "time is missing", "time")
            interaction, feedback = interaction_from_line(timed.line, default_id=_numbered(timed.number))
        except InvalidMessage as error:
            report.reject(DeadLine(timed.number, error.code, error.reason, error.field))
            continue
        newest = max(newest, timed.time)
        report.first_time = newest if report.first_time is None else report.first_time
        report.last_time = newest
        due = newest - newest % WINDOW_MS
        if window is None:
            window = _Window(due)
        elif due > window.start or window.lines >= MAX_LINES:
            yield window
            window = _Window(max(due, window.start + WINDOW_MS))
        window.lines += 1
        window.interactions.append(_record(timed.number, newest, interaction))
        for act in feedback:
            window.acts.append(_record(acts, newest, act))
            acts += 1
    if window is not None:
        yield window


def _numbered(number: int) -> Callable[[], str]:
    return lambda: f"line-{number}"


def _record(offset: int, time: int, message: Message) -> Record:
    return Record(offset, time, None, codec.encode(message))


class _Player:
    """Scores window after window and folds what is closed, with a cut of its own for each batch."""

    def __init__(self, config: Config, embedding: EmbeddingTable, heads: HeadTable, report: BacktestReport) -> None:
        self._configs = ConfigLog()
        self._embedding, self._heads = embedding, heads
        self._active = self._activate(config, None, "the file's own config")
        self._closer = WindowCloser(0, config.partitions)
        self._fold = Fold(0, self._configs, cell_names=embedding.cells)
        self._prompts: dict[AppKey, list[Prompt]] = {}
        self._again: dict[AppKey, int] = {}
        self._report = report
        self._starts = {INTERACTIONS: 0, FEEDBACK: 0}
        self._waiting: list[ClosedWindow] = []

    def play(self, window: _Window) -> None:
        for topic, records in ((INTERACTIONS, window.interactions), (FEEDBACK, window.acts)):
            end = records[-1].offset + 1 if records else self._starts[topic]
            block = score_block(Place(topic, _ID, 0), window.start, self._starts[topic], end, records, self._active)
            self._starts[topic] = end
            self._count(topic, len(block.scored))
            if topic == INTERACTIONS:
                self._collect(block.scored)
            for letter in block.dead_letters:
                said = codec.decode(DeadLetter, letter.value)
                self._report.reject(DeadLine(said.coordinates.offset, said.code, said.reason, said.field))
            for out in block.summaries:
                summary = codec.decode(BlockSummary, out.value)
                self._closer.add(summary, value=out.value)
                for group in summary.groups:
                    if group.n:
                        self._report.versions[group.app, group.environment, group.version] += group.n
        self._fit(window.start + WINDOW_MS)
        self._report.windows += 1
        self._waiting += self._closer.closed()
        if len(self._waiting) >= _FOLD_EVERY:
            self.finish()

    def finish(self) -> None:
        """Fold what waits."""
        windows, self._waiting = self._waiting, []
        if not windows:
            return
        cut = Cut(
            shard=0,
            first_window=windows[0].window,
            last_window=windows[-1].window,
            windows=len(windows),
            summaries_end=0,
            commands_end=0,
            actions_end=0,
            config_end=0,
        )
        output = self._fold.fold(windows, (), cut)
        self._report.detections += output.detections
        self._report.alerts += output.alerts
        self._report.actions += output.actions

    def _activate(self, config: Config, window: int | None, reason: str) -> ActiveConfig:
        """What scores from the window that starts at `window` (ms) on; None: from the beginning."""
        digest = codec.digest(config)
        self._configs.configs[digest] = config
        activation = Activation(id=f"{_ID}-{len(self._configs.activations)}", config=digest, actor="backtest", reason=reason)
        self._configs.activations.append((window, activation))
        return ActiveConfig(digest, config, Scoring(config, self._embedding, self._heads))

    def _collect(self, scored: Sequence[Outgoing]) -> None:
        """Keep the first prompts of the apps that have no cells of their own yet, as the fitter would."""
        for out in scored:
            record = codec.decode(ScoredInteraction, out.value)
            key = (record.app, record.environment)
            if key not in self._prompts and self._wants_cells(key):
                self._prompts[key] = []
            if key in self._prompts and (prompt := prompt_of(record)) is not None:
                self._prompts[key].append(prompt)

    def _wants_cells(self, key: AppKey) -> bool:
        config = self._active.config
        return len(self._prompts) < _FIT_APPS and fit_events(config, *key) > 0 and cells_of(config, *key) is None

    def _fit(self, window: int) -> None:
        """From `window` on, the apps that now have prompts enough are scored with cells of their own."""
        counts = {key: len(prompts) for key, prompts in self._prompts.items()}
        for key in due(counts, self._active.config, self._again):
            events = fit_events(self._active.config, *key)
            try:
                prompts = self._prompts[key][-events:] if key in self._again else self._prompts[key][:events]
                own = fit_cells(*key, 1, prompts, WordSums(self._embedding))
                config = with_cells(self._active.config, own)
            except (CannotFit, ValueError):
                self._again[key] = 2 * events
                self._prompts[key] = self._prompts[key][-events:]
                continue
            del self._prompts[key]
            self._active = self._activate(config, window, f"own topic cells of {key[0]} ({key[1]})")
            self._report.fitted.append(Fitted(*key, window, own.names))

    def _count(self, topic: str, scored: int) -> None:
        if topic == INTERACTIONS:
            self._report.scored += scored
        else:
            self._report.acts += scored
