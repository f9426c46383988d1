"""`bellbuoy fit`: topic cells of an app's own, fitted to its newest prompts, looked at and activated."""

from typing import Annotated, Any

import typer

from adapters.embedding import load_embedding
from adapters.settings import Settings
from bellbuoy.cli.printing import fail, harmless, percent, place, print_json, table
from bellbuoy.control import actor
from bellbuoy.reach import need_kafka
from core.cells import cells_of, with_cells
from core.configs import ACTIVATION_DELAY_MS
from core.fitter import CannotFit, fit_cells, next_version
from core.rules import LEAST_FIT, MOST_FIT
from core.scoring.words import WordSums
from schemas.messages import OwnCells
from services.config_writer import current_config, read_configs
from services.fitter import collect, publish


def command(
    app: Annotated[str, typer.Option("--app", help="The app.")],
    environment: Annotated[str, typer.Option(help="The app's environment.")] = "production",
    events: Annotated[
        int, typer.Option(min=LEAST_FIT, max=MOST_FIT, help="How many of the newest prompts to take; fewer if there are fewer.")
    ] = 10_000,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only show the cells.")] = False,
    json: Annotated[bool, typer.Option("--json", help="Print JSON for a program to read.")] = False,
) -> None:
    """Fit an app's topic cells to its newest prompts, show them, and activate them.

    The fitter does this once for each app; do it again when the app has changed for good. The first half of the prompts makes
    the cells, and the second half is the beginning of a new reference: what is asked now becomes what is normal, and an
    open alert about topics ends.

    \b
    Examples:
      bellbuoy fit --app help-desk --dry-run
      bellbuoy fit --app help-desk
    """
    settings = Settings()
    need_kafka(settings)
    configs = read_configs(settings)
    current = current_config(configs)
    if current is None:
        raise fail("no config has been activated yet: `bellbuoy up` activates the first one")
    former = cells_of(current, app, environment)
    prompts = collect(settings, app, environment, events, newest=True)
    words = WordSums(load_embedding(settings))
    try:
        version = next_version(configs.configs.values(), app, environment)
        own = fit_cells(app, environment, version, prompts, words)
        with_cells(current, own)
        if not dry_run:
            own = publish(settings, own, again=True, who=actor()) or own
    except CannotFit as error:
        raise fail(f"{place(app, environment)} cannot be fitted: {error}") from None
    except ValueError as error:
        raise fail(str(error)) from None
    if json:
        print_json(_json(own, former, activated=not dry_run))
        return
    typer.echo(_said(own, former))
    if dry_run:
        typer.echo("nothing was changed; without --dry-run these cells are activated")
    else:
        typer.echo(f"activated; they hold from the first window {ACTIVATION_DELAY_MS // 1000} s from now")


def _said(own: OwnCells, former: OwnCells | None) -> str:
    counted = max(sum(own.topics), 1)
    rows = [
        (str(cell), f"{count:,}", percent(count / counted), harmless(name))
        for cell, (name, count) in enumerate(zip(own.names, own.topics, strict=True))
    ]
    before = "the fixed cells" if former is None else f"its {len(former.names)} cells of version {former.version}"
    return "\n".join(
        (
            f"{place(own.app, own.environment)}: {len(own.names)} topic cells from {own.events:,} prompts, version {own.version},"
            f" in place of {before}",
            f"its reference for topics would begin anew with {counted:,} prompts, counted here:",
            table(("CELL", "PROMPTS", "SHARE", "TERMS"), rows, right=(0, 1, 2)),
        )
    )


def _json(own: OwnCells, former: OwnCells | None, *, activated: bool) -> dict[str, Any]:
    return {
        "app": own.app,
        "environment": own.environment,
        "version": own.version,
        "former_version": None if former is None else former.version,
        "prompts": own.events,
        "activated": activated,
        "cells": [{"name": n, "prompts": c} for n, c in zip(own.names, own.topics, strict=True)],
    }
