"""The quantised embedding table, made once from the installed wordllama package, offline, and checked by digest.

Nothing of the package's table is part of this project: it is read where it is installed and derived at setup.
"""

import hashlib
import importlib.util
import os
from collections.abc import Callable
from pathlib import Path
from typing import Final

import numpy as np
from safetensors.numpy import load_file
from tokenizers import Tokenizer

from adapters import cells
from adapters.settings import Settings
from schemas.embedding import EmbeddingTable, table_digest

PACKAGE: Final = "wordllama"
WEIGHTS: Final = "weights/l2_supercat_256.safetensors"
TOKENISER: Final = "tokenizers/l2_supercat_tokenizer_config.json"
CELLS: Final = 256
WORD_RULE: Final = "whole word, else its capitalised form, else pieces; 1"

SOURCE_SHA256: Final = {
    WEIGHTS: "64b47a2dc493cb8e85944076601189739852d7b64e0e1eedcb1937a251cd9fd5",
    TOKENISER: "93248f2a9ec36c7b35f700a033d5f36228aae48db61aee31007fa49062cdeb68",
}
TABLE_SHA256: Final = "4181eeb8b2cc046608affca42afb090c7d1519e9ddcf5169519df75fe8850439"
"""Digest of the table that the sources above give: the name that configs use."""


class EmbeddingMismatch(RuntimeError):
    """The installed package, or what was made of it, is not what this release was made with."""


def embedding_path(settings: Settings) -> Path:
    """Where the table is kept."""
    return settings.cache_dir / "embedding" / f"{TABLE_SHA256}.npz"


def ensure_embedding(settings: Settings) -> Path:
    """Make the table unless it is there; raises EmbeddingMismatch with what differs."""
    path = embedding_path(settings)
    if path.exists():
        return path
    table = build_embedding(check_source())
    if table.digest != TABLE_SHA256:
        raise EmbeddingMismatch(
            f"the embedding table made on this machine has the digest {table.digest}, expected {TABLE_SHA256}: "
            "scores would differ from those of other machines"
        )
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(f".{os.getpid()}.tmp")
    with partial.open("wb") as file:
        np.savez(file, vectors=table.vectors, weights=table.weights, centroids=table.centroids, cells=np.array(table.cells))
    partial.replace(path)
    return path


def load_embedding(settings: Settings) -> EmbeddingTable:
    """The table, made first if need be; raises EmbeddingMismatch when the kept file was changed."""
    path = ensure_embedding(settings)
    with np.load(path, allow_pickle=False) as arrays:
        vectors, weights, centroids = arrays["vectors"], arrays["weights"], arrays["centroids"]
        names = tuple(str(name) for name in arrays["cells"])
    folder = check_source((TOKENISER,))
    digest = _digest(vectors, weights, centroids, names)
    if digest != TABLE_SHA256:
        raise EmbeddingMismatch(f"{path} was changed (digest {digest}): remove it and run setup again")
    return EmbeddingTable(vectors, weights, centroids, names, word_tokeniser(folder), digest)


def check_source(files: tuple[str, ...] = tuple(SOURCE_SHA256)) -> Path:
    """The installed package's folder, its files checked; the package itself is not imported."""
    spec = importlib.util.find_spec(PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        raise EmbeddingMismatch(f"the package {PACKAGE} is not installed: run `make setup`")
    folder = Path(spec.submodule_search_locations[0])
    for name in files:
        found = hashlib.sha256((folder / name).read_bytes()).hexdigest()
        if found != SOURCE_SHA256[name]:
            raise EmbeddingMismatch(
                f"{PACKAGE}'s {name} has the sha256 {found}, expected {SOURCE_SHA256[name]}: install the locked version"
            )
    return folder


def build_embedding(folder: Path) -> EmbeddingTable:
    """The table from a package folder: about two seconds, the same integers on every machine."""
    (source,) = load_file(folder / WEIGHTS).values()
    vectors = cells.quantise(source)
    weights = cells.token_weights(len(vectors))
    words = cells.whole_words(Tokenizer.from_file(str(folder / TOKENISER)).get_vocab())
    points = vectors[[id_ for id_, _ in words]].astype(np.float64)
    centroids = cells.cluster(points, CELLS)
    names = cells.names(centroids, points, [word for _, word in words])
    return EmbeddingTable(vectors, weights, centroids, names, word_tokeniser(folder), _digest(vectors, weights, centroids, names))


def word_tokeniser(folder: Path) -> Callable[[str], list[int]]:
    """Token ids of one lower-case word: WORD_RULE."""
    tokeniser = Tokenizer.from_file(str(folder / TOKENISER))
    vocabulary = tokeniser.get_vocab()

    def tokenise(word: str) -> list[int]:
        whole = vocabulary.get(f"▁{word}", vocabulary.get(f"▁{word.capitalize()}"))
        if whole is not None:
            return [whole]
        ids: list[int] = tokeniser.encode(word, add_special_tokens=False).ids
        return ids

    return tokenise


def _digest(vectors: np.ndarray, weights: np.ndarray, centroids: np.ndarray, names: tuple[str, ...]) -> str:
    return table_digest(vectors, weights, centroids, names, f"{WORD_RULE} {SOURCE_SHA256[TOKENISER]}")
