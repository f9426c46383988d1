"""A candidate against the champion beside it: sequential tests of harm and of non-inferiority that may be looked at after every window.

One outcome per unit of assignment, so the turns of one conversation count once (the caller gives first turns only). Within
a stratum (a window; for feedback a window and the route epoch of the answers) with k failures in all, "no difference" makes
the candidate's k1 of n1 hypergeometric, whatever the base rate, the time of day, and the share of the traffic.

Harm: for odds ratios theta > 1, L += k1 ln theta - ln sum_j hyper(j; n1, n0, k) theta^j; E = mean exp(L) over theta, and over
the rungs of a ladder. Stopping when one of m guardrails has E >= m / alpha stops a harmless candidate with probability at
most alpha, however often one looks (Ville's inequality).

Non-inferiority: the null is an odds ratio of `margin` or worse; noncentral hypergeometric likelihoods against it, mean over
theta below it. A failure so rare that odds cannot be compared passes too: a second likelihood ratio tests "the candidate's
share of failures is `tolerable` or more". The e-value is the mean of the two, so that reaching 1 / alpha has probability at
most alpha where both nulls hold: where the candidate is worse by the margin and not tolerable. On a ladder (latency) every
rung must pass; there a third part, "the champion nearly always exceeds it", passes a rung with nothing left to lose.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from typing import Final, NamedTuple

import msgspec
import numpy as np
import numpy.typing as npt
from scipy.special import gammaln

from core.metrics import GUARDRAILS, METRICS, log_bin, log_bin_floor, split_metric_key
from schemas.messages import WEIGHT_ONE, CanaryRules, Cohort

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

WORSE: Final = np.array((0.1, 0.2, 0.4, 0.8, 1.6))
"""Log odds ratios of harm that are looked for."""
NOT_WORSE: Final = np.log((0.5, 0.7, 0.85, 1.0))
"""Log odds ratios below the margin that are looked for."""
SHARES: Final = np.array((0.0, 0.25, 0.5))
"""Parts of `tolerable` that are looked for."""
UNEVEN: Final = np.concatenate((WORSE, -WORSE))
"""Log odds ratios between the units that a candidate has and those that it should have."""
RUNGS: Final = tuple(range(log_bin(16_384), log_bin(1 << 26) + 1, 2))
"""The latency ladder: an answer fails on a rung when its half-octave bin is this one or a later one, from 16 ms to 67 s by octaves."""
MOST_LOG: Final = 60.0
NEVER: Final = -1e300


class Stratum(NamedTuple):
    """Outcomes that may be compared: failures k of n, candidate (1) and champion (0), on one row of the tests."""

    row: int
    k1: int
    n1: int
    k0: int
    n0: int


class _Rows(NamedTuple):
    """Where the tests of a guardrail stand: one row, or one for each rung."""

    first: int
    number: int


ROWS: Final[Mapping[str, _Rows]] = {
    **{name: _Rows(row, 1) for row, name in enumerate(name for name in GUARDRAILS if name != "latency")},
    "latency": _Rows(len(GUARDRAILS) - 1, len(RUNGS)),
}
ROW_COUNT: Final = sum(rows.number for rows in ROWS.values())
_LADDER: Final = np.arange(ROW_COUNT) >= ROWS["latency"].first


class TrialState(msgspec.Struct):
    """What a trial remembers: by row the log-likelihood ratios, the best evidence so far, and [k1, n1, k0, n0]; for the units
    their log-likelihood ratios and [candidate's, all]."""

    harm: list[list[float]]
    better: list[list[float]]
    rare: list[list[float]]
    common: list[list[float]]
    best: list[float]
    totals: list[list[int]]
    uneven: list[float]
    units: list[int]
    expected: float


@lru_cache(maxsize=4)
def _log_factorials(size: int) -> Floats:
    return np.asarray(gammaln(np.arange(size) + 1.0), dtype=np.float64)


def log_sums(k1: Ints, n1: Ints, k0: Ints, n0: Ints, at: Floats) -> Floats:
    """ln sum_j C(n1, j) C(n0, k - j) exp(j x) for each stratum (rows) and each x of `at` (columns), less what does not depend on x.

    Only differences along a row mean something. Shapes (S,) four times and (X,) give (S, X).
    """
    k = k1 + k0
    low, high = np.maximum(0, k - n0), np.minimum(k, n1)
    width = int((high - low).max()) + 1
    j = low[:, None] + np.arange(width)[None, :]
    inside = j <= high[:, None]
    j = np.where(inside, j, high[:, None])
    size = 1 << int((n1 + n0).max() + 1).bit_length()
    table = _log_factorials(size)
    n1_, n0_, k_ = n1[:, None], n0[:, None], k[:, None]
    weights = -(table[j] + table[n1_ - j] + table[k_ - j] + table[n0_ - k_ + j])
    weights[~inside] = -np.inf
    terms = weights[:, :, None] + j[:, :, None] * at[None, None, :]
    most = terms.max(axis=1)
    return np.asarray(most + np.log(np.exp(terms - most[:, None, :]).sum(axis=1)), dtype=np.float64)


def log_likelihood_ratios(k1: Ints, n1: Ints, k0: Ints, n0: Ints, margin: float) -> tuple[Floats, Floats]:
    """Of each stratum: for each odds ratio exp(WORSE) against 1, and for each exp(NOT_WORSE) against `margin`.

    Four integer arrays of shape (S,) give shapes (S, 5) and (S, 4). One failure among two units, the candidate's own, is
    twice as likely as without a difference where the odds ratio is large:

    >>> one = np.array([1])
    >>> worse, better = log_likelihood_ratios(one, one, 0 * one, one, 1.5)
    >>> bool(np.allclose(np.exp(worse), 2 / (1 + np.exp(-WORSE))))
    True
    >>> [round(float(x), 3) for x in np.exp(better[0])]
    [0.556, 0.686, 0.766, 0.833]
    """
    margin_log = np.array([math.log(margin)])
    sums = log_sums(k1, n1, k0, n0, np.concatenate((np.zeros(1), WORSE, margin_log, NOT_WORSE)))
    worse = k1[:, None] * WORSE - (sums[:, 1:6] - sums[:, :1])
    better = k1[:, None] * (NOT_WORSE - margin_log) - (sums[:, 7:] - sums[:, 6:7])
    return worse, better


def rare_ratios(k: Ints, n: Ints, tolerable: float) -> Floats:
    """Log-likelihood ratios of k failures in n for shares SHARES x tolerable against `tolerable`; shapes (S,) give (S, 3).

    >>> [round(float(x), 2) for x in np.exp(rare_ratios(np.array([0]), np.array([100]), 0.02)[0])]
    [7.54, 4.57, 2.76]
    """
    shares = SHARES * tolerable
    with np.errstate(divide="ignore"):
        failed = np.maximum(np.log(SHARES), NEVER)
    passed = np.log1p(-shares) - math.log1p(-tolerable)
    return np.asarray(np.maximum(k[:, None] * failed + (n - k)[:, None] * passed, NEVER), dtype=np.float64)


def strata(candidate: Sequence[Cohort], champion: Sequence[Cohort]) -> list[Stratum]:
    """One window's strata, from the cohorts of both arms: interactions of all epochs together, feedback by epoch."""
    arms = (_by_stratum(candidate), _by_stratum(champion))
    out: list[Stratum] = []
    for name, key, epoch in sorted(arms[0].keys() | arms[1].keys()):
        one, zero = (arm.get((name, key, epoch), {}) for arm in arms)
        n1, n0 = sum(one.values()), sum(zero.values())
        rows = ROWS[name]
        for row, limit in enumerate(RUNGS if rows.number > 1 else (1,), rows.first):
            out.append(Stratum(row, _at_least(one, limit), n1, _at_least(zero, limit), n0))
    return out


def _by_stratum(cohorts: Iterable[Cohort]) -> dict[tuple[str, str, int], dict[int, int]]:
    by: dict[tuple[str, str, int], dict[int, int]] = {}
    for cohort in cohorts:
        for key, pairs in cohort.bins.items():
            name = split_metric_key(key)[0]
            if name in ROWS:
                epoch = cohort.route_epoch if METRICS[name].of == "feedback" else 0
                counts = by.setdefault((name, key, epoch), {})
                for bin_, count in pairs:
                    counts[bin_] = counts.get(bin_, 0) + count
    return by


def _at_least(counts: Mapping[int, int], limit: int) -> int:
    return sum(count for bin_, count in counts.items() if bin_ >= limit)


class Trial:
    """The evidence of one canary, window after window."""

    def __init__(self, rules: CanaryRules, state: TrialState | None = None) -> None:
        self.rules = rules
        s = state
        self._harm = np.array(s.harm) if s else np.zeros((ROW_COUNT, len(WORSE)))
        self._better = np.array(s.better) if s else np.zeros((ROW_COUNT, len(NOT_WORSE)))
        self._rare = np.array(s.rare) if s else np.zeros((ROW_COUNT, len(SHARES)))
        self._common = np.array(s.common) if s else np.zeros((ROW_COUNT, len(SHARES)))
        self._best = np.array(s.best) if s else np.ones(ROW_COUNT)
        self._totals = np.array(s.totals, dtype=np.int64) if s else np.zeros((ROW_COUNT, 4), dtype=np.int64)
        self._uneven = np.array(s.uneven) if s else np.zeros(len(UNEVEN))
        self._units = list(s.units) if s else [0, 0]
        self._expected = s.expected if s else 0.0

    def state(self) -> TrialState:
        return TrialState(
            harm=self._harm.tolist(),
            better=self._better.tolist(),
            rare=self._rare.tolist(),
            common=self._common.tolist(),
            best=self._best.tolist(),
            totals=self._totals.tolist(),
            uneven=self._uneven.tolist(),
            units=list(self._units),
            expected=self._expected,
        )

    # --- what comes in --------------------------------------------------------------------------------------------

    def add(self, candidate: Sequence[Cohort], champion: Sequence[Cohort]) -> None:
        """Take one window's cohorts of both arms."""
        counted = strata(candidate, champion)
        if not counted:
            return
        row, k1, n1, k0, n0 = (np.array(column, dtype=np.int64) for column in zip(*counted, strict=True))
        k = k1 + k0
        tells = (n1 > 0) & (n0 > 0) & (k > 0) & (k < n1 + n0)
        if tells.any():
            worse, better = log_likelihood_ratios(k1[tells], n1[tells], k0[tells], n0[tells], self.rules.margin)
            np.add.at(self._harm, row[tells], worse)
            np.add.at(self._better, row[tells], better)
        if self.rules.tolerable > 0.0:
            np.add.at(self._rare, row, rare_ratios(k1, n1, self.rules.tolerable))
            np.add.at(self._common, row, rare_ratios(n0 - k0, n0, self.rules.tolerable))
            np.maximum(self._rare, NEVER, out=self._rare)
            np.maximum(self._common, NEVER, out=self._common)
        np.add.at(self._totals, row, np.stack((k1, n1, k0, n0), axis=1))
        np.maximum(self._best, self._not_worse(), out=self._best)

    def add_units(self, candidate: int, champion: int, weight: int) -> None:
        """Take one window's units of assignment under a table that gives the candidate `weight` ten-thousandths."""
        share = weight / WEIGHT_ONE
        if not 0.0 < share < 1.0:
            return
        logit = math.log(share) - math.log1p(-share)
        q = 1.0 / (1.0 + np.exp(-(logit + UNEVEN)))
        self._uneven += candidate * np.log(q / share) + champion * np.log((1.0 - q) / (1.0 - share))
        self._units = [self._units[0] + candidate, self._units[1] + candidate + champion]
        self._expected += (candidate + champion) * share

    # --- what it says ---------------------------------------------------------------------------------------------

    def harm(self, guardrail: str) -> float:
        """The e-value against "the candidate is not worse on this guardrail"."""
        first, count = ROWS[guardrail]
        return float(_mean_exp(self._harm[first : first + count]).mean())

    @property
    def harm_limit(self) -> float:
        """From this e-value on a candidate is harmful."""
        return len(ROWS) / self.rules.alpha

    def harmful(self) -> list[str]:
        """Guardrails on which the candidate is shown to be worse, the clearest first."""
        values = {name: self.harm(name) for name in ROWS}
        return sorted((n for n, e in values.items() if e >= self.harm_limit), key=lambda name: (-values[name], name))

    def non_inferiority(self, guardrail: str) -> float:
        """The best e-value so far against "worse by the margin, and not tolerable"; of a ladder the least of its rungs."""
        first, count = ROWS[guardrail]
        return float(self._best[first : first + count].min())

    def unproven(self) -> list[str]:
        """Guardrails on which it is not shown yet that the candidate is not worse; without data that is all of them."""
        return [name for name in ROWS if self.non_inferiority(name) < 1.0 / self.rules.alpha]

    def figures(self, guardrail: str) -> str:
        """Both arms' failures in one sentence; of a ladder on the highest rung with most harm, else where half of them fail."""
        first, count = ROWS[guardrail]
        row = first + self._telling_rung(first, count)
        k1, n1, k0, n0 = self._totals[row].tolist()
        if n1 == 0 or n0 == 0:
            return f"{guardrail}: no data to compare ({n1} from the candidate, {n0} from the champion)"
        name = guardrail if count == 1 else f"{guardrail} from {log_bin_floor(RUNGS[row - first]) / 1e6:.3g} s on"
        return f"{name}: {k1} of {n1} ({100 * k1 / n1:.3g} %) against the champion's {k0} of {n0} ({100 * k0 / n0:.3g} %)"

    def uneven(self) -> str | None:
        """A warning where the candidate has more or fewer units than its weight says."""
        if float(_mean_exp(self._uneven)) < 1.0 / self.rules.alpha:
            return None
        candidate, units = self._units
        return (
            f"warning: the candidate has {candidate} of {units} units where its weights make {self._expected:.0f}; "
            "units may be lost or assigned elsewhere"
        )

    def _telling_rung(self, first: int, count: int) -> int:
        harm = _mean_exp(self._harm[first : first + count])
        if harm.max() > 1.0:
            return count - 1 - int(np.argmax(harm[::-1]))
        k1, n1, k0, n0 = self._totals[first : first + count].T
        return int(np.argmax(2 * (k1 + k0) <= n1 + n0))

    def _not_worse(self) -> Floats:
        better = _mean_exp(self._better)
        if self.rules.tolerable <= 0.0:
            return better
        rare, common = _mean_exp(self._rare), _mean_exp(self._common)
        return np.where(_LADDER, (better + rare + common) / 3.0, (better + rare) / 2.0)


def _mean_exp(logs: Floats) -> Floats:
    return np.asarray(np.exp(np.clip(logs, -700.0, MOST_LOG)).mean(axis=-1), dtype=np.float64)
