"""`bellbuoy release`: bring a version into service, through gate and canary or, by a person's word, at once."""

from typing import Annotated

import typer

from adapters.routes import read_route
from adapters.settings import Settings
from bellbuoy.cli.printing import as_json, fail, harmless, place, print_json
from bellbuoy.control import actor
from bellbuoy.reach import need_kafka
from bellbuoy.routing import ask_release, release_now
from core.deployment import RegistryAway, UnknownVersion
from schemas.messages import CallConfiguration
from services.deploy_registry import registry


def command(
    app: Annotated[str, typer.Argument(help="The app.")],
    version: Annotated[str, typer.Argument(help="The version, as `bellbuoy versions list` names it.")],
    now: Annotated[bool, typer.Option("--now", help="Let it answer everything at once, without gate and canary.")] = False,
    ungated: Annotated[bool, typer.Option("--ungated", help="A canary without the gate before it.")] = False,
    environment: Annotated[str, typer.Option(help="The app's environment.")] = "production",
    reason: Annotated[str, typer.Option(help="Why, in words; it is kept. --now demands it.")] = "",
    json: Annotated[bool, typer.Option("--json", help="Print JSON for a program to read.")] = False,
) -> None:
    """Release a version: the gate compares it with the champion, then a canary does so on live traffic, then it answers.

    An app's first version has nothing to be compared with: release it with --now.

    \b
    Examples:
      bellbuoy release help-desk v4
      bellbuoy release help-desk v1 --now --reason "first version"
    """
    settings = Settings()
    need_kafka(settings)
    if now and not reason:
        raise fail("--now needs a --reason: it passes by gate and canary")
    where = place(app, environment)
    if not now:
        command = ask_release(settings, app, environment, version, actor(), reason, gate=not ungated)
        if json:
            print_json(as_json(command))
        else:
            first = "the canary" if ungated else "the gate"
            typer.echo(
                harmless(f"{where}: {version} goes to {first} when the next window closes; `bellbuoy actions list` shows it")
            )
        return
    try:
        table = release_now(settings, app, environment, version, _held(settings, app, environment, version), actor(), reason)
    except (UnknownVersion, RegistryAway) as error:
        raise fail(harmless(str(error))) from None
    print_json(as_json(table)) if json else typer.echo(harmless(f"{where}: {version} answers everything (epoch {table.epoch})"))


def _held(settings: Settings, app: str, environment: str, version: str) -> CallConfiguration:
    """The version's configuration, from the route table where it holds it: a version never changes."""
    table = read_route(settings, app, environment)
    held = table.versions.get(version) if table is not None else None
    return held or registry(settings)(app, environment, version)
