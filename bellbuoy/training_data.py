"""Training rows from a folder of gzipped JSON lines, and our own from the package."""

import gzip
import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any, Final

from core.training.examples import FILES, WRITTEN, Example, example

SHIPPABLE: Final = ("P", "A")
"""Licence classes that a shipped table may learn from: permissive, and with attribution."""


class BadData(RuntimeError):
    """The folder does not hold what the trainer reads."""


@dataclass
class Source:
    """One source of rows, as the manifest names it."""

    licence_class: str
    rows: int = 0
    files: set[str] = field(default_factory=set)


@dataclass
class TrainingData:
    """Examples with the licence class of each, the sources that they are of, and the sha256 of the files read."""

    examples: list[Example] = field(default_factory=list)
    classes: list[str] = field(default_factory=list)
    sources: dict[str, Source] = field(default_factory=dict)
    files: dict[str, str] = field(default_factory=dict)


def read_training_data(folder: Path, classes: tuple[str, ...] = SHIPPABLE) -> TrainingData:
    """Rows of the given licence classes from the FILES that the folder has, then our own. Raises BadData."""
    data = TrainingData()
    paths = [path for path in (folder / f"{name}.jsonl.gz" for name in FILES) if path.exists()]
    if not paths:
        raise BadData(f"{folder} holds none of {', '.join(f'{name}.jsonl.gz' for name in FILES)}")
    for path in paths:
        content = path.read_bytes()
        data.files[path.name] = hashlib.sha256(content).hexdigest()
        for row in _rows(gzip.decompress(content), path.name):
            if row["licence_class"] in classes:
                _add(data, path.name.partition(".")[0], row)
    for file in sorted(resources.files("core.training").joinpath(WRITTEN).iterdir(), key=lambda one: one.name):
        if file.name.endswith(".jsonl"):
            content = file.read_bytes()
            data.files[f"{WRITTEN}/{file.name}"] = hashlib.sha256(content).hexdigest()
            for row in _rows(content, file.name):
                _add(data, WRITTEN, row | {"source": WRITTEN, "licence_class": "own", "file": file.name.partition(".")[0]})
    return data


def _rows(content: bytes, name: str) -> Iterator[dict[str, Any]]:
    for number, line in enumerate(content.splitlines(), 1):
        try:
            yield json.loads(line)
        except ValueError as error:
            raise BadData(f"{name}, line {number}: {error}") from error


def _add(data: TrainingData, file: str, row: dict[str, Any]) -> None:
    try:
        made = example(file, row)
    except (KeyError, TypeError, ValueError) as error:
        raise BadData(f"{file}: a row of {row.get('source')} lacks or misuses {error}") from error
    if made is None or not made.text.strip():
        return
    data.examples.append(made)
    data.classes.append(row["licence_class"])
    source = data.sources.setdefault(row["source"], Source(row["licence_class"]))
    source.rows += 1
    source.files.add(file)
