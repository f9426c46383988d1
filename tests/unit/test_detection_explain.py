"""What an alarm says it is about: the topic that moved is named, and shares add up."""

import numpy as np
import pytest

from core.cells import CellNames
from core.detection.explain import Explanation, explain
from core.detection.reference import Floats, Reference
from core.detection.sr import SrState, build_layout, step
from core.metrics import NOVELTY_BINS, TOPIC_CELLS

CELLS = CellNames([f"cell-{n}" for n in range(TOPIC_CELLS)])
DISTANCES = np.diff(np.linspace(0.0, 1.0, NOVELTY_BINS + 1) ** 0.5)
MIX = np.arange(1, TOPIC_CELLS + 1) ** -1.0 / (np.arange(1, TOPIC_CELLS + 1) ** -1.0).sum()
THRESHOLD = np.array([1e6])


def alarm(seed: int, mix: Floats, distances: Floats = DISTANCES, n0: int = 20_000) -> Explanation:
    """What is told when topics and distances have changed to these."""
    random = np.random.default_rng(seed)
    counts = {"topic": random.multinomial(n0, MIX), "novelty": random.multinomial(n0, DISTANCES)}
    own = Reference("topic.mix@1", counts={metric: dict(enumerate(bins.tolist())) for metric, bins in counts.items()}, delta=0.05)
    layout = build_layout([own])
    state = SrState.new(layout, 0)
    for number in range(1, 1_000):
        topic, novelty = random.multinomial(100, mix), random.multinomial(100, distances)
        brought = dict(enumerate([*topic.tolist(), *novelty.tolist()]))
        if step(layout, state, brought, 5.0, number, THRESHOLD).alarms:
            return explain(layout, state, 0, CELLS)
    raise AssertionError("no alarm")


def with_more(cell: int, points: float) -> Floats:
    mix = MIX * (1.0 - points)
    mix[cell] += points
    return mix


@pytest.mark.parametrize("cell", [3, 90])
def test_a_topic_that_gained_five_points_is_among_the_first_three(cell: int) -> None:
    told = [alarm(seed, with_more(cell, 0.05)) for seed in range(40)]
    named = [f"cell-{cell}" in [c.name for c in one.contributions[:3]] for one in told]
    assert sum(named) >= 0.95 * len(named)


def test_topics_that_moved_as_much_share_the_evidence() -> None:
    mix = MIX * 0.8
    mix[100] += 0.1
    mix[101] += 0.1
    told = alarm(1, mix)
    shares = {c.name: c.share for c in told.contributions}
    assert shares["cell-100"] > 0.2
    assert shares["cell-101"] > 0.2
    assert sum(shares.values()) == pytest.approx(1.0, abs=1e-4)


def test_far_topics_are_told_by_one_distance_beside_the_cells() -> None:
    far = DISTANCES * 0.8
    far[-3:] += 0.2 / 3
    told = alarm(1, with_more(7, 0.2), far)
    assert sum("distance" in c.name for c in told.contributions) == 1
    assert any(c.name == "cell-7" for c in told.contributions)


def test_the_effect_is_that_of_the_first_bin() -> None:
    told = alarm(2, with_more(9, 0.1))
    first = told.contributions[0]
    assert (told.effect.before, told.effect.after) == (first.before, first.after)
    assert told.effect.low < first.after < told.effect.high
