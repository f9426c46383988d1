"""`.env.example`: every setting with its default and what it is for, written from adapters.settings.Settings."""

import argparse
import sys
from pathlib import Path
from typing import Final

from pydantic import SecretStr

from adapters.settings import Settings

FILE: Final = Path(__file__).resolve().parent.parent / ".env.example"
_HEAD: Final = """\
# Every setting of Bellbuoy with its default. Copy this file to .env, and take the # away from what you change:
# docker-compose.yml reads .env by itself; a shell does so by `set -a; . ./.env; set +a`. Keep .env out of version control.
# Made by `python -m bellbuoy.env_example --write` from adapters/settings.py.
"""
COMPOSE_ONLY: Final = {
    "CLICKHOUSE_PASSWORD": "password of ClickHouse's user bellbuoy; only docker-compose.yml reads it, and needs it",
}
IN_COMPOSE: Final = ("BELLBUOY_UPSTREAM_API_KEY", "CLICKHOUSE_PASSWORD")
"""docker-compose.yml does not start without these."""


def variables() -> dict[str, tuple[str, str]]:
    """Name of the variable → default as text (empty: unset) and description, in the order of the settings."""
    found = {}
    for name, field in Settings.model_fields.items():
        default = field.default
        assert not isinstance(default, SecretStr), f"{name} has a secret as its default"
        variable = str(field.validation_alias or f"BELLBUOY_{name.upper()}")
        found[variable] = ("" if default is None else str(default), field.description or "")
    return found


def text() -> str:
    """The whole file."""
    settings = variables() | {name: ("", description) for name, description in COMPOSE_ONLY.items()}
    return _HEAD + "".join(f"\n# {description}\n# {name}={default}\n" for name, (default, description) in settings.items())


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m bellbuoy.env_example", description=__doc__)
    mode = parser.add_mutually_exclusive_group(required=True)
    mode.add_argument("--write", action="store_true", help="write .env.example")
    mode.add_argument("--check", action="store_true", help="fail when it is not current")
    if parser.parse_args(arguments).write:
        FILE.write_text(text())
        return 0
    if not FILE.exists() or FILE.read_text() != text():
        print(".env.example is not current; run `python -m bellbuoy.env_example --write`", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
