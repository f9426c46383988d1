"""Learns an app's own correction of a score from the app's labels, on top of the frozen heads.

Kernel ridge regression on ±1 targets (Rifkin, Yeo and Poggio 2003) over a sum of kernels: the frozen logits, hashed
features weighted by rarity, the static embedding and its square. Its leave-one-out predictions have a closed form, so
they choose the kernels and the penalty, and calibrate, without another fit. The three best fits are averaged; all are
linear in the integer form of `core.scoring.adapted`.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

from core.evaluation import Curve, average_precision
from core.scoring.adapted import (
    MARGIN_BITS,
    MAX_LOGIT,
    UNIT_BITS,
    AdaptedWeights,
    Ints,
    Scale,
    centred,
    features_of,
    scale,
    unit_vectors,
)
from core.scoring.features import BUCKETS

Floats = NDArray[np.float64]
MAX_ROWS: Final = 3_000
"""Rows that are learned from: the time grows with their cube."""
MAX_GRAMS: Final = 60_000
"""Features that a correction keeps."""
LEVELS: Final = 2_048
FALSE_ALARMS: Final = 0.01
"""At most this share of the benign rows fires."""
AVERAGED: Final = 3
PENALTIES: Final = (0.1, 0.3, 1.0, 3.0, 10.0, 30.0)
MIXES: Final = ((1.0, 0.0, 0.0), (1.0, 0.3, 0.3), (1.0, 1.0, 1.0), (0.0, 1.0, 1.0))
"""Weights of the kernels of hashed features, embedding, and squared embedding."""
OTHER_HEADS: Final = 0.1
"""Weight of the frozen logits that are not the score's own: those cost nothing to lean on."""


@dataclass(frozen=True, eq=False)
class Rows:
    """Texts as scoring sees them, `with_frozen` of them (texts × heads + 1), and embedding sums (texts × dimensions)."""

    texts: Sequence[str]
    logits: Ints
    vectors: NDArray[np.integer]

    def take(self, which: NDArray[np.int64]) -> "Rows":
        """Some of them."""
        return Rows([self.texts[number] for number in which], self.logits[which], self.vectors[which])


Choice = tuple[tuple[float, float, float], float]
"""Weights of the kernels, and a penalty."""
FITS: Final[Sequence[Choice]] = tuple(product(MIXES, PENALTIES))


@dataclass(frozen=True, eq=False)
class Learned:
    """A correction, and for each row the margin that it had while it was left out, in the correction's units."""

    weights: AdaptedWeights
    left_out: Ints
    fits: "tuple[Choice, ...]"


@dataclass(frozen=True, eq=False)
class _Design:
    """The rows' features as the kernels take them."""

    grams: "csr_array"
    rarity: Floats
    mean: NDArray[np.int16]
    embedded: Floats
    frozen: Floats
    centre: Floats
    spread: Floats


@dataclass(frozen=True, eq=False)
class _Fit:
    precision: float
    mix: tuple[float, float, float]
    penalty: float
    alpha: Floats
    left_out: Floats


def learn(
    rows: Rows,
    labels: Ints,
    own: Sequence[int],
    say: Callable[[str], None] = lambda _: None,
    fits: Sequence[Choice] = FITS,
) -> Learned:
    """A correction from labels (0 or 1, both must occur; at most MAX_ROWS). `own` are the columns of the score's own logits.

    Of `fits` the best ones by their left-out predictions are averaged.

    Equal arguments give equal results on one machine. Raises ValueError.
    """
    if not 0 < labels.sum() < len(labels) or len(labels) > MAX_ROWS or len(labels) != len(rows.texts):
        raise ValueError(f"labels of both classes are needed, and at most {MAX_ROWS:,}")
    design = _design(rows, own)
    kernels = _kernels(design)
    positive = labels.mean()
    weights = np.sqrt(np.where(labels == 1, 0.5 / positive, 0.5 / (1.0 - positive)))
    targets = np.where(labels == 1, 1.0, -1.0)
    done = []
    spectra: dict[tuple[float, float, float], Spectrum] = {}
    for mix, penalty in fits:
        if mix not in spectra:
            kernel = kernels[0] + sum(weight * part for weight, part in zip(mix, kernels[1:], strict=True) if weight)
            spectra = {mix: spectrum(kernel, weights)}  # one at a time: it is as large as the kernel
        alpha, left_out = ridge(spectra[mix], targets, penalty)
        precision = float(average_precision(*Curve(labels, left_out).counts()))
        done.append(_Fit(precision, mix, penalty, alpha, left_out))
        say(f"kernels {mix}, penalty {penalty:g}: AUPRC {precision:.3f} left out")
    best = sorted(done, key=lambda fit: -fit.precision)[:AVERAGED]
    return _quantised(design, best, labels)


@dataclass(frozen=True, eq=False)
class Spectrum:
    """Eigenvalues and vectors of √W·K·√W, and √W: one decomposition serves all penalties."""

    values: Floats
    vectors: Floats
    roots: Floats


def spectrum(kernel: Floats, weights: Floats) -> Spectrum:
    """Decompose a kernel (rows × rows) whose rows have weights."""
    roots = np.sqrt(weights)
    values, vectors = np.linalg.eigh(kernel * roots[:, None] * roots)
    return Spectrum(np.maximum(values, 0.0), vectors, roots)


def ridge(of: Spectrum, targets: Floats, penalty: float) -> tuple[Floats, Floats]:
    """(coefficients, leave-one-out predictions) of weighted kernel ridge regression.

    With G = (K + penalty·W⁻¹)⁻¹ and a = G·y the left-out prediction is y − a / diag(G).

    >>> kernel = np.outer([1.0, 2.0, 3.0], [1.0, 2.0, 3.0])
    >>> _, left_out = ridge(spectrum(kernel, np.ones(3)), np.array([1.0, 2.0, 3.5]), 0.5)
    >>> float(left_out[0].round(4)), round(1 * (2 * 2 + 3 * 3.5) / (4 + 9 + 0.5), 4)
    (1.0741, 1.0741)
    """
    inverse = 1.0 / (of.values + penalty)
    alpha: Floats = of.roots * (of.vectors @ (inverse * (of.vectors.T @ (of.roots * targets))))
    diagonal = of.roots**2 * (of.vectors**2 @ inverse)
    return alpha, targets - alpha / diagonal


def _design(rows: Rows, own: Sequence[int]) -> _Design:
    features = features_of(rows.texts)
    counts = np.maximum(np.diff(features.ends), 1)
    text = np.repeat(np.arange(len(counts)), np.diff(features.ends))
    seen = np.bincount(np.unique(text * BUCKETS + features.ids) % BUCKETS, minlength=BUCKETS)
    rarity = np.log((len(counts) + 1) / (seen + 1)) + 1.0
    rarity = rarity / rarity[features.ids].mean() if len(features.ids) else rarity
    data = rarity[features.ids] / np.sqrt(np.repeat(counts, np.diff(features.ends)))
    grams = csr_array((data, features.ids, features.ends), shape=(len(counts), BUCKETS))
    grams.sum_duplicates()
    mean = np.round(unit_vectors(rows.vectors).mean(axis=0)).astype(np.int16)
    logits = np.clip(rows.logits, -MAX_LOGIT, MAX_LOGIT).astype(np.float64)
    centre, spread = logits.mean(axis=0), logits.std(axis=0) + 1e-9
    spread = np.where(np.isin(np.arange(logits.shape[1]), own), spread, spread / np.sqrt(OTHER_HEADS))
    return _Design(
        grams,
        rarity,
        mean,
        centred(rows.vectors, mean) / float(1 << UNIT_BITS),
        (logits - centre) / spread,
        centre,
        spread,
    )


def _kernels(design: _Design) -> tuple[Floats, Floats, Floats, Floats]:
    """Of the frozen logits with the bias, of the hashed features, of the embedding, and of its square."""
    grams = np.asarray((design.grams @ design.grams.T).todense())
    embedded = design.embedded @ design.embedded.T
    return design.frozen @ design.frozen.T + 1.0, grams, embedded, embedded**2


def _quantised(design: _Design, fits: Sequence[_Fit], labels: Ints) -> Learned:
    """The mean of the fits in integers, each at the spread of its left-out predictions."""
    shares = [1.0 / (len(fits) * float(fit.left_out.std() + 1e-9)) for fit in fits]
    alpha = [share * fit.alpha for share, fit in zip(shares, fits, strict=True)]
    parts = [sum(fit.mix[part] * a for fit, a in zip(fits, alpha, strict=True)) for part in range(3)]
    total = np.sum(alpha, axis=0)
    frozen = (design.frozen.T @ total) / design.spread
    bias = float(total.sum() - frozen @ design.centre)
    gram = np.asarray(design.grams.T @ np.asarray(parts[0] * np.ones(len(labels)))) * design.rarity
    linear = design.embedded.T @ np.asarray(parts[1] * np.ones(len(labels)))
    quadratic = (design.embedded.T * np.asarray(parts[2] * np.ones(len(labels)))) @ design.embedded
    unit = float(1 << MARGIN_BITS)
    kept = np.sort(np.argsort(-np.abs(gram), kind="stable")[:MAX_GRAMS])
    grams, gram_scale = _bytes(gram[kept], unit / 65_536)
    there = np.flatnonzero(grams)
    linear_bytes, linear_scale = _bytes(linear, unit / (1 << UNIT_BITS))
    quadratic_bytes, quadratic_scale = _bytes((quadratic + quadratic.T) / 2, unit / (1 << UNIT_BITS))
    left_out = np.round(sum(share * fit.left_out for share, fit in zip(shares, fits, strict=True)) * unit).astype(np.int64)
    low, step, values = calibrated(left_out, labels)
    return Learned(
        AdaptedWeights(
            bias=round(bias * unit),
            frozen=np.clip(np.round(frozen * unit * 65_536), -(1 << 30), 1 << 30).astype(np.int64),
            ids=kept[there].astype(np.uint32),
            grams=grams[there],
            gram_scale=gram_scale,
            mean=design.mean,
            linear=linear_bytes,
            linear_scale=linear_scale,
            quadratic=quadratic_bytes,
            quadratic_scale=quadratic_scale,
            low=low,
            step=step,
            values=values,
        ),
        left_out,
        tuple(sorted((fit.mix, fit.penalty) for fit in fits)),
    )


def recalibrated(learned: Learned, labels: Ints, benign: Ints) -> AdaptedWeights:
    """A correction calibrated on further margins of harmless texts too."""
    low, step, values = calibrated(learned.left_out, labels, benign)
    return replace(learned.weights, low=low, step=step, values=values)


def _bytes(values: Floats, factor: float) -> tuple[NDArray[np.int8], Scale]:
    """Values in 127ths of the largest, and the scale that gives them back times `factor`."""
    largest = float(np.abs(values).max(initial=0.0))
    if largest == 0.0:
        return np.zeros(values.shape, np.int8), scale(1.0)
    return np.round(values / largest * 127.0).astype(np.int8), scale(max(largest / 127.0 * factor, 2.0**-40))


def calibrated(margins: Ints, labels: Ints, benign: Ints | None = None) -> tuple[int, int, NDArray[np.uint16]]:
    """(low, step, probabilities in fixed point by level) for margins of rows that were not learned from.

    A logistic curve with Platt's targets (1999), moved right where more than FALSE_ALARMS of the rows with label 0, or of
    the further `benign` margins, would fire.
    """
    harmless = margins[labels == 0] if benign is None else np.concatenate((margins[labels == 0], benign))
    given = margins if benign is None else np.concatenate((margins, benign))
    said = labels if benign is None else np.concatenate((labels, np.zeros(len(benign), np.int64)))
    unit = float(1 << MARGIN_BITS)
    slope, offset = platt(given / unit, said)
    allowed = int(FALSE_ALARMS * len(harmless))
    border = np.sort(harmless)[::-1][allowed] / unit + 1.0 / unit
    offset = min(offset, -slope * border)
    low, high = int(given.min()), int(given.max())
    margin = (high - low) // 4 + 1
    low, high = low - margin, high + margin
    step = max((high - low) // LEVELS, 1)
    middle = (low + step * np.arange(LEVELS)) / unit
    return low, step, np.floor(_logistic(slope * middle + offset) * 65_535.0).astype(np.uint16)


def platt(margins: Floats, labels: Ints) -> tuple[float, float]:
    """(slope, offset) of the logistic curve of labels on margins (Platt 1999, with the Newton steps of Lin, Lin and Weng 2007).

    >>> slope, offset = platt(np.array([-2.0, -1.0, 1.0, 2.0] * 50), np.array([0, 0, 1, 1] * 50))
    >>> slope > 1.0, abs(offset) < 1e-6
    (True, True)
    """
    positives = float(labels.sum())
    high, low = (positives + 1.0) / (positives + 2.0), 1.0 / (len(labels) - positives + 2.0)
    targets = np.where(labels == 1, high, low)
    design = np.column_stack((margins, np.ones(len(margins))))
    at = np.array([1.0, np.log((positives + 1.0) / (len(labels) - positives + 1.0))])

    def loss(parameters: Floats) -> float:
        z = design @ parameters
        return float((np.logaddexp(0.0, z) - targets * z).sum())

    for _ in range(100):
        p = _logistic(design @ at)
        gradient = design.T @ (p - targets)
        if np.abs(gradient).max() < 1e-6:
            break
        hessian = (design * (p * (1.0 - p))[:, None]).T @ design + 1e-9 * np.eye(2)
        move = np.linalg.solve(hessian, gradient)
        size = 1.0
        while size > 1e-8 and loss(at - size * move) > loss(at):
            size /= 2.0
        at = at - size * move
    return max(float(at[0]), 1e-3), float(at[1])


def _logistic(x: Floats) -> Floats:
    return 0.5 * (1.0 + np.tanh(0.5 * x))
