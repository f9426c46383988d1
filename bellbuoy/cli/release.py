"""`bellbuoy release`: bring a registered version out, through gate and canary or at once."""

from typing import Annotated

import typer

from adapters.registry import Registry, RegistryAway
from adapters.settings import Settings
from bellbuoy.cli.printing import as_json, fail, harmless, place, print_json
from bellbuoy.control import actor, new_id, send, shard_for
from bellbuoy.reach import need_kafka
from bellbuoy.routing import release_now
from core.routing import Refused
from schemas.messages import CallConfiguration, Command


def command(
    app: Annotated[str, typer.Argument(help="The app, as the clients name it.")],
    version: Annotated[str, typer.Argument(help="A registered version, such as v2 (`bellbuoy versions list APP`).")],
    environment: Annotated[str, typer.Option("--environment", "-e", help="The app's environment.")] = "production",
    now: Annotated[bool, typer.Option("--now", help="Past gate and canary: it answers everything at once.")] = False,
    ungated: Annotated[bool, typer.Option("--ungated", help="Past the gate, but with a canary.")] = False,
    reason: Annotated[str, typer.Option("--reason", help="Why, in words; it is kept.")] = "",
    json: Annotated[bool, typer.Option("--json", help="Print JSON for a program to read.")] = False,
) -> None:
    """Bring out a version: the gate compares it with the champion, a canary tries it on a share of the traffic, then it answers everything.

    The first release of an app needs --now: there is no champion yet to compare with. It makes the app's route in the gateway.

    \b
    Examples:
      bellbuoy release help-desk v1 --now --reason "what we run today"
      bellbuoy release help-desk v2
      bellbuoy release help-desk v2 --ungated
    """
    settings = Settings()
    need_kafka(settings)
    who = actor()
    try:
        known = Registry(settings).configuration(app, environment, version)
    except RegistryAway as error:
        raise fail(f"the registry is away: {harmless(str(error))}") from None
    if known is None:
        raise fail(f"{place(app, environment)} has no version {harmless(version)}; `bellbuoy versions list` shows what there is")
    if now:
        _at_once(settings, app, environment, version, known, who, reason, json=json)
        return
    said = Command(
        id=new_id(),
        kind="release",
        actor=who,
        reason=reason,
        app=app,
        environment=environment,
        arguments={"version": version, "gate": not ungated},
    )
    send(settings, said, [shard_for(settings, app, environment)])
    if json:
        print_json(as_json(said))
    else:
        first = "a canary" if ungated else "the gate"
        typer.echo(f"asked for; {first} comes next, when the next window closes (about 5 s): `bellbuoy actions list`")


def _at_once(
    settings: Settings,
    app: str,
    environment: str,
    version: str,
    configuration: CallConfiguration,
    who: str,
    reason: str,
    *,
    json: bool,
) -> None:
    try:
        routed = release_now(settings, app, environment, version, configuration, actor=who, reason=reason)
    except Refused as error:
        raise fail(harmless(str(error))) from None
    if json:
        print_json(as_json(routed.table))
    else:
        typer.echo(f"{place(app, environment)}: {version} answers everything (epoch {routed.table.epoch})")
