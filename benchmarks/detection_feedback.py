"""Delay of one binary stream, feedback .85 -> .80, beside peers that were tuned by simulation to the same run length."""

import math
from collections.abc import Callable
from typing import Final

import numpy as np
from scipy.stats import binom, norm

from benchmarks.detection_core import (
    STEP,
    Detector,
    Ints,
    group_of,
    in_parts,
    layout_of,
    one_direction,
    own_delta,
    quantiles,
    reference_of,
    say,
)
from core.detection.reference import Reference

STREAM: Final = "thumbs.down"
KEY: Final = f"{STREAM}@1"
BEFORE, AFTER = 0.15, 0.20
LONG_BEFORE: Final = 5_000
"""Events without change before the change."""
LATEST: Final = 60_000
"""Events after which a change counts as missed."""
NEVER: Final = 1e8
PACKAGES: Final = ("numpy", "scipy")


def reference(n0: int, rng: np.random.Generator, delta: float) -> Reference:
    """n0 acts, 15 % of them thumbs down."""
    groups = []
    for size in in_parts(n0):
        down = int(rng.binomial(size, BEFORE))
        groups.append(group_of({KEY: np.array([size - down, down])}, n=size, acts=size))
    return reference_of(KEY, groups, n0, delta)


def delay(detector: Detector, rng: np.random.Generator) -> float:
    """Events from the change to the alarm."""
    fed = 0
    while fed < LONG_BEFORE + LATEST:
        down = int(rng.binomial(STEP, BEFORE if fed < LONG_BEFORE else AFTER))
        fed += STEP
        alarms = detector.feed(np.array([STEP - down, down]), STEP)
        if alarms and fed > LONG_BEFORE:
            return fed - LONG_BEFORE
        for position in alarms:
            detector.reset(position)
    return math.inf


def delays(n0: int, budget: float, seeds: int, *, kind: str) -> list[float]:
    """`kind`: harmful (one direction, delta of its own), both (directions), app (weights and delta of the default app)."""
    found = []
    for seed in range(seeds):
        rng = np.random.default_rng((n0, seed))
        own = reference(n0, rng, 0.05 if kind == "app" else own_delta(STREAM))
        layout = layout_of([own])
        found.append(
            delay(Detector(one_direction(layout, up=True) if kind == "harmful" else layout, budget, shared=kind == "app"), rng)
        )
    return found


def run(seeds: int) -> dict[float, float]:
    """Print the delays; the medians at n0 = 5,000 in both directions by budget, for the peers' ratios."""
    ours = {}
    for budget in (1e6, 1e5):
        for n0 in (20_000, 5_000):
            for kind in ("harmful", "both", "app"):
                median, late = quantiles(delays(n0, budget, seeds, kind=kind))
                say(
                    f"feedback.delay.{kind}.n0={n0}.A={budget:g}", median, f"events (median of {seeds}; 90 %: {late:g})", PACKAGES
                )
                if n0 == 5_000 and kind == "both":
                    ours[budget] = median
    return ours


# --- windows against a constant, in this process --------------------------------------------------------------------


def z_score(x0: Ints, n0: int, x: Ints, n: int) -> np.ndarray:
    pooled = np.clip((x0 + x) / (n0 + n), 1e-9, 1 - 1e-9)
    return np.asarray(np.abs(x / n - x0 / n0) / np.sqrt(pooled * (1 - pooled) * (1 / n0 + 1 / n)))


def psi(x0: Ints, n0: int, x: Ints, n: int) -> np.ndarray:
    p, q = np.clip(x0 / n0, 1e-4, 1 - 1e-4), np.clip(x / n, 1e-4, 1 - 1e-4)
    return np.asarray((q - p) * np.log(q / p) + (p - q) * np.log((1 - q) / (1 - p)))


Score = Callable[[Ints, int, Ints, int], np.ndarray]
WINDOWED: Final[dict[str, Score]] = {"z": z_score, "psi": psi}
SIZES: Final = (200, 500, 1_000, 2_000, 5_000)
REFERENCES: Final = 400


def windowed(ours: dict[float, float], n0: int = 5_000) -> None:
    """Each window test with its threshold tuned to the run length, and the size of window that is best in hindsight.

    Tuned twice: so that the rate of false alarms *averaged over references* is 1 / A, and so that it is at most that for 95 %
    of the references, which is what the product promises.
    """
    rng = np.random.default_rng(1)
    x0 = rng.binomial(n0, BEFORE, REFERENCES)
    for name, score in WINDOWED.items():
        for budget in (1e6, 1e5):
            for promise in ("average", "95 % of references"):
                best, at = min((_tuned_delay(score, x0, n0, size, budget, promise), size) for size in SIZES)
                ratio = f"; {best / ours[budget]:.2f} of ours" if ours.get(budget) else ""
                what = f"feedback.delay.peer.{name}.n0={n0}.A={budget:g}.{promise}"
                say(what, best, f"events (median, window {at}{ratio})", PACKAGES)
    for name, score, limit in (("psi > 0.2", psi, 0.2), ("z-test p < .05", z_score, float(norm.isf(0.025)))):
        values = score(x0[:, None], n0, np.arange(501)[None, :], 500) > limit
        false, found = (_seen(values, 500, rate) for rate in (BEFORE, AFTER))
        say(
            f"feedback.false_alarms.untuned {name}", 1e5 / 500 * float(false.mean()), "a 100,000 events, windows of 500", PACKAGES
        )
        say(f"feedback.delay.untuned {name}", median_delay(500, found), "events (median)", PACKAGES)


def _seen(alarms: np.ndarray, size: int, rate: float) -> np.ndarray:
    """By reference (rows of `alarms`, by count), the probability that a window alarms."""
    return np.asarray((alarms * binom.pmf(np.arange(size + 1), size, rate)).sum(axis=1))


def _tuned_delay(score: Score, x0: Ints, n0: int, size: int, budget: float, promise: str) -> float:
    values = score(x0[:, None], n0, np.arange(size + 1)[None, :], size)
    for limit in np.linspace(0, 8.0 if score is z_score else 0.5, 400):
        false = _seen(values > limit, size, BEFORE)
        if (false.mean() if promise == "average" else np.quantile(false, 0.95)) <= size / budget:
            return median_delay(size, _seen(values > limit, size, AFTER))
    return math.inf


def median_delay(size: int, found: np.ndarray) -> float:
    """Median over references of windows until one alarms, each with the probability of its reference."""
    rng = np.random.default_rng(2)
    median = float(np.median(size * rng.geometric(np.clip(found, 1e-12, 1.0))))
    return median if median < NEVER else math.inf
