"""What `bellbuoy backtest` is given: the log's lines and the truth."""

import gzip
from collections.abc import Iterator
from pathlib import Path

import msgspec

from adapters.embedding import load_embedding
from adapters.heads import load_heads
from adapters.settings import Settings
from core.scoring import EmbeddingTable, HeadTable
from streams.backtest_report import Change


class BadInput(ValueError):
    """A file that cannot be used; the text says which and why."""


def lines_of(path: Path) -> Iterator[bytes]:
    """The lines of a file, plain or gzip. Raises what gzip raises for a file that is cut."""
    with path.open("rb") as file:
        zipped = file.read(2) == b"\x1f\x8b"
    with gzip.open(path) if zipped else path.open("rb") as lines:
        yield from lines


class _Change(msgspec.Struct):
    event_index: int
    metric: str


class _Truth(msgspec.Struct):
    changes: list[_Change]


def truth_of(path: Path) -> list[Change]:
    """The changes that a file says are in the log. Raises BadInput."""
    try:
        truth = msgspec.json.decode(path.read_bytes(), type=_Truth)
    except (msgspec.DecodeError, OSError) as error:
        raise BadInput(f'{path} is not {{"changes": [{{"event_index", "metric"}}]}}: {error}') from None
    if any(change.event_index < 0 for change in truth.changes):
        raise BadInput(f"{path}: event_index counts lines from 0")
    return [Change(change.event_index, change.metric) for change in truth.changes]


def load_tables() -> tuple[EmbeddingTable, HeadTable]:
    """What scoring needs on this machine; for processes that score beside this one."""
    return load_embedding(Settings()), load_heads()
