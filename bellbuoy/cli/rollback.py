"""`bellbuoy rollback`: a person takes a version off at once, and sees from the gateways' reports that it is off."""

from typing import Annotated, Any

import typer

from adapters.settings import Settings
from bellbuoy.cli.printing import as_json, fail, harmless, place, print_json
from bellbuoy.control import actor
from bellbuoy.reach import need_kafka
from bellbuoy.routing import RolledBack, Waited, release_hold, roll_back_now, wait_verified
from core.deployment import RegistryAway, UnknownVersion
from core.routing import Refused
from services.deploy_registry import registry


def command(
    app: Annotated[str, typer.Argument(help="The app, as `bellbuoy routes list` names it.")],
    to: Annotated[str | None, typer.Option("--to", help="The version that is to answer; default: the one before.")] = None,
    environment: Annotated[str, typer.Option(help="The app's environment.")] = "production",
    reason: Annotated[str, typer.Option(help="Why, in words; it is kept.")] = "",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be done, and do nothing.")] = False,
    wait: Annotated[bool, typer.Option("--wait/--no-wait", help="Wait until the gateways confirm (30 s at most).")] = True,
    hold_off: Annotated[
        bool, typer.Option("--release-hold", help="Roll nothing back: let automatic actions change this route again.")
    ] = False,
    json: Annotated[bool, typer.Option("--json", help="Print JSON for a program to read.")] = False,
) -> None:
    """Roll an app back at once, and wait until every gateway has confirmed it.

    The route is changed without asking the controller, and held: no automatic action changes it until
    `bellbuoy rollback APP --release-hold`. Exits 1 when it is not verified within 30 s, and names the gateways.

    \b
    Examples:
      bellbuoy rollback help-desk                        to the version before
      bellbuoy rollback help-desk --to v3 --reason "wrong prices"
    """
    settings = Settings()
    need_kafka(settings)
    who = actor()
    try:
        if hold_off:
            table = release_hold(settings, app, environment, who, reason)
            said = f"{place(app, environment)}: automatic actions may change the route again (epoch {table.epoch})"
            print_json(as_json(table)) if json else typer.echo(harmless(said))
            return
        done = roll_back_now(settings, app, environment, to, who, reason, registry(settings), dry_run=dry_run)
    except (Refused, UnknownVersion, RegistryAway) as error:
        raise fail(harmless(str(error))) from None
    if not json:
        typer.echo(harmless(told(done, dry_run=dry_run)))
    waited = wait_verified(settings, done.table, done.bad, done.champion_since) if wait and not dry_run else None
    if json:
        print_json(outcome(done, waited, dry_run=dry_run))
    elif waited is not None and waited.verdict.outcome == "verified":
        typer.echo(harmless(f"verified after {waited.seconds:.1f} s: {waited.verdict.reason}"))
        if waited.verdict.running:
            typer.echo(f"{waited.verdict.running} answers that began before are still under way")
    if waited is not None and waited.verdict.outcome != "verified":
        raise fail(harmless(f"NOT verified: {waited.verdict.reason}"))


def told(done: RolledBack, *, dry_run: bool) -> str:
    """What was done, in one line."""
    where, table = place(done.table.app, done.table.environment), done.table
    verb = "would answer" if dry_run else "answers"
    instead = f" instead of {' and '.join(done.bad)}" if done.bad else ""
    return f"{where}: {table.champion} {verb} everything{instead} (epoch {table.epoch}, held by {table.hold})"


def outcome(done: RolledBack, waited: Waited | None, *, dry_run: bool) -> dict[str, Any]:
    """The same for a program. `verified` is null where it was not waited for; `seconds` since the table was written."""
    said: dict[str, Any] = {
        "app": done.table.app,
        "environment": done.table.environment,
        "epoch": done.table.epoch,
        "version": done.before.champion,
        "to_version": done.table.champion,
        "bad": done.bad,
        "hold": done.table.hold,
        "dry_run": dry_run,
        "verified": None,
    }
    if waited is not None:
        verdict = waited.verdict
        said |= {
            "verified": verdict.outcome == "verified",
            "outcome": verdict.outcome,
            "seconds": waited.seconds,
            "reason": verdict.reason,
            "confirmed": list(verdict.confirmed),
            "waiting": list(verdict.waiting),
            "running": verdict.running,
        }
    return said
