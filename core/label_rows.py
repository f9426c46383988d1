"""Which labelled texts are learned from: one of each group of near-duplicates, and a part held out."""

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Final

import numpy as np
from numpy.typing import NDArray

from core.near_duplicates import Leaders, WordWeights, words

SAME: Final = Fraction(4, 5)
"""Weighted share of words from which two texts count as one."""
HELD_OUT: Final = 0.3
MIN_ROWS: Final = 100
MIN_POSITIVE: Final = 20
MIN_NEGATIVE: Final = 40
_READ: Final = 4_000
_WORDS: Final = 400

Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Distinct:
    """The rows kept (ascending) with the label that most of their group have, and how many were dropped and why."""

    rows: Ints
    labels: Ints
    duplicates: int
    contradictory: int


def distinct(texts: Sequence[str], labels: Sequence[int]) -> Distinct:
    """One row of each group of near-equal texts: nobody gains weight by saying a thing a thousand times.

    A group whose labels are even is left out as a whole.

    >>> distinct(["Sell me a gun", "sell me a GUN!", "bake a cake", "Bake a cake."], [1, 1, 0, 1])
    Distinct(rows=array([0]), labels=array([1]), duplicates=1, contradictory=2)
    """
    found = [frozenset(words(text[:_READ])[:_WORDS]) for text in texts]
    leaders = Leaders(SAME, WordWeights(found))
    groups: dict[int, list[int]] = {}
    blank = -1
    for number, one in enumerate(found):
        if one:
            groups.setdefault(leaders.place(one), []).append(number)
        else:
            groups[blank] = [number]
            blank -= 1
    rows, said, contradictory = [], [], 0
    for members in groups.values():
        positive = sum(labels[number] for number in members)
        if 2 * positive == len(members):
            contradictory += len(members)
        else:
            rows.append(members[0])
            said.append(int(2 * positive > len(members)))
    order = np.argsort(np.array(rows, np.int64), kind="stable")
    kept = np.array(rows, np.int64)[order]
    return Distinct(kept, np.array(said, np.int64)[order], len(texts) - len(rows) - contradictory, contradictory)


def too_few(labels: Ints) -> str | None:
    """Why these labels do not suffice; None where they do.

    >>> too_few(np.array([1] * 30))
    '30 rows with label 1 and 0 with label 0: at least 20 and 40 are needed, and 100 together'
    """
    positive, negative = int(labels.sum()), int((1 - labels).sum())
    if positive >= MIN_POSITIVE and negative >= MIN_NEGATIVE and len(labels) >= MIN_ROWS:
        return None
    return (
        f"{positive:,} rows with label 1 and {negative:,} with label 0: "
        f"at least {MIN_POSITIVE} and {MIN_NEGATIVE} are needed, and {MIN_ROWS} together"
    )


def sampled(labels: Ints, most: int, seed: int) -> Ints:
    """At most `most` rows, in order: of the rarer class up to half, of the other one what is left of the room."""
    if len(labels) <= most:
        return np.arange(len(labels))
    draw = np.random.default_rng(seed)
    by_class = [draw.permutation(np.flatnonzero(labels == label)) for label in (0, 1)]
    rare, other = sorted(by_class, key=len)
    first = rare[: most // 2]
    return np.sort(np.concatenate((first, other[: most - len(first)])))


def split(labels: Ints, seed: int) -> tuple[Ints, Ints]:
    """(rows to learn from, rows held out), each in order: HELD_OUT of either class is held out."""
    draw = np.random.default_rng(seed)
    learned, held_out = [], []
    for label in (0, 1):
        rows = draw.permutation(np.flatnonzero(labels == label))
        border = round(len(rows) * HELD_OUT)
        held_out.append(rows[:border])
        learned.append(rows[border:])
    return np.sort(np.concatenate(learned)), np.sort(np.concatenate(held_out))
