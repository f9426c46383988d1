"""From examples to the table of heads: fit, quantise, calibrate."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final
from zlib import crc32

import numpy as np
from numpy.typing import NDArray

from core.metrics import HARMS
from core.scoring.heads import COMBINED, Heads
from core.training.calibration import Judged, calibrated, length_shifts, traffic, uncalibrated
from core.training.examples import HEADS, Example
from core.training.fit import Linear, Recipe, fit
from core.training.matrix import Matrix, matrix
from schemas.embedding import EmbeddingTable
from schemas.heads import FINE_LENGTHS, LENGTHS, HeadTable, head_table

LANGUAGES: Final = ("en",)
LEVELS: Final = 2_048
FIRST_WINDOW: Final = ("refusal",)
_SOURCE_POWER: Final = 0.5
"""A source of n rows counts as much as √n of one row: a big one does not drown the rest."""


@dataclass(frozen=True, eq=False)
class Prepared:
    """Examples with their matrix, made once and used by every head."""

    examples: Sequence[Example]
    matrix: Matrix


def prepare(examples: Sequence[Example], embedding: EmbeddingTable) -> Prepared:
    """The matrix of the examples' texts."""
    return Prepared(examples, matrix([one.text for one in examples], embedding))


def task(head: str, examples: Sequence[Example]) -> tuple[NDArray[np.int8], NDArray[np.float64]]:
    """Labels (-1: not for this head) and weights of each example for a head, balanced over sources and classes."""
    labels = np.array([one.labels.get(head, -1) for one in examples], np.int8)
    weights = np.array([one.weights.get(head, 1.0) for one in examples])
    groups = Counter((one.source, label) for one, label in zip(examples, labels.tolist(), strict=True))
    weights *= np.array(
        [groups[one.source, label] ** (_SOURCE_POWER - 1.0) for one, label in zip(examples, labels.tolist(), strict=True)]
    )
    for label in (0, 1):
        mass = weights[labels == label].sum()
        if mass > 0:
            weights[labels == label] *= 1.0 / mass
    return labels, weights * float((labels >= 0).sum()) / 2.0


def fit_head(head: str, prepared: Prepared, recipe: Recipe) -> Linear:
    """One head in real numbers. Raises ValueError where a class is missing."""
    labels, weights = task(head, prepared.examples)
    if not ((labels == 0).any() and (labels == 1).any()):
        raise ValueError(f"the head {head} needs rows of both classes")
    whole = prepared.matrix
    use = np.flatnonzero((labels[whole.text] >= 0) & (whole.first | (head not in FIRST_WINDOW)))
    part = whole.rows(use)
    windows = np.bincount(part.text, minlength=len(labels))
    return fit(part, labels[part.text], weights[part.text] / windows[part.text], recipe)


def quantised(linears: Sequence[Linear], names: Sequence[str]) -> dict[str, NDArray[np.generic]]:
    """Integer weights, one scale per head: the largest weight is 127 (the 99.99th percentile of magnitudes, clipped)."""
    weights, embeddings, shifts, biases = [], [], [], []
    for one in linears:
        magnitudes = np.abs(one.weights[one.weights != 0])
        limit = float(np.quantile(magnitudes, 0.9999)) if len(magnitudes) else 1.0
        unit = 127.0 / max(limit, 1e-9)
        weights.append(np.clip(np.rint(one.weights * unit), -127, 127).astype(np.int8))
        embedded = one.embedding * unit / 2048.0
        largest = float(np.abs(embedded).max(initial=1e-12))
        shift = int(np.clip(np.floor(np.log2(32_000.0 / largest)), 0, 40))
        embeddings.append(np.rint(embedded * 2.0**shift).astype(np.int16))
        shifts.append(shift)
        biases.append(round(one.bias * unit))
    return {
        "weights": np.stack(weights, axis=1),
        "embedding": np.stack(embeddings, axis=1),
        "embedding_shift": np.array(shifts, np.int64),
        "bias": np.array(biases, np.int64),
        **_unshifted(len(names)),
        "first_window": np.array([name in FIRST_WINDOW for name in names]),
    }


def kept_for_calibration(examples: Sequence[Example], seed: int) -> NDArray[np.bool_]:
    """One in five of the benign traffic: no head learns from it, and thresholds are read from it."""
    return np.array([one.benign_traffic and crc32(f"{seed} {one.text}".encode("utf-8", "replace")) % 5 == 0 for one in examples])


def train(
    examples: Sequence[Example],
    embedding: EmbeddingTable,
    *,
    seed: int = 0,
    recipe: Recipe | None = None,
    say: Callable[[str], None] = lambda _: None,
) -> HeadTable:
    """All heads; the same table from the same examples in the same order. Raises ValueError where a head lacks a class."""
    recipe = recipe or Recipe()
    kept = kept_for_calibration(examples, seed)
    learned = [one for one, calibrates in zip(examples, kept.tolist(), strict=True) if not calibrates]
    say(f"reading {len(learned):,} texts")
    prepared = prepare(learned, embedding)
    linears = []
    for head in HEADS:
        say(f"fitting {head}")
        linears.append(fit_head(head, prepared, recipe))
    say("calibrating")
    arrays = quantised(linears, HEADS)
    own = [one for one, calibrates in zip(examples, kept.tolist(), strict=True) if calibrates]
    posts = [one.text for one in examples if not one.benign_traffic and one.labels.get("toxic") == 0]
    blank = uncalibrated(len(HEADS), LEVELS)
    heads = Heads(head_table(HEADS, LANGUAGES, arrays | blank), embedding)
    kinds = [kind for kind in ([one.text for one in own], posts) if kind]
    arrays |= length_shifts(heads, kinds, seed)
    benign = traffic(own)
    texts = [one.text for one in benign]
    heads = Heads(head_table(HEADS, LANGUAGES, arrays | blank), embedding)
    harmful = [one for one in examples if any(one.labels.get(harm) for harm in HARMS)]
    judged = Judged(harmful, heads.logits([one.text for one in harmful]))
    linear = calibrated(HEADS, Judged(benign, heads.logits(texts)), LEVELS, judged)
    names = (*HEADS, *COMBINED)
    blank = uncalibrated(len(COMBINED), LEVELS)
    of_linear = dict(arrays)
    arrays |= _unshifted(len(names))
    heads = Heads(head_table(names, LANGUAGES, arrays | _followed(linear, blank)), embedding)
    for name, shifts in length_shifts(heads, kinds, seed).items():
        arrays[name] = np.concatenate((of_linear[name], shifts[len(HEADS) :]))
    heads = Heads(head_table(names, LANGUAGES, arrays | _followed(linear, blank)), embedding)
    combined = calibrated(tuple(COMBINED), Judged(benign, heads.logits(texts)[:, len(HEADS) :]), LEVELS)
    return head_table(names, LANGUAGES, arrays | _followed(linear, combined))


def _unshifted(heads: int) -> dict[str, NDArray[np.generic]]:
    return {"length_shift": np.zeros((heads, LENGTHS), np.int64), "fine_shift": np.zeros((heads, FINE_LENGTHS), np.int64)}


def _followed(linear: dict[str, NDArray[np.generic]], combined: dict[str, NDArray[np.generic]]) -> dict[str, NDArray[np.generic]]:
    """Calibration of the linear heads, then of the combined ones; the curve is common to all."""
    both = {name: np.concatenate((linear[name], combined[name])) for name in ("low", "rate")}
    return both | {"values": linear["values"]}
