"""The command line: a table of sub-commands, each imported only when it is used."""

import importlib
import sys
from dataclasses import dataclass
from typing import Any, Final

import typer
import typer.main
from typer.core import TyperGroup

STACK: Final = "The stack"
LOOK: Final = "Look and answer"
PROCESSES: Final = "One process (what `up` starts; in production each runs alone)"


@dataclass(frozen=True)
class Entry:
    """One sub-command: where it is written, and its line in the help."""

    module: str
    attribute: str
    help: str
    panel: str


COMMANDS: Final[dict[str, Entry]] = {
    "up": Entry("bellbuoy.cli.stack", "up", "Start every process and keep them running.", STACK),
    "down": Entry("bellbuoy.cli.stack", "down", "Stop the stack that runs on this data folder.", STACK),
    "status": Entry("bellbuoy.cli.stack", "status", "Addresses, key file, and how each process is.", STACK),
    "demo": Entry("bellbuoy.cli.demo", "command", "Play a live story on real text and watch it being caught.", STACK),
    "setup": Entry("bellbuoy.cli.stack", "setup", "Fetch and build what a first start needs.", STACK),
    "doctor": Entry("bellbuoy.cli.stack", "doctor", "Check this machine and the cluster, and say what to do.", STACK),
    "ledger": Entry("bellbuoy.cli.ledger", "command", "What was received, stored, dead, missing, in flight.", LOOK),
    "alerts": Entry("bellbuoy.cli.alerts", "app", "List, show, acknowledge and silence alerts.", LOOK),
    "actions": Entry("bellbuoy.cli.actions", "app", "List, show, approve and reject actions.", LOOK),
    "backtest": Entry("bellbuoy.cli.backtest", "command", "Play a recorded log against rules, without side effects.", LOOK),
    "config": Entry("bellbuoy.cli.config", "app", "Show and activate configs.", LOOK),
    "topics": Entry("bellbuoy.cli.topics", "app", "Make the topics, and compare a cluster with the registry.", LOOK),
    "migrate": Entry("bellbuoy.cli.migrate", "command", "Bring ClickHouse's tables up to date.", LOOK),
    "broker": Entry("bellbuoy.cli.process", "broker", "The embedded Apache Kafka.", PROCESSES),
    "store": Entry("bellbuoy.cli.process", "store", "The ClickHouse engine behind ClickHouse's HTTP interface.", PROCESSES),
    "processor": Entry("bellbuoy.cli.process", "processor", "Scores every record, block by block.", PROCESSES),
    "sink": Entry("bellbuoy.cli.process", "sink", "Writes rows, windows, alerts and actions to ClickHouse.", PROCESSES),
    "controller": Entry("bellbuoy.cli.process", "controller", "Folds windows into alerts and actions.", PROCESSES),
    "collector": Entry("bellbuoy.cli.process", "collector", "Takes interactions and feedback over HTTP.", PROCESSES),
    "page": Entry("bellbuoy.cli.process", "page", "The status page.", PROCESSES),
}


class Lazy(TyperGroup):
    """Help is printed from the table; only the command that is run is imported. (Typer carries a private click: hence Any.)"""

    def list_commands(self, ctx: Any) -> list[str]:  # noqa: ARG002  # click's signature
        return list(COMMANDS)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:  # noqa: ARG002
        entry = COMMANDS.get(cmd_name)
        if entry is None:
            return None
        stub = typer.Typer(add_completion=False)
        stub.command(cmd_name, help=entry.help, rich_help_panel=entry.panel)(_nothing)
        return typer.main.get_command(stub)

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        name, command, rest = super().resolve_command(ctx, args)
        return name, load(name) if name is not None else command, rest


def load(name: str) -> Any:
    """Import a sub-command: a Typer app, or a plain function with Typer's annotations."""
    entry = COMMANDS[name]
    target: Any = getattr(importlib.import_module(entry.module), entry.attribute)
    if not isinstance(target, typer.Typer):
        function, target = target, typer.Typer(add_completion=False, pretty_exceptions_enable=False)
        target.command(name, help=function.__doc__ or entry.help)(function)
    command = typer.main.get_command(target)
    command.name = name
    return command


def _nothing() -> None:
    """Stands in for a command in the help."""


app = typer.Typer(cls=Lazy, no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)


@app.callback()
def root() -> None:
    """Bellbuoy watches LLM applications in production and acts on what it sees.

    Settings come from the environment (BELLBUOY_…, KAFKA_BOOTSTRAP_SERVERS); data lies in .bellbuoy/ unless BELLBUOY_DATA_DIR says otherwise.
    """


def main() -> None:
    """Run, and turn what is a user's matter into one line and exit code 1."""
    try:
        app(prog_name="bellbuoy")
    except Exception as error:
        if not _is_plain(error):
            raise
        typer.echo(f"bellbuoy: {error}", err=True)
        sys.exit(1)


def _is_plain(error: Exception) -> bool:
    """Errors whose text says what to do; anything else keeps its traceback."""
    from adapters.java import NoJava
    from adapters.process import FolderInUse

    if isinstance(error, NoJava | FolderInUse):
        return True
    from adapters.broker import BrokerFailed
    from adapters.clickhouse import MigrationError
    from adapters.kafka_jars import JarsMissing
    from bellbuoy.configuration import ConfigConflict
    from bellbuoy.stack import StackFailed

    return isinstance(error, BrokerFailed | ConfigConflict | JarsMissing | MigrationError | StackFailed)
