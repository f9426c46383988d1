"""`bellbuoy backtest`: play a file of short lines against the rules, or recompute the broker's log and compare it byte for byte."""

import gzip
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from adapters.embedding import load_embedding
from adapters.recorded import record_log
from adapters.settings import Settings
from bellbuoy.cli.printing import as_json, fail, print_json, safe, when
from schemas.topics import RAW_TOPICS
from streams.backtest import Recomputed, compare, recompute
from streams.backtest_file import BacktestReport, backtest_file

_SHOWN = 50


def command(
    log: Annotated[
        Path | None, typer.Option("--log", help="JSON lines with time, app, prompt …; .gz is fine.", exists=True, dir_okay=False)
    ] = None,
    verify: Annotated[
        bool, typer.Option("--verify", help="Recompute the broker's topics and compare what was published.")
    ] = False,
    json: Annotated[bool, typer.Option("--json", help="Print JSON for a program to read.")] = False,
) -> None:
    """Play a recorded log: nothing is written anywhere, nobody is paged."""
    if (log is None) != verify:
        raise fail("say either --log FILE or --verify")
    settings = Settings()
    if log is not None:
        report = backtest_file(_lines(log), load_embedding(settings))
        print_json(report_json(report)) if json else _print_report(report)
        return
    recorded = record_log(settings)
    recomputed = recompute(recorded, load_embedding(settings))
    differences = compare(recorded, recomputed)
    counted = {
        "records": sum(len(recorded.of(t, p)) for topic in RAW_TOPICS for t, p in recorded.places(topic)),
        **_counts(recomputed),
    }
    if json:
        print_json(counted | {"differences": differences})
    else:
        console = Console(highlight=False, soft_wrap=True)
        console.print(", ".join(f"{name} {count}" for name, count in counted.items()) + " recomputed")
        for difference in differences[:_SHOWN]:
            console.print(safe(difference))
        console.print(f"{len(differences)} differences" if differences else "equal to what is on the broker, byte for byte")
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
        "detections": [as_json(d) for d in report.detections],
        "alerts": [as_json(a) for a in report.alerts],
        "actions": [as_json(a) for a in report.actions],
    }


def _lines(path: Path) -> Iterator[bytes]:
    with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
        yield from file


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
    console = Console(highlight=False, soft_wrap=True)
    console.print(
        f"{report.lines} lines: {report.scored} scored, {report.acts} feedback acts, {report.dead} dead, {report.windows} windows"
    )
    if report.first_time is not None and report.last_time is not None:
        console.print(f"from {when(report.first_time)} to {when(report.last_time)} UTC")
    for dead in report.dead_lines[:10]:
        where = f" ({dead.field})" if dead.field else ""
        console.print(safe(f"line {dead.line}: {dead.reason}{where}"))
    versions = Table("app", "version", "interactions", box=None)
    for (app, environment, version), count in report.versions.most_common(20):
        versions.add_row(safe(f"{app} ({environment})"), safe(version), str(count))
    console.print(versions, soft_wrap=False)
    if not report.alerts:
        console.print("no alert")
        return
    for alert in report.alerts:
        console.print(safe(f"{when(alert.window)} {alert.state} {alert.app} ({alert.environment}): {alert.reason}"))
    for step in report.actions:
        console.print(safe(f"{when(step.window)} {step.kind} {step.state}: {step.reason}"))
