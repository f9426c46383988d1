"""`bellbuoy explain`: why an interaction has the scores that it has."""

from typing import Annotated

import typer
from rich.markup import escape

from adapters import clickhouse
from adapters.settings import Settings
from bellbuoy.cli.printing import console, fail, harmless, place, print_json, safe, when
from bellbuoy.configuration import read_configs
from bellbuoy.reach import NotReachable, need_kafka, need_store
from core.configs import ConfigLog
from core.explanation import Explained, ExplainedScore, as_json, explained


def command(
    id_: Annotated[str, typer.Argument(help="An interaction's id.", metavar="ID")],
    app: Annotated[str, typer.Option("--app", help="Of this app, where several have such an id.")] = "",
    all_: Annotated[bool, typer.Option("--all", help="Also the scores that do not fire.")] = False,
    json: Annotated[bool, typer.Option("--json", help="Print JSON for a program to read.")] = False,
) -> None:
    """Each score of a stored interaction with its value and its scorer's version; of what fires, the reasons and the words that
    they point to in the redacted text.

    The versions are those of the config that scored it, read from Kafka; without Kafka they are left out.

    \b
    Examples:
      bellbuoy explain 7c0ffee4
      bellbuoy explain 7c0ffee4 --app desk --all --json
    """
    settings = Settings()
    need_store(settings)
    found = clickhouse.rows(clickhouse.connect(settings), "explain", {"id": id_, "app": app})
    if not found:
        of_app = f" of the app {app}" if app else ""
        raise fail(
            harmless(f"there is no interaction {id_}{of_app} in the store (a new one takes some seconds, rows live for 90 days)")
        )
    configs = _configs(settings)
    results = [explained(row, configs.configs.get(row["config"])) for row in found]
    if json:
        print_json([as_json(one) for one in results])
        return
    for one in results:
        _print(one, all_)


def _configs(settings: Settings) -> ConfigLog:
    try:
        need_kafka(settings)
    except NotReachable as error:
        typer.echo(f"scorer versions are left out: {error}", err=True)
        return ConfigLog()
    return read_configs(settings)


def _print(one: Explained, everything: bool) -> None:
    out = console()
    out.print(
        f"[bold]{safe(one.id)}[/] {safe(place(one.app, one.environment))}, version {safe(one.version)}, {when(one.arrival_ms)} UTC"
    )
    shown = [score for score in one.scores if everything or score.fires or score.value is None]
    for score in shown:
        out.print(_line(score))
        for why in score.reasons:
            words = "(the text is no longer kept)" if why.quoted is None else f"“{harmless(why.quoted)}”"
            out.print(f"    {safe(why.rule)}  {why.text} {why.start}–{why.end}  {escape(words)}")
    if not shown:
        out.print("nothing fires; --all shows every score")


def _line(score: ExplainedScore) -> str:
    state = "[red]fires[/]" if score.fires else "     "
    label = f"  {safe(score.label)}" if score.label is not None and score.label != score.shown else ""
    return f"{state}  {safe(score.name)}  {safe(score.shown)}{label}  [dim]{safe(score.scorer or '')}[/]"
