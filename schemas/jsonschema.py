"""JSON Schema files of all messages, generated from the structs: `python -m schemas.jsonschema --write | --check | --release`."""

import argparse
import ast
import inspect
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import msgspec

from schemas import messages
from schemas.codec import MESSAGE_TYPES, TYPE_NAMES
from schemas.compatibility import breaks

Schema = dict[str, Any]

DIALECT: Final = "https://json-schema.org/draft/2020-12/schema"
FOLDER: Final = Path(__file__).parent / "json"
BASELINE: Final = FOLDER / "baseline"
"""The schemas of the last release: what is published must stay compatible with them."""


def file_name(type_: type[messages.Message]) -> str:
    """`bellbuoy.interaction.v1` → `interaction.schema.json`."""
    return TYPE_NAMES[type_].split(".")[1] + ".schema.json"


def field_docs() -> dict[tuple[str, str], str]:
    """(struct, field) → the docstring that follows the field in schemas/messages.py."""
    docs = {}
    for node in ast.parse(inspect.getsource(messages)).body:
        if isinstance(node, ast.ClassDef):
            for field, doc in zip(node.body, node.body[1:], strict=False):
                if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name) and isinstance(doc, ast.Expr):
                    docs[node.name, field.target.id] = str(ast.literal_eval(doc.value))
    return docs


def schema(type_: type[messages.Message]) -> Schema:
    """A message's JSON Schema: unknown fields are allowed, the internal `__extra__` is left out."""
    made = json.loads(msgspec.json.encode(msgspec.json.schema(type_)))
    docs = field_docs()
    for name, definition in made["$defs"].items():
        definition.get("properties", {}).pop("__extra__", None)
        if "description" in definition:
            definition["description"] = inspect.cleandoc(definition["description"])
        for field, spec in definition.get("properties", {}).items():
            if (name, field) in docs:
                spec["description"] = inspect.cleandoc(docs[name, field])
    return {"$schema": DIALECT, "$id": f"urn:bellbuoy:{TYPE_NAMES[type_].removeprefix('bellbuoy.')}", **made}


def schemas() -> dict[str, Schema]:
    """File name → schema, for every message."""
    return {file_name(type_): schema(type_) for type_ in MESSAGE_TYPES.values()}


def text(value: Schema) -> str:
    return json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False) + "\n"


def read(folder: Path) -> dict[str, Schema]:
    """The schema files of a folder."""
    return {path.name: json.loads(path.read_text()) for path in sorted(folder.glob("*.schema.json"))}


def write(folder: Path) -> None:
    """Write every schema file; a file of a message that is gone is deleted."""
    folder.mkdir(parents=True, exist_ok=True)
    made = schemas()
    for path in folder.glob("*.schema.json"):
        if path.name not in made:
            path.unlink()
    for name, value in made.items():
        (folder / name).write_text(text(value))


def stale(folder: Path) -> list[str]:
    """Names of files that differ from what the structs give, are missing, or belong to no message."""
    made = {name: text(value) for name, value in schemas().items()}
    found = {path.name: path.read_text() for path in folder.glob("*.schema.json")}
    return sorted(name for name in made.keys() | found.keys() if made.get(name) != found.get(name))


def incompatible(released: Mapping[str, Schema], now: Mapping[str, Schema]) -> list[str]:
    """What a reader or a writer of the released schemas would no longer find, in words."""
    found = [f"{name}: the message was removed" for name in sorted(released.keys() - now.keys())]
    for name in sorted(released.keys() & now.keys()):
        found += [f"{name}: {problem}" for problem in breaks(released[name], now[name])]
    return found


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m schemas.jsonschema", description=__doc__)
    mode = parser.add_mutually_exclusive_group(required=True)
    mode.add_argument("--write", action="store_true", help="generate schemas/json/")
    mode.add_argument("--check", action="store_true", help="fail when the files are stale or break what was released")
    mode.add_argument("--release", action="store_true", help="take the present schemas as the released ones")
    chosen = parser.parse_args(arguments)
    if chosen.write:
        write(FOLDER)
        return 0
    if chosen.release:
        write(BASELINE)
        return 0
    problems = [f"{name}: not current; run `python -m schemas.jsonschema --write`" for name in stale(FOLDER)]
    problems += incompatible(read(BASELINE), schemas())
    for problem in problems:
        print(problem, file=sys.stderr)
    return 1 if problems else 0


if __name__ == "__main__":
    raise SystemExit(main())
