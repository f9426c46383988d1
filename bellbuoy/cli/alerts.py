"""`bellbuoy alerts`: what fires, why, and a person's word on it."""

import re
from collections.abc import Sequence
from typing import Annotated, Any, Final

import typer

from adapters.settings import Settings
from bellbuoy.cli.printing import as_json, console, fail, harmless, percent, place, print_json, safe, when
from bellbuoy.control import Entry, NotFound, action_histories, actor, alert_histories, find, new_id, send, shard_for, shards
from bellbuoy.counting import counted
from bellbuoy.reach import need_kafka
from core.metrics import WHOLE_APP
from schemas.messages import AlertTransition, Command, CommandKind, Scalar

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    help="""List, explain, acknowledge and silence alerts.

    An alert is pending (seen, not sure yet), firing, acknowledged (somebody looks after it), silenced, inhibited (another alert
    explains it; nobody is paged) or resolved. Slice: the part of the traffic that it is about, one version or all.
    """,
)
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for a program to read.")]
AlertId = Annotated[str, typer.Argument(help="The alert's id, or an unambiguous beginning of it.")]
SomeAlert = Annotated[str | None, typer.Argument(help="The alert's id or a beginning of it; or say with options which ones.")]
OfApp = Annotated[str | None, typer.Option("--app", help="Alerts of this app.")]
OfEnvironment = Annotated[str | None, typer.Option("--environment", help="Alerts of this environment.")]
OfMetric = Annotated[str | None, typer.Option("--metric", help="Alerts on this metric.")]
OfSlice = Annotated[str | None, typer.Option("--slice", help="Alerts on this slice: all, or version=v2.")]
OfRule = Annotated[str | None, typer.Option("--rule", help="Alerts of the rule with this id.")]
Why = Annotated[str, typer.Option("--reason", help="Why, in words; it is kept with the alert.")]

_UNITS: Final = {"s": 1, "m": 60, "h": 3_600, "d": 86_400}


@app.command("list")
def list_alerts(
    every: Annotated[bool, typer.Option("--all", help="Resolved ones too.")] = False,
    json: AsJson = False,
) -> None:
    """Every open alert with its present state, oldest first; times are UTC. `alerts show ID` says why."""
    known = alert_histories(_reached())
    histories = {id_: history for id_, history in known.items() if every or history[-1].message.state != "resolved"}
    if json:
        print_json([_json(history) for history in histories.values()])
        return
    if not histories:
        closed = f"; {len(known)} resolved (--all shows them)" if known else ""
        typer.echo(f"no alert is open{closed}")
        return
    typer.echo(f"{'STATE':<12}  {'OPENED (UTC)':<19}  ID")
    for history in histories.values():
        typer.echo(listed(history))


@app.command()
def show(
    alert: AlertId,
    counts: Annotated[bool, typer.Option("--counts", help="The counts behind the evidence, to compute it again.")] = False,
    json: AsJson = False,
) -> None:
    """One alert: what moved, by how much, what carries it, every transition, and the actions that followed. Exits 1 for an unknown id.

    \b
    Example:
      bellbuoy alerts show 60211a0b        (the beginning of an id is enough)
      bellbuoy alerts show 60211a0b --counts
    """
    settings = _reached()
    history = _find(settings, alert)
    actions = [h for h in action_histories(settings).values() if h[0].message.incident == history[0].message.id]
    if json:
        print_json(_json(history) | {"actions": [as_json(h[-1].message) for h in actions]})
        return
    out = console()
    for line in story(history):
        out.print(line)
    if counts:
        for line in counted(_evident(history)):
            out.print(line, markup=False)
    for steps in actions:
        step = steps[-1].message
        out.print(f"→ {step.kind} [bold]{step.state}[/] (mode {step.mode}): `bellbuoy actions show {step.id}`")


@app.command()
def acknowledge(alert: AlertId, reason: Why = "", json: AsJson = False) -> None:
    """Say that somebody looks after it: it pages no more, but for a reminder if it still fires a day later (rule field `remind`)."""
    _say("acknowledge", alert, reason, {}, json=json)


@app.command()
def silence(
    alert: SomeAlert = None,
    duration: Annotated[str, typer.Option("--for", help="How long: 30m, 1h, 2d.")] = "1h",
    app_name: OfApp = None,
    environment: OfEnvironment = None,
    metric: OfMetric = None,
    slice_: OfSlice = None,
    rule: OfRule = None,
    reason: Why = "",
    json: AsJson = False,
) -> None:
    """Page nobody for a while: about one alert, or about whatever matches, also if it begins only then. What still fires at the end pages.

    \b
    Examples:
      bellbuoy alerts silence 60211a0b --for 2h --reason "we are on it"
      bellbuoy alerts silence --app desk --metric latency --for 1d --reason test
    """
    try:
        seconds = parse_duration(duration)
    except ValueError as error:
        raise fail(str(error)) from None
    meant = matcher(metric=metric, slice_=slice_, rule=rule)
    _say_of("silence", alert, app_name, environment, reason, meant, {"seconds": seconds}, json=json)


@app.command()
def unsilence(
    alert: SomeAlert = None,
    app_name: OfApp = None,
    environment: OfEnvironment = None,
    metric: OfMetric = None,
    slice_: OfSlice = None,
    rule: OfRule = None,
    reason: Why = "",
    json: AsJson = False,
) -> None:
    """End a silence: the same alert or the same matching options as it began with."""
    meant = matcher(metric=metric, slice_=slice_, rule=rule)
    _say_of("unsilence", alert, app_name, environment, reason, meant, {}, json=json)


def matcher(*, metric: str | None, slice_: str | None, rule: str | None) -> dict[str, Scalar]:
    """The arguments by which a command says which alerts it means.

    >>> matcher(metric="latency", slice_=None, rule=None)
    {'metric': 'latency'}
    """
    return {name: value for name, value in (("metric", metric), ("slice", slice_), ("rule", rule)) if value is not None}


def parse_duration(text: str) -> int:
    """Seconds of a duration. Raises ValueError.

    >>> parse_duration("90s"), parse_duration("1h30m"), parse_duration("2d")
    (90, 5400, 172800)
    """
    if not re.fullmatch(r"(\d{1,6}[smhd])+", text):
        raise ValueError(f"{text!r} is no duration: write 30m, 1h or 2d")
    seconds = sum(int(number) * _UNITS[unit] for number, unit in re.findall(r"(\d+)([smhd])", text))
    if seconds == 0:
        raise ValueError("a duration must be longer than nothing")
    return seconds


def about(kind: CommandKind, alert: AlertTransition, *, id_: str, who: str, reason: str, arguments: dict[str, Scalar]) -> Command:
    """The command that says something about an alert."""
    return Command(
        id=id_,
        kind=kind,
        actor=who,
        reason=reason,
        app=alert.app,
        environment=alert.environment,
        alert=alert.id,
        arguments=arguments,
    )


def listed(history: list[Entry[AlertTransition]]) -> str:
    """Two lines of `alerts list`: state, time and the whole id; then what moved, where, and by how much."""
    last = history[-1].message
    effect = next((e.message.effect for e in reversed(history) if e.message.effect), None)
    moved = f": {percent(effect.before)} → {percent(effect.after)}" if effect else ""
    what = f"{last.metric} on {place(last.app, last.environment)}{_of_slice(last)}{moved}"
    return f"{last.state:<12}  {when(history[0].time)}  {last.id}\n{'':<12}  {harmless(what)}"


def _digest(alert: AlertTransition) -> str:
    """Under which rules it was judged last, as `bellbuoy rules show` heads them."""
    return f" of rules {safe(alert.rules[:12])}" if alert.rules else ""


def _evident(history: list[Entry[AlertTransition]]) -> AlertTransition:
    """The transition that carries the evidence: the last one with contributions."""
    return next((entry.message for entry in reversed(history) if entry.message.contributions), history[-1].message)


def _of_slice(alert: AlertTransition) -> str:
    return "" if alert.slice == WHOLE_APP else f", {alert.slice}"


def story(history: list[Entry[AlertTransition]]) -> list[str]:
    """What moved, and the transitions (Rich markup)."""
    last = history[-1].message
    lines = [
        f"[bold]{safe(last.metric)}[/] on {safe(place(last.app, last.environment) + _of_slice(last))}: [bold]{last.state}[/]",
        f"id {last.id}, rule {safe(last.rule)}{_digest(last)}; changed since about {when(last.onset)}; times are UTC",
    ]
    told = next((entry.message for entry in reversed(history) if entry.message.effect), None)
    if told and (e := told.effect):
        lines.append(
            f"{percent(e.before)} before, {percent(e.after)} since "
            f"(95 % interval given that onset {percent(e.low)} to {percent(e.high)}, {e.events:,} events)"
        )
        lines += [f"  • {safe(c.name)}: {percent(c.before)} → {percent(c.after)}{_evidence(c.share)}" for c in told.contributions]
    lines += [
        f"{when(entry.time)}  [bold]{entry.message.state}[/]{' (paged)' if entry.message.paged else ''}, "
        f"by {safe(entry.message.actor)}: {safe(entry.message.reason)}"
        for entry in history
    ]
    return lines


def _evidence(share: float) -> str:
    """The share of the evidence, where there is some to speak of."""
    return f" ({share:.0%} of the evidence)" if share >= 0.01 else ""


def _say_of(
    kind: CommandKind,
    alert: str | None,
    app_name: str | None,
    environment: str | None,
    reason: str,
    meant: dict[str, Scalar],
    arguments: dict[str, Scalar],
    *,
    json: bool,
) -> None:
    matching = bool(meant or app_name or environment)
    if (alert is None) != matching:
        raise fail("say which alert by its id, or which ones by --app, --environment, --metric, --slice, --rule; not both")
    if alert is not None:
        _say(kind, alert, reason, arguments, json=json)
        return
    settings = _reached()
    everyone = range(shards(settings))
    to = [shard_for(settings, app_name, environment)] if app_name and environment else everyone
    command = Command(
        id=new_id(), kind=kind, actor=actor(), reason=reason, app=app_name, environment=environment, arguments=meant | arguments
    )
    _send(settings, command, to, "what matches", json=json)


def _say(kind: CommandKind, alert: str, reason: str, arguments: dict[str, Scalar], *, json: bool) -> None:
    settings = _reached()
    transition = _find(settings, alert)[-1].message
    command = about(kind, transition, id_=new_id(), who=actor(), reason=reason, arguments=arguments)
    _send(settings, command, [transition.shard], transition.id, json=json)


def _send(settings: Settings, command: Command, to: Sequence[int], what: str, *, json: bool) -> None:
    send(settings, command, to)
    if json:
        print_json(as_json(command))
    else:
        typer.echo(f"{command.kind} {what} is on the log; it counts when the next window closes (about 5 s)")


def _json(history: list[Entry[AlertTransition]]) -> dict[str, Any]:
    return as_json(history[-1].message) | {
        "opened_at": history[0].time,
        "transitions": [as_json(entry.message) | {"append_time": entry.time} for entry in history],
    }


def _reached() -> Settings:
    settings = Settings()
    need_kafka(settings)
    return settings


def _find(settings: Settings, alert: str) -> list[Entry[AlertTransition]]:
    try:
        return find(alert_histories(settings), alert)
    except NotFound as error:
        raise fail(f"{error} among the alerts; `bellbuoy alerts list --all` has their ids") from None
