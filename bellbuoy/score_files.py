"""Files of rows, plain or gzip, read line by line in bounded memory, and scored in blocks as production would."""

import gzip
import io
import sys
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Final, cast

from adapters.embedding import load_embedding
from adapters.heads import load_heads
from adapters.settings import Settings
from core.score_lines import BadRow, Row, read_row
from core.scoring import SCORER_VERSIONS, ScoredText, Scoring
from schemas.messages import AdaptedHead, Config

BLOCK: Final = 256
MAX_LINE: Final = 16 * 1024 * 1024
"""Bytes of one row; what is longer is a bad row."""
_GZIP: Final = b"\x1f\x8b"


class UnreadableFile(ValueError):
    """A file that cannot be read to its end; the text says why."""


@contextmanager
def opened(path: Path) -> Iterator[IO[bytes]]:
    """A file's bytes, unpacked where it is gzip; `-` is stdin."""
    if str(path) == "-":
        yield _unpacked(io.BufferedReader(sys.stdin.buffer))  # type: ignore[arg-type]  # it reads like a raw stream
        return
    with path.open("rb") as file:
        yield _unpacked(file)


def _unpacked(file: io.BufferedReader) -> IO[bytes]:
    return cast(IO[bytes], gzip.GzipFile(fileobj=file)) if file.peek(2)[:2] == _GZIP else file


def lines(path: Path) -> Iterator[tuple[int, bytes | None]]:
    """(number from 1, line) of every line that is not blank; None for one that is too long. Raises UnreadableFile."""
    number = 0
    try:
        with opened(path) as file:
            while line := file.readline(MAX_LINE + 1):
                number += 1
                if len(line) > MAX_LINE:
                    while line and not line.endswith(b"\n"):
                        line = file.readline(MAX_LINE)
                    yield number, None
                elif not line.isspace():
                    yield number, line
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise UnreadableFile(f"{path} is no whole gzip file (after line {number:,}): {error}") from None


def read_rows(path: Path, app: str, environment: str) -> Iterator[Row | BadRow]:
    """Every row of a file, in order."""
    for number, line in lines(path):
        if line is None:
            yield BadRow(number, f"the row is longer than {MAX_LINE >> 20} MiB")
        else:
            yield read_row(line, number, app, environment)


def blocks(rows: Iterator[Row | BadRow]) -> Iterator[list[Row | BadRow]]:
    """Rows in blocks of BLOCK."""
    block: list[Row | BadRow] = []
    for row in rows:
        block.append(row)
        if len(block) == BLOCK:
            yield block
            block = []
    if block:
        yield block


def score_rows(scoring: Scoring, rows: Iterator[Row | BadRow]) -> Iterator[list[tuple[Row | BadRow, ScoredText | None]]]:
    """Rows with what they became, block by block."""
    for block in blocks(rows):
        texts = iter(scoring.interactions([row.interaction for row in block if isinstance(row, Row)]))
        yield [(row, next(texts) if isinstance(row, Row) else None) for row in block]


def build_scoring(settings: Settings, scorers: Sequence[str] = (), adapted: Sequence[AdaptedHead] = ()) -> Scoring:
    """The scorers of this code (or those of them that are named) with everything that they need on this machine."""
    table, heads = load_embedding(settings), load_heads()
    config = Config(
        scorers={name: SCORER_VERSIONS[name] for name in scorers or SCORER_VERSIONS},
        embedding=table.digest,
        heads=heads.digest,
        partitions={},
        shards=1,
        adapted=list(adapted),
    )
    return Scoring(config, table, heads)
