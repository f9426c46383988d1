"""`bellbuoy adapt`: an app's own correction of the learned scores, from its own labels."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from adapters.settings import Settings
from bellbuoy.adapting import Adapting, LabelFile, Refused, Report
from bellbuoy.cli.evaluate_scorer import figure, mapped_fields
from bellbuoy.cli.printing import fail, harmless, percent, place, print_json, table
from bellbuoy.configuration import ConfigConflict
from bellbuoy.corrections import Corrections, read_corrections
from bellbuoy.score_files import UnreadableFile
from core.configs import ACTIVATION_DELAY_MS
from core.score_lines import METRIC_OF, NAMES
from schemas.messages import AdaptedHead

_SHOWN: Final = (
    ("auprc", "AUPRC"),
    ("auroc", "AUROC"),
    ("recall_at_1", "recall at 1 % false positives"),
    ("recall_at_5", "recall at 5 % false positives"),
    ("recall", "recall where it fires"),
    ("over_blocking", "label 0 that fires"),
    ("calibration_error", "calibration error"),
    ("brier", "Brier score"),
)


def command(
    app: Annotated[str, typer.Option("--app", help="Whose scores are corrected.")],
    labels: Annotated[Path | None, typer.Option("--labels", help="Labelled JSON lines, plain or gzip.", metavar="FILE")] = None,
    environment: Annotated[str, typer.Option("--environment", help="The app's environment.")] = "production",
    name: Annotated[str | None, typer.Option("--name", help="Only this score, such as prompt.safety.unsafe.")] = None,
    benign: Annotated[
        Path | None, typer.Option("--benign", help="Harmless traffic of the app, to calibrate on.", metavar="FILE")
    ] = None,
    mapped: Annotated[
        list[str] | None, typer.Option("--map", help="A field of 0 or 1 and what it labels.", metavar="FIELD=NAME")
    ] = None,
    activate: Annotated[
        bool, typer.Option("--activate", help="Let what was learned hold; alone: what was learned last.")
    ] = False,
    rollback: Annotated[bool, typer.Option("--rollback", help="Back to the correction before, or to none.")] = False,
    list_: Annotated[bool, typer.Option("--list", help="The app's corrections.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Learn and report; keep nothing.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Keep a correction that does not do better.")] = False,
    seed: Annotated[int, typer.Option("--seed", help="Of the held-out part and the bootstrap.", min=0)] = 0,
    json: Annotated[bool, typer.Option("--json", help="Print JSON for a program to read.")] = False,
) -> None:
    """Learn an app's own correction of learned scores from its own labels: a few hundred are worth more than any model.

    A row of FILE has `text` (or prompt, response, messages), `name` and `label` (0 or 1), or the forms of `bellbuoy
    evaluate-scorer`. 30 % of the rows are held out to compare the score before and after; then the correction is learned from
    all of them. Near-duplicates count once. It is refused where there are too few labels, or where it is not shown to do better.

    Without --activate it is kept in the data folder and changes nothing. Activated, it holds for this app and environment
    alone: through llm.config where a stack runs, and for `bellbuoy score --app`. The score's version becomes the scorer's
    × 1,000 + the correction's, so detection begins a new reference. A rollback is a further version.

    \b
    Examples:
      bellbuoy adapt --app desk --labels labels.jsonl --dry-run
      bellbuoy adapt --app desk --labels labels.jsonl --activate
      bellbuoy adapt --app desk --list
      bellbuoy adapt --app desk --rollback --name prompt.safety.unsafe
    """
    if sum((labels is not None or activate, rollback, list_)) != 1:
        raise fail("say one of --labels FILE, --activate, --rollback, --list")
    settings = Settings()
    known = read_corrections(settings, app, environment)
    metric = None if name is None else METRIC_OF.get(name, name)
    try:
        if list_:
            _print_list(known, json)
        elif rollback:
            _activate(known, [known.roll_back(each) for each in _rolled(known, metric)], "rolled back", json)
        elif labels is None:
            _activate(known, _last_learned(known, metric), "activated", json)
        else:
            for file in (labels, benign):
                if file is not None and str(file) != "-" and not file.is_file():
                    raise fail(f"{file}: there is no such file")
            _learn(
                known,
                Adapting(settings, _say),
                labels,
                mapped_fields(mapped),
                metric,
                benign,
                (activate, dry_run, force),
                seed,
                json,
            )
    except (Refused, UnreadableFile, ConfigConflict, ValueError) as error:
        raise fail(harmless(str(error))) from None


def _learn(
    known: Corrections,
    adapting: Adapting,
    labels: Path,
    fields: Mapping[str, str],
    metric: str | None,
    benign: Path | None,
    choices: tuple[bool, bool, bool],
    seed: int,
    json: bool,
) -> None:
    activate, dry_run, force = choices
    read = adapting.read(labels, fields, metric)
    if not read.texts:
        raise Refused(f"no row of {labels} has a label that can be used; " + _dropped(read.dropped))
    learned: list[AdaptedHead] = []
    refused: list[str] = []
    for each, texts in sorted(read.texts.items()):
        harmless_texts = adapting.benign(benign, each) if benign is not None else []
        try:
            head, report = adapting.learn(
                (known.kept.app, known.kept.environment), each, texts, known.next_version(each), seed, harmless_texts
            )
        except Refused as error:
            refused.append(str(error))
            continue
        print_json(as_json(report, head)) if json else _print(report, head, read)
        if not report.better and not force:
            refused.append(f"{report.name}: it is not shown to do better; --force keeps it")
            continue
        learned.append(head)
        if not dry_run:
            known.keep(head)
    if learned and activate and not dry_run:
        _activate(known, learned, "activated", json)
    elif learned and not dry_run and not json:
        typer.echo("kept, not active: `bellbuoy adapt --app APP --activate` lets it hold")
    if refused:
        raise Refused("; ".join(refused))


def _activate(known: Corrections, heads: list[AdaptedHead], what: str, json: bool) -> None:
    said = ", ".join(f"{NAMES.get(head.name, head.name)} version {head.version}" for head in heads)
    where = place(known.kept.app, known.kept.environment)
    digest = known.activate(heads, f"corrections of {where} {what}: {said}")
    if json:
        print_json({"activated": [_entry(head) for head in heads], "config": digest})
    elif digest is None:
        typer.echo(harmless(f"{where}: {said} {what} in the data folder (no stack runs)"))
    else:
        seconds = ACTIVATION_DELAY_MS // 1000
        typer.echo(
            harmless(f"{where}: {said} {what} with config {digest[:12]}; it holds from the first window {seconds} s from now")
        )


def _rolled(known: Corrections, metric: str | None) -> list[str]:
    names = known.active_names() if metric is None else [metric]
    if not names:
        raise Refused(f"no correction of {place(known.kept.app, known.kept.environment)} is active")
    if len(names) > 1:
        raise Refused(f"--name says which: {', '.join(NAMES.get(each, each) for each in names)}")
    return names


def _last_learned(known: Corrections, metric: str | None) -> list[AdaptedHead]:
    """What was learned last of each score and is not active."""
    last = {head.name: head for head in known.kept.learned if metric in (None, head.name)}
    chosen = [head for head in last.values() if head.version > max([0, *(h.version for h in known.history(head.name))])]
    if not chosen:
        raise Refused("nothing was learned since the last activation: --labels FILE learns")
    return chosen


def _print_list(known: Corrections, json: bool) -> None:
    names = sorted({head.name for head in (*known.kept.learned, *known.kept.activated)} | set(known.active_names()))
    rows = []
    for name in names:
        history = known.history(name)
        active = history[-1].version if history else 0
        heads = {head.version: head for head in (*known.kept.learned, *known.kept.activated, *history) if head.name == name}
        for version, head in sorted(heads.items()):
            state = "active" if version == active else "was active" if head in history else "learned"
            rows.append((head, state))
    if json:
        print_json([_entry(head) | {"state": state} for head, state in rows])
        return
    shown = [
        (NAMES.get(head.name, head.name), str(head.version), state, _what(head), f"{len(head.weights):,}", head.heads[:12])
        for head, state in rows
    ]
    titles = ("NAME", "VERSION", "STATE", "WHAT", "BYTES", "HEADS")
    typer.echo(table(titles, shown, right=[1, 4]) if rows else "no corrections")


def _what(head: AdaptedHead) -> str:
    if not head.weights:
        return "the frozen score"
    return f"as version {head.restores}" if head.restores else "learned"


def _entry(head: AdaptedHead) -> dict[str, Any]:
    return {
        "app": head.app,
        "environment": head.environment,
        "name": NAMES.get(head.name, head.name),
        "version": head.version,
        "restores": head.restores,
        "bytes": len(head.weights),
        "heads": head.heads,
        "languages": list(head.languages),
    }


def as_json(report: Report, head: AdaptedHead) -> dict[str, Any]:
    """A report as plain values: null where a figure is not defined."""
    return _entry(head) | {
        "rows": report.rows,
        "positives": report.positives,
        "held_out": report.held_out,
        "before": {key: _plain(vars(value)) for key, value in report.before.figures.items()},
        "after": {key: _plain(vars(value)) for key, value in report.after.figures.items()},
        "gain": _plain(vars(report.gain)),
        "gain_of_all": _plain(vars(report.gain_of_all)),
        "dropped": dict(report.dropped),
        "notes": list(report.notes),
    }


def _plain(values: Mapping[str, float]) -> dict[str, float | None]:
    return {key: None if math.isnan(value) else round(value, 6) for key, value in values.items()}


def _print(report: Report, head: AdaptedHead, read: LabelFile) -> None:
    typer.echo(
        f"{report.name} version {head.version}: {report.rows:,} rows learned from ({percent(report.positives / report.rows)} with label 1), "
        f"{len(head.weights):,} bytes"
    )
    dropped = _dropped(dict(read.dropped) | dict(report.dropped))
    if dropped:
        typer.echo(f"left out: {dropped}")
    rows = [(title, figure(report.before.figures[key]), figure(report.after.figures[key])) for key, title in _SHOWN]
    typer.echo(table((f"ON {report.held_out:,} HELD-OUT ROWS", "BEFORE", "AFTER"), rows))
    typer.echo(f"gain of AUPRC {figure(report.gain)}; over all rows, each left out in turn, {figure(report.gain_of_all)}")
    for note in report.notes:
        typer.echo(note)


def _dropped(dropped: Mapping[str, int]) -> str:
    return ", ".join(f"{count:,} {what}" for what, count in dropped.items() if count)


def _say(text: str) -> None:
    typer.echo(text, err=True)
