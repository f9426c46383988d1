"""How likely it is that a response, as a whole, declines to answer: phrasings weighed by where they stand.

A refusal in the beginning counts most; one further behind, or one that is followed by help, counts less. The points are
a logistic regression's on labelled answers, rounded by hand. The learned head adds its log-odds within bounds: it knows
more phrasings, but of fewer kinds of answers. A refusal of a prompt in which the safety heads see no harm is an over-refusal.
"""

from collections.abc import Mapping
from functools import cache
from math import exp, log
from typing import Final

import re2

from core.metrics import FIRES
from core.scoring.batch import Batch, Scorer, Scores, unfired
from core.scoring.refusal_rules import COMPLIANCE, REFUSALS, WARNINGS
from core.scoring.safety import covered, judged
from schemas.messages import FIXED_ONE, Reason, Score

VERSION: Final = 2
BY: Final = f"refusal@{VERSION}"
UNFIRED: Final = unfired("refusal", VERSION)
HEAD: Final = "refusal"

READ: Final = 1_500
"""Characters of the response that are read …"""
BEGINNING: Final = 320
"""… of which so many are its beginning."""
_OVERLAP: Final = 60
"""Characters of the beginning that are read again with the rest, for phrasings across its end."""
_SHORT: Final = 120
_LONG: Final = 600
_MAX_REASONS: Final = 8

WEAK: Final = frozenset(("not_support", "policy", "as_an_ai"))
"""Refusals of a kind that also stands in answers."""
_TELLING: Final = frozenset(("unlawful", "advise_against", "emphasise", "chinese_warning"))
"""Warnings that may say no without a word of refusal."""

# Points are eighths of a unit of log-odds.
_BIAS: Final = -18
_IN_BEGINNING: Final[Mapping[str, int]] = {
    "strong": 15, "second": 8, "weak": 9, "emphasise": 9, "advise_against": 9, "unlawful": 8, "important": 6, "other_questions": 5,
    "chinese_warning": 12, "first_step": -12, "quoted": -32, "persona": -7, "mode": -6, "method": -4, "steps": -4, "but_can": -3,
}  # fmt: skip
_BEHIND: Final[Mapping[str, int]] = {
    "strong": 7, "again": -3, "other_questions": 10, "important": 9, "seek": 5, "chinese_warning": 2, "advise_against": -2, "unlawful": -3,
    "emphasise": -7, "method": -9, "steps": -7, "disclaimer": -5, "oh": -4, "but_can": -4, "mode": -3, "persona": -2, "first_step": -2,
}  # fmt: skip
_SHORT_REFUSAL: Final = 23
_SHORT_WARNING: Final = -19
_LONG_TEXT: Final = -4
_HEAD_LEAST: Final = -12
_HEAD_MOST: Final = 20
_HARMLESS: Final = FIXED_ONE // 4
"""A prompt whose harm is below it, and which is no attack, asks for nothing that should be refused."""
_UNSAFE_COLUMNS: Final = slice(-2, None)


def _options() -> re2.Options:
    options = re2.Options()
    options.case_sensitive = False
    options.log_errors = False
    options.max_mem = 64 << 20
    return options


def _set(patterns: Mapping[str, str]) -> re2.Set:
    found = re2.Set.SearchSet(_options())
    for pattern in patterns.values():
        found.Add(pattern)
    found.Compile()
    return found


_TRIGGERS: Final = {**REFUSALS, **{name: pattern for name, pattern in WARNINGS.items() if name in _TELLING}}
_TRIGGER_SET: Final = _set(_TRIGGERS)
_ALL: Final = {**REFUSALS, **WARNINGS, **COMPLIANCE}
_NAMES: Final = tuple(_ALL)
_ALL_SET: Final = _set(_ALL)
_PATTERNS: Final = {name: re2.compile(pattern, _options()) for name, pattern in _TRIGGERS.items()}


def points(text: str) -> tuple[int, list[Reason]]:
    """Log-odds of a refusal in eighths, and the phrasings behind it; (_BIAS, []) for a text without any.

    >>> points("I'm sorry, but I can't help with that.")[0] > 0 > points("Open the settings page.")[0]
    True
    """
    text = text[:READ].replace("’", "'")
    if not _TRIGGER_SET.Match(text):
        return _BIAS, []
    start = {_NAMES[number] for number in _ALL_SET.Match(text[:BEGINNING]) or ()}
    behind = text[BEGINNING - _OVERLAP :] if len(text) > BEGINNING else ""
    rest = {_NAMES[number] for number in _ALL_SET.Match(behind) or ()} if behind else set()
    total = _BIAS + _beginning(start, len(text)) + _behind(start, rest)
    return total, _reasons(text, start, rest)


def refusal(text: str) -> list[Reason]:
    """The phrasings by which a text declines, by them alone; empty for one that does not."""
    total, reasons = points(text)
    return reasons if total >= 0 else []


def _beginning(found: set[str], length: int) -> int:
    refusals = found & REFUSALS.keys()
    strong = len(refusals - WEAK)
    names = found | {"strong"} if strong else set(found)
    if strong > 1:
        names.add("second")
    if refusals & WEAK:
        names.add("weak")
    total = sum(_IN_BEGINNING.get(name, 0) for name in names)
    if length < _SHORT:
        total += _SHORT_REFUSAL if refusals else _SHORT_WARNING * (len(found & _TELLING) < 2)
    elif length > _LONG:
        total += _LONG_TEXT
    return total


def _behind(start: set[str], found: set[str]) -> int:
    refusals = found & REFUSALS.keys()
    names = found | {"strong"} if refusals - WEAK else set(found)
    if refusals and start & REFUSALS.keys():
        names.add("again")
    return sum(_BEHIND.get(name, 0) for name in names)


def _reasons(text: str, start: set[str], rest: set[str]) -> list[Reason]:
    """Where the refusals stand; where there is none, the warnings."""
    found = start | rest
    wanted = [name for name in REFUSALS if name in found] or [name for name in _TRIGGERS if name in found]
    reasons = []
    for name in wanted[:_MAX_REASONS]:
        match = _PATTERNS[name].search(text)
        if match is not None:
            reasons.append(Reason(rule=name, start=match.start(), end=match.end()))
    return reasons


@cache
def value(total: int) -> int:
    """The probability of so many points, in fixed point.

    >>> [value(0) * 2 // FIXED_ONE, value(-800), value(800) == FIXED_ONE]
    [1, 0, True]
    """
    return round(FIXED_ONE / (1.0 + exp(-max(min(total, 800), -800) / 8)))


@cache
def head_points(probability: int) -> int:
    """What the head's probability (fixed point) adds.

    >>> head_points(0), head_points(FIXED_ONE // 2), head_points(FIXED_ONE)
    (-12, 0, 20)
    """
    odds = (probability + 0.5) / (FIXED_ONE - probability + 0.5)
    return max(_HEAD_LEAST, min(round(8 * log(odds)), _HEAD_MOST))


@cache
def _shared(total: int) -> Score:
    return Score(scorer=BY, value=value(total))


def score(batch: Batch) -> list[Scores]:
    """The probabilities; where one fires, with the phrasings, else with what the head saw."""
    heads = batch.heads.values(batch.response_logits)[:, batch.heads.column(HEAD)].tolist()
    results: list[Scores] = []
    for number, (reading, head) in enumerate(zip(batch.readings, heads, strict=True)):
        if reading.response is None:
            results.append({})
            continue
        text = reading.response.text
        by_rules, reasons = points(text)
        total = by_rules + head_points(head)
        if total < 0:
            scores: Scores = {"refusal": _shared(total)}
            if reading.prompt is not None:
                scores["response.over_refusal"] = UNFIRED
        else:
            refused = Score(scorer=BY, value=value(total), reasons=reasons or batch.heads.reasons(text, (HEAD,), "response"))
            scores = {"refusal": refused}
            over = _over_refusal(batch, number, refused) if reading.prompt is not None else None
            if over is not None:
                scores["response.over_refusal"] = over
        results.append(scores)
    return results


def _over_refusal(batch: Batch, number: int, refused: Score) -> Score | None:
    """None where the safety heads do not know the prompt's language."""
    if not covered(batch.prompt_languages[number], batch.heads):
        return None
    unsafe, attack = judged(batch.prompt_logits[number : number + 1], batch.heads, "prompt")[0, _UNSAFE_COLUMNS].tolist()
    both = refused.value * (FIXED_ONE - unsafe) // FIXED_ONE
    if unsafe >= _HARMLESS or attack >= FIRES or both < FIRES:
        return Score(scorer=BY, value=min(both, FIRES - 1))
    return Score(scorer=BY, value=both, reasons=[Reason(rule="harmless_prompt", text="prompt"), *refused.reasons])


SCORER: Final = Scorer("refusal", VERSION, {"refusal": "response", "response.over_refusal": "response"}, score)
