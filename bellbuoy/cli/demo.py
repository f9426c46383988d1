"""`bellbuoy demo`: starts what is needed, tells the story, serves the page until Ctrl-C."""

import asyncio
import contextlib
import random
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import msgspec
import typer
from rich.console import Console
from rich.markup import escape

from adapters.settings import Settings
from core.rules import DEFAULT_RULES

if TYPE_CHECKING:
    from bellbuoy.story import Plan

_START_S: Final = 30.0
_SHIFT_S: Final = 100.0
_BAD_VERSION_S: Final = 40.0
_END_S: Final = 25.0
"""How long the parts take, roughly."""


def command(
    seed: Annotated[
        int | None, typer.Option(help="A number that draws the moments and sizes of the changes; default: a fresh one.")
    ] = None,
    no_shift: Annotated[bool, typer.Option("--no-shift", help="Nobody asks about anything new.")] = False,
    no_bad_version: Annotated[bool, typer.Option("--no-bad-version", help="No bad version is rolled out.")] = False,
    no_feedback: Annotated[bool, typer.Option("--no-feedback", help="Nobody says what they think of an answer.")] = False,
    corpus: Annotated[
        Path | None,
        typer.Option(help="Your own texts: JSON lines with prompt and, where there, response.", metavar="FILE"),
    ] = None,
    rate: Annotated[float, typer.Option(min=20, max=5_000, help="Requests a second, 20 to 5000.")] = 120,
    exit_: Annotated[bool, typer.Option("--exit", help="Stop what this command started when the story ends.")] = False,
    json: Annotated[
        bool, typer.Option("--json", help="Print the outcome as one JSON line at the end; the story goes to stderr.")
    ] = False,
) -> None:
    """Play a live story on real text and print what happens as it happens. It takes about four minutes.

    A help desk behind the gateway answers questions about Python. Users begin to ask about something new: an alert, a fine-tune on
    what users corrected, a gate, a canary, a promotion. Then somebody rolls out a bad prompt: an alert, a rollback, and the proof
    that it worked. Actions run by themselves, for the demo's apps alone. The model is the bundled sandbox, the stack is started
    unless it runs here already, and the status page stays until Ctrl-C. Costs nothing, and nothing leaves this machine.

    Exits 0 only if every expected alert and action came and ended well, no other did, and nothing is missing; 1 if not; 130 when it
    was interrupted. With --corpus, which may hold changes of its own, the texts go to the collector, and besides the bad version's
    alert and action only the ledger is judged.

    \b
    Examples:
      bellbuoy demo --seed 7
      bellbuoy demo --no-shift --no-bad-version       nothing changes: no alert
      bellbuoy demo --no-feedback                     nothing to learn from
      bellbuoy demo --corpus texts.jsonl --rate 100
      bellbuoy demo --json --exit                     for a program
    """
    from adapters.corpus import corpus_file, help_desk
    from bellbuoy.configuration import active_config
    from bellbuoy.demo import CorpusStory, HelpDeskStory, Script, Story, ask_from_rows
    from bellbuoy.story import plan

    _listen_to_signals()
    console = Console(stderr=json, highlight=False, soft_wrap=True)
    settings = Settings()
    drawn = seed if seed is not None else random.SystemRandom().randrange(10_000)
    rows = corpus_file(corpus) if corpus else []
    drawn_plan = plan(drawn, shift=not no_shift and corpus is None, bad_version=not no_bad_version)
    console.print(outline(drawn_plan, rate, opinions=not no_feedback))
    try:
        with running(settings, console) as urls:
            reference = active_config(settings).rules.reference_events
            script = Script(next_app(settings), drawn_plan, rate, reference)
            console.print(f"status page [link]{urls['page']}[/]; --seed {drawn} tells this story again")
            story: Story
            if corpus:
                story = CorpusStory(settings, urls, script, ask_from_rows(rows), console)
            else:
                story = HelpDeskStory(settings, urls, script, help_desk(drawn), console, opinions=not no_feedback)
            report, problems = asyncio.run(story.run())
            ledger = report.ledger
            console.print(
                f"[bold]ledger[/] received {ledger['received']:,} = stored {ledger['stored']:,} + dead {ledger['dead']:,} "
                f"+ missing {ledger['missing']:,}; repeated {ledger['repeated']:,}; {report.events_per_second:.0f} events/s"
            )
            for problem in problems:
                console.print(f"[bold red]NOT AS IT SHOULD BE[/] {escape(problem)}")
            if not problems:
                console.print("[bold green]everything is as it should be[/]")
            if json:
                typer.echo(msgspec.json.encode(report).decode())
            if not exit_:
                console.print(f"\nthe status page stays at [link]{urls['page']}[/]; in another terminal, try")
                for line in worth_trying(settings, [action.id for action in report.actions]):
                    console.print(f"  {escape(line)}")
                console.print("Ctrl-C stops what this command started")
                wait_for_interrupt()
    except KeyboardInterrupt:
        console.print("interrupted before the story's end")
        raise typer.Exit(130) from None
    raise typer.Exit(1 if problems else 0)


def outline(plan: "Plan", rate: float, *, opinions: bool = True) -> str:
    """What will happen, and how long it takes."""
    parts = ["ordinary traffic"]
    seconds = _START_S + DEFAULT_RULES.reference_events / rate + _END_S
    if plan.shift_after is not None:
        seconds += _SHIFT_S if opinions else _BAD_VERSION_S
        learned = "a fine-tune, a gate, a canary, a promotion" if opinions else "nobody gives feedback, so nothing can be learned"
        parts.append(f"users begin to ask about something new (an alert; {learned})")
    if plan.bad_version_after is not None:
        seconds += _BAD_VERSION_S
        parts.append("a bad prompt is rolled out (an alert, and a rollback that is verified)")
    if len(parts) == 1:
        seconds += plan.calm_seconds
        parts.append("nothing changes, so nothing may fire")
    parts.append("the ledger: what was received, stored, missing")
    return f"the story takes about {round(seconds / 30) / 2:g} minutes: " + "; then ".join(parts)


def worth_trying(settings: Settings, actions: Sequence[str]) -> list[str]:
    """Commands for another terminal, as this one was typed."""
    program = sys.argv[0] if sys.argv[0].endswith("/bellbuoy") else "bellbuoy"
    if "data_dir" in settings.model_fields_set:
        program = f"BELLBUOY_DATA_DIR={settings.data_dir} {program}"
    why = f"{program} actions show {actions[-1][:8]}" if actions else f"{program} status"
    return [f"{program} alerts list --all", why, f"{program} ledger --verify"]


def _listen_to_signals() -> None:
    """Ctrl-C and SIGTERM interrupt alike, also where a shell had Ctrl-C ignored."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, lambda *_: signal.raise_signal(signal.SIGINT))


@contextlib.contextmanager
def running(settings: Settings, console: Console) -> Iterator[dict[str, str]]:
    """The URLs of the stack that runs here, or of one that is started now and stopped at the end."""
    from bellbuoy.reach import NotReachable
    from bellbuoy.stack import Stack

    if Stack.is_running(settings):
        console.print("using the stack that is already running here")
        found = settings.stack()
        if found is None:
            raise NotReachable("a stack is just starting or stopping here; try again in a moment")
        yield found["urls"]
        return
    stack = Stack(settings, say=console.print)
    try:
        stack.start()
        yield stack.urls()
    finally:
        console.print("stopping every process …")
        for sign in (signal.SIGINT, signal.SIGTERM):
            signal.signal(sign, signal.SIG_IGN)
        stack.stop()


def next_app(settings: Settings) -> str:
    """A name for this story: help-desk-1, help-desk-2, … in one data folder."""
    counter = settings.run_dir / "stories"
    number = int(counter.read_text()) + 1 if counter.exists() else 1
    counter.parent.mkdir(parents=True, exist_ok=True)
    counter.write_text(str(number))
    return f"help-desk-{number}"


def wait_for_interrupt() -> None:
    """Until SIGINT or SIGTERM."""
    done = threading.Event()
    for sign in (signal.SIGINT, signal.SIGTERM):
        signal.signal(sign, lambda *_: done.set())
    done.wait()
