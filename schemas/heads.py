"""The learned heads: what the trainer makes, adapters load and scoring reads. Integers only."""

import hashlib
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

LENGTHS = 5
"""Classes of texts by their number of windows: 1, 2, up to 4, up to 8, more. So an attack that is sure in its own window still
fires in a text of any length."""
FINE_LENGTHS = 9
"""Classes of texts by their number of fine windows: 1, 2, up to 4, and so on to 128, more."""


@dataclass(frozen=True, eq=False)
class HeadTable:
    """Integer weights of linear heads over hashed features and the static embedding, and their calibration.

    `names` are first the linear heads, then the `combined` ones, whose logit is made of the levels of linear heads.
    `weights` is buckets × linear heads, `embedding` dimensions × linear heads, `bias` and `embedding_shift` one per linear
    head (a word's embedding share is shifted right by that many bits). A logit counts as level `(logit - low) * rate >> 16`,
    within 0 and levels - 1: one scale for all heads. `values` (levels, non-decreasing) is a level's probability in fixed point.
    `length_shift` (heads × LENGTHS) is taken off the logit of a text of several windows: the more are looked at, the
    higher the highest of harmless ones is; `fine_shift` (heads × FINE_LENGTHS) likewise of fine windows, of which the highest counts
    where it is higher then. `first_window` marks heads that read a text's beginning only. `languages` are those that the heads were measured in.
    `digest` (sha256) names all of it in a config.
    """

    names: tuple[str, ...]
    weights: NDArray[np.int8]
    embedding: NDArray[np.int16]
    embedding_shift: NDArray[np.int64]
    bias: NDArray[np.int64]
    first_window: NDArray[np.bool_]
    length_shift: NDArray[np.int64]
    fine_shift: NDArray[np.int64]
    low: NDArray[np.int64]
    rate: NDArray[np.int64]
    values: NDArray[np.uint16]
    languages: tuple[str, ...]
    digest: str

    @property
    def linear(self) -> tuple[str, ...]:
        """The names of the linear heads, in the order of the columns of `weights`."""
        return self.names[: self.weights.shape[1]]


ARRAYS = (
    "weights",
    "embedding",
    "embedding_shift",
    "bias",
    "first_window",
    "length_shift",
    "fine_shift",
    "low",
    "rate",
    "values",
)


def heads_digest(names: tuple[str, ...], languages: tuple[str, ...], arrays: dict[str, NDArray[np.generic]]) -> str:
    """sha256 of a table's content; `arrays` by the names in ARRAYS."""
    state = hashlib.sha256()
    state.update("\0".join((*names, "", *languages)).encode())
    for name in ARRAYS:
        array = arrays[name]
        state.update(repr((name, array.shape, array.dtype.str)).encode())
        state.update(np.ascontiguousarray(array).tobytes())
    return state.hexdigest()


def head_table(names: tuple[str, ...], languages: tuple[str, ...], arrays: dict[str, NDArray[np.generic]]) -> HeadTable:
    """A table with its digest."""
    return HeadTable(names=names, languages=languages, digest=heads_digest(names, languages, arrays), **arrays)  # type: ignore[arg-type]  # ARRAYS are its fields
