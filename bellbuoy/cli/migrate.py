"""`bellbuoy migrate`: bring ClickHouse's tables up to date."""

import contextlib
from typing import Annotated

import typer

from adapters import clickhouse
from adapters.settings import Settings
from bellbuoy.cli.printing import print_json
from bellbuoy.reach import need_store


def migrate(settings: Settings) -> list[str]:
    """Apply what is pending, waiting a little for ClickHouse to answer; returns the names."""
    with contextlib.closing(clickhouse.patiently(lambda: clickhouse.connect(settings), attempts=8)) as client:
        return clickhouse.migrate(client)


def command(
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be applied, and change nothing.")] = False,
    json: Annotated[bool, typer.Option("--json", help="Print JSON for a program to read.")] = False,
) -> None:
    """Bring ClickHouse's tables up to date. `bellbuoy up` does it too; what is there already is left alone.

    A migration that was changed after it had been applied is refused (exit code 1).

    \b
    Example:
      BELLBUOY_CLICKHOUSE_DSN=http://user:password@host:8123/db bellbuoy migrate
    """
    settings = Settings()
    need_store(settings)
    if dry_run:
        with contextlib.closing(clickhouse.connect(settings)) as client:
            names = [f"{m.number:04}_{m.name}" for m in clickhouse.pending(client)]
    else:
        names = migrate(settings)
    if json:
        print_json({"applied": [] if dry_run else names, "pending": names if dry_run else []})
        return
    for name in names:
        typer.echo(f"{'pending' if dry_run else 'applied'} {name}")
    if not names:
        typer.echo("ClickHouse is up to date")
