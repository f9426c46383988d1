"""From integer logits to probabilities: one half stands where about one benign text in a hundred fires.

The unit of a head's scale is the distance from the 90th to the 99th percentile of benign traffic that no head learned from,
and the value is the logistic curve of that scale times SLOPE: the probability of the label at the share of harmful traffic at
which one half falls on the threshold; so that what fires and what is more likely than not are the same.
"""

from collections.abc import Sequence
from random import Random
from typing import Final

import numpy as np
from numpy.typing import NDArray

from core.scoring.features import HOP, WINDOW
from core.scoring.heads import RATE_BITS, Heads
from core.training.examples import Example
from schemas.heads import LENGTHS
from schemas.messages import FIXED_ONE

FALSE_POSITIVES: Final = 0.01
TAIL: Final = 0.1
SLOPE: Final = 1.4
"""Log-odds per unit of the scale: what fitted best on sources that were left out of training (benchmarks/leave_one_out.py)."""
_JOINED: Final = 1_000
"""Long texts of each length …"""
_CHUNK: Final = 100
"""… judged so many at a time."""
SPREAD: Final = 12.0
"""Levels cover log-odds within this of the threshold."""


def calibrated(
    names: Sequence[str], logits: NDArray[np.int64], examples: Sequence[Example], kept: NDArray[np.bool_], levels: int
) -> dict[str, NDArray[np.generic]]:
    """Arrays `low`, `rate` and `values` of the table, from logits (examples × heads); `kept` marks benign texts not learned from."""
    low, rate = [], []
    for column, name in enumerate(names):
        labels = labels_of(name, examples)
        traffic = kept & (labels == 0)
        benign = logits[traffic if traffic.any() else labels == 0, column]
        threshold, tail = (float(np.quantile(benign, 1.0 - share, method="higher")) for share in (FALSE_POSITIVES, TAIL))
        threshold += 1
        slope = SLOPE / max(threshold - tail, 1.0)
        low.append(round(threshold - SPREAD / slope))
        rate.append(round(levels * slope / (2.0 * SPREAD) * (1 << RATE_BITS)))
    return {"low": np.array(low, np.int64), "rate": np.array(rate, np.int64), "values": curve(levels)}


def length_shifts(heads: Heads, harmless: Sequence[Sequence[str]], seed: int) -> NDArray[np.int64]:
    """How much higher than of one window the FALSE_POSITIVES quantile of harmless texts of several windows is (linear heads ×
    LENGTHS, rising). The long texts are made by joining drawn ones, each of one of the kinds in `harmless`."""
    draw = Random(seed)
    quantiles = []
    for count in (1, *(3 * (1 << length) // 4 or 1 for length in range(1, LENGTHS))):
        texts = [_joined(draw, harmless[number % len(harmless)], WINDOW + (count - 1) * HOP) for number in range(_JOINED)]
        logits = np.concatenate([heads.logits(texts[at : at + _CHUNK]) for at in range(0, _JOINED, _CHUNK)])
        quantiles.append(np.quantile(logits[:, : len(heads.table.linear)], 1.0 - FALSE_POSITIVES, axis=0, method="higher"))
    rising = np.maximum.accumulate(np.stack(quantiles) - quantiles[0], axis=0)
    return np.asarray(rising.T.round(), np.int64)


def _joined(draw: Random, texts: Sequence[str], size: int) -> str:
    """Drawn texts one after the other, until there are `size` words, and no more than those."""
    found: list[str] = []
    while len(found) < size:
        found += draw.choice(texts).split()
    return " ".join(found[:size])


def curve(levels: int) -> NDArray[np.uint16]:
    """The probability of each level in fixed point; the middle one is the first from one half on."""
    odds = (np.arange(levels) + 0.5) * (2.0 * SPREAD / levels) - SPREAD
    return np.asarray(np.rint(FIXED_ONE / (1.0 + np.exp(-odds))), np.uint16)


def labels_of(name: str, examples: Sequence[Example]) -> NDArray[np.int8]:
    """Labels of a head, -1 where unknown; a combined head is about any harm, of prompts or of answers."""
    match name:
        case "prompt_unsafe":
            found = [-1 if one.answer else one.labels.get("harmful", -1) for one in examples]
        case "response_unsafe":
            found = [one.labels.get("reply" if one.answer else "toxic", -1) for one in examples]
        case _:
            found = [one.labels.get(name, -1) for one in examples]
    return np.array(found, np.int8)


def uncalibrated(heads: int, levels: int) -> dict[str, NDArray[np.generic]]:
    """The arrays of a table whose logits are still to be calibrated."""
    return {"low": np.zeros(heads, np.int64), "rate": np.ones(heads, np.int64), "values": curve(levels)}
