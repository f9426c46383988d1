"""How well scores tell labels apart: ranking, recall at few false positives, calibration, with bootstrap intervals.

Everything about ranking is read from one curve: how many of each class have a value at or above each distinct value.
Rows may carry weights, so that a bootstrap sample is a weighting of the same curve.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
CALIBRATION_BINS: Final = 15
BOOTSTRAP_SAMPLES: Final = 500
_CELLS: Final = 4_000_000
"""Weights held at once by a bootstrap."""


@dataclass(frozen=True)
class Figure:
    """A statistic, and the 2.5 % and 97.5 % points of its bootstrap; NaN where it is not defined."""

    value: float
    low: float
    high: float


class Curve:
    """Labels (0 or 1) ordered by value, the highest first; equal values are one step."""

    def __init__(self, labels: Sequence[int] | NDArray[np.int64], values: Sequence[float] | Floats) -> None:
        """Raises ValueError for another label, another length, or a value that is not finite."""
        given = np.asarray(labels, np.int64)
        scored = np.asarray(values, np.float64)
        if given.shape != scored.shape or given.ndim != 1 or not np.isfinite(scored).all() or not np.isin(given, (0, 1)).all():
            raise ValueError("as many finite values as labels, and every label 0 or 1")
        self.order = np.argsort(-scored, kind="stable")
        self.positive = given[self.order].astype(np.float64)
        ordered = scored[self.order]
        self._ends = np.flatnonzero(np.append(ordered[1:] != ordered[:-1], True)) if len(ordered) else np.zeros(0, np.int64)

    def counts(self, weights: Floats | None = None) -> tuple[Floats, Floats]:
        """Positives and negatives at or above each distinct value (… × values); `weights` are … × rows in the given order."""
        weighted = np.ones(len(self.positive)) if weights is None else weights[..., self.order]
        above = np.cumsum(weighted * self.positive, axis=-1)[..., self._ends]
        return above, np.cumsum(weighted, axis=-1)[..., self._ends] - above


Statistic = Callable[[Floats, Floats], Floats]
"""(positives, negatives at or above each value: … × values) → the statistic (…)."""


def average_precision(positives: Floats, negatives: Floats) -> Floats:
    """Area under precision by recall, summed in steps of distinct values (Manning, Raghavan and Schütze 2008, §8.4).

    >>> float(average_precision(*Curve([1, 0, 1, 0], [0.9, 0.5, 0.5, 0.1]).counts()).round(4))
    0.8333
    """
    with np.errstate(invalid="ignore", divide="ignore"):
        precision = positives / (positives + negatives)
        steps = np.diff(positives, axis=-1, prepend=0.0)
        area: Floats = np.nansum(precision * steps, axis=-1) / positives[..., -1]
    return area


def auroc(positives: Floats, negatives: Floats) -> Floats:
    """Probability that a positive has a higher value than a negative, ties counted half (Hanley and McNeil 1982).

    >>> float(auroc(*Curve([1, 0, 1, 0], [0.9, 0.5, 0.5, 0.1]).counts()))
    0.875
    """
    more = np.diff(negatives, axis=-1, prepend=0.0)
    before = np.concatenate((np.zeros_like(positives[..., :1]), positives[..., :-1]), axis=-1)
    with np.errstate(invalid="ignore", divide="ignore"):
        area: Floats = ((before + positives) / 2 * more).sum(axis=-1) / (positives[..., -1] * negatives[..., -1])
    return area


def recall_at(share: float) -> Statistic:
    """Largest share of positives above a threshold that at most `share` of the negatives reach.

    >>> curve = Curve([1, 1, 0, 1, 0], [0.9, 0.8, 0.7, 0.6, 0.1])
    >>> [float(recall_at(share)(*curve.counts()).round(4)) for share in (0.01, 0.5)]
    [0.6667, 1.0]
    """

    def statistic(positives: Floats, negatives: Floats) -> Floats:
        with np.errstate(invalid="ignore", divide="ignore"):
            allowed = negatives <= share * negatives[..., -1:]
            recall: Floats = np.where(allowed, positives, 0.0).max(axis=-1) / positives[..., -1]
        return np.where(negatives[..., -1] > 0, recall, np.nan)

    return statistic


RANKING: Final[dict[str, Statistic]] = {
    "auprc": average_precision,
    "auroc": auroc,
    "recall_at_1": recall_at(0.01),
    "recall_at_5": recall_at(0.05),
}
"""Name → statistic of a curve."""


def brier(labels: NDArray[np.int64], values: Floats, weights: Floats) -> Floats:
    """Mean squared distance of probability and label (Brier 1950); `weights` are … × rows.

    >>> float(brier(np.array([1, 0]), np.array([0.8, 0.4]), np.ones(2)).round(4))
    0.1
    """
    result: Floats = weights @ (values - labels) ** 2 / weights.sum(axis=-1)
    return result


def calibration_error(labels: NDArray[np.int64], values: Floats, weights: Floats) -> Floats:
    """Expected calibration error over 15 equal bins of probability (Naeini, Cooper and Hauskrecht 2015).

    >>> float(calibration_error(np.array([1, 0, 0, 0]), np.array([0.5, 0.5, 0.1, 0.1]), np.ones(4)).round(4))
    0.05
    """
    bins = np.minimum((values * CALIBRATION_BINS).astype(np.int64), CALIBRATION_BINS - 1)
    gaps = np.zeros((len(values), CALIBRATION_BINS))
    gaps[np.arange(len(values)), bins] = values - labels
    result: Floats = np.abs(weights @ gaps).sum(axis=-1) / weights.sum(axis=-1)
    return result


def over_blocking(labels: NDArray[np.int64], fires: NDArray[np.bool_], weights: Floats) -> Floats:
    """Share of the rows with label 0 that fire.

    >>> float(over_blocking(np.array([0, 0, 1]), np.array([True, False, True]), np.ones(3)))
    0.5
    """
    benign = (labels == 0).astype(np.float64)
    with np.errstate(invalid="ignore", divide="ignore"):
        result: Floats = weights @ (benign * fires) / (weights @ benign)
    return result


@dataclass(frozen=True)
class Evaluation:
    """What a score is worth on some rows, by figure: RANKING, brier, calibration_error, over_blocking, recall (where it fires)."""

    rows: int
    positives: int
    figures: dict[str, Figure]


def evaluate(
    labels: NDArray[np.int64], values: Floats, fires: NDArray[np.bool_], *, seed: int = 0, samples: int = BOOTSTRAP_SAMPLES
) -> Evaluation:
    """All figures with intervals; rows are drawn again within each class, so every sample has both.

    `values` in [0, 1]; `fires` says which rows are above the firing threshold. Equal arguments give equal results.
    """
    curve = Curve(labels, values)

    def figures(weights: Floats) -> dict[str, Floats]:
        counts = curve.counts(weights)
        both = labels.any() and not labels.all()
        nothing = np.full(weights.shape[:-1], np.nan)
        return {name: statistic(*counts) if both else nothing for name, statistic in RANKING.items()} | {
            "recall": 1.0 - over_blocking(1 - labels, ~fires, weights),
            "over_blocking": over_blocking(labels, fires, weights),
            "brier": brier(labels, values, weights),
            "calibration_error": calibration_error(labels, values, weights),
        }

    if not len(labels):
        return Evaluation(0, 0, {})
    points = {name: float(value[0]) for name, value in figures(np.ones((1, len(labels)))).items()}
    draw = np.random.default_rng(seed)
    drawn: dict[str, list[Floats]] = {name: [] for name in points}
    step = max(1, min(samples, _CELLS // len(labels)))
    for start in range(0, samples, step):
        for name, value in figures(resampled(labels, min(step, samples - start), draw)).items():
            drawn[name].append(value)
    bounds = {name: _interval(np.concatenate(values)) for name, values in drawn.items()}
    return Evaluation(len(labels), int(labels.sum()), {name: Figure(points[name], *bounds[name]) for name in points})


def resampled(labels: NDArray[np.int64], samples: int, draw: np.random.Generator) -> Floats:
    """How often each row is drawn (samples × rows): with replacement, within its class."""
    weights = np.zeros((samples, len(labels)))
    for label in (0, 1):
        rows = np.flatnonzero(labels == label)
        if len(rows):
            chosen = draw.integers(0, len(rows), (samples, len(rows)))
            for sample in range(samples):
                weights[sample, rows] = np.bincount(chosen[sample], minlength=len(rows))
    return weights


def difference(
    labels: NDArray[np.int64],
    before: Floats,
    after: Floats,
    statistic: Statistic = average_precision,
    *,
    seed: int = 0,
    samples: int = BOOTSTRAP_SAMPLES,
) -> Figure:
    """`after` less `before` on the same rows, drawn together (paired bootstrap; Efron and Tibshirani 1993, ch. 16)."""
    curves = Curve(labels, before), Curve(labels, after)
    point = [float(statistic(*curve.counts())) for curve in curves]
    draw = np.random.default_rng(seed)
    drawn = []
    step = max(1, min(samples, _CELLS // max(len(labels), 1)))
    for start in range(0, samples, step):
        weights = resampled(labels, min(step, samples - start), draw)
        drawn.append(statistic(*curves[1].counts(weights)) - statistic(*curves[0].counts(weights)))
    return Figure(point[1] - point[0], *_interval(np.concatenate(drawn)))


def _interval(drawn: Floats) -> tuple[float, float]:
    if np.isnan(drawn).any():
        return math.nan, math.nan
    low, high = np.quantile(drawn, (0.025, 0.975))
    return float(low), float(high)
