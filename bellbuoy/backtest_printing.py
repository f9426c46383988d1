"""A backtest's outcome, for people and for programs."""

import sys
import time
from collections import Counter
from typing import Any, Final

import msgspec
import typer

from bellbuoy.cli.printing import as_json, harmless, percent, place, table, when
from streams.backtest_report import BacktestReport

_EVERY_S: Final = 2.0
_EVERY_PIPE_S: Final = 30.0


def report_json(report: BacktestReport, seconds: float, truth: dict[str, Any] | None = None) -> dict[str, Any]:
    """A report as plain values."""
    value = {
        "alarms": [alarm.json() for alarm in report.alarms()],
        "actions": [as_json(action) for action in report.actions],
        "pages_per_week": report.pages_per_week(),
        "events": report.scored,
        "seconds": round(seconds, 3),
        "pages": report.pages,
        "lines": report.lines,
        "feedback": report.acts,
        "dead": report.dead,
        "dead_lines": [msgspec.to_builtins(dead) for dead in report.dead_lines],
        "repeated": report.repeated,
        "windows": report.windows,
        "first_time": report.first_time,
        "last_time": report.last_time,
        "versions": [
            {"app": app, "environment": environment, "version": version, "interactions": count}
            for (app, environment, version), count in sorted(report.versions.items())
        ],
        "fitted": [{"app": f.app, "environment": f.environment, "from": f.window, "cells": f.cells} for f in report.fitted],
        "not_judged": [
            msgspec.to_builtins(one) | {"metric": report.stated(one.app, one.environment, one.metric), "stream": one.metric}
            for one in report.unjudged
        ],
        "feedback_not_judged": [
            {"app": app, "environment": environment, "name": name, "acts": count}
            for (app, environment, name), count in sorted(report.unwatched_feedback.items())
        ],
        "alerts": [as_json(alert) for alert in report.alerts],
    }
    return value if truth is None else value | {"truth": truth}


class Progress:
    """Says on stderr how far it is, when it takes long."""

    def __init__(self) -> None:
        self.started = time.monotonic()
        self._said = self.started
        self._every = _EVERY_S if sys.stderr.isatty() else _EVERY_PIPE_S
        self._open = False

    def __call__(self, report: BacktestReport) -> None:
        now = time.monotonic()
        if now - self._said >= self._every:
            self._said = now
            until = "" if report.last_time is None else f", {when(report.last_time)}"
            text = f"{report.scored:,} events{until}, {report.scored / (now - self.started):,.0f} a second"
            self._open = sys.stderr.isatty()
            typer.echo(f"\r{text}" if self._open else text, err=True, nl=not self._open)

    def end(self) -> float:
        """Seconds since it began."""
        if self._open:
            typer.echo("", err=True)
        return time.monotonic() - self.started


def print_report(report: BacktestReport, reference_events: int, truth: dict[str, Any] | None = None) -> None:
    """A report in words."""
    repeated = f", {report.repeated:,} lines whose id came before" if report.repeated else ""
    typer.echo(
        f"{report.lines:,} lines: {report.scored:,} scored, {report.acts:,} feedback acts, {report.dead:,} dead{repeated}, "
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
    short = _too_short(report, reference_events)
    for app, count in short.items():
        typer.echo(harmless(f"{app}: nothing was judged; {count:,} interactions are no more than the reference needs"))
    for fitted in report.fitted:
        app = place(fitted.app, fitted.environment)
        typer.echo(harmless(f"{when(fitted.window)} {app}: {len(fitted.cells)} topic cells of its own from here on"))
    _print_not_judged(report, short)
    for alarm in report.alarms():
        d = alarm.detection
        carried = ", ".join(f"{c.name} {percent(c.share)}" for c in d.contributions[:3])
        typer.echo(
            harmless(
                f"alarm in line {alarm.event_index} (from 0), since line {alarm.onset_index}: {alarm.name} of "
                f"{place(d.app, d.environment)} ({d.slice}) from {percent(d.effect.before)} to {percent(d.effect.after)}; {carried}"
            )
        )
    if not report.alerts:
        typer.echo("no alert")
    for alert in report.alerts:
        typer.echo(harmless(f"{when(alert.window)} {alert.state} {place(alert.app, alert.environment)}: {alert.reason}"))
    for step in report.actions:
        typer.echo(harmless(f"{when(step.window)} {step.kind} {step.state}: {step.reason}"))
    rate = report.pages_per_week()
    if report.scored:
        typer.echo("pages a week: " + ("the log is too short to say" if rate is None else f"{rate:g}"))
    if truth is not None:
        _print_truth(truth)


def _print_not_judged(report: BacktestReport, short: Counter[str]) -> None:
    by_reason: dict[tuple[str, str], list[str]] = {}
    for one in report.unjudged:
        app = place(one.app, one.environment)
        if app not in short:
            by_reason.setdefault((app, one.reason), []).append(report.stated(one.app, one.environment, one.metric))
    for (app, reason), metrics in by_reason.items():
        typer.echo(harmless(f"{app}: not judged, {reason}: {', '.join(metrics)}"))
    for (name, environment, act), count in sorted(report.unwatched_feedback.items()):
        typer.echo(harmless(f"{place(name, environment)}: {count:,} acts named {act} are counted, not judged"))


def _print_truth(truth: dict[str, Any]) -> None:
    rows = [
        (str(c["event_index"]), harmless(c["metric"]), "missed" if c["missed"] else f"{c['delay']:,}") for c in truth["changes"]
    ]
    typer.echo(table(("CHANGE AT LINE", "METRIC", "DELAY (LINES)"), rows, right=[0, 2]))
    typer.echo(
        f"{truth['missed']} missed; {truth['false_alarms']} alarms that no change explains, "
        f"{truth['before_any_change']} of them before any change ({truth['false_alarms_per_million_events']:g} a million events)"
    )


def _too_short(report: BacktestReport, reference_events: int) -> Counter[str]:
    """Apps whose whole log became their reference, with their interactions."""
    apps: Counter[str] = Counter()
    for (app, environment, _), count in report.versions.items():
        apps[place(app, environment)] += count
    return Counter({app: count for app, count in apps.items() if count <= reference_events})
