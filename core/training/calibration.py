"""From integer logits to probabilities: one half stands where about one benign text in a hundred fires.

The unit of a head's scale is the distance from the 90th to the 99th percentile of benign traffic that no head learned from,
and the value is the logistic curve of that scale times SLOPE: the probability of the label at the share of harmful traffic at
which one half falls on the threshold; so that what fires and what is more likely than not are the same.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from random import Random
from typing import Final
from zlib import crc32

import numpy as np
from numpy.typing import NDArray

from core.metrics import HARMS
from core.scoring.features import FINE, FINE_HOP, HOP, WINDOW
from core.scoring.heads import RATE_BITS, Heads
from core.training.examples import Example
from schemas.heads import FINE_LENGTHS, LENGTHS
from schemas.messages import FIXED_ONE

FALSE_POSITIVES: Final = 0.01
FINE_POSITIVES: Final = 0.003
TAIL: Final = 0.1
CONFUSED: Final = 0.1
CONFUSED_WITH_MINORS: Final = 0.02
"""The gravest thing to be wrong about."""
_ENOUGH: Final = 50
JOINED: Final = 6
LONG: Final = "joined"
SLOPE: Final = 1.4
"""Log-odds per unit of the scale: what fitted best on sources that were left out of training (benchmarks/leave_one_out.py)."""
_JOINED: Final = 1_000
"""Long texts of each length …"""
_CHUNK: Final = 100
"""… judged so many at a time."""
SPREAD: Final = 12.0
"""Levels cover log-odds within this of the threshold."""


def traffic(kept: Sequence[Example]) -> list[Example]:
    """Benign texts to calibrate on: those that were kept, and long ones made of JOINED of them each, as one more source."""
    made = list(kept)
    for answer in (False, True):
        own = sorted((one for one in kept if one.answer == answer), key=lambda one: crc32(one.text.encode("utf-8", "replace")))
        for at in range(0, len(own) - JOINED + 1, JOINED):
            part = own[at : at + JOINED]
            labels = {head: label for head, label in part[0].labels.items() if all(one.labels.get(head) == 0 for one in part)}
            made.append(Example("\n".join(one.text for one in part), LONG, labels, {}, benign_traffic=True, answer=answer))
    return made


@dataclass(frozen=True, eq=False)
class Judged:
    """Examples with their logits (examples × heads)."""

    examples: Sequence[Example]
    logits: NDArray[np.int64]


def calibrated(
    names: Sequence[str], benign: Judged, levels: int, harmful: Judged | None = None
) -> dict[str, NDArray[np.generic]]:
    """Arrays `low`, `rate` and `values` of the table, from benign texts, each source of which counts as much as any other.

    A category also fires for at most the share CONFUSED of the `harmful` texts of each other category that are not of it: what
    is said about adults is not about minors. Raises ValueError for a head that no benign text is labelled 0 for.
    """
    examples, logits = benign.examples, benign.logits
    low, rate = [], []
    for column, name in enumerate(names):
        harmless = np.flatnonzero(labels_of(name, examples) == 0)
        if not len(harmless):
            raise ValueError(f"no benign text was kept to calibrate the head {name}")
        sources = [examples[number].source for number in harmless.tolist()]
        sizes = Counter(sources)
        weights = np.array([1.0 / sizes[source] for source in sources])
        threshold, tail = (_quantile(logits[harmless, column], weights, 1.0 - share) for share in (FALSE_POSITIVES, TAIL))
        if harmful is not None and name in HARMS:
            threshold = max(threshold, *_of_others(name, harmful.logits[:, column], harmful.examples))
        threshold += 1
        slope = SLOPE / max(threshold - tail, 1.0)
        low.append(round(threshold - SPREAD / slope))
        rate.append(round(levels * slope / (2.0 * SPREAD) * (1 << RATE_BITS)))
    return {"low": np.array(low, np.int64), "rate": np.array(rate, np.int64), "values": curve(levels)}


def _of_others(name: str, logits: NDArray[np.int64], examples: Sequence[Example]) -> Iterator[float]:
    """For each other category with enough texts that are not of category `name`: what all but a share of those stay below."""
    yield -np.inf
    own = labels_of(name, examples)
    share = CONFUSED_WITH_MINORS if name == "sexual_minors" else CONFUSED
    for other in HARMS:
        of_other = logits[(own == 0) & (labels_of(other, examples) == 1)]
        if len(of_other) >= _ENOUGH:
            yield float(np.quantile(of_other, 1.0 - share, method="higher"))


def _quantile(values: NDArray[np.int64], weights: NDArray[np.float64], share: float) -> float:
    """The least value at which at least this share of the weight lies at or below."""
    order = np.argsort(values, kind="stable")
    reached = np.cumsum(weights[order])
    return float(values[order][min(int(np.searchsorted(reached, share * reached[-1])), len(order) - 1)])


def length_shifts(heads: Heads, harmless: Sequence[Sequence[str]], seed: int) -> dict[str, NDArray[np.int64]]:
    """Arrays `length_shift` and `fine_shift`: how much higher the highest of several windows of harmless texts is than one is.

    Of windows it is the FALSE_POSITIVES quantile that is compared with that of one window; of fine windows, which speak
    only where they are surer, the rarer FINE_POSITIVES one. Rising with the number of windows; 0 for heads that read the first
    window only. The long texts are made by joining drawn ones, each of one of the kinds in `harmless`.
    """
    draw = Random(seed)
    first = heads.table.first_window

    def quantiles(share: float, size: int, hop: int, classes: int) -> NDArray[np.float64]:
        found = []
        for many in _middles(classes):
            texts = [_joined(draw, harmless[number % len(harmless)], size + (many - 1) * hop) for number in range(_JOINED)]
            logits = np.concatenate([heads.unshifted(texts[at : at + _CHUNK], size, hop) for at in range(0, _JOINED, _CHUNK)])
            found.append(np.quantile(logits, 1.0 - share, axis=0, method="higher"))
        return np.stack(found)

    def shifts(over: NDArray[np.float64]) -> NDArray[np.int64]:
        rising = np.maximum.accumulate(np.maximum(over, 0.0), axis=0)
        rising[:, : len(first)][:, first] = 0.0
        return np.asarray(rising.T.round(), np.int64)

    whole = quantiles(FALSE_POSITIVES, WINDOW, HOP, LENGTHS)
    fine = quantiles(FINE_POSITIVES, FINE, FINE_HOP, FINE_LENGTHS)
    return {"length_shift": shifts(whole - whole[0]), "fine_shift": shifts(fine - whole[0])}


def _middles(classes: int) -> Iterator[int]:
    """A number of windows in the middle of each class."""
    yield 1
    for length in range(1, classes):
        yield 3 * (1 << length) // 4 or 1


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
