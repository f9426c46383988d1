"""The committed table of heads, checked by its digest."""

import io
from importlib import resources
from pathlib import Path
from typing import Final
from zipfile import BadZipFile

import numpy as np

from schemas.heads import ARRAYS, HeadTable, head_table

PACKAGE: Final = "core.scoring"
FILE: Final = "weights/heads.npz"
HEADS_SHA256: Final = "e9c2ddb8282a40db9e6ab3cf509a1082457ab5b75d93b3f98a8124beba5e245b"


class HeadsMismatch(RuntimeError):
    """The table of heads is missing, damaged, or not the one that this release was made with."""


def load_heads() -> HeadTable:
    """The table that this release ships. Raises HeadsMismatch."""
    try:
        data = resources.files(PACKAGE).joinpath(FILE).read_bytes()
    except OSError as error:
        raise HeadsMismatch(f"the table of heads {PACKAGE}/{FILE} cannot be read ({error}): install the package again") from error
    table = decode_heads(data)
    if table.digest != HEADS_SHA256:
        raise HeadsMismatch(
            f"the table of heads has the digest {table.digest}, expected {HEADS_SHA256}: "
            "scores would differ from those of other machines; install the package again"
        )
    return table


def decode_heads(data: bytes) -> HeadTable:
    """The table in the bytes of a file. Raises HeadsMismatch where they are not one."""
    try:
        with np.load(io.BytesIO(data), allow_pickle=False) as arrays:
            names, languages = (tuple(str(name) for name in arrays[key]) for key in ("names", "languages"))
            return head_table(names, languages, {name: arrays[name] for name in ARRAYS})
    except (ValueError, KeyError, OSError, EOFError, BadZipFile) as error:
        raise HeadsMismatch(f"the table of heads is damaged: {error}") from error


def save_heads(table: HeadTable, path: Path) -> None:
    """Write a table, compressed; equal tables give equal bytes."""
    arrays = {name: getattr(table, name) for name in ARRAYS}
    with path.open("wb") as file:
        np.savez_compressed(file, names=np.array(table.names), languages=np.array(table.languages), **arrays)
