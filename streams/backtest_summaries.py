"""Scored summaries of the past folded again from their beginning, under any rules: nothing is scored, so it is fast."""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Final

import msgspec

from core.configs import ConfigLog
from core.fold import Fold
from core.windows import WindowCloser, cut_of
from schemas import codec
from schemas.codec import Record
from schemas.messages import WINDOW_MS, BlockSummary, Rules
from streams.backtest_report import BacktestReport

_EVERY: Final = 2_000
"""Records between two looks at what has closed."""


def with_rules(configs: ConfigLog, change: Callable[[Rules], Rules]) -> ConfigLog:
    """The same log of configs, under the same digests, with other rules."""
    changed = {digest: msgspec.structs.replace(config, rules=change(config.rules)) for digest, config in configs.configs.items()}
    return ConfigLog(changed, list(configs.activations), configs.poison, configs.end)


def backtest_summaries(
    shards: Mapping[int, Iterable[Record]],
    configs: ConfigLog,
    first: int,
    last: int,
    *,
    cell_names: Sequence[str] = (),
    progress: Callable[[BacktestReport], None] = lambda _: None,
) -> BacktestReport:
    """Fold the windows that start in [first, last), ms, as if watching had begun there.

    `shards`: by shard, records of llm.summaries in their order. Lines of the report are interactions here: places in the log
    count them from 0.
    """
    report, events = BacktestReport(), Counter[int]()
    for shard in sorted(shards):
        _fold_shard(shard, shards[shard], configs, (first, last), cell_names, report, events, progress)
    at = 0
    for window in sorted(events):
        report.places.add(window, at, at + events[window] - 1)
        at += events[window]
    report.lines = report.scored
    if events:
        report.first_time, report.last_time = min(events), max(events) + WINDOW_MS
    report.detections.sort(key=lambda d: (d.window, d.shard))
    report.alerts.sort(key=lambda a: (a.window, a.shard))
    report.actions.sort(key=lambda a: (a.window, a.shard))
    return report


def _fold_shard(
    shard: int,
    records: Iterable[Record],
    configs: ConfigLog,
    span: tuple[int, int],
    cell_names: Sequence[str],
    report: BacktestReport,
    events: Counter[int],
    progress: Callable[[BacktestReport], None],
) -> None:
    fold = Fold(shard, configs, cell_names=cell_names)
    closer = WindowCloser(shard, configs.config(configs.config_for(span[1])).partitions)
    seen: set[tuple[str, int]] = set()

    def take() -> None:
        while windows := closer.closed(limit=_EVERY):
            for window in windows:
                count = sum(group.n for group in window.groups)
                events[window.window] += count
                report.scored += count
                report.acts += sum(group.acts for group in window.groups)
                for group in window.groups:
                    if group.n:
                        report.versions[group.app, group.environment, group.version] += group.n
            report.windows += len(windows)
            output = fold.fold(windows, (), cut_of(windows))
            report.detections += output.detections
            report.alerts += output.alerts
            report.actions += output.actions
        progress(report)

    for number, record in enumerate(records, 1):
        if span[0] <= _window_of(record) < span[1]:
            summary = codec.decode(BlockSummary, record.value, keep_unknown=False)
            seen.add((summary.header.topic, summary.header.partition))
            closer.add(summary, offset=record.offset, value=record.value)
        if number % _EVERY == 0:
            take()
    # A partition without a header in the whole range cannot be waited for.
    for topic, partitions in configs.config(configs.config_for(span[1])).partitions.items():
        for partition in range(partitions):
            if (topic, partition) not in seen:
                closer.exclude(topic, partition)
    take()
    report.unjudged += fold.unjudged()


def _window_of(record: Record) -> int:
    """From `ce_id`, which is topic/topic id/partition/window/shard/part: most records need not be decoded to be passed over."""
    said = (codec.header(record.headers, "ce_id") or b"").decode(errors="replace").split("/")
    return int(said[3]) if len(said) > 3 and said[3].isdecimal() else -1
