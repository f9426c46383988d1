"""`bellbuoy backtest`: play a file of short lines against the rules, or recompute the broker's log and compare it byte for byte."""

import gzip
import zlib
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import typer

from adapters.embedding import load_embedding
from adapters.heads import load_heads
from adapters.keys import redaction_keys
from adapters.recorded import record_log
from adapters.settings import Settings
from bellbuoy.cli.printing import as_json, fail, harmless, place, print_json, table, when
from bellbuoy.reach import need_kafka
from core.rules import DEFAULT_RULES
from schemas.topics import RAW_TOPICS
from streams.backtest import Recomputed, compare, recompute
from streams.backtest_file import BacktestReport, backtest_file

_SHOWN = 50


def command(
    log: Annotated[
        Path | None, typer.Option("--log", help="JSON lines, plain or gzip.", metavar="FILE", exists=True, dir_okay=False)
    ] = None,
    verify: Annotated[bool, typer.Option("--verify", help="Recompute what stands on Kafka, and compare.")] = False,
    json: Annotated[bool, typer.Option("--json", help="Print JSON for a program to read.")] = False,
) -> None:
    """Play a recorded log: what would have fired, and what would have been asked for. Nothing is written, nobody is paged.

    --log FILE needs no stack. One JSON object a line: time (RFC 3339, or seconds since 1970), app, prompt; and, where there, id,
    response, model_version, response_model, latency_ms (milliseconds), user, conversation, attributes, feedback. An app's first
    5,000 lines are what the later ones are compared with. Exits 1 when no line can be read.

    --verify recomputes everything on Kafka from the raw records, and exits 1 when one byte differs.

    \b
    Examples:
      bellbuoy backtest --log requests.jsonl.gz
      bellbuoy backtest --verify
    """
    if (log is None) != verify:
        raise fail("say either --log FILE or --verify")
    settings = Settings()
    if log is not None:
        try:
            report = backtest_file(_lines(log), load_embedding(settings), load_heads())
        except (gzip.BadGzipFile, EOFError, zlib.error) as error:
            raise fail(f"{log} is no whole gzip file: {error}") from None
        print_json(report_json(report)) if json else _print_report(report)
        if not report.scored:
            first = f"; line {report.dead_lines[0].line}: {report.dead_lines[0].reason}" if report.dead_lines else ""
            raise fail(f"no line of {log} is a request with time, app and prompt{first}")
        return
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


def report_json(report: BacktestReport) -> dict[str, Any]:
    """A report as plain values."""
    return {
        "lines": report.lines,
        "scored": report.scored,
        "feedback": report.acts,
        "dead": report.dead,
        "dead_lines": [{"line": d.line, "code": d.code, "reason": d.reason, "field": d.field} for d in report.dead_lines],
        "windows": report.windows,
        "first_time": report.first_time,
        "last_time": report.last_time,
        "versions": [
            {"app": app, "environment": environment, "version": version, "interactions": count}
            for (app, environment, version), count in sorted(report.versions.items())
        ],
        "fitted": [{"app": f.app, "environment": f.environment, "from": f.window, "cells": f.cells} for f in report.fitted],
        "detections": [as_json(d) for d in report.detections],
        "alerts": [as_json(a) for a in report.alerts],
        "actions": [as_json(a) for a in report.actions],
    }


def _lines(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        zipped = file.read(2) == b"\x1f\x8b"
    with gzip.open(path) if zipped else path.open("rb") as lines:
        yield from lines


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


def _print_report(report: BacktestReport) -> None:
    typer.echo(
        f"{report.lines:,} lines: {report.scored:,} scored, {report.acts:,} feedback acts, {report.dead:,} dead, "
        f"{report.windows:,} windows"
    )
    if report.first_time is not None and report.last_time is not None:
        typer.echo(f"from {when(report.first_time)} to {when(report.last_time)} UTC")
    for dead in report.dead_lines[:10]:
        where = f" ({dead.field})" if dead.field else ""
        typer.echo(harmless(f"line {dead.line}: {dead.reason}{where}"))
    if report.versions:
        rows = [
            (harmless(place(app, environment)), harmless(version), f"{count:,}")
            for (app, environment, version), count in report.versions.most_common(20)
        ]
        typer.echo(table(("APP", "VERSION", "INTERACTIONS"), rows, right=[2]))
    for app, count in _too_short(report).items():
        typer.echo(harmless(f"{app}: nothing was judged; {count:,} interactions are no more than the reference needs"))
    for fitted in report.fitted:
        app = place(fitted.app, fitted.environment)
        typer.echo(harmless(f"{when(fitted.window)} {app}: {len(fitted.cells)} topic cells of its own from here on"))
    if not report.alerts:
        typer.echo("no alert")
    for alert in report.alerts:
        typer.echo(harmless(f"{when(alert.window)} {alert.state} {place(alert.app, alert.environment)}: {alert.reason}"))
    for step in report.actions:
        typer.echo(harmless(f"{when(step.window)} {step.kind} {step.state}: {step.reason}"))


def _too_short(report: BacktestReport) -> Counter[str]:
    """Apps whose whole log became their reference, with their interactions."""
    apps: Counter[str] = Counter()
    for (app, environment, _), count in report.versions.items():
        apps[place(app, environment)] += count
    return Counter({app: count for app, count in apps.items() if count <= DEFAULT_RULES.reference_events})
