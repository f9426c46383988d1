"""Canary against champion: how often an equal candidate is stopped, and how soon a worse one.

Conversations have 1 to 10 turns that fail together (Beta-distributed rates, intra-conversation correlation .3). The product's
trial counts first turns; beside it stand the same trial fed with every turn, and a two-proportion test looked at after every
window, which is what a dashboard does.
"""

import math
from dataclasses import dataclass
from typing import Final

import numpy as np
from scipy.stats import beta, norm

from benchmarks.detection_core import Ints, quantiles, say
from benchmarks.report import emit
from core.canary import Trial
from core.metrics import log_bin
from schemas.messages import CanaryRules, Cohort

PACKAGES: Final = ("numpy", "scipy")
CORRELATION: Final = 0.3
BASE: Final = 0.03
WORSE: Final = 0.05
SHARE: Final = 0.1
PER_DAY: Final = 100_000
WINDOWS_A_DAY: Final = 17_280
UNITS: Final = 120
"""Units a window of an equal canary, both arms together."""
WINDOWS: Final = 50


@dataclass(frozen=True)
class Arm:
    """One arm's rate of refusals; errors .5 %, thumbs down 15 % on a tenth, latency lognormal, the same in both."""

    name: str
    rate: float

    def window(self, conversations: int, rng: np.random.Generator, *, every_turn: bool) -> tuple[Cohort, int, int]:
        """The cohort of a window, its refusals, and its outcomes."""
        turns = rng.integers(1, 11, conversations) if every_turn else np.ones(conversations, dtype=np.int64)
        of = np.repeat(np.arange(conversations), turns)
        refused = rng.random(len(of)) < _together(self.rate, conversations, rng)[of]
        error = rng.random(len(of)) < _together(0.005, conversations, rng)[of]
        acts = int(rng.binomial(len(of), 0.1))
        down = int(rng.binomial(acts, 0.15))
        slow = np.exp(
            6.5
            + 0.6
            * (
                math.sqrt(CORRELATION) * rng.standard_normal(conversations)[of]
                + math.sqrt(1 - CORRELATION) * rng.standard_normal(len(of))
            )
        )
        bins = {
            "refusal@1": _pairs(refused.astype(np.int64)),
            "error@1": _pairs(error.astype(np.int64)),
            "latency@1": _pairs(np.array([log_bin(int(1000 * ms)) for ms in slow], dtype=np.int64)),
            "thumbs.down@1": [(bin_, count) for bin_, count in ((0, acts - down), (1, down)) if count],
        }
        cohort = Cohort(app="a", environment="e", version=self.name, route_epoch=1, n=len(of), acts=acts, bins=bins)
        return cohort, int(refused.sum()), len(of)


def _together(rate: float, conversations: int, rng: np.random.Generator) -> np.ndarray:
    """A rate for each conversation."""
    size = (1 - CORRELATION) / CORRELATION
    return rng.beta(rate * size, (1 - rate) * size, conversations)


def _pairs(bins: Ints) -> list[tuple[int, int]]:
    values, counts = np.unique(bins, return_counts=True)
    return list(zip(values.tolist(), counts.tolist(), strict=True))


def equal(seed: int, *, every_turn: bool) -> tuple[bool, bool]:
    """Whether an equal candidate is stopped: by the product's trial, and by a z-test (p < .01) looked at after every window."""
    rng = np.random.default_rng((11, seed, every_turn))
    trial = Trial(CanaryRules())
    limit = float(norm.isf(0.005))
    k = np.zeros(2)
    n = np.zeros(2)
    stopped, peeked = False, False
    arms = Arm("new", BASE), Arm("old", BASE)
    for _ in range(WINDOWS):
        counts = []
        units = int(rng.binomial(UNITS, 0.25))
        for at, (arm, number) in enumerate(zip(arms, (units, UNITS - units), strict=True)):
            cohort, refused, of = arm.window(number, rng, every_turn=every_turn)
            counts.append(cohort)
            k[at] += refused
            n[at] += of
        trial.add([counts[0]], [counts[1]])
        stopped = stopped or bool(trial.harmful())
        if n.min() > 100 and 0 < k.sum() < n.sum():
            pooled = k.sum() / n.sum()
            z = (k[0] / n[0] - k[1] / n[1]) / math.sqrt(pooled * (1 - pooled) * (1 / n[0] + 1 / n[1]))
            peeked = peeked or z > limit
    return stopped, peeked


def worse(seed: int) -> float:
    """Hours until a candidate that refuses 2 points more is stopped, at 100,000 units a day and a tenth of them."""
    rng = np.random.default_rng((12, seed))
    trial = Trial(CanaryRules())
    arms = Arm("new", WORSE), Arm("old", BASE)
    for number in range(1, WINDOWS_A_DAY + 1):
        units = int(rng.poisson(PER_DAY / WINDOWS_A_DAY))
        new = int(rng.binomial(units, SHARE))
        trial.add(*[[arm.window(count, rng, every_turn=False)[0]] for arm, count in zip(arms, (new, units - new), strict=True)])
        if trial.harmful():
            return number * 24 / WINDOWS_A_DAY
    return math.inf


def run_equal(seeds: range, *, every_turn: bool) -> None:
    """Equal canaries, in the product's way or with every turn counted."""
    outcomes = [equal(seed, every_turn=every_turn) for seed in seeds]
    what = "every turn" if every_turn else "first turns"
    for name, stops in (("trial", sum(o[0] for o in outcomes)), ("peeking z-test p<.01", sum(o[1] for o in outcomes))):
        bound = 1.0 if stops == len(seeds) else float(beta.ppf(0.95, stops + 1, len(seeds) - stops))
        unit = f"of {len(seeds)} equal canaries from seed {seeds.start} (95 % upper bound {bound:.4f})"
        emit(f"canary.false_stops.{name}.{what}", int(stops), unit, PACKAGES)


def run_worse(seeds: range) -> None:
    """Candidates that are 2 points worse."""
    found = [worse(seed) for seed in seeds]
    median, late = quantiles(found)
    unit = f"hours at 100,000 units a day (median of {len(seeds)}; 90 %: {late:.1f})"
    say("canary.stopped.2 points worse at 3 %.share 10 %", median, unit, PACKAGES)
    emit("canary.stopped.within a day", sum(map(math.isfinite, found)), f"of {len(seeds)}", PACKAGES)
