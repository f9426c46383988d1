"""`bellbuoy config`: what scoring and judging depend on, and how to change it."""

from pathlib import Path
from typing import Annotated, Literal

import msgspec
import typer
from rich.console import Console

from adapters.settings import Settings
from bellbuoy.cli.printing import as_json, fail, harmless, print_json, table, when
from bellbuoy.configuration import (
    Change,
    ConfigConflict,
    active_config,
    change_config,
    current_config,
    ensure_config,
    read_configs,
)
from bellbuoy.control import actor, new_id, send, shards
from bellbuoy.reach import need_kafka
from core.configs import ACTIVATION_DELAY_MS, ConfigLog
from schemas.codec import InvalidMessage, decode
from schemas.messages import Command, Config, Mode

__all__ = ["active_config", "app", "ensure_config"]

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    help="""Show, change and activate the configuration; the kill switch.

    A config says how text is scored, what is judged and what follows. It is named by its digest (a sha256) and holds from a given
    moment on, so that every result can be computed again.
    """,
)
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for a program to read.")]


@app.command()
def show(
    digest: Annotated[
        str | None, typer.Argument(help="A config's digest, or the beginning of one; by default the active one.")
    ] = None,
    json: AsJson = False,
) -> None:
    """One config, by default the one that was activated last."""
    configs = read_configs(_reached())
    config = current_config(configs) if digest is None else _find(configs, digest)
    if config is None:
        raise fail("no config has been activated yet: `bellbuoy up` activates the first one")
    if json:
        print_json(as_json(config))
    else:
        Console(soft_wrap=True).print_json(data=as_json(config))


@app.command("list")
def list_configs(json: AsJson = False) -> None:
    """Every activation, oldest first."""
    configs = read_configs(_reached())
    if json:
        print_json([as_json(activation) | {"holds_from": start} for start, activation in configs.activations])
        return
    rows = [
        (a.config[:12], "the beginning" if start is None else when(start), harmless(a.actor), harmless(a.reason))
        for start, a in configs.activations
    ]
    typer.echo(table(("CONFIG", "HOLDS FROM (UTC)", "BY", "REASON"), rows) if rows else "no config has been activated yet")


@app.command()
def activate(
    reason: Annotated[str, typer.Option("--reason", help="Why, in words.")],
    file: Annotated[
        Path | None, typer.Argument(help="A config as `config show --json` prints it; by default the active one.", exists=True)
    ] = None,
    reference_events: Annotated[
        int | None, typer.Option(min=100, help="How many first events become an app's reference.")
    ] = None,
    mode: Annotated[Mode | None, typer.Option(help="What rules with an action may do: suggest, approve or auto.")] = None,
    json: AsJson = False,
) -> None:
    """Make a config from the active one (or FILE) and activate it: it holds from the first window 30 s later.

    \b
    Examples:
      bellbuoy config activate --mode approve --reason "let us decide"
      bellbuoy config show --json > config.json
      bellbuoy config activate config.json --reason "other rules"
    """
    base = _read(file) if file is not None else None

    def change(configs: ConfigLog) -> Change | None:
        current = current_config(configs)
        if current is None:
            return None
        return Change(changed(base or current, reference_events=reference_events, mode=mode), reason)

    try:
        chosen = change_config(_reached(), change)
    except (ConfigConflict, ValueError) as error:
        raise fail(str(error)) from None
    if json:
        print_json({"config": chosen})
    else:
        typer.echo(f"config {chosen[:12]} is activated; it holds from the first window {ACTIVATION_DELAY_MS // 1000} s from now")


@app.command()
def ensure() -> None:
    """Activate the first config, or one that fits code and cluster where these have changed; `bellbuoy up` does it too.

    \b
    Example:
      KAFKA_BOOTSTRAP_SERVERS=kafka-1:9092 bellbuoy config ensure
    """
    try:
        chosen = ensure_config(_reached(), typer.echo)
    except ConfigConflict as error:
        raise fail(str(error)) from None
    typer.echo(f"config {chosen[:12]} is active")


@app.command("kill-switch")
def kill_switch(
    position: Annotated[Literal["on", "off"], typer.Argument(help="on: no action is asked for or may start.")],
    reason: Annotated[str, typer.Option("--reason", help="Why, in words.")],
    json: AsJson = False,
) -> None:
    """Stop every automatic action at once, for all apps, or allow them again.

    \b
    Example:
      bellbuoy config kill-switch on --reason "incident 42"
    """
    settings = _reached()
    command = Command(id=new_id(), kind="kill_switch", actor=actor(), reason=reason, arguments={"on": position == "on"})
    send(settings, command, range(shards(settings)))
    if json:
        print_json(as_json(command))
    else:
        typer.echo(f"kill switch {position} is on the log; it counts when the next window closes (about 5 s)")


def changed(config: Config, *, reference_events: int | None = None, mode: Mode | None = None) -> Config:
    """A config with another reference size, or another mode for the rules that have an action."""
    rules = config.rules
    if reference_events is not None:
        rules = msgspec.structs.replace(rules, reference_events=reference_events)
    if mode is not None:
        rules = msgspec.structs.replace(
            rules, rules=tuple(msgspec.structs.replace(r, mode=mode) if r.action is not None else r for r in rules.rules)
        )
    return msgspec.structs.replace(config, rules=rules)


def _reached() -> Settings:
    settings = Settings()
    need_kafka(settings)
    return settings


def _read(file: Path) -> Config:
    try:
        return decode(Config, file.read_bytes())
    except InvalidMessage as error:
        raise fail(f"{file}: {error.reason}" + (f" (at {error.field})" if error.field else "")) from None


def _find(configs: ConfigLog, digest: str) -> Config:
    matches = [config for known, config in configs.configs.items() if known.startswith(digest)]
    if len(matches) != 1:
        raise fail(f"{digest} is the beginning of {len(matches)} digests; `bellbuoy config list` has them")
    return matches[0]
