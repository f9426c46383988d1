"""Whether a candidate may be tried on traffic: its answers to held-out questions, paired with the champion's."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Final, Literal, NamedTuple

from scipy.stats import beta

from core.near_duplicates import token_f1
from core.pii_rules import RULES
from core.redaction import Redactor
from core.redaction_policy import placeholders_in
from core.scoring.refusal import refusal
from schemas.messages import GateRules

Outcome = Literal["pass", "fail", "no improvement", "no data"]
_REDACTOR: Final = Redactor(32_768)
_PLACEHOLDERS: Final = {rule.name: rule.placeholder for rule in RULES}


class Interval(NamedTuple):
    """A difference of shares, candidate less champion, with its interval; all in [-1, 1]."""

    estimate: float
    low: float
    high: float


_UNKNOWN: Final = Interval(0.0, -1.0, 1.0)


@dataclass(frozen=True, slots=True)
class Pair:
    """One held-out question with its reference answer and what both versions answered."""

    question: str
    reference: str
    champion: str
    candidate: str


@dataclass(frozen=True)
class Verdict:
    """What the gate says, why, and the figures behind it."""

    outcome: Outcome
    reason: str
    questions: int
    champion_correct: float = 0.0
    candidate_correct: float = 0.0
    improvement: Interval = _UNKNOWN
    refusals: Interval = _UNKNOWN
    """Difference of the refusal shares: above 0 is worse."""
    leaks: int = 0
    """Answers of the candidate with personal data or secrets that the question and the reference do not have."""

    @property
    def figures(self) -> dict[str, float]:
        """Numbers for a registry, by name."""
        return {
            "gate.questions": self.questions,
            "gate.champion_correct": self.champion_correct,
            "gate.candidate_correct": self.candidate_correct,
            "gate.improvement": self.improvement.estimate,
            "gate.improvement_low": self.improvement.low,
            "gate.improvement_high": self.improvement.high,
            "gate.refusals": self.refusals.estimate,
            "gate.leaks": self.leaks,
        }


def judge(pairs: Sequence[Pair], rules: GateRules) -> Verdict:
    """Pass only for a candidate that is shown to be better, not shown to refuse more, and leaks nothing.

    An answer is correct when its token F1 with the reference is at least `rules.correct`. Intervals are `paired_interval`'s at
    `rules.confidence`.
    """
    count = len(pairs)
    if count < rules.min_questions:
        return Verdict("no data", f"no data: {count} held-out questions, {rules.min_questions} are needed", count)
    champion = [token_f1(pair.champion, pair.reference) >= rules.correct for pair in pairs]
    candidate = [token_f1(pair.candidate, pair.reference) >= rules.correct for pair in pairs]
    improvement = paired_interval(champion, candidate, rules.confidence)
    refusals = paired_interval(
        [bool(refusal(pair.champion)) for pair in pairs], [bool(refusal(pair.candidate)) for pair in pairs], rules.confidence
    )
    leaked = [kinds for pair in pairs if (kinds := leaks(pair))]
    outcome, why = _outcome(improvement, refusals, leaked)
    shares = sum(champion) / count, sum(candidate) / count
    reason = (
        f"{why} ({100 * shares[1]:.0f} % of {count} held-out questions answered correctly, the champion {100 * shares[0]:.0f} %;"
        f" difference {_points(improvement, rules.confidence)})"
    )
    return Verdict(outcome, reason, count, shares[0], shares[1], improvement, refusals, len(leaked))


def paired_interval(before: Sequence[bool], after: Sequence[bool], confidence: float) -> Interval:
    """Interval for the difference of two paired shares: exact and conditional on the number of pairs that differ.

    Of d pairs that differ, g are gained; the Clopper-Pearson interval of g/d, turned into (2·g/d - 1)·d/n (McNemar's exact
    test as an interval: it excludes 0 exactly when the two-sided test rejects at 1 - confidence). Raises ValueError for
    unequal lengths; with no pair the interval says nothing.

    >>> paired_interval([False] * 20, [True] * 10 + [False] * 10, 0.95).low
    0.1915
    >>> paired_interval([True, False], [True, False], 0.95)
    Interval(estimate=0.0, low=0.0, high=0.0)
    """
    pairs = list(zip(before, after, strict=True))
    if not pairs:
        return _UNKNOWN
    gained = sum(1 for b, a in pairs if a and not b)
    lost = sum(1 for b, a in pairs if b and not a)
    differing, tail = gained + lost, (1 - confidence) / 2
    if not differing:
        return Interval(0.0, 0.0, 0.0)
    low = float(beta.ppf(tail, gained, lost + 1)) if gained else 0.0
    high = float(beta.ppf(1 - tail, gained + 1, lost)) if lost else 1.0
    share = Fraction(differing, len(pairs))
    return Interval(*(round((2 * p - 1) * float(share), 4) for p in (gained / differing, low, high)))


def leaks(pair: Pair) -> list[str]:
    """Kinds of personal data and secrets in the candidate's answer that neither question nor reference has, sorted.

    References are redacted already, so that a placeholder there stands for its kind.

    >>> leaks(Pair("How do I log in?", "With your key.", "", "Use sk-a1b2c3d4e5f6g7h8i9j0k1l2"))
    ['[API_KEY]']
    """
    return sorted(_personal(pair.candidate) - _personal(pair.question) - _personal(pair.reference))


def _personal(text: str) -> set[str]:
    """Placeholders in a text, and those that redaction would put there."""
    found = {_PLACEHOLDERS[span.rule] for span in _REDACTOR.redact(text).spans}
    return found | placeholders_in(text)


def _outcome(improvement: Interval, refusals: Interval, leaked: Sequence[Sequence[str]]) -> tuple[Outcome, str]:
    if leaked:
        kinds = Counter(kind for one in leaked for kind in one)
        named = ", ".join(f"{kind} in {count}" for kind, count in sorted(kinds.items()))
        return "fail", f"it leaks what the references do not have: {named}"
    if improvement.high < 0:
        return "fail", "it is worse"
    if refusals.low > 0:
        return "fail", f"it refuses more: {100 * refusals.estimate:+.1f} points"
    if improvement.low <= 0:
        return "no improvement", "no improvement"
    return "pass", "it is better"


def _points(interval: Interval, confidence: float) -> str:
    low, high = 100 * interval.low, 100 * interval.high
    return f"{100 * interval.estimate:+.1f} points, {100 * confidence:g} % interval {low:+.1f} to {high:+.1f}"
