"""`bellbuoy versions`: the registry of call configurations, and how a prompt edit or a changed parameter becomes a version."""

import json as json_text
from pathlib import Path
from typing import Annotated, Any

import msgspec
import typer

from adapters.registry import Registry, RegistryAway, UnknownVersion, Version
from adapters.routes import read_route
from adapters.settings import Settings
from bellbuoy.cli.printing import console, fail, harmless, print_json, safe, table, when
from bellbuoy.control import actor
from bellbuoy.reach import need_kafka
from schemas.messages import CallConfiguration, Scalar

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    help="""List, show and register versions.

    A version is everything that decides how a request is answered: model, system prompt, parameters, tools. The gateway's route
    table names versions; `release` puts one through gate and canary.
    """,
)
App = Annotated[str, typer.Argument(help="The app.")]
Environment = Annotated[str, typer.Option(help="The app's environment.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for a program to read.")]


@app.command("list")
def list_versions(app: App, environment: Environment = "production", json: AsJson = False) -> None:
    """Every version of an app, oldest first, with its aliases; times are UTC."""
    found = _versions(app, environment)
    if json:
        print_json([_json(version) for version in found])
        return
    if not found:
        typer.echo("no version has been registered; `bellbuoy versions register --help` says how")
        return
    header = ("VERSION", "REGISTERED (UTC)", "ALIASES", "GATE", "MODEL")
    rows = [
        (v.name, when(v.created_ms), ", ".join(v.aliases), harmless(v.facts.get("gate", "")), harmless(v.configuration.model))
        for v in found
    ]
    typer.echo(table(header, rows))


@app.command()
def show(
    app: App,
    version: Annotated[str, typer.Argument(help="The version, such as v3.")],
    environment: Environment = "production",
    json: AsJson = False,
) -> None:
    """One version: its whole call configuration, and where it comes from. Exits 1 for an unknown one."""
    found = next((one for one in _versions(app, environment) if one.name == version), None)
    if found is None:
        raise fail(f"the registry has no {harmless(version)} of {harmless(app)} ({harmless(environment)})")
    if json:
        print_json(_json(found))
        return
    out, configuration = console(), found.configuration
    out.print(f"[bold]{safe(found.name)}[/] of {safe(app)} ({safe(environment)}), registered {when(found.created_ms)} UTC")
    if found.aliases:
        out.print(f"aliases: {', '.join(found.aliases)}")
    out.print(f"model: {safe(configuration.model)}")
    for name, value in sorted(configuration.parameters.items()):
        out.print(f"parameter {safe(name)}: {safe(json_text.dumps(value, ensure_ascii=False))}")
    if configuration.tools:
        out.print(f"tools: {len(configuration.tools)}")
    for name, value in sorted(found.facts.items()):
        out.print(f"{safe(name)}: {safe(value)}")
    if configuration.system_prompt is not None:
        out.print("system prompt:")
        for line in configuration.system_prompt.splitlines():
            out.print(f"  {safe(line)}")


@app.command()
def register(
    app: App,
    model: Annotated[str | None, typer.Option(help="Model or deployment; default: the champion's.")] = None,
    prompt_file: Annotated[Path | None, typer.Option(help="File with the system prompt; default: the champion's.")] = None,
    parameter: Annotated[list[str] | None, typer.Option(help="name=value, added to the champion's; may be repeated.")] = None,
    environment: Environment = "production",
    json: AsJson = False,
) -> None:
    """Register a version: what is not said is the champion's. Nothing serves it until it is released.

    \b
    Examples:
      bellbuoy versions register desk --prompt-file prompt.txt
      bellbuoy versions register desk --model gpt-4.1-mini
      bellbuoy versions register desk --parameter temperature=0.2
    """
    settings = Settings()
    champion, base = _champion(settings, app, environment)
    if model is None and base is None:
        raise fail(f"{harmless(app)} has no champion to take the model from: name one with --model")
    start = base or CallConfiguration(model="")
    configuration = msgspec.structs.replace(
        start,
        model=model or start.model,
        system_prompt=_prompt(prompt_file) if prompt_file else start.system_prompt,
        parameters=start.parameters | dict(read_parameter(text) for text in parameter or ()),
    )
    facts = {"kind": "person", "actor": actor(), "parent": champion or ""}
    try:
        version = _registry(settings).register(app, environment, configuration, facts=facts)
    except RegistryAway as error:
        raise fail(str(error)) from None
    if json:
        print_json({"app": app, "environment": environment, "version": version})
    else:
        typer.echo(f"{version} is registered; `bellbuoy release {harmless(app)} {version}` puts it through gate and canary")


def read_parameter(text: str) -> tuple[str, Scalar]:
    """A parameter as it was typed: a number, true or false where it reads as one, else text. Exits 1 without a `=`.

    >>> read_parameter("temperature=0.2"), read_parameter("store=false"), read_parameter("stop=###")
    (('temperature', 0.2), ('store', False), ('stop', '###'))
    """
    name, sign, value = text.partition("=")
    if not sign or not name.strip():
        raise fail(f"a parameter is written name=value, not {harmless(text)}")
    try:
        read = json_text.loads(value)
    except ValueError:
        read = value
    return name.strip(), read if isinstance(read, str | int | float | bool) else value


def _prompt(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise fail(f"cannot read the prompt in {path}: {error}") from None


def _champion(settings: Settings, app: str, environment: str) -> tuple[str | None, CallConfiguration | None]:
    need_kafka(settings)
    route = read_route(settings, app, environment)
    return (route.champion, route.versions.get(route.champion)) if route else (None, None)


def _versions(app: str, environment: str) -> list[Version]:
    try:
        return _registry(Settings()).versions(app, environment)
    except (RegistryAway, UnknownVersion) as error:
        raise fail(str(error)) from None


def _registry(settings: Settings) -> Registry:
    """A default address is never tried: somebody else's server may listen there."""
    if settings.mlflow_tracking_uri is None and "mlflow" not in settings.stack_urls():
        raise fail("no MLflow to ask: no stack with one runs (`bellbuoy up` starts one), and MLFLOW_TRACKING_URI is not set")
    return Registry(settings)


def _json(version: Version) -> dict[str, Any]:
    value: dict[str, Any] = msgspec.to_builtins(version)
    return value
