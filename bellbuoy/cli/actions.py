"""`bellbuoy actions`: what was asked for, why, what became of it, and a person's yes or no."""

from typing import Annotated, Any, Literal

import typer

from adapters.settings import Settings
from bellbuoy.cli.printing import as_json, console, fail, harmless, place, print_json, safe, when
from bellbuoy.control import Entry, NotFound, action_histories, actor, alert_histories, find, new_id, send, standing
from bellbuoy.reach import need_kafka
from schemas.messages import ActionStep, AlertTransition, Command

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    help="""List, explain, approve and reject actions.

    An action (retrain, rollback) is what a rule asks for after an alert, or what follows from one (canary) or from a person
    (evaluate). Its mode says what may happen: suggest (it is only shown), approve (it waits for `actions approve`), auto (it may run
    by itself). `config activate --mode` changes it.
    """,
)
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for a program to read.")]
ActionId = Annotated[str, typer.Argument(help="The action's id, or an unambiguous beginning of it.")]
Why = Annotated[str, typer.Option("--reason", help="Why, in words; it is kept with the action.")]


@app.command("list")
def list_actions(json: AsJson = False) -> None:
    """Every action with its present state, oldest first; times are UTC. `actions show ID` says why."""
    histories = action_histories(_reached())
    if json:
        print_json([_json(history) for history in histories.values()])
        return
    if not histories:
        typer.echo("no action has been asked for")
        return
    typer.echo(f"{'STATE':<12}  {'ASKED FOR (UTC)':<19}  ID")
    for history in histories.values():
        typer.echo(listed(history))


@app.command()
def show(action: ActionId, json: AsJson = False) -> None:
    """The story of one action: the alert behind it, and every step with time, actor, reason and evidence. Exits 1 for an unknown id.

    \b
    Example:
      bellbuoy actions show de0920ba        (the beginning of an id is enough)
    """
    settings = _reached()
    history = _find(settings, action)
    alerts = alert_histories(settings).get(history[0].message.incident, [])
    if json:
        print_json(_json(history) | {"alert": [as_json(entry.message) | {"append_time": entry.time} for entry in alerts]})
        return
    out = console()
    first = history[0].message
    out.print(f"[bold]{first.kind}[/] of {safe(describe_target(first))}: [bold]{standing(history).state}[/]")
    out.print(f"id {safe(first.id)}, because of alert {safe(first.incident)}; times are UTC")
    for line in story(history, alerts):
        out.print(line)


@app.command()
def approve(action: ActionId, reason: Why = "", json: AsJson = False) -> None:
    """Let a waiting action run (mode approve)."""
    _say("approve", action, reason, json=json)


@app.command()
def reject(action: ActionId, reason: Why = "", json: AsJson = False) -> None:
    """Decide that an action must not run."""
    _say("reject", action, reason, json=json)


def _say(kind: Literal["approve", "reject"], action: str, reason: str, *, json: bool) -> None:
    settings = _reached()
    step = standing(_find(settings, action))
    command = answer(kind, step, id_=new_id(), who=actor(), reason=reason)
    send(settings, command, [step.shard])
    if json:
        print_json(as_json(command))
    else:
        typer.echo(f"{kind} {harmless(step.id)} is on the log; it counts when the next window closes (about 5 s)")


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


def listed(history: list[Entry[ActionStep]]) -> str:
    """Two lines of `actions list`: state, time and the whole id; then what is asked for."""
    step = standing(history)
    what = f"{step.kind} {describe_target(step)} (mode {step.mode})"
    return f"{step.state:<12}  {when(history[0].time)}  {harmless(step.id)}\n{'':<12}  {harmless(what)}"


def describe_target(step: ActionStep) -> str:
    """What an action is about, in a few words."""
    target = step.target
    where = place(target.app, target.environment)
    if target.version is None:
        return where
    return f"{where}, {target.version}" + (f" → {target.to_version}" if target.to_version else "")


def story(history: list[Entry[ActionStep]], alerts: list[Entry[AlertTransition]]) -> list[str]:
    """Alert transitions and action steps in the order of their append time, one line each, evidence below (Rich markup)."""
    lines: list[tuple[int, list[str]]] = []
    for transition in alerts:
        a = transition.message
        line = f"{when(transition.time)}  alert [bold]{a.state}[/], by {safe(a.actor)}: {safe(a.reason)}"
        lines.append((transition.time, [line]))
    for entry in history:
        s = entry.message
        state = f"{s.state}/{safe(s.phase)}" if s.phase and s.phase != s.state else s.state
        text = [f"{when(entry.time)}  {s.kind} [bold]{state}[/] (mode {s.mode}), by {safe(s.actor)}: {safe(s.reason)}"]
        text += [f"                       • {safe(sentence)}" for sentence in s.evidence if sentence != s.reason]
        lines.append((entry.time, text))
    return [line for _, text in sorted(lines, key=lambda pair: pair[0]) for line in text]


def _json(history: list[Entry[ActionStep]]) -> dict[str, Any]:
    last = standing(history)
    return as_json(last) | {
        "asked_at": history[0].time,
        "steps": [as_json(entry.message) | {"append_time": entry.time} for entry in history],
    }


def _reached() -> Settings:
    settings = Settings()
    need_kafka(settings)
    return settings


def _find(settings: Settings, action: str) -> list[Entry[ActionStep]]:
    try:
        return find(action_histories(settings), action)
    except NotFound as error:
        raise fail(f"{error} among the actions; `bellbuoy actions list` has their ids") from None
