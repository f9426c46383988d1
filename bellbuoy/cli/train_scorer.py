"""`bellbuoy train-scorer`: the learned heads from a folder of labelled texts, the same bytes from the same rows."""

import json as json_
import time
from pathlib import Path
from typing import Annotated, Any

import typer

from adapters.embedding import load_embedding
from adapters.heads import save_heads
from adapters.settings import Settings
from bellbuoy.cli.printing import fail
from bellbuoy.training_data import BadData, TrainingData, read_training_data
from core.training.train import train
from schemas.heads import HeadTable

DEFAULT = Path("heads.npz")


def command(
    data: Annotated[Path, typer.Argument(help="Folder of gzipped JSON lines.", exists=True, file_okay=False)],
    out: Annotated[
        Path, typer.Option("--out", help="Where the table goes; its manifest goes beside it.", metavar="FILE")
    ] = DEFAULT,
    seed: Annotated[int, typer.Option("--seed", help="Which benign texts are kept for the calibration.")] = 0,
) -> None:
    """Train the heads of safety, jailbreak and refusal on the rows that may be shipped, and on our own texts.

    DATA holds prompts_harm, content, jailbreak_injection, benign_instructions, responses, intents (.jsonl.gz); a row has `text`
    (or `prompt` and `response`), `source`, `licence_class` (P, A; others are left out) and its file's labels. Takes minutes; equal
    rows and an equal seed give equal bytes.

    \b
    Examples:
      bellbuoy train-scorer data --out core/scoring/weights/heads.npz
    """
    started = time.monotonic()

    def say(words: str) -> None:
        typer.echo(f"{time.monotonic() - started:6.0f} s  {words}", err=True)

    try:
        rows = read_training_data(data)
    except BadData as error:
        raise fail(str(error)) from None
    try:
        table = train(rows.examples, load_embedding(Settings()), seed=seed, say=say)
    except ValueError as error:
        raise fail(str(error)) from None
    save_heads(table, out)
    out.with_suffix(".manifest.json").write_text(json_.dumps(manifest(rows, table, seed), indent=1) + "\n")
    typer.echo(f"{out}: {out.stat().st_size:,} bytes, digest {table.digest}")


def manifest(rows: TrainingData, table: HeadTable, seed: int) -> dict[str, Any]:
    """What a table was learned from: sources with their licence class and rows, and the files' sha256."""
    return {
        "digest": table.digest,
        "heads": table.names,
        "languages": table.languages,
        "seed": seed,
        "sources": {
            name: {"licence_class": source.licence_class, "rows": source.rows, "files": sorted(source.files)}
            for name, source in sorted(rows.sources.items())
        },
        "files": dict(sorted(rows.files.items())),
    }
