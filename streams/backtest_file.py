"""A file of short lines played through the same blocks and the same fold: what would have been detected, and what asked for."""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Final

import msgspec

from core.cells import with_cells
from core.configs import ConfigLog
from core.fitter import AppKey, CannotFit, Prompt, due, fit_cells, fit_events
from core.fold import Fold
from core.rules import DEFAULT_RULES, LEAST_FIT, MOST_FIT, default_config
from core.scoring import SCORER_VERSIONS, EmbeddingTable, HeadTable
from core.scoring.thumbs import is_down
from core.scoring.words import WordSums
from core.windows import ClosedWindow, WindowCloser, cut_of
from schemas import codec
from schemas.messages import (
    WINDOW_MS,
    Activation,
    BlockSummary,
    Config,
    Feedback,
    FitRules,
    Interaction,
    Rules,
)
from schemas.topics import FEEDBACK, INTERACTIONS
from streams.backtest_report import BacktestReport, Fitted
from streams.backtest_scoring import BATCH_LINES, BlocksOfWindow, InProcess, ToScore, WindowScorer
from streams.backtest_windows import FileWindow, LineReader

__all__ = ["BacktestReport", "backtest_file", "with_reference"]

IDLE_WINDOWS: Final = 720
"""A silence counts as watched for an hour at most: what is longer may be time in which nothing was recorded."""
_FOLD_EVERY: Final = 500
_FIT_APPS: Final = 50
"""Apps whose prompts are kept for a fit at the same time."""
_ID: Final = "file"


def with_reference(rules: Rules, events: int) -> Rules:
    """The rules with an app's first `events` events as its reference; where there are enough of them its own cells come from
    the first half and are counted on the second."""
    fit = FitRules(events=min(events, MOST_FIT) if events >= LEAST_FIT else 0)
    apps = tuple(app if app.fit is None or app.fit.events == 0 else msgspec.structs.replace(app, fit=fit) for app in rules.apps)
    return msgspec.structs.replace(rules, reference_events=events, fit=fit, apps=apps)


def backtest_file(
    lines: Iterable[bytes],
    embedding: EmbeddingTable,
    heads: HeadTable,
    *,
    rules: Rules = DEFAULT_RULES,
    scorer: WindowScorer | None = None,
    progress: Callable[[BacktestReport], None] = lambda _: None,
) -> BacktestReport:
    """Play the lines; blank ones are passed over. What a line says wrong is in the report, never an exception.

    `scorer` scores elsewhere than here, with the same tables; `progress` is told now and then.
    """
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

    def see(interaction: Interaction, acts: list[Feedback]) -> None:
        key = (interaction.app, interaction.environment)
        for act in acts:
            if is_down(act) is None:
                report.unwatched_feedback[(*key, act.name)] += 1
            else:
                report.feedback.setdefault(key, Counter())[act.name] += 1

    reader = LineReader(report.reject, see)
    player = _Player(config, embedding, scorer or InProcess(embedding, heads), report)
    for windows in _batches(reader.windows(lines)):
        player.play(windows)
        report.lines, report.repeated = reader.lines, reader.repeated
        report.first_time, report.last_time = reader.first_time, reader.last_time
        progress(report)
    player.finish()
    report.lines, report.repeated = reader.lines, reader.repeated
    report.first_time, report.last_time = reader.first_time, reader.last_time
    return report


def _batches(windows: Iterable[FileWindow]) -> Iterator[tuple[FileWindow, ...]]:
    """Windows in batches of at least BATCH_LINES lines."""
    batch: list[FileWindow] = []
    count = 0
    for window in windows:
        batch.append(window)
        count += window.lines
        if count >= BATCH_LINES:
            yield tuple(batch)
            batch, count = [], 0
    if batch:
        yield tuple(batch)


class _Player:
    """Scores batch after batch and folds what is closed, with a cut of its own for each number of windows."""

    def __init__(self, config: Config, embedding: EmbeddingTable, scorer: WindowScorer, report: BacktestReport) -> None:
        self._configs = ConfigLog()
        self._embedding, self._scorer = embedding, scorer
        self._config = config
        self._activate(config, None, "the file's own config")
        self._closer = WindowCloser(0, config.partitions)
        self._fold = Fold(0, self._configs, cell_names=embedding.cells)
        self._prompts: dict[AppKey, list[Prompt]] = {}
        self._again: dict[AppKey, int] = {}
        self._report = report
        self._submitted: list[ToScore] = []
        self._starts = (0, 0)
        self._waiting: list[ClosedWindow] = []
        self._last: int | None = None

    def play(self, windows: tuple[FileWindow, ...]) -> None:
        """Take a batch; its turn comes when enough of those after it are under way."""
        self._submit(ToScore(windows, self._starts))
        self._starts = _after(windows, self._starts)
        while len(self._submitted) >= self._scorer.ahead:
            self._take()

    def finish(self) -> None:
        """Take what is under way, fold what waits, and note what was not judged."""
        while self._submitted:
            self._take()
        self._fold_waiting()
        self._report.unjudged = self._fold.unjudged()

    def _submit(self, batch: ToScore) -> None:
        self._submitted.append(batch)
        self._scorer.submit(batch)

    def _take(self) -> None:
        batch = self._submitted.pop(0)
        scored = self._scorer.take()
        for at, (window, blocks) in enumerate(zip(batch.windows, scored, strict=True)):
            self._count(window, blocks)
            if self._fit(window.start + WINDOW_MS):
                # What was scored ahead was scored without the new cells.
                rest, starts = batch.windows[at + 1 :], _after(batch.windows[: at + 1], batch.starts)
                again = [ToScore(rest, starts)] if rest else []
                again += self._submitted
                self._submitted = []
                for one in again:
                    self._submit(one)
                return

    def _count(self, window: FileWindow, blocks: BlocksOfWindow) -> None:
        report = self._report
        report.scored += blocks.interactions
        report.acts += blocks.acts
        for dead in blocks.dead:
            report.reject(dead)
        for key, prompts in blocks.prompts.items():
            if key in self._prompts or len(self._prompts) < _FIT_APPS:
                self._prompts.setdefault(key, []).extend(prompts)
        self._idle_until(window.start)
        for value in blocks.summaries:
            summary = codec.decode(BlockSummary, value)
            self._closer.add(summary, value=value)
            for group in summary.groups:
                if group.n:
                    report.versions[group.app, group.environment, group.version] += group.n
        report.windows += 1
        report.places.add(window.start, window.first_line, window.last_line)
        self._waiting += self._closer.closed()
        self._last = window.start
        if len(self._waiting) >= _FOLD_EVERY:
            self._fold_waiting()

    def _idle_until(self, start: int) -> None:
        """Windows without lines, as a silent partition's ticks make them in a live log."""
        if self._last is not None:
            until = min(start, self._last + (IDLE_WINDOWS + 1) * WINDOW_MS)
            self._waiting += [ClosedWindow(window, ()) for window in range(self._last + WINDOW_MS, until, WINDOW_MS)]

    def _fold_waiting(self) -> None:
        windows, self._waiting = self._waiting, []
        if not windows:
            return
        output = self._fold.fold(windows, (), cut_of(windows))
        self._report.detections += output.detections
        self._report.alerts += output.alerts
        self._report.actions += output.actions

    def _activate(self, config: Config, window: int | None, reason: str) -> None:
        """What scores from the window that starts at `window` (ms) on; None: from the beginning."""
        digest = codec.digest(config)
        self._configs.configs[digest] = self._config = config
        activation = Activation(id=f"{_ID}-{len(self._configs.activations)}", config=digest, actor="backtest", reason=reason)
        self._configs.activations.append((window, activation))
        self._scorer.activate(digest, config)

    def _fit(self, window: int) -> bool:
        """From `window` on, the apps that now have prompts enough are scored with cells of their own; whether there are any."""
        counts = {key: len(prompts) for key, prompts in self._prompts.items()}
        found = False
        for key in due(counts, self._config, self._again):
            events = fit_events(self._config, *key)
            try:
                prompts = self._prompts[key][-events:] if key in self._again else self._prompts[key][:events]
                own = fit_cells(*key, 1, prompts, WordSums(self._embedding))
                config = with_cells(self._config, own)
            except (CannotFit, ValueError):
                self._again[key] = 2 * events
                self._prompts[key] = self._prompts[key][-events:]
                continue
            del self._prompts[key]
            self._activate(config, window, f"own topic cells of {key[0]} ({key[1]})")
            self._report.fitted.append(Fitted(*key, window, own.names))
            found = True
        return found


def _after(windows: Sequence[FileWindow], starts: tuple[int, int]) -> tuple[int, int]:
    """Offsets after the last records of some windows."""
    interactions = [window.interactions[-1].offset + 1 for window in windows if window.interactions]
    acts = [window.acts[-1].offset + 1 for window in windows if window.acts]
    return (interactions[-1] if interactions else starts[0], acts[-1] if acts else starts[1])
