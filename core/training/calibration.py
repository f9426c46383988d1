"""From integer logits to probabilities: one half stands where about one benign text in a hundred fires.

The value is the probability of the label given the logit, by a logistic curve whose prior (the share of the label in the
traffic) is such that one half falls on the threshold; so that what fires and what is more likely than not are the same.
"""

from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from core.training.examples import Example
from schemas.messages import FIXED_ONE

FALSE_POSITIVES: Final = 0.01
_SLOPE_STEPS: Final = 200
_SPREAD: Final = 12.0
"""Levels cover logits whose log-odds lie within this of the threshold."""


def calibrated(
    names: Sequence[str], logits: NDArray[np.int64], examples: Sequence[Example], levels: int
) -> dict[str, NDArray[np.generic]]:
    """Arrays `low`, `step` and `values` of the table, from the logits (examples × heads)."""
    low, step, values = [], [], []
    for column, name in enumerate(names):
        labels = np.array([one.labels.get(name, -1) for one in examples])
        traffic = np.array([one.benign_traffic for one in examples]) & (labels == 0)
        benign = logits[traffic if traffic.any() else labels == 0, column]
        harmful = logits[labels == 1, column]
        threshold = np.quantile(benign, 1.0 - FALSE_POSITIVES, method="higher") + 1
        slope = _slope(harmful - threshold, benign - threshold)
        first = int(threshold - _SPREAD / slope)
        width = max(1, int(np.ceil(2 * _SPREAD / slope / levels)))
        middle = (first + width * np.arange(levels) + (width - 1) / 2.0 - threshold) * slope
        low.append(first)
        step.append(width)
        curve = np.rint(FIXED_ONE / (1.0 + np.exp(-middle)))
        values.append(curve.astype(np.uint16))
    return {"low": np.array(low, np.int64), "step": np.array(step, np.int64), "values": np.stack(values)}


def _slope(harmful: NDArray[np.float64], benign: NDArray[np.float64]) -> float:
    """The slope of a logistic curve through one half at 0 that fits both classes best, each counting the same …"""
    spread = float(np.std(np.concatenate((harmful, benign)))) or 1.0
    slopes = np.geomspace(0.02, 200.0, _SLOPE_STEPS) / spread
    losses = [
        np.logaddexp(0.0, -slope * harmful).mean() * 0.05 + np.logaddexp(0.0, slope * benign).mean() * 0.95 for slope in slopes
    ]
    return float(slopes[int(np.argmin(losses))])
