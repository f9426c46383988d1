"""The canary's tests: what they promise, by simulation, and what they say without data."""

from collections.abc import Sequence

import msgspec
import numpy as np
import numpy.typing as npt
import pytest
from scipy.stats import binom, hypergeom, nchypergeom_fisher, norm

from core.canary import NOT_WORSE, ROWS, WORSE, Trial, TrialState, log_likelihood_ratios, rare_ratios
from core.metrics import GUARDRAILS, log_bin
from schemas.messages import CanaryRules, Cohort

Ints = npt.NDArray[np.int64]
ALPHA = 0.01
CANARIES = 2_000
MOST = int(binom.ppf(0.999, CANARIES, ALPHA))
"""So many of them are stopped with probability 0.999 or more, where each is with probability ALPHA."""


def cohort(
    n: int,
    *,
    refused: int = 0,
    failed: int = 0,
    acts: int = 0,
    down: int = 0,
    latency: Sequence[float] = (0.2,),
    version: str = "v2",
    epoch: int = 7,
) -> Cohort:
    """n units; their latencies (s) go round."""

    def rate(k: int, of: int) -> list[tuple[int, int]]:
        return [(bin_, count) for bin_, count in ((0, of - k), (1, k)) if count]

    waited, counts = np.unique([log_bin(int(1e6 * latency[i % len(latency)])) for i in range(n)], return_counts=True)
    bins = {
        "error@1": rate(failed, n),
        "latency@1": [(int(b), int(c)) for b, c in zip(waited, counts, strict=True)],
        "refusal@1": rate(refused, n),
        "thumbs.down@1": rate(down, acts),
    }
    return Cohort(
        app="desk",
        environment="production",
        version=version,
        route_epoch=epoch,
        n=n,
        acts=acts,
        bins={key: pairs for key, pairs in bins.items() if pairs},
    )


def rules(**changes: object) -> CanaryRules:
    return msgspec.structs.replace(CanaryRules(alpha=ALPHA), **changes)


def trial(windows: int, candidate: Cohort, champion: Cohort, **changes: object) -> Trial:
    it = Trial(rules(**changes))
    for _ in range(windows):
        it.add([candidate], [champion])
    return it


# --- the likelihoods ------------------------------------------------------------------------------------------------


def test_the_ratios_are_those_of_the_hypergeometric_distributions() -> None:
    k1, n1, k0, n0, margin = 4, 30, 3, 70, 1.5
    worse, better = log_likelihood_ratios(np.array([k1]), np.array([n1]), np.array([k0]), np.array([n0]), margin)
    support = np.arange(0, k1 + k0 + 1)
    for at, theta in enumerate(np.exp(WORSE)):
        mean = (hypergeom.pmf(support, n1 + n0, k1 + k0, n1) * theta**support).sum()
        assert worse[0, at] == pytest.approx(k1 * np.log(theta) - np.log(mean))
    for at, theta in enumerate(np.exp(NOT_WORSE)):
        expected = nchypergeom_fisher.logpmf(k1, n1 + n0, k1 + k0, n1, theta) - nchypergeom_fisher.logpmf(
            k1, n1 + n0, k1 + k0, n1, margin
        )
        assert better[0, at] == pytest.approx(expected)


def test_many_strata_at_once_are_the_same_as_one_by_one() -> None:
    rng = np.random.default_rng(1)
    n1, n0 = rng.integers(1, 60, 50), rng.integers(1, 200, 50)
    k1, k0 = rng.binomial(n1, 0.3), rng.binomial(n0, 0.3)
    together = np.hstack(log_likelihood_ratios(k1, n1, k0, n0, 2.0))
    alone = [np.hstack(log_likelihood_ratios(k1[i : i + 1], n1[i : i + 1], k0[i : i + 1], n0[i : i + 1], 2.0)) for i in range(50)]
    assert np.allclose(together, np.vstack(alone))


def test_an_e_value_is_one_on_average_without_a_difference() -> None:
    n1, n0, k = 20, 60, 9
    k1 = np.arange(0, k + 1)
    same = np.ones_like(k1)
    worse, _ = log_likelihood_ratios(k1, n1 * same, k - k1, n0 * same, 1.5)
    assert np.allclose(hypergeom.pmf(k1, n1 + n0, k, n1) @ np.exp(worse), 1.0)


def test_an_e_value_is_one_on_average_at_the_margin() -> None:
    n1, n0, k, margin = 20, 60, 9, 1.5
    k1 = np.arange(0, k + 1)
    same = np.ones_like(k1)
    _, better = log_likelihood_ratios(k1, n1 * same, k - k1, n0 * same, margin)
    assert np.allclose(nchypergeom_fisher.pmf(k1, n1 + n0, k, n1, margin) @ np.exp(better), 1.0)


def test_an_e_value_is_at_most_one_on_average_where_failures_are_just_tolerable() -> None:
    k = np.arange(0, 51)
    logs = rare_ratios(k, np.full_like(k, 50), 0.02)
    assert np.allclose(binom.pmf(k, 50, 0.02) @ np.exp(logs), 1.0)


# --- by simulation --------------------------------------------------------------------------------------------------


def conversations(rng: np.random.Generator, share: float, base: float, harm: float = 0.0) -> tuple[Ints, Ints, Ints, Ints]:
    """One window of each of CANARIES canaries, 40 conversations of 1 to 10 turns (mean 5.5) that fail together: failures and
    turns by canary, turn (columns) and arm, as k1, n1, k0, n0. Within a conversation the correlation is about 0.3."""
    size = (CANARIES, 40)
    arm = rng.random(size) < share
    turns = rng.integers(1, 11, size)
    rate = np.where(arm, base + harm, base)
    shape = rate * (1 / 0.3 - 1), (1 - rate) * (1 / 0.3 - 1)
    fails = rng.random((*size, 10)) < rng.beta(*shape)[:, :, None]
    there = np.arange(10) < turns[:, :, None]
    own = arm[:, :, None] & there
    other = ~arm[:, :, None] & there
    return (fails & own).sum(1), own.sum(1), (fails & other).sum(1), other.sum(1)


def stopped(
    rng: np.random.Generator, windows: int, *, harm: float = 0.0, all_turns: bool = False, base: float = 0.1
) -> npt.NDArray[np.bool_]:
    """Which canaries of one guardrail were ever stopped for harm."""
    logs = np.zeros((CANARIES, len(WORSE)))
    ever = np.zeros(CANARIES, dtype=bool)
    for _ in range(windows):
        k1, n1, k0, n0 = (a.sum(1) if all_turns else a[:, 0] for a in conversations(rng, 0.25, base, harm))
        logs += log_likelihood_ratios(k1, n1, k0, n0, 1.5)[0]
        ever |= np.exp(logs).mean(1) >= 1 / ALPHA
    return ever


def test_harmless_candidates_are_stopped_as_seldom_as_promised_whatever_the_conversations() -> None:
    assert stopped(np.random.default_rng(2), 50).sum() <= MOST


def test_counting_every_turn_would_break_the_promise() -> None:
    assert stopped(np.random.default_rng(2), 50, all_turns=True).sum() > 3 * MOST


def test_peeking_with_a_fixed_sample_test_stops_harmless_candidates_several_times_as_often() -> None:
    rng = np.random.default_rng(3)
    totals = np.zeros((4, CANARIES), dtype=np.int64)
    peeked = np.zeros(CANARIES, dtype=bool)
    for _ in range(50):
        totals += np.stack([a[:, 0] for a in conversations(rng, 0.25, 0.1)])
        k1, n1, k0, n0 = totals
        pooled = (k1 + k0) / (n1 + n0)
        spread = np.sqrt(np.maximum(pooled * (1 - pooled) * (1 / n1 + 1 / n0), 1e-12))
        peeked |= (k1 / n1 - k0 / n0) / spread >= norm.isf(ALPHA)
    assert peeked.sum() > 3 * max(stopped(np.random.default_rng(3), 50).sum(), CANARIES * ALPHA)


def test_a_candidate_two_points_worse_is_stopped_within_the_day() -> None:
    """3 % against 5 %, 10 % of 100,000 units a day, all four guardrails: the threshold is four times as high."""
    rng = np.random.default_rng(4)
    n1, n0 = 125, 1_125  # of 80 windows a day, so that the simulation is short; the evidence is the same
    logs = np.zeros((200, len(WORSE)))
    ever = np.zeros(200, dtype=bool)
    for _ in range(80):
        k1, k0 = rng.binomial(n1, 0.05, 200), rng.binomial(n0, 0.03, 200)
        logs += log_likelihood_ratios(k1, np.full(200, n1), k0, np.full(200, n0), 1.5)[0]
        ever |= np.exp(logs).mean(1) >= len(GUARDRAILS) / ALPHA
    assert ever.mean() > 0.95


def test_a_candidate_at_the_margin_is_passed_as_seldom_as_promised() -> None:
    rng = np.random.default_rng(5)
    base, margin = 0.05, 1.5
    odds = margin * base / (1 - base)
    better, rare = np.zeros((CANARIES, len(NOT_WORSE))), np.zeros((CANARIES, 3))
    ever = np.zeros(CANARIES, dtype=bool)
    n1, n0 = np.full(CANARIES, 100), np.full(CANARIES, 100)
    for _ in range(100):
        k1, k0 = rng.binomial(n1, odds / (1 + odds)), rng.binomial(n0, base)
        better += log_likelihood_ratios(k1, n1, k0, n0, margin)[1]
        rare += rare_ratios(k1, n1, odds / (1 + odds))
        ever |= (np.exp(better).mean(1) + np.exp(rare).mean(1)) / 2 >= 1 / ALPHA
    assert ever.sum() <= MOST


# --- one trial ------------------------------------------------------------------------------------------------------


def test_an_equal_candidate_with_enough_traffic_passes_every_guardrail() -> None:
    waits = (0.05, 0.2, 0.4, 0.7, 0.9, 1.5, 2.0, 3.0, 6.0, 11.0)
    equal = {"refused": 10, "failed": 10, "acts": 50, "down": 15, "latency": waits}
    it = trial(80, cohort(100, **equal), cohort(100, version="v1", **equal))  # type: ignore[arg-type]  # one for each argument
    assert (it.harmful(), it.unproven()) == ([], [])


def test_failures_below_what_is_tolerable_pass_without_a_comparison() -> None:
    it = trial(40, cohort(100, acts=100), cohort(100, acts=100, version="v1"))
    assert it.unproven() == []


def test_without_a_tolerable_share_what_never_fails_is_never_compared() -> None:
    it = trial(40, cohort(100, acts=100), cohort(100, acts=100, version="v1"), tolerable=0.0)
    assert it.unproven() == list(ROWS)


def test_low_traffic_is_no_evidence() -> None:
    it = trial(5, cohort(3, acts=1), cohort(20, acts=3, version="v1"))
    assert (it.harmful(), it.unproven()) == ([], list(ROWS))


def test_a_trial_without_any_data_passes_nothing_and_says_so() -> None:
    it = Trial(rules())
    assert (it.harmful(), it.unproven()) == ([], list(ROWS))
    assert it.figures("thumbs.down") == "thumbs.down: no data to compare (0 from the candidate, 0 from the champion)"


@pytest.mark.parametrize(
    ("guardrail", "worse"),
    [("refusal", {"refused": 20}), ("error", {"failed": 20}), ("thumbs.down", {"down": 30}), ("latency", {"latency": (2.0,)})],
)
def test_harm_is_found_on_each_guardrail_and_on_no_other(guardrail: str, worse: dict[str, object]) -> None:
    usual: dict[str, object] = {"refused": 2, "failed": 2, "acts": 40, "down": 4}
    it = trial(10, cohort(100, **(usual | worse)), cohort(100, version="v1", **usual))  # type: ignore[arg-type]  # one for each argument
    assert it.harmful() == [guardrail]
    assert guardrail in it.unproven()


def test_the_figures_of_a_latency_name_the_rung_on_which_it_is_worse() -> None:
    it = trial(10, cohort(100, latency=(0.2, 9.0)), cohort(100, version="v1"))
    assert it.figures("latency") == "latency from 8.39 s on: 500 of 1000 (50 %) against the champion's 0 of 1000 (0 %)"


def test_the_figures_of_an_equal_latency_name_the_rung_that_half_of_them_reach() -> None:
    it = trial(10, cohort(100, latency=(0.2, 9.0)), cohort(100, version="v1", latency=(0.2, 9.0)))
    assert it.figures("latency").startswith("latency from 0.262 s on: 500 of 1000 (50 %)")


def test_a_slow_tail_behind_an_equal_median_is_not_passed() -> None:
    waits = [0.2] * 19 + [30.0]
    it = trial(80, cohort(100, acts=100, latency=waits), cohort(100, acts=100, version="v1"))
    assert it.unproven() == ["latency"]


def test_feedback_is_compared_within_the_epoch_of_the_answer() -> None:
    """The candidate is young: all its acts are of a time when everybody complained."""
    candidate = [cohort(100, acts=50, down=40, epoch=8)]
    champion = [
        cohort(100, version="v1", acts=50, down=40, epoch=8),
        cohort(100, version="v1", acts=450, down=10, epoch=7),
    ]
    apart, together = Trial(rules()), Trial(rules())
    for _ in range(10):
        apart.add(candidate, champion)
        together.add(candidate, [msgspec.structs.replace(c, route_epoch=8) for c in champion])
    assert (apart.harmful(), together.harmful()) == ([], ["thumbs.down"])


def test_units_that_are_missing_on_one_arm_are_a_warning() -> None:
    even, odd = Trial(rules()), Trial(rules())
    for _ in range(40):
        even.add_units(10, 90, 1_000)
        odd.add_units(5, 90, 1_000)
    assert even.uneven() is None
    assert (odd.uneven() or "").startswith("warning: the candidate has 200 of 3800 units where its weights make 380")


def test_a_trial_that_was_written_out_goes_on_as_if_it_had_never_stopped() -> None:
    rng = np.random.default_rng(6)
    whole, parts = Trial(rules()), Trial(rules())
    for _ in range(20):
        k1, k0 = int(rng.binomial(50, 0.1)), int(rng.binomial(200, 0.1))
        windows = [cohort(50, refused=k1, acts=5, down=1)], [cohort(200, refused=k0, acts=20, down=4, version="v1")]
        whole.add(*windows)
        parts.add(*windows)
        for it in (whole, parts):
            it.add_units(50, 200, 2_000)
        parts = Trial(rules(), msgspec.json.decode(msgspec.json.encode(parts.state()), type=TrialState))
    assert parts.state() == whole.state()
