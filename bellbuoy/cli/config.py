"""`bellbuoy config`: what scoring and judging depend on, and how to change it."""

from pathlib import Path
from typing import Annotated, Literal

import msgspec
import typer
from rich.console import Console
from rich.table import Table

from adapters.settings import Settings
from bellbuoy.cli.printing import as_json, fail, print_json, safe, when
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
from core.configs import ACTIVATION_DELAY_MS, ConfigLog
from schemas.codec import InvalidMessage, decode
from schemas.messages import Command, Config, Mode

__all__ = ["active_config", "app", "ensure_config"]

app = typer.Typer(help="Show, change and activate the configuration; the kill switch.", no_args_is_help=True)
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for a program to read.")]


@app.command()
def show(
    digest: Annotated[
        str | None, typer.Argument(help="A config's digest, or the beginning of one; by default the active one.")
    ] = None,
    json: AsJson = False,
) -> None:
    """One config, by default the one that was activated last."""
    configs = read_configs(Settings())
    config = current_config(configs) if digest is None else _find(configs, digest)
    if config is None:
        raise fail("no config has been activated yet: `bellbuoy up` activates the first one")
    if json:
        print_json(as_json(config))
    else:
        Console().print_json(data=as_json(config))


@app.command("list")
def list_configs(json: AsJson = False) -> None:
    """Every activation, oldest first."""
    configs = read_configs(Settings())
    if json:
        print_json([as_json(activation) | {"holds_from": start} for start, activation in configs.activations])
        return
    table = Table("config", "holds from", "by", "reason", box=None)
    for start, activation in configs.activations:
        since = "the beginning" if start is None else when(start)
        table.add_row(activation.config[:12], since, safe(activation.actor), safe(activation.reason))
    Console().print(table if configs.activations else "no config has been activated yet")


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
    """Make a config from the active one (or FILE) and activate it: it holds from the first window 30 s later."""
    base = _read(file) if file is not None else None

    def change(configs: ConfigLog) -> Change | None:
        current = current_config(configs)
        if current is None:
            return None
        return Change(changed(base or current, reference_events=reference_events, mode=mode), reason)

    try:
        chosen = change_config(Settings(), change)
    except (ConfigConflict, ValueError) as error:
        raise fail(str(error)) from None
    if json:
        print_json({"config": chosen})
    else:
        Console().print(
            f"config {chosen[:12]} is activated; it holds from the first window {ACTIVATION_DELAY_MS // 1000} s from now"
        )


@app.command("kill-switch")
def kill_switch(
    position: Annotated[Literal["on", "off"], typer.Argument(help="on: no action is asked for or may start.")],
    reason: Annotated[str, typer.Option("--reason", help="Why, in words.")],
    json: AsJson = False,
) -> None:
    """Stop every automatic action at once, for all apps, or allow them again."""
    settings = Settings()
    command = Command(id=new_id(), kind="kill_switch", actor=actor(), reason=reason, arguments={"on": position == "on"})
    send(settings, command, range(shards(settings)))
    if json:
        print_json(as_json(command))
    else:
        Console().print(f"kill switch {position} is on the log; it counts when the next window closes (about 5 s)")


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


def _read(file: Path) -> Config:
    try:
        return decode(Config, file.read_bytes())
    except InvalidMessage as error:
        raise fail(f"{file}: {error.reason}" + (f" (at {error.field})" if error.field else "")) from None


def _find(configs: ConfigLog, digest: str) -> Config:
    matches = [config for known, config in configs.configs.items() if known.startswith(digest)]
    if len(matches) != 1:
        raise fail(f"{digest} is the beginning of {len(matches)} digests")
    return matches[0]
