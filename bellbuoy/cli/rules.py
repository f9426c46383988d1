"""`bellbuoy rules`: what is judged and what follows, as a file: checked, shown, applied."""

import difflib
from pathlib import Path
from typing import Annotated, Any

import msgspec
import typer

from adapters.settings import Settings
from bellbuoy.cli.printing import fail, harmless, print_json
from core.rule_file import InvalidRules, read_rules, rules_schema, write_rules
from core.rules import DEFAULT_RULES
from core.yaml_text import MAX_BYTES
from schemas.codec import digest
from schemas.messages import Rules

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    help="""Check, show and apply the rules: the budget of false pages, what follows an alert, what differs for an app.

    Without a file the built-in rules hold, which watch a new app well. A file says what differs from them. An editor that knows JSON
    Schema completes and checks it: `bellbuoy rules schema > rules.schema.json`.
    """,
)
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for a program to read.")]
RulesFile = Annotated[Path, typer.Argument(help="YAML; - reads it from stdin.", metavar="FILE")]


@app.command()
def check(file: RulesFile, json: AsJson = False) -> None:
    """Say what is wrong with a file of rules, with line and column; exits 1 when something is. Needs no stack.

    \b
    Example:
      bellbuoy rules check rules.yaml
    """
    try:
        rules = load(file)
    except InvalidRules as error:
        if json:
            print_json({"digest": None, "problems": problems_json(error)})
            raise typer.Exit(1) from None
        raise refused(error) from None
    if json:
        print_json({"digest": digest(rules), "problems": []})
    else:
        typer.echo(
            f"{'stdin' if str(file) == '-' else harmless(str(file))} is in order: {len(rules.rules)} rules, {_budget(rules)}; digest {digest(rules)[:12]}"
        )


@app.command()
def show(
    default: Annotated[bool, typer.Option("--default", help="The built-in ones, which need no stack.")] = False,
    json: AsJson = False,
) -> None:
    """The rules in force as a complete file, headed by the digest that alerts and actions carry.

    \b
    Examples:
      bellbuoy rules show > rules.yaml
      bellbuoy rules show --default
    """
    rules = DEFAULT_RULES if default else _active()
    if json:
        print_json({"digest": digest(rules), "rules": msgspec.to_builtins(rules)})
    else:
        typer.echo(f"# digest {digest(rules)}\n{write_rules(rules)}", nl=False)


@app.command()
def schema() -> None:
    """A JSON Schema of the file, for editors."""
    from schemas.jsonschema import text

    typer.echo(text(rules_schema()), nl=False)


@app.command()
def apply(
    file: RulesFile,
    reason: Annotated[str, typer.Option("--reason", help="Why, in words; it is kept with the activation.")] = "",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only show what would change.")] = False,
    json: AsJson = False,
) -> None:
    """Activate a config with these rules: they hold from the first window 30 s later. A rule that is not in them any more fires no more.

    \b
    Examples:
      bellbuoy rules apply rules.yaml --dry-run
      bellbuoy rules apply rules.yaml --reason "cooldown of 2 h for refusals"
    """
    from bellbuoy.configuration import Change, ConfigConflict, change_config, current_config
    from core.configs import ACTIVATION_DELAY_MS, ConfigLog, check_size

    if not dry_run and not reason:
        raise fail("say why with --reason, or only look with --dry-run")
    try:
        rules = load(file)
    except InvalidRules as error:
        raise refused(error) from None
    if dry_run:
        _print_difference(_active(), rules, json=json)
        return
    changed = False

    def change(configs: ConfigLog) -> Change | None:
        nonlocal changed
        current = current_config(configs)
        changed = current is not None and current.rules != rules
        if current is None or not changed:
            return None
        config = msgspec.structs.replace(current, rules=rules)
        check_size(config)
        return Change(config, reason)

    try:
        chosen = change_config(_reached(), change)
    except (ConfigConflict, ValueError) as error:
        raise fail(str(error)) from None
    if json:
        print_json({"config": chosen, "rules": digest(rules), "changed": changed})
    elif changed:
        typer.echo(
            f"rules {digest(rules)[:12]} are activated with config {chosen[:12]}; they hold from the first window "
            f"{ACTIVATION_DELAY_MS // 1000} s from now"
        )
    else:
        typer.echo("these rules are in force already; nothing was changed")


def load(file: Path) -> Rules:
    """The rules of a file, or of stdin for `-`. Raises InvalidRules for a mistake in it, Exit for one that cannot be read."""
    try:
        if str(file) == "-":
            value = typer.get_binary_stream("stdin").read(MAX_BYTES + 1)
        else:
            with file.open("rb") as opened:
                value = opened.read(MAX_BYTES + 1)
    except OSError as error:
        raise fail(f"cannot read {harmless(str(file))}: {error.strerror}") from None
    if len(value) > MAX_BYTES:
        raise fail(f"{harmless(str(file))} has more than {MAX_BYTES:,} bytes, which is the most that a file of rules may have")
    try:
        text = value.decode("utf-8")
    except UnicodeDecodeError as error:
        line = value[: error.start].count(b"\n") + 1
        raise fail(f"{harmless(str(file))}:{line}: this is not UTF-8; save the file as UTF-8") from None
    return read_rules(text, "stdin" if str(file) == "-" else str(file))


def refused(error: InvalidRules) -> typer.Exit:
    """Tell every problem on stderr, a line each; to be raised."""
    return fail("\n".join(harmless(problem.told(error.source)) for problem in error.problems))


def problems_json(error: InvalidRules) -> list[dict[str, Any]]:
    """The problems of a file as plain values."""
    return [
        {
            "line": p.place.line,
            "column": p.place.column,
            "path": harmless(p.path),
            "wrong": harmless(p.wrong),
            "right": harmless(p.right),
        }
        for p in error.problems
    ]


def difference(current: Rules, wanted: Rules) -> list[str]:
    """What `wanted` changes, as a unified difference of the complete files; empty where nothing does."""
    before, after = write_rules(current).splitlines(), write_rules(wanted).splitlines()
    return list(difflib.unified_diff(before, after, "in force", "wanted", lineterm="", n=4))


def _print_difference(current: Rules, wanted: Rules, *, json: bool) -> None:
    lines = difference(current, wanted)
    if json:
        print_json({"changed": current != wanted, "from": digest(current), "to": digest(wanted), "difference": lines})
        return
    for line in lines:
        typer.echo(harmless(line))
    if not lines:
        typer.echo("these rules are in force already; nothing would change")


def _budget(rules: Rules) -> str:
    times = "time" if rules.false_pages == 1 else "times"
    return f"at most {rules.false_pages} {times} in {rules.per_days:g} days a page by mistake, on average and per app"


def _active() -> Rules:
    from bellbuoy.configuration import active_config

    try:
        return active_config(_reached()).rules
    except LookupError as error:
        raise fail(str(error)) from None


def _reached() -> Settings:
    from bellbuoy.reach import need_kafka

    settings = Settings()
    need_kafka(settings)
    return settings
