"""`bellbuoy actions`: what was asked for, why, what became of it, and a person's yes or no."""

from typing import Annotated, Any, Literal

import typer
from rich.console import Console
from rich.table import Table

from adapters.settings import Settings
from bellbuoy.cli.printing import as_json, fail, print_json, safe, when
from bellbuoy.control import Entry, NotFound, action_histories, actor, alert_histories, find, new_id, send
from schemas.messages import ActionStep, AlertTransition, Command

app = typer.Typer(help="List, explain, approve and reject actions.", no_args_is_help=True)
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for a program to read.")]
ActionId = Annotated[str, typer.Argument(help="The action's id, or an unambiguous beginning of it.")]
Why = Annotated[str, typer.Option("--reason", help="Why, in words; it is kept with the action.")]


@app.command("list")
def list_actions(json: AsJson = False) -> None:
    """Every action with its present state, oldest first."""
    histories = action_histories(Settings())
    if json:
        print_json([_json(history) for history in histories.values()])
        return
    table = Table("id", "asked at", "what", "target", "mode", "state", "reason", box=None)
    for history in histories.values():
        step = history[-1].message
        table.add_row(
            step.id[:12], when(history[0].time), step.kind, safe(describe_target(step)), step.mode, step.state, safe(step.reason)
        )
    Console().print(table if histories else "no action has been asked for")


@app.command()
def show(action: ActionId, json: AsJson = False) -> None:
    """The story of one action: the alert behind it, and every step with time, actor, reason and evidence."""
    settings = Settings()
    history = _find(settings, action)
    alerts = alert_histories(settings).get(history[0].message.incident, [])
    if json:
        print_json(_json(history) | {"alert": [as_json(entry.message) | {"append_time": entry.time} for entry in alerts]})
        return
    console = Console(highlight=False)
    first = history[0].message
    console.print(f"[bold]{first.kind}[/] of {safe(describe_target(first))}  ({first.id})")
    for line in story(history, alerts):
        console.print(line)


@app.command()
def approve(action: ActionId, reason: Why = "", json: AsJson = False) -> None:
    """Let a waiting action run."""
    _say("approve", action, reason, json=json)


@app.command()
def reject(action: ActionId, reason: Why = "", json: AsJson = False) -> None:
    """Decide that an action must not run."""
    _say("reject", action, reason, json=json)


def _say(kind: Literal["approve", "reject"], action: str, reason: str, *, json: bool) -> None:
    settings = Settings()
    step = _find(settings, action)[-1].message
    command = answer(kind, step, id_=new_id(), who=actor(), reason=reason)
    send(settings, command, [step.shard])
    if json:
        print_json(as_json(command))
    else:
        Console().print(f"{kind} {step.id} is on the log; it counts when the next window closes (about 5 s)")


def answer(kind: Literal["approve", "reject"], step: ActionStep, *, id_: str, who: str, reason: str) -> Command:
    """The command that approves or rejects an action."""
    return Command(
        id=id_,
        kind=kind,
        actor=who,
        reason=reason,
        app=step.target.app,
        environment=step.target.environment,
        alert=step.incident,
        action=step.id,
    )


def describe_target(step: ActionStep) -> str:
    """What an action is about, in a few words."""
    target = step.target
    where = f"{target.app} ({target.environment})"
    if target.version is None:
        return where
    return f"{where} {target.version}" + (f" → {target.to_version}" if target.to_version else "")


def story(history: list[Entry[ActionStep]], alerts: list[Entry[AlertTransition]]) -> list[str]:
    """Alert transitions and action steps in the order of their append time, one line each, evidence below (Rich markup)."""
    lines: list[tuple[int, list[str]]] = []
    for transition in alerts:
        a = transition.message
        line = f"{when(transition.time)}  alert {safe(a.metric)} on {safe(a.slice)}: [bold]{a.state}[/], by {safe(a.actor)}: {safe(a.reason)}"
        lines.append((transition.time, [line]))
    for entry in history:
        s = entry.message
        text = [f"{when(entry.time)}  {s.kind} [bold]{s.state}[/] ({s.mode}), by {safe(s.actor)}: {safe(s.reason)}"]
        text += [f"                       • {safe(sentence)}" for sentence in s.evidence]
        lines.append((entry.time, text))
    return [line for _, text in sorted(lines, key=lambda pair: pair[0]) for line in text]


def _json(history: list[Entry[ActionStep]]) -> dict[str, Any]:
    last = history[-1].message
    return as_json(last) | {
        "asked_at": history[0].time,
        "steps": [as_json(entry.message) | {"append_time": entry.time} for entry in history],
    }


def _find(settings: Settings, action: str) -> list[Entry[ActionStep]]:
    try:
        return find(action_histories(settings), action)
    except NotFound as error:
        raise fail(f"{error} among the actions") from None
