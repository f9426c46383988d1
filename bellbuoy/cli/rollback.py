"""`bellbuoy rollback`: a person goes back at once, and is told when it is verified."""

from typing import Annotated

import typer

from adapters.registry import Registry, RegistryAway
from adapters.routes import read_route
from adapters.settings import Settings
from bellbuoy.cli.printing import as_json, fail, harmless, place, print_json
from bellbuoy.control import actor
from bellbuoy.reach import need_kafka
from bellbuoy.routing import planned_rollback, release_hold, roll_back_now, wait_verified
from core.routing import Refused
from schemas.messages import CallConfiguration


def command(
    app: Annotated[str, typer.Argument(help="The app, as the clients name it.")],
    to: Annotated[str | None, typer.Option("--to", help="Version to go back to; default: the champion before.")] = None,
    environment: Annotated[str, typer.Option("--environment", "-e", help="The app's environment.")] = "production",
    reason: Annotated[str, typer.Option("--reason", help="Why, in words; it is kept with the route.")] = "",
    release: Annotated[
        bool, typer.Option("--release-hold", help="Let automatic actors change the route again; changes no version.")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would happen; change nothing.")] = False,
    wait: Annotated[bool, typer.Option(help="Wait until every gateway has confirmed it (at most 30 s).")] = True,
    json: Annotated[bool, typer.Option("--json", help="Print JSON for a program to read.")] = False,
) -> None:
    """Go back to an earlier version at once. Your decision stands: no automatic actor changes the route until you release the hold.

    Verified means: every gateway has confirmed that it starts no request on the bad version any more. Exits 1 when that is not so
    after 30 seconds, and names the gateways.

    \b
    Examples:
      bellbuoy rollback help-desk
      bellbuoy rollback help-desk --to v3 --reason "wrong answers about refunds"
      bellbuoy rollback help-desk --dry-run
      bellbuoy rollback help-desk --release-hold
    """
    settings = Settings()
    need_kafka(settings)
    who = actor()
    try:
        if release:
            table = release_hold(settings, app, environment, actor=who, reason=reason).table
            typer.echo(f"{place(app, environment)} is no longer held; {table.champion} answers as before")
            return
        if dry_run:
            now = read_route(settings, app, environment)
            planned = planned_rollback(now, to, app=app, actor=who, reason=reason)
            assert now is not None
            typer.echo(
                f"{place(app, environment)}: {now.champion} → {planned.champion}, epoch {planned.epoch}; nothing was changed"
            )
            return
        done = roll_back_now(
            settings,
            app,
            environment,
            to=to,
            actor=who,
            reason=reason,
            configuration=lambda version: _configuration(settings, app, environment, version),
        )
    except Refused as error:
        raise fail(harmless(str(error))) from None
    if not json:
        typer.echo(
            f"{place(app, environment)}: {done.before.champion} → {done.after.champion} (epoch {done.after.epoch}); "
            f"held until `bellbuoy rollback {app} --release-hold`"
        )
    if not wait:
        if json:
            print_json({"route": as_json(done.after), "verified": None})
        return
    verdict = wait_verified(settings, done, say=lambda v: None if json else typer.echo(harmless(v.reason)))
    if json:
        print_json(
            {
                "route": as_json(done.after),
                "verified": verdict.outcome == "verified",
                "reason": verdict.reason,
                "waiting": verdict.waiting,
            }
        )
    if verdict.outcome != "verified":
        raise fail(f"not verified: {', '.join(sorted(verdict.waiting))}; `bellbuoy gateways` shows them")


def _configuration(settings: Settings, app: str, environment: str, version: str) -> CallConfiguration | None:
    try:
        return Registry(settings).configuration(app, environment, version)
    except RegistryAway as error:
        raise Refused(f"the route does not know {version}, and the registry is away: {error}") from None
