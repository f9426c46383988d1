"""`bellbuoy demo`: starts what is needed, tells the story, serves the page until Ctrl-C."""

import asyncio
import contextlib
import random
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import msgspec
import typer
from rich.console import Console

from adapters.settings import Settings


def command(
    seed: Annotated[
        int | None, typer.Option(help="Draws the moments and sizes of the changes; default: a fresh one, printed.")
    ] = None,
    no_shift: Annotated[bool, typer.Option("--no-shift", help="Nobody asks about anything new.")] = False,
    no_bad_version: Annotated[bool, typer.Option("--no-bad-version", help="No bad version is rolled out.")] = False,
    corpus: Annotated[
        Path | None,
        typer.Option(help="Play your own JSONL (rows with `prompt` and, where there, `response`) instead of the help desk."),
    ] = None,
    rate: Annotated[float, typer.Option(min=20, max=5_000, help="Requests a second.")] = 350,
    exit_: Annotated[bool, typer.Option("--exit", help="Stop everything that this command started when the story ends.")] = False,
    json: Annotated[
        bool, typer.Option("--json", help="Print the outcome as one JSON line at the end; the story goes to stderr.")
    ] = False,
) -> None:
    """Play a live story on real text and print what happens as it happens.

    Starts the embedded stack unless one is running here. Exits 0 only if every expected alert and action came, no other did, and
    the ledger is whole. Nothing that it does costs money or leaves this machine.
    """
    from adapters.corpus import PYARROW, corpus_file, help_desk
    from bellbuoy.configuration import active_config
    from bellbuoy.demo import Demo, Script, ask_from_rows, ask_help_desk
    from bellbuoy.story import plan

    console = Console(stderr=json, highlight=False)
    settings = Settings()
    drawn = seed if seed is not None else random.SystemRandom().randrange(10_000)
    if corpus:
        ask, new_topic = ask_from_rows(corpus_file(corpus)), "nothing new"
    else:
        desk = help_desk(drawn)
        ask, new_topic = ask_help_desk(desk), PYARROW
    with running(settings, console) as urls:
        script = Script(
            app=next_app(settings),
            plan=plan(drawn, shift=not no_shift and corpus is None, bad_version=not no_bad_version),
            ask=ask,
            rate=rate,
            reference_events=active_config(settings).rules.reference_events,
            new_topic=new_topic,
            strict=corpus is None,
        )
        console.print(
            f"status page [link]{urls['page']}[/]   (seed {drawn}: `bellbuoy demo --seed {drawn}` draws the same story)"
        )
        report, problems = asyncio.run(Demo(settings, urls, script, console).run())
        ledger = report.ledger
        console.print(
            f"[bold]ledger[/] received {ledger['received']:,} = stored {ledger['stored']:,} + dead {ledger['dead']:,} "
            f"+ missing {ledger['missing']:,}; repeated {ledger['repeated']:,}; {report.events_per_second:.0f} events/s"
        )
        for problem in problems:
            console.print(f"[bold red]NOT AS IT SHOULD BE[/] {problem}", markup=True)
        if not problems:
            console.print("[bold green]as it should be[/]")
        if json:
            typer.echo(msgspec.json.encode(report).decode())
        if not exit_:
            console.print(f"the status page stays at [link]{urls['page']}[/]; Ctrl-C stops everything")
            wait_for_interrupt()
    raise typer.Exit(1 if problems else 0)


@contextlib.contextmanager
def running(settings: Settings, console: Console) -> Iterator[dict[str, str]]:
    """The URLs of the stack that runs here, or of one that is started now and stopped at the end."""
    from bellbuoy.stack import Stack

    if Stack.is_running(settings):
        console.print("using the stack that is already running here")
        found = settings.stack()
        if found is None:
            raise typer.BadParameter("a stack is just starting or stopping here; try again in a moment")
        yield found["urls"]
        return
    console.print("starting Kafka, the ClickHouse engine and every process …")
    stack = Stack(settings, say=console.print)
    try:
        stack.start()
        yield stack.urls()
    finally:
        console.print("stopping every process …")
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
