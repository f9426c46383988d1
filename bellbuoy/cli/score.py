"""`bellbuoy score`: judge a file of texts as production would, without a stack."""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Annotated, Final

import typer

from adapters.adapted import load_corrections
from adapters.settings import Settings
from bellbuoy.cli.printing import fail
from bellbuoy.score_files import UnreadableFile, build_scoring, read_rows, score_rows
from core.score_lines import Results, Row, encode_error, encode_result
from core.scoring import SCORERS
from core.scoring.batch import Scorer

TEXT_SCORERS: Final = tuple(name for name, scorer in SCORERS.items() if isinstance(scorer, Scorer))
_EVERY_S: Final = 2.0


def command(
    file: Annotated[Path, typer.Argument(help="JSON lines, plain or gzip; - reads stdin.", metavar="FILE")],
    out: Annotated[Path | None, typer.Option("--out", help="Where the results go; by default stdout.", metavar="FILE")] = None,
    app: Annotated[str, typer.Option("--app", help="Score as for this app: its own cells and corrections.")] = "score",
    environment: Annotated[str, typer.Option("--environment", help="The app's environment.")] = "production",
    scorers: Annotated[str | None, typer.Option("--scorers", help="Only these, with commas between them.")] = None,
    text: Annotated[bool, typer.Option("--text", help="Also print the redacted texts, which the spans refer to.")] = False,
) -> None:
    """Score texts on this machine, with reasons. Needs no stack and changes nothing.

    A row has `text` or `prompt` (the same thing) and/or `response`, or `messages` (those of the assistant at the end are the
    response), and perhaps an `id`; other fields are ignored, blank lines are skipped. For each row one JSON object, in the order
    of the input: `{"id", "scores": {NAME: {"value", "label", "reasons": [{"rule" or "feature", "start", "end"}]}}}`; a row
    without an id gets its line's number. A value lies between 0 and 1: a probability; of a topic how near it is; of a language
    1 where it is known. Spans count characters of the redacted text.

    A row that cannot be read becomes `{"id", "error"}`, and the command goes on; it exits 1 when there was one.

    \b
    Examples:
      bellbuoy score prompts.jsonl.gz --out scores.jsonl
      zcat prompts.jsonl.gz | bellbuoy score - --scorers pii --text
    """
    chosen = _chosen(scorers)
    if str(file) != "-" and not file.is_file():
        raise fail(f"{file}: there is no such file")
    settings = Settings()
    adapted = load_corrections(settings, app, environment).active()
    scoring, results = build_scoring(settings, chosen, adapted), Results(chosen)
    progress, bad = Progress(), 0
    try:
        with _output(out) as target:
            for block in score_rows(scoring, read_rows(file, app, environment)):
                for row, scored in block:
                    if isinstance(row, Row):
                        assert scored is not None
                        line = encode_result(row, results.scores(row, scored), scored if text else None)
                    else:
                        line = encode_error(row)
                        bad += 1
                    target.write(line + b"\n")
                progress.add(len(block))
    except UnreadableFile as error:
        raise fail(str(error)) from None
    progress.end(bad)
    if bad:
        raise typer.Exit(1)


class Progress:
    """Counts rows on stderr: on a terminal as it goes, else at the end."""

    def __init__(self) -> None:
        self._count, self._started, self._said = 0, time.monotonic(), time.monotonic()

    def add(self, rows: int) -> None:
        self._count += rows
        now = time.monotonic()
        if now - self._said >= _EVERY_S and sys.stderr.isatty():
            self._said = now
            typer.echo(f"\r{self._text()}", err=True, nl=False)

    def end(self, bad: int) -> None:
        typer.echo(f"{self._text()}, {bad:,} bad", err=True)

    def _text(self) -> str:
        return f"{self._count:,} rows, {self._count / max(time.monotonic() - self._started, 1e-9):,.0f} a second"


@contextmanager
def _output(path: Path | None) -> Iterator[IO[bytes]]:
    """Stdout, or a file that takes the place of an older one only when it is whole."""
    if path is None:
        yield sys.stdout.buffer
        sys.stdout.flush()
        return
    partial = path.with_name(f"{path.name}.partial")
    try:
        with partial.open("wb") as file:
            yield file
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def _chosen(names: str | None) -> list[str]:
    if names is None:
        return list(TEXT_SCORERS)
    wanted = [name.strip() for name in names.split(",") if name.strip()]
    unknown = [name for name in wanted if name not in TEXT_SCORERS]
    if unknown or not wanted:
        raise fail(f"there is no scorer {', '.join(unknown) or names!r}: choose from {', '.join(TEXT_SCORERS)}")
    return wanted
