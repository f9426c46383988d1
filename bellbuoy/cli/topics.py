"""`bellbuoy topics`: make the registry's topics, and compare a cluster with it."""

import json as jsonlib
from typing import Annotated

import typer

from adapters.settings import Settings
from bellbuoy.reach import need_kafka

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    help="""Make the Kafka topics, and compare a cluster with what Bellbuoy needs.

    The embedded Kafka has them already. For a cluster of yours set KAFKA_BOOTSTRAP_SERVERS=host:port.
    """,
)

SingleNode = Annotated[
    bool | None,
    typer.Option(
        "--single-node/--cluster", help="Sizes for one node, or for a cluster (3 replicas); default: one node only when embedded."
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for a program to read.")]


@app.command()
def ensure(single_node: SingleNode = None, json: AsJson = False) -> None:
    """Make the topics that are missing; existing ones are left as they are. Exits 1 when what is there differs.

    \b
    Example:
      KAFKA_BOOTSTRAP_SERVERS=kafka-1:9092 bellbuoy topics ensure
    """
    from adapters.kafka_admin import ensure_topics

    settings = Settings()
    need_kafka(settings)
    made = ensure_topics(settings, embedded=settings.embedded_kafka if single_node is None else single_node)
    if not json:
        typer.echo(f"made {len(made)} topics" + (f": {', '.join(made)}" if made else ""))
    _report(settings, single_node, json=json, made=made)


@app.command()
def check(single_node: SingleNode = None, json: AsJson = False) -> None:
    """Say what of the cluster differs from what is needed; exits 1 when something does."""
    settings = Settings()
    need_kafka(settings)
    _report(settings, single_node, json=json, made=[])


@app.command("list")
def list_topics(json: AsJson = False) -> None:
    """Print each topic: who writes it, who reads it, what its records are keyed by. Needs no cluster."""
    from schemas.codec import TYPE_NAMES
    from schemas.topics import TOPICS

    rows = [
        {
            "name": t.name,
            "key": t.key,
            "messages": [TYPE_NAMES[m] for m in t.messages],
            "producers": list(t.producers),
            "consumers": list(t.consumers),
            "partitions": {"embedded": t.partitions(embedded=True), "cluster": t.partitions(embedded=False)},
            "settings": t.config(embedded=False),
        }
        for t in TOPICS.values()
    ]
    if json:
        typer.echo(jsonlib.dumps(rows))
        return
    for t in TOPICS.values():
        typer.echo(f"{t.name}  {t.partitions(embedded=True)} partitions ({t.partitions(embedded=False)} on a cluster)")
        typer.echo(f"    from {', '.join(t.producers)}")
        typer.echo(f"    to   {', '.join(t.consumers)}")
        typer.echo(f"    key  {t.key}")


def _report(settings: Settings, single_node: bool | None, *, json: bool, made: list[str]) -> None:
    from adapters.kafka_admin import check_topics

    found = check_topics(settings, embedded=single_node)
    if json:
        typer.echo(jsonlib.dumps({"made": made, "differences": found}))
    else:
        for line in found:
            typer.echo(line)
        if not found:
            typer.echo("all topics are there as they should be")
    raise typer.Exit(1 if found else 0)
