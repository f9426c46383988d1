"""Whether the stated budget of false alarms is kept while nothing changes, and that a detector without bands breaks it.

Real recorded text, scored once with every scorer. Each seed has a reference of its own and then 2 A events drawn from the same
distribution; it exceeds when its alarms are above the 99 % quantile of Poisson(events / A). All streams of the default app.
"""

import math
import time
from collections.abc import Callable, Sequence
from typing import Final

import numpy as np
from scipy.stats import beta, poisson

from benchmarks.detection_core import STEP, Detector, Ints, in_parts, layout_of, point_null, reference_of
from benchmarks.no_change import ACTS_SHARE, Pool, binned
from benchmarks.report import emit
from core.detection.budget import STREAMS
from core.detection.reference import Reference, name_bin
from core.detection.sr import Layout
from core.metrics import metric_key, split_metric_key
from schemas.messages import Group

PACKAGES: Final = ("numpy", "scipy", "chitchat-dataset")
Draw = Callable[[int], Ints]
"""A number of events → the interactions drawn for them (about so many)."""


def singles(pool: Pool, rng: np.random.Generator) -> Draw:
    """Single messages, with replacement."""
    return lambda n: rng.integers(0, len(pool.codes), n)


def conversations(pool: Pool, rng: np.random.Generator, half: int) -> Draw:
    """Whole conversations of one half of the pool in random order, again and again."""
    number = len(pool.starts) - 1
    mine = np.arange(half, number, 2)
    waiting: list[int] = []

    def draw(n: int) -> Ints:
        chosen, count = [], 0
        while count < n:
            if not waiting:
                waiting.extend(rng.permutation(mine).tolist())
            at = waiting.pop()
            chosen.append(np.arange(pool.starts[at], pool.starts[at + 1]))
            count += len(chosen[-1])
        return np.concatenate(chosen)

    return draw


def counted(pool: Pool, chosen: Ints, rng: np.random.Generator) -> tuple[Ints, int]:
    """Counts by the pool's code, and the number of feedback acts among them."""
    acts = pool.down[chosen]
    acts = acts[(acts > 0) & (rng.random(len(acts)) < ACTS_SHARE)]
    counts = np.bincount(np.concatenate((pool.codes[chosen].ravel(), acts)), minlength=len(pool.bins))
    counts[0] = 0
    return counts, len(acts)


def references(pool: Pool, draw: Draw, n0: int, rng: np.random.Generator) -> list[Reference]:
    """Complete references of all streams that the pool has scores for."""
    groups = []
    for size in in_parts(n0):
        chosen = draw(size)
        counts, acts = counted(pool, chosen, rng)
        bins, names = binned(pool, counts)
        groups.append(Group(app="app", environment="e", version="v", n=len(chosen), acts=acts, bins=bins, names=names))
    found = []
    for name, stream in STREAMS.items():
        versions = {split_metric_key(key)[1] for key, _ in pool.bins[1:] if split_metric_key(key)[0] == stream.parts[0][0]}
        for version in versions:
            try:
                found.append(reference_of(metric_key(name, version), groups, n0))
            except ValueError:
                continue  # too few of it for a reference: not judged, as in the product
    return sorted(found, key=lambda reference: reference.key)


def columns_of(pool: Pool, layout: Layout) -> Ints:
    """By code of the pool the layout's column; the last column (layout.width) takes what no stream judges."""
    columns = np.full(len(pool.bins), layout.width, dtype=np.int64)
    for code, (key, bin_) in enumerate(pool.bins):
        if key in layout.columns:
            place = name_bin(layout.names[key], bin_) if isinstance(bin_, str) else bin_
            columns[code] = layout.columns[key] + place
    return columns


class Outcome:
    """Alarms of one seed, by stream."""

    def __init__(self) -> None:
        self.alarms: dict[str, int] = {}
        self.events = 0
        self.seconds = 0.0
        self.streams = 0


def simulate(
    pool: Pool, draw: Draw, reference: Draw, n0: int, budget: float, rng: np.random.Generator, *, control: bool
) -> Outcome:
    """One seed."""
    layout = layout_of(references(pool, reference, n0, rng))
    detector = Detector(point_null(layout, n0) if control else layout, budget, shared=True)
    columns = columns_of(pool, layout)
    outcome = Outcome()
    outcome.streams = len(layout.keys)
    while outcome.events < 2 * budget:
        chosen = draw(STEP)
        counts, _ = counted(pool, chosen, rng)
        dense = np.bincount(columns, counts, layout.width + 1).astype(np.int64)[: layout.width]
        began = time.process_time()
        alarms = detector.feed(dense, len(chosen))
        outcome.seconds += time.process_time() - began
        outcome.events += len(chosen)
        for position in alarms:
            key = layout.keys[position]
            outcome.alarms[key] = outcome.alarms.get(key, 0) + 1
            detector.reset(position)
    return outcome


def run(pool: Pool, seeds: int, sizes: Sequence[int], budget: float, *, unit: str, control: bool = False) -> None:
    """Print how many seeds exceed, with the 95 % upper bound of their share."""
    name = f"budget.{'control' if control else 'kept'}.{unit}.A={budget:g}"
    for n0 in sizes:
        outcomes = []
        for seed in range(seeds):
            rng = np.random.default_rng((n0, seed, int(math.log10(budget)), control))
            if unit == "message":
                draws = singles(pool, rng), singles(pool, rng)
            else:
                draws = conversations(pool, rng, 0), conversations(pool, rng, 1)
            outcomes.append(simulate(pool, *draws, n0, budget, rng, control=control))
        most = int(poisson.ppf(0.99, 2.0))
        exceeding = sum(sum(o.alarms.values()) > most for o in outcomes)
        bound = 1.0 if exceeding == seeds else float(beta.ppf(0.95, exceeding + 1, seeds - exceeding))
        events, alarms = sum(o.events for o in outcomes), sum(sum(o.alarms.values()) for o in outcomes)
        emit(f"{name}.n0={n0}.exceeding", exceeding, f"of {seeds} seeds (95 % upper bound {bound:.3f})", PACKAGES)
        emit(f"{name}.n0={n0}.alarms", alarms, f"in {events:,} events; the budget allows {events / budget:.0f}", PACKAGES)
        cost = 1e6 * sum(o.seconds for o in outcomes) / events
        emit(f"{name}.n0={n0}.cost", cost, f"us CPU an event, {outcomes[0].streams} streams together", PACKAGES)
        emit(f"{name}.n0={n0}.cost_a_metric", cost / outcomes[0].streams, "us CPU an event and stream", PACKAGES)
