"""`bellbuoy alerts`: what fires, why, and a person's word on it."""

import re
from typing import Annotated, Any, Final

import typer

from adapters.settings import Settings
from bellbuoy.cli.printing import as_json, console, fail, harmless, percent, place, print_json, safe, when
from bellbuoy.control import Entry, NotFound, action_histories, actor, alert_histories, find, new_id, send
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
def show(alert: AlertId, json: AsJson = False) -> None:
    """One alert: what moved, by how much, what carries it, every transition, and the actions that followed. Exits 1 for an unknown id.

    \b
    Example:
      bellbuoy alerts show 60211a0b        (the beginning of an id is enough)
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
    for steps in actions:
        step = steps[-1].message
        out.print(f"→ {step.kind} [bold]{step.state}[/] (mode {step.mode}): `bellbuoy actions show {step.id}`")


@app.command()
def acknowledge(alert: AlertId, reason: Why = "", json: AsJson = False) -> None:
    """Say that somebody looks after it."""
    _say("acknowledge", alert, reason, {}, json=json)


@app.command()
def silence(
    alert: AlertId,
    duration: Annotated[str, typer.Option("--for", help="How long: 30m, 1h, 2d.")] = "1h",
    reason: Why = "",
    json: AsJson = False,
) -> None:
    """Page nobody about it for a while.

    \b
    Example:
      bellbuoy alerts silence 60211a0b --for 2h --reason "we are on it"
    """
    try:
        seconds = parse_duration(duration)
    except ValueError as error:
        raise fail(str(error)) from None
    _say("silence", alert, reason, {"seconds": seconds}, json=json)


@app.command()
def unsilence(alert: AlertId, reason: Why = "", json: AsJson = False) -> None:
    """End a silence."""
    _say("unsilence", alert, reason, {}, json=json)


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


def _of_slice(alert: AlertTransition) -> str:
    return "" if alert.slice == WHOLE_APP else f", {alert.slice}"


def story(history: list[Entry[AlertTransition]]) -> list[str]:
    """What moved, and the transitions (Rich markup)."""
    last = history[-1].message
    lines = [
        f"[bold]{safe(last.metric)}[/] on {safe(place(last.app, last.environment) + _of_slice(last))}: [bold]{last.state}[/]",
        f"id {last.id}, rule {safe(last.rule)}; changed since about {when(last.onset)}; times are UTC",
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


def _say(kind: CommandKind, alert: str, reason: str, arguments: dict[str, Scalar], *, json: bool) -> None:
    settings = _reached()
    transition = _find(settings, alert)[-1].message
    command = about(kind, transition, id_=new_id(), who=actor(), reason=reason, arguments=arguments)
    send(settings, command, [transition.shard])
    if json:
        print_json(as_json(command))
    else:
        typer.echo(f"{kind} {transition.id} is on the log; it counts when the next window closes (about 5 s)")


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
