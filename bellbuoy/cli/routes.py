"""`bellbuoy routes` and `bellbuoy gateways`: which version answers, and what the gateways say of it."""

from typing import Annotated

import typer

from adapters.gateways import GatewayReports, mark_dead
from adapters.routes import read_routes
from adapters.settings import Settings
from bellbuoy.cli.printing import as_json, fail, harmless, print_json, table, when
from bellbuoy.control import actor
from bellbuoy.reach import need_kafka
from schemas.messages import GatewayReport, RouteTable

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for a program to read.")]

routes = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    help="""List and show routes: which version answers an app's requests.

    `bellbuoy release` and `bellbuoy rollback` change them, and the deploy worker does.
    """,
)
gateways = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    help="""List the gateways with their leases, and say that one is dead.

    A rollback is verified from what they report; one that went silent with the bad version as its champion holds it up.
    """,
)


@routes.command("list")
def list_routes(json: AsJson = False) -> None:
    """Every app's route; times are UTC."""
    found = sorted(read_routes(_reached()).items())
    if json:
        print_json([as_json(routed.table) | {"append_time": routed.time} for _, routed in found])
    elif not found:
        typer.echo("no app has a route; `bellbuoy release APP VERSION --now` makes the first")
    else:
        rows = [[harmless(app), harmless(env), *_row(routed.table), when(routed.time)] for (app, env), routed in found]
        typer.echo(table(["APP", "ENVIRONMENT", "CHAMPION", "CANDIDATE", "HELD BY", "EPOCH", "SINCE (UTC)"], rows, right=[5]))


@routes.command("show")
def show_route(
    app: Annotated[str, typer.Argument(help="The app.")],
    environment: Annotated[str, typer.Option("--environment", "-e", help="The app's environment.")] = "production",
) -> None:
    """One app's whole route as JSON: versions with their call configurations, weight, epoch, who wrote it and why."""
    routed = read_routes(_reached()).get((app, environment))
    if routed is None:
        raise fail(f"{harmless(app)} ({harmless(environment)}) has no route; `bellbuoy routes list` shows what there is")
    print_json(as_json(routed.table) | {"append_time": routed.time})


@gateways.command("list")
def list_gateways(json: AsJson = False) -> None:
    """Every gateway that has reported, with its lease and what it routes; times are UTC."""
    settings = _reached()
    reports = GatewayReports(settings)
    try:
        found, now = sorted(reports.read().items()), reports.now()
    finally:
        reports.close()
    if json:
        print_json([as_json(report) | {"append_time": time} for _, (report, time) in found])
    elif not found:
        typer.echo("no gateway has reported")
    else:
        rows = [[harmless(name), _state(r, time, now), when(time), _epochs(r), f"{r.spooled:,}"] for name, (r, time) in found]
        typer.echo(table(["GATEWAY", "LEASE", "LAST REPORT (UTC)", "ROUTES", "SPOOLED"], rows, right=[4]))


@gateways.command("dead")
def dead(instance: Annotated[str, typer.Argument(help="The gateway's instance name.")]) -> None:
    """Say that you have seen a gateway's process gone, so that a rollback need not wait for it.

    Say it only if it is so: a gateway that still runs may go on routing to the bad version.
    """
    if mark_dead(_reached(), instance, actor()):
        typer.echo(f"{harmless(instance)} counts as dead until it reports again")
    else:
        raise fail(f"{harmless(instance)} has not reported, or has ended already; `bellbuoy gateways list` shows them")


def _row(route: RouteTable) -> list[str]:
    candidate = f"{route.candidate} ({route.weight / 100:g} %)" if route.candidate else ""
    return [harmless(route.champion), harmless(candidate), harmless(route.hold or ""), str(route.epoch)]


def _state(report: GatewayReport, time: int, now: int) -> str:
    """A lease in a word.

    >>> _state(GatewayReport(instance="g", incarnation="1", sequence=1), 1_000, 2_000)
    'live'
    """
    if report.stopped:
        return "stopped"
    if report.known_dead:
        return f"dead ({harmless(report.known_dead)})"
    over = now - time - report.lease_ms
    return "live" if over <= 0 else f"over for {over / 1000:.0f} s"


def _epochs(report: GatewayReport) -> str:
    return ", ".join(f"{harmless(r.app)}: {harmless(r.champion)} (epoch {r.epoch})" for r in report.routes)


def _reached() -> Settings:
    settings = Settings()
    need_kafka(settings)
    return settings
