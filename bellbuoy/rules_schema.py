"""The JSON Schema of a file of rules for editors: `python -m bellbuoy.rules_schema --write | --check`."""

import argparse
import sys
from pathlib import Path
from typing import Final

from core.rule_file import rules_schema
from schemas import jsonschema

FILE: Final = jsonschema.FOLDER / "editor" / "rules.schema.json"
"""In a folder of its own: it is no message of a topic."""


def text() -> str:
    """The whole file."""
    return jsonschema.text(rules_schema())


def main(arguments: list[str] | None = None, file: Path = FILE) -> int:
    parser = argparse.ArgumentParser(prog="python -m bellbuoy.rules_schema", description=__doc__)
    mode = parser.add_mutually_exclusive_group(required=True)
    mode.add_argument("--write", action="store_true", help="write the file")
    mode.add_argument("--check", action="store_true", help="fail when it is not current")
    if parser.parse_args(arguments).write:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text())
        return 0
    if not file.exists() or file.read_text() != text():
        print(f"{file.name}: not current; run `python -m bellbuoy.rules_schema --write`", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
