"""Delay of the topic stream on real questions: a help desk about the standard library, then other topics mixed in.

Base: questions about the standard library, modules in a Zipf mix. Near: questions about pandas in the same phrasings. Far: what
people say to each other in recorded conversations. Cells are the app's own, fitted by the product's fitter.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from random import Random
from typing import Final

import numpy as np

from adapters.corpus import PANDAS, PHRASINGS, STDLIB, chitchat, help_desk
from adapters.embedding import load_embedding
from adapters.settings import Settings
from benchmarks.detection_core import (
    DELTA,
    STEP,
    Detector,
    Floats,
    Ints,
    group_of,
    layout_of,
    own_delta,
    quantiles,
    reference_of,
    say,
)
from core.cells import CellNames, scorer_version
from core.detection.explain import explain
from core.detection.sr import Layout
from core.fitter import Prompt, fit_cells
from core.metrics import MAX_OWN_CELLS, NOVELTY_BINS, TOPIC_MIX, metric_key
from core.scoring import SCORER_VERSIONS
from core.scoring.nearest import Cells
from core.scoring.words import WordSums
from schemas.messages import OwnCells

PACKAGES: Final = ("numpy", "scipy", "pandas", "chitchat-dataset")
VERSION: Final = scorer_version(SCORER_VERSIONS["topic"], 1)
KEY: Final = metric_key(TOPIC_MIX, VERSION)
LONG_BEFORE: Final = 5_000
LATEST: Final = 100_000
RAMP: Final = 1_000_000
FIT: Final = 20_000
WINDOWS: Final = (200, 500, 1_000, 2_000, 4_000, 10_000)


@dataclass(frozen=True)
class Texts:
    """Scored texts: `cell` and `novelty` bin of each, `distance` for peers, and the chance of each to be drawn (summed up)."""

    cell: Ints
    novelty: Ints
    distance: Ints
    chance: Floats

    def draw(self, n: int, rng: np.random.Generator) -> Ints:
        return np.asarray(np.searchsorted(self.chance, rng.random(n) * self.chance[-1], side="right"), dtype=np.int64)


@dataclass(frozen=True)
class Corpus:
    """Base, near, far and one intent (a module of the base) with the name of the cell that most of it falls into."""

    own: OwnCells
    base: Texts
    near: Texts
    far: Texts
    intent: Texts
    intent_cells: tuple[int, ...]
    intent_name: str


def corpus() -> Corpus:
    """Questions scored with cells that the product's fitter makes from 20,000 questions of the base."""
    desk = help_desk(0, (STDLIB, PANDAS))
    words = WordSums(load_embedding(Settings()))
    modules = sorted({item.module for item in desk.items[STDLIB]})
    Random(3).shuffle(modules)
    rank = {module: at for at, module in enumerate(modules, 1)}
    sizes = {m: sum(item.module == m for item in desk.items[STDLIB]) for m in modules}
    asked = [(item.question(p), item.module) for item in desk.items[STDLIB] for p in PHRASINGS]
    weights = np.array([1.0 / rank[module] / sizes[module] for _, module in asked])
    texts = [text for text, _ in asked]
    drawn = np.searchsorted(np.cumsum(weights), np.random.default_rng(0).random(FIT) * weights.sum(), side="right")
    own = fit_cells("desk", "production", 1, [Prompt(texts[at], None, str(n)) for n, at in enumerate(drawn.tolist())], words)
    cells = Cells.of_app(own, words.table.dimensions)
    base = _scored(texts, weights, words, cells)
    name = modules[9]
    here = np.array([module == name for _, module in asked])
    intent = _scored([t for t, m in asked if m == name], weights[here], words, cells)
    counts = np.bincount(intent.cell, minlength=len(own.names))
    near = [item.question(p) for item in desk.items[PANDAS] for p in PHRASINGS]
    far = sorted({turn.prompt for c in chitchat() for turn in c.turns})
    return Corpus(
        own,
        base,
        _scored(near, np.ones(len(near)), words, cells),
        _scored(far, np.ones(len(far)), words, cells),
        intent,
        tuple(np.argsort(-counts)[:3].tolist()),
        name,
    )


def _scored(texts: Sequence[str], weights: Floats, words: WordSums, cells: Cells) -> Texts:
    vectors = np.concatenate([words.sums(texts[at : at + 512]).vectors for at in range(0, len(texts), 512)])
    found = cells.nearest(vectors)
    novelty = cells.novelty(found.distance) * NOVELTY_BINS >> 16
    return Texts(found.cell, np.minimum(novelty, NOVELTY_BINS - 1), found.distance, np.cumsum(weights))


def columns_of(layout: Layout, parts: Sequence[tuple[Texts, Ints]]) -> Ints:
    """Dense counts of drawn texts by the layout's columns."""
    topic, novelty = (layout.columns[metric_key(name, VERSION)] for name in ("topic", "novelty"))
    at = [np.concatenate((topic + texts.cell[drawn], novelty + texts.novelty[drawn])) for texts, drawn in parts]
    return np.bincount(np.concatenate(at), minlength=layout.width)


def layout_for(texts: Corpus, n0: int, rng: np.random.Generator, delta: float) -> Layout:
    drawn = texts.base.draw(n0, rng)
    bins = {
        metric_key("topic", VERSION): np.bincount(texts.base.cell[drawn], minlength=MAX_OWN_CELLS),
        metric_key("novelty", VERSION): np.bincount(texts.base.novelty[drawn], minlength=NOVELTY_BINS),
    }
    return layout_of([reference_of(KEY, [group_of(bins, n=n0)], n0, delta)])


Mix = Callable[[int, np.random.Generator], list[tuple[Texts, Ints]]]
"""Events since the change → what a step draws."""


def mixed(texts: Corpus, other: Texts, share: float, *, over: int = 0) -> Mix:
    """`share` of `other` from the change on, or rising to it evenly `over` events."""

    def draw(since: int, rng: np.random.Generator) -> list[tuple[Texts, Ints]]:
        now = 0.0 if since < 0 else share if not over else share * min(1.0, since / over)
        moved = int(rng.binomial(STEP, now))
        return [(texts.base, texts.base.draw(STEP - moved, rng)), (other, other.draw(moved, rng))]

    return draw


def delay(detector: Detector, draw: Mix, rng: np.random.Generator, latest: int = LATEST) -> float:
    """Events from the change to the alarm, the detector left as it alarmed."""
    for fed in range(0, LONG_BEFORE + latest, STEP):
        alarms = detector.feed(columns_of(detector.layout, draw(fed - LONG_BEFORE, rng)), STEP)
        if alarms and fed >= LONG_BEFORE:
            return fed + STEP - LONG_BEFORE
        for position in alarms:
            detector.reset(position)
    return math.inf


def shifts(texts: Corpus) -> dict[str, Mix]:
    return {
        "far 5 %": mixed(texts, texts.far, 0.05),
        "far 1 %": mixed(texts, texts.far, 0.01),
        "near 5 %": mixed(texts, texts.near, 0.05),
        "one intent +5 points": mixed(texts, texts.intent, 0.05),
    }


def run(texts: Corpus, seeds: int, budget: float = 1e6) -> dict[str, float]:
    """Print the delays; the medians at n0 = 20,000 with the weight alone, by shift."""
    ours: dict[str, float] = {}
    for n0 in (20_000, 5_000):
        for shared in (False, True):
            kind = "app" if shared else "alone"
            for name, draw in shifts(texts).items():
                found, named = [], 0
                for seed in range(seeds):
                    rng = np.random.default_rng((n0, seed, shared))
                    layout = layout_for(texts, n0, rng, DELTA if shared else own_delta(TOPIC_MIX))
                    detector = Detector(layout, budget, shared=shared)
                    found.append(delay(detector, draw, rng))
                    named += math.isfinite(found[-1]) and _names(texts, detector)
                median, late = quantiles(found)
                say(
                    f"topics.delay.{name}.{kind}.n0={n0}.A={budget:g}",
                    median,
                    f"events (median of {seeds}; 90 %: {late:g})",
                    PACKAGES,
                )
                if name.startswith("one intent"):
                    say(f"topics.named.{name}.{kind}.n0={n0}", named / seeds, "share with its cell among the top three", PACKAGES)
                if n0 == 20_000 and not shared:
                    ours[name] = median
    return ours


def _names(texts: Corpus, detector: Detector) -> bool:
    """Whether one of the three cells that hold most of the intent is among the first three contributions."""
    said = explain(detector.layout, detector.state, 0, CellNames(texts.own.names)).contributions[:3]
    return bool({f"topic:{cell}" for cell in texts.intent_cells} & {c.bin for c in said})


def ramp(texts: Corpus, seeds: int, budget: float = 1e6) -> None:
    """A share of far questions that rises from 0 to 5 % over a million events, the reference fixed."""
    found = []
    for seed in range(seeds):
        rng = np.random.default_rng((7, seed))
        detector = Detector(layout_for(texts, 20_000, rng, DELTA), budget, shared=True)
        found.append(delay(detector, mixed(texts, texts.far, 0.05, over=RAMP), rng, latest=RAMP))
    median, late = quantiles(found)
    say(
        "topics.delay.ramp 0 to 5 % over 1,000,000 events.app.n0=20000",
        median,
        f"events (median of {seeds}; 90 %: {late:g})",
        PACKAGES,
    )
    say("topics.found.ramp", sum(map(math.isfinite, found)) / seeds, f"share of {seeds}", PACKAGES)


# --- the window that is best in hindsight ------------------------------------------------------------------------------


def max_z(texts: Corpus, draw: Mix | None, n0: int, size: int, number: int, rng: np.random.Generator) -> Floats:
    """The largest z of any cell or rung (novelty bins and above), for `number` windows, 50 to a reference."""
    out = []
    for at in range(number):
        if at % 50 == 0:
            before = _bins([(texts.base, texts.base.draw(n0, rng))])
            p = (before + 0.5) / (n0 + 1.0)
        parts = [(texts.base, texts.base.draw(size, rng))] if draw is None else _window(draw, size, rng)
        x = _bins(parts)
        spread = np.sqrt(p * (1 - p) * size * (1 + size / n0))
        out.append(float(np.abs((x - size * p) / np.maximum(spread, 1.0)).max()))
    return np.array(out)


def _window(draw: Mix, size: int, rng: np.random.Generator) -> list[tuple[Texts, Ints]]:
    return [part for _ in range(size // STEP) for part in draw(0, rng)]


def _bins(parts: Sequence[tuple[Texts, Ints]]) -> Floats:
    cells = sum(np.bincount(t.cell[d], minlength=MAX_OWN_CELLS) for t, d in parts)
    novelty = sum(np.bincount(t.novelty[d], minlength=NOVELTY_BINS) for t, d in parts)
    rungs = np.cumsum(np.asarray(novelty)[::-1])[::-1][1:]
    return np.concatenate((np.asarray(cells), rungs)).astype(np.float64)


def best_window(texts: Corpus, ours: dict[str, float], budget: float = 1e6, n0: int = 20_000, number: int = 20_000) -> None:
    """For each shift the size of window whose tuned test is fastest, though nobody knows it before."""
    rng = np.random.default_rng(4)
    best: dict[str, tuple[float, int]] = {}
    for size in WINDOWS:
        least = min(number, int(4e7 / size))
        null = np.sort(max_z(texts, None, n0, size, least, rng))
        beyond = max(least * size / budget, 1.0)
        limit = null[-math.ceil(beyond)] if beyond >= 2 else _tail(null, size / budget)
        for name, draw in shifts(texts).items():
            p = float((max_z(texts, draw, n0, size, 200, rng) > limit).mean())
            median = size if p >= 0.5 else math.inf if not p else size * math.ceil(math.log(0.5) / math.log1p(-p))
            best[name] = min(best.get(name, (math.inf, 0)), (median, size))
    for name, (median, size) in best.items():
        ratio = f"; {median / ours[name]:.2f} of ours" if ours.get(name) else ""
        say(
            f"topics.delay.{name}.peer.max-z.A={budget:g}",
            median,
            f"events (median, best window in hindsight {size}{ratio})",
            PACKAGES,
        )


def _tail(null: Floats, share: float) -> float:
    """A quantile beyond the sample: the upper 2 % continued as an exponential of z squared."""
    top = null[int(0.98 * len(null)) :] ** 2
    slope = float((top - top[0]).mean())
    return math.sqrt(top[0] + slope * math.log(0.02 / share))
