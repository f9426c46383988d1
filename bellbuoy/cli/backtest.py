"""`bellbuoy backtest`: play a log or recorded summaries against the rules, or recompute the broker's log and compare it byte for byte."""

import gzip
import os
import zlib
from pathlib import Path
from typing import Annotated, Final

import msgspec
import typer

from adapters.embedding import load_embedding
from adapters.heads import load_heads
from adapters.keys import redaction_keys
from adapters.recorded import record_log
from adapters.recorded_summaries import recorded_summaries
from adapters.settings import Settings
from bellbuoy.backtest_inputs import BadInput, lines_of, load_tables, truth_of
from bellbuoy.backtest_printing import Progress, print_report, report_json
from bellbuoy.cli.printing import fail, harmless, print_json
from bellbuoy.cli.rules import load, refused
from bellbuoy.reach import need_kafka
from core.event_time import time_ms
from core.rule_file import InvalidRules
from core.rules import DEFAULT_RULES
from schemas.codec import InvalidMessage
from schemas.messages import Rules
from schemas.topics import RAW_TOPICS
from services.config_writer import read_configs
from streams.backtest import Recomputed, compare, recompute
from streams.backtest_file import backtest_file, with_reference
from streams.backtest_report import BacktestReport, Change, judged_by
from streams.backtest_scoring import InProcesses
from streams.backtest_summaries import backtest_summaries, with_rules

_SHOWN = 50
_LARGE_BYTES: Final = 16_000_000
"""From this size on a log is worth the two seconds that processes of their own take to begin."""
_GZIP_FACTOR: Final = 8


def command(
    log: Annotated[
        Path | None, typer.Option("--log", help="JSON lines, plain or gzip.", metavar="FILE", exists=True, dir_okay=False)
    ] = None,
    first: Annotated[str | None, typer.Option("--from", help="First moment of what a stack recorded.", metavar="T")] = None,
    last: Annotated[str | None, typer.Option("--to", help="The moment after the last one.", metavar="T")] = None,
    reference_events: Annotated[
        int | None, typer.Option("--reference-events", min=1, help="How many events of an app are its reference.")
    ] = None,
    rules: Annotated[
        Path | None, typer.Option("--rules", help="Rules to play.", metavar="FILE", exists=True, dir_okay=False)
    ] = None,
    truth: Annotated[
        Path | None, typer.Option("--truth", help="Changes known to be in it.", metavar="FILE", exists=True, dir_okay=False)
    ] = None,
    jobs: Annotated[int | None, typer.Option("--jobs", min=1, help="Processes that score (default: one a core).")] = None,
    verify: Annotated[bool, typer.Option("--verify", help="Recompute what stands on Kafka, and compare.")] = False,
    json: Annotated[bool, typer.Option("--json", help="Print JSON for a program to read; the last line is one object.")] = False,
) -> None:
    """Play history: what would have fired, and what would have been asked for. Nothing is written, nobody is paged.

    --log FILE needs no stack. One JSON object a line: time (RFC 3339, or seconds since 1970), app, prompt; and, where there, id,
    response, model_version, response_model, latency_ms (milliseconds), user, conversation, attributes, feedback (given at that
    time). An app's first 5,000 events are what the later ones are compared with. Lines that cannot be read are listed and
    left out; exits 1 when none can be read.

    --from T --to T folds what a stack scored (summaries are kept for 30 days), the first events after T as the reference.

    --truth FILE, {"changes": [{"event_index", "metric"}]}, adds the delay of each change, what was missed, and false alarms.
    Lines count from 0; with --from they are events.

    --verify recomputes everything on Kafka from the raw records, and exits 1 when one byte differs.

    \b
    Examples:
      bellbuoy backtest --log requests.jsonl.gz
      bellbuoy backtest --log requests.jsonl --truth changes.json --json
      bellbuoy backtest --from 2026-11-01 --to 2026-11-08 --rules rules.yaml
      bellbuoy backtest --verify
    """
    if [log is not None, first is not None or last is not None, verify].count(True) != 1:
        raise fail("say --log FILE, or --from T --to T, or --verify")
    if verify:
        _verify(json=json)
        return
    try:
        chosen = load(rules) if rules is not None else None
        changes = truth_of(truth) if truth is not None else None
    except InvalidRules as error:
        raise refused(error) from None
    except BadInput as error:
        raise fail(str(error)) from None
    if log is not None:
        base = chosen or DEFAULT_RULES
        played = with_reference(base, reference_events or base.reference_events)
        report, seconds = _play_file(log, played, jobs)
        _tell(report, seconds, played.reference_events, changes, json=json)
        if not report.scored:
            line = f"; line {report.dead_lines[0].line}: {report.dead_lines[0].reason}" if report.dead_lines else ""
            raise fail(f"no line of {log} is a request with time, app and prompt{line}")
        return
    span = _span(first, last)
    report, seconds, counted = _play_recorded(span, chosen, reference_events)
    _tell(report, seconds, counted, changes, json=json)
    if not report.windows:
        raise fail(f"nothing was recorded between {first} and {last}: summaries are kept for 30 days")


def _play_file(log: Path, rules: Rules, jobs: int | None) -> tuple[BacktestReport, float]:
    progress = Progress()
    processes = jobs or (os.cpu_count() or 1 if _is_large(log) else 1)
    settings = Settings()
    try:
        tables = load_embedding(settings), load_heads()
        if processes == 1:
            report = backtest_file(lines_of(log), *tables, rules=rules, progress=progress)
        else:
            with InProcesses(load_tables, processes) as scorer:
                report = backtest_file(lines_of(log), *tables, rules=rules, scorer=scorer, progress=progress)
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise fail(f"{log} is no whole gzip file: {error}") from None
    return report, progress.end()


def _is_large(log: Path) -> bool:
    return log.stat().st_size * (_GZIP_FACTOR if log.suffix == ".gz" else 1) >= _LARGE_BYTES


def _play_recorded(span: tuple[int, int], rules: Rules | None, reference_events: int | None) -> tuple[BacktestReport, float, int]:
    settings = Settings()
    need_kafka(settings)
    progress = Progress()
    configs = read_configs(settings)
    if not configs.activations:
        raise fail("no config has been activated yet: nothing was recorded")

    def change(recorded: Rules) -> Rules:
        own = rules or recorded
        return own if reference_events is None else msgspec.structs.replace(own, reference_events=reference_events)

    configs = with_rules(configs, change)
    names = load_embedding(settings).cells
    report = backtest_summaries(recorded_summaries(settings, span[0]), configs, *span, cell_names=names, progress=progress)
    return report, progress.end(), configs.config(configs.config_for(span[1])).rules.reference_events


def _span(first: str | None, last: str | None) -> tuple[int, int]:
    if first is None or last is None:
        raise typer.BadParameter("--from and --to go together")
    try:
        span = _moment(first), _moment(last)
    except InvalidMessage as error:
        raise typer.BadParameter(error.reason) from None
    if span[0] >= span[1]:
        raise typer.BadParameter("--from must lie before --to")
    return span


def _moment(text: str) -> int:
    try:
        return time_ms(float(text))
    except ValueError:
        return time_ms(text)


def _tell(report: BacktestReport, seconds: float, reference: int, changes: list[Change] | None, *, json: bool) -> None:
    found = None if changes is None else judged_by(changes, report.alarms(), report.lines)
    if json:
        print_json(report_json(report, seconds, found))
    else:
        print_report(report, reference, found)


def _verify(*, json: bool) -> None:
    settings = Settings()
    need_kafka(settings)
    recorded = record_log(settings)
    recomputed = recompute(recorded, load_embedding(settings), load_heads(), redaction_keys(settings))
    differences = compare(recorded, recomputed)
    counted = {
        "records": sum(len(recorded.of(t, p)) for topic in RAW_TOPICS for t, p in recorded.places(topic)),
        **_counts(recomputed),
    }
    if json:
        print_json(counted | {"differences": differences})
    else:
        typer.echo("recomputed " + ", ".join(f"{count:,} {name}" for name, count in counted.items()))
        for difference in differences[:_SHOWN]:
            typer.echo(harmless(difference))
        typer.echo(f"{len(differences):,} differences" if differences else "equal to what is on the broker, byte for byte")
    if differences:
        raise typer.Exit(1)


def _counts(recomputed: Recomputed) -> dict[str, int]:
    return {
        "scored": len(recomputed.scored),
        "dead": len(recomputed.dead_letters),
        "summaries": len(recomputed.summaries),
        "rows": len(recomputed.rows),
        "detections": len(recomputed.detections),
        "alerts": len(recomputed.alerts),
        "actions": len(recomputed.actions),
    }
