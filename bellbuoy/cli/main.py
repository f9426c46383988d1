"""The command line: a table of sub-commands, each imported only when it is used."""

import importlib
import logging
import sys
from dataclasses import dataclass
from typing import Any, Final

import typer
import typer.main
from typer.core import TyperGroup

STACK: Final = "The stack"
LOOK: Final = "Look and answer (on a running stack)"
LOOP: Final = "Versions and routes (the loop)"
SCORES: Final = "Scores (on a file, needs no stack)"
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
    "status": Entry("bellbuoy.cli.stack", "status", "Print addresses, key file, and how each process is.", STACK),
    "demo": Entry("bellbuoy.cli.demo", "command", "Play a live story on real text and watch it being caught.", STACK),
    "setup": Entry("bellbuoy.cli.stack", "setup", "Fetch and build what a first start needs.", STACK),
    "doctor": Entry("bellbuoy.cli.stack", "doctor", "Check this machine and the cluster, and say what to do.", STACK),
    "ledger": Entry("bellbuoy.cli.ledger", "command", "Count what was received, stored, dead, missing.", LOOK),
    "explain": Entry("bellbuoy.cli.explain", "command", "Why an interaction has its scores, in words of its text.", LOOK),
    "alerts": Entry("bellbuoy.cli.alerts", "app", "List, show, acknowledge and silence alerts.", LOOK),
    "actions": Entry("bellbuoy.cli.actions", "app", "List, show, approve and reject actions.", LOOK),
    "routes": Entry("bellbuoy.cli.routes", "routes", "Which version of an app answers.", LOOP),
    "gateways": Entry("bellbuoy.cli.routes", "gateways", "What the gateways confirm; say that one is dead.", LOOP),
    "rollback": Entry("bellbuoy.cli.rollback", "command", "Take a version off at once, and see it verified.", LOOP),
    "release": Entry("bellbuoy.cli.release", "command", "Bring a version into service, by gate and canary or at once.", LOOP),
    "backtest": Entry("bellbuoy.cli.backtest", "command", "What would have fired on a log of yours (needs no stack).", LOOK),
    "score": Entry("bellbuoy.cli.score", "command", "Score a file of texts, with reasons.", SCORES),
    "evaluate-scorer": Entry(
        "bellbuoy.cli.evaluate_scorer", "command", "How well scores tell the labels of a file apart.", SCORES
    ),
    "adapt": Entry("bellbuoy.cli.adapt", "command", "Correct an app's scores by its own labels.", SCORES),
    "train-scorer": Entry("bellbuoy.cli.train_scorer", "command", "Train the learned scorers from labelled texts.", SCORES),
    "config": Entry("bellbuoy.cli.config", "app", "Show and change what is scored and judged; kill switch.", LOOK),
    "rules": Entry("bellbuoy.cli.rules", "app", "Check, show and apply a file of rules.", LOOK),
    "fit": Entry("bellbuoy.cli.fit", "command", "Fit an app's topic cells to its newest prompts.", LOOK),
    "versions": Entry("bellbuoy.cli.versions", "app", "List, show and register versions of an app.", LOOK),
    "topics": Entry("bellbuoy.cli.topics", "app", "Make the Kafka topics, and check a cluster's.", LOOK),
    "migrate": Entry("bellbuoy.cli.migrate", "command", "Bring ClickHouse's tables up to date.", LOOK),
    "broker": Entry("bellbuoy.cli.process", "broker", "The embedded Apache Kafka.", PROCESSES),
    "store": Entry("bellbuoy.cli.process", "store", "The ClickHouse engine behind ClickHouse's HTTP interface.", PROCESSES),
    "processor": Entry("bellbuoy.cli.process", "processor", "Scores every record, block by block.", PROCESSES),
    "sink": Entry("bellbuoy.cli.process", "sink", "Writes what was scored and decided to ClickHouse.", PROCESSES),
    "controller": Entry(
        "bellbuoy.cli.process", "controller", "Decides: counts of 5 s each become alerts and actions.", PROCESSES
    ),
    "deploy-worker": Entry(
        "bellbuoy.cli.process", "deploy_worker", "Carries out rollbacks and canaries, and verifies them.", PROCESSES
    ),
    "collector": Entry("bellbuoy.cli.process", "collector", "Takes interactions and feedback over HTTP.", PROCESSES),
    "finetune-worker": Entry(
        "bellbuoy.cli.process", "finetune_worker", "Dataset, fine-tune, gate: from a retrain to a candidate.", PROCESSES
    ),
    "fitter": Entry("bellbuoy.cli.process", "fitter", "Gives each app topic cells of its own.", PROCESSES),
    "sandbox": Entry("bellbuoy.cli.process", "sandbox", "A stand-in for a model provider, for demo and tests.", PROCESSES),
    "gateway": Entry("bellbuoy.cli.process", "gateway", "The OpenAI API for applications, by the routes in force.", PROCESSES),
    "page": Entry("bellbuoy.cli.process", "page", "The status page.", PROCESSES),
    "mlflow": Entry("bellbuoy.cli.process", "mlflow", "The embedded MLflow: versions and how they came about.", PROCESSES),
}


class Lazy(TyperGroup):
    """Help is printed from the table; only the command that is run is imported. (Typer carries a private click: hence Any.)"""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        _flow(self)

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
    _flow(command)
    return command


def _flow(command: Any) -> None:
    """Let the paragraphs of a command's help flow to the terminal's width; those that begin with \\b keep their lines."""
    paragraphs = (command.help or "").split("\n\n")
    command.help = "\n\n".join(text if text.startswith("\b") else " ".join(text.split()) for text in paragraphs)
    for inner in getattr(command, "commands", {}).values():
        _flow(inner)


def _nothing() -> None:
    """Stands in for a command in the help."""


app = typer.Typer(cls=Lazy, no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)


@app.callback()
def root() -> None:
    """Bellbuoy watches LLM applications in production and acts on what it sees: prompts, responses and feedback stream through
    Kafka, every one is scored and stored in ClickHouse, and what changes for the worse raises an alert and asks for an action.

    Settings come from the environment. BELLBUOY_DATA_DIR is the data folder (default: .bellbuoy), one stack to a folder;
    KAFKA_BOOTSTRAP_SERVERS and BELLBUOY_CLICKHOUSE_DSN name servers of yours. Exit codes: 0 well, 1 not well (one sentence on stderr
    says why), 2 a wrong option, 130 interrupted.

    \b
    Begin with:
      bellbuoy demo                 watch a live story (1.5 minutes)
      bellbuoy up --detach          or start the stack and send your own traffic
      bellbuoy alerts list          what fires
      bellbuoy COMMAND --help       examples for each command
    """


def main() -> None:
    """Run, and turn what is a user's matter into one sentence on stderr and exit code 1.

    A process that crashes leaves its traceback in its log, but for errors whose own text says what to do.
    """
    for library in ("clickhouse_connect", "kafka"):
        logging.getLogger(library).addHandler(logging.NullHandler())  # what fails is raised; a process sets up its own log
    try:
        app(prog_name="bellbuoy")
    except Exception as error:
        from bellbuoy.cli.errors import explain, told_by_itself

        named = COMMANDS.get(sys.argv[1]) if len(sys.argv) > 1 else None
        said = told_by_itself(error) if named is not None and named.panel == PROCESSES else explain(error)
        if said is None:
            raise
        typer.echo(f"bellbuoy: {said}", err=True)
        sys.exit(1)
