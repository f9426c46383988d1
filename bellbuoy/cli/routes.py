"""`bellbuoy routes` and `bellbuoy gateways`: which version answers, and what the gateways confirm."""

import time
from typing import Annotated, Any, Final

import typer

from adapters.follow import Follower
from adapters.gateways import mark_dead, report_of
from adapters.routes import read_routes
from adapters.settings import Settings
from bellbuoy.cli.printing import as_json, fail, harmless, place, print_json, table
from bellbuoy.control import actor
from bellbuoy.reach import need_kafka
from core.verification import Fleet, Heard
from schemas.messages import RouteTable
from schemas.topics import GATEWAYS

routes = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    help="""Which version of an app answers.

    `bellbuoy release` and `bellbuoy rollback` change it; so do canaries and rollbacks that the policy asked for.
    """,
)
gateways = typer.Typer(
    invoke_without_command=True,
    add_completion=False,
    help="""The gateways: their leases, and the route epochs that they have confirmed.

    A rollback is verified once each of them has confirmed it, has ended, or is cut off without a way to the bad version.
    """,
)
LISTEN_S: Final = 1.5
"""A gateway that is alive reports twice a second."""
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for a program to read.")]


@routes.command("list")
def list_routes(json: AsJson = False) -> None:
    """Every app with a route: champion, candidate and its share, epoch, and who holds it."""
    found = read_routes(_reached())
    tables = [found[key] for key in sorted(found)]
    if json:
        print_json([as_json(one) for one in tables])
        return
    if not tables:
        typer.echo("no app has a route; `bellbuoy release APP VERSION --now --reason …` makes the first")
        return
    rows = [
        [
            harmless(place(one.app, one.environment)),
            harmless(one.champion),
            harmless(one.candidate or ""),
            f"{one.weight / 100:g} %" if one.candidate else "",
            str(one.epoch),
            harmless(one.hold or ""),
        ]
        for one in tables
    ]
    typer.echo(table(["APP", "CHAMPION", "CANDIDATE", "SHARE", "EPOCH", "HELD BY"], rows, right=[3, 4]))


@routes.command()
def show(
    app: Annotated[str, typer.Argument(help="The app.")],
    environment: Annotated[str, typer.Option(help="The app's environment.")] = "production",
    json: AsJson = False,
) -> None:
    """One app's route with the call configuration of each version. Exits 1 for an app without one."""
    one = read_routes(_reached()).get((app, environment))
    if one is None:
        raise fail(harmless(f"{place(app, environment)} has no route; `bellbuoy routes list` shows those that have one"))
    if json:
        print_json(as_json(one))
        return
    for line in described(one):
        typer.echo(harmless(line))


def described(one: RouteTable) -> list[str]:
    """A route table in words, a line for each fact."""
    lines = [f"{place(one.app, one.environment)}, epoch {one.epoch}, by {one.actor}: {one.reason}", f"champion   {one.champion}"]
    if one.candidate is not None:
        lines.append(f"candidate  {one.candidate}, {one.weight / 100:g} % of the units")
    if one.previous is not None:
        lines.append(f"previous   {one.previous}")
    if one.bad:
        lines.append(f"bad        {', '.join(one.bad)}")
    if one.hold is not None:
        lines.append(f"held by    {one.hold}: no automatic action changes it (`bellbuoy rollback APP --release-hold`)")
    for version, held in sorted(one.versions.items()):
        parameters = "".join(f", {name}={value}" for name, value in sorted(held.parameters.items()))
        prompt = f", prompt of {len(held.system_prompt)} characters" if held.system_prompt is not None else ""
        tools = f", {len(held.tools)} tools" if held.tools else ""
        lines.append(f"version    {version}: {held.model}{prompt}{parameters}{tools}")
    return lines


@gateways.callback()
def list_gateways(context: typer.Context, json: AsJson = False) -> None:
    """Every gateway that has reported: whether its lease holds, what waits on its disk, and its epoch for each app."""
    if context.invoked_subcommand is not None:
        return
    fleet, now = _fleet(_reached())
    if json:
        print_json([_json(heard, now) for heard in fleet])
        return
    if not fleet:
        typer.echo("no gateway has reported yet")
        return
    rows = [
        [
            harmless(heard.report.instance),
            harmless(lease(heard, now)),
            str(heard.report.spooled),
            str(heard.report.shed),
            harmless(", ".join(f"{place(r.app, r.environment)} {r.epoch} ({r.champion})" for r in heard.report.routes)),
        ]
        for heard in fleet
    ]
    typer.echo(table(["GATEWAY", "LEASE", "SPOOLED", "SHED", "EPOCHS (CHAMPION)"], rows, right=[2, 3]))


@gateways.command()
def dead(
    instance: Annotated[str, typer.Argument(help="The gateway's instance name, as `bellbuoy gateways` prints it.")],
    json: AsJson = False,
) -> None:
    """Say that a gateway's process is gone for good, so that no rollback waits for it.

    Only what you know: a gateway that is merely cut off still serves.
    """
    settings = _reached()
    fleet, now = _fleet(settings)
    heard = next((one for one in fleet if one.report.instance == instance), None)
    if heard is None:
        raise fail(harmless(f"no gateway {instance} has reported; `bellbuoy gateways` lists them"))
    if heard.live(now):
        raise fail(harmless(f"{instance} is alive: it reported {(now - heard.append_time) / 1000:.1f} s ago"))
    written = mark_dead(settings, instance, actor(), heard.report.incarnation)
    if json:
        print_json(as_json(written or heard.report))
    elif written is not None:
        typer.echo(harmless(f"{instance} is known dead from now on"))
    else:
        typer.echo(harmless(f"{instance}: {heard.ended or 'a newer process has reported since'}; nothing was written"))


def lease(heard: Heard, now: int) -> str:
    """How a gateway is, in a few words. `now`: the broker's time, ms."""
    if heard.ended is not None:
        return heard.ended
    if heard.live(now):
        return "live"
    over = now - heard.lease_end
    served = ", champions only" if over > heard.report.grace_ms else ""
    return f"over for {over / 1000:.0f} s{served}"


def _json(heard: Heard, now: int) -> dict[str, Any]:
    return as_json(heard.report) | {"append_time": heard.append_time, "live": heard.live(now), "lease": lease(heard, now)}


def _fleet(settings: Settings) -> tuple[list[Heard], int]:
    """All gateways by name, and the broker's time, ms. Where no gateway is heard, this machine's clock has to do."""
    fleet = Fleet()
    with Follower(settings, [GATEWAYS]) as follower:
        before, news = follower.read_to_end(), follower.poll(LISTEN_S)
        for _, record in [*before, *news]:
            report = report_of(record)
            if report is not None:
                fleet.take(report, record.timestamp)
            elif record.value is None and record.key is not None:
                fleet.remove(record.key.decode(errors="replace"))
        now = follower.clock.now() if news else int(time.time() * 1000)
        return [fleet.instances[name] for name in sorted(fleet.instances)], now


def _reached() -> Settings:
    settings = Settings()
    need_kafka(settings)
    return settings
