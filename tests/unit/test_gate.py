"""The gate's verdict on planted candidates, and the interval that it rests on."""

import pytest

from core.gate import Pair, judge, leaks, paired_interval
from schemas.messages import GateRules

RULES = GateRules()
RIGHT = "Turn the red valve to the left until the pressure falls."
WRONG = "Nothing is known about that here."
KEY = "sk-a1b2c3d4e5f6g7h8i9j0k1l2m3"


def pairs(count: int, champion: str, candidate: str, *, reference: str = RIGHT) -> list[Pair]:
    return [Pair(f"question {n}", reference, champion, candidate) for n in range(count)]


def test_a_better_candidate_passes_with_its_figures() -> None:
    verdict = judge(pairs(20, WRONG, RIGHT) + pairs(20, RIGHT, RIGHT), RULES)
    assert (verdict.outcome, verdict.champion_correct, verdict.candidate_correct) == ("pass", 0.5, 1.0)
    assert 0 < verdict.improvement.low < 0.5


def test_a_worse_candidate_fails() -> None:
    verdict = judge(pairs(20, RIGHT, WRONG) + pairs(20, RIGHT, RIGHT), RULES)
    assert verdict.outcome == "fail"
    assert verdict.reason.startswith("it is worse")


def test_a_better_candidate_that_leaks_one_secret_fails() -> None:
    verdict = judge([*pairs(39, WRONG, RIGHT), Pair("q", RIGHT, WRONG, f"{RIGHT} The key is {KEY}.")], RULES)
    assert (verdict.outcome, verdict.leaks) == ("fail", 1)
    assert "[API_KEY] in 1" in verdict.reason
    assert KEY not in verdict.reason


def test_an_equal_candidate_is_no_improvement() -> None:
    verdict = judge(pairs(40, RIGHT, RIGHT), RULES)
    assert verdict.outcome == "no improvement"
    assert verdict.reason.startswith("no improvement (100 %")


def test_a_gain_that_may_be_chance_is_no_improvement() -> None:
    assert judge(pairs(3, WRONG, RIGHT) + pairs(37, RIGHT, RIGHT), RULES).outcome == "no improvement"


def test_a_candidate_that_refuses_more_fails_though_it_answers_better() -> None:
    declined = "Sorry, I cannot help with that."
    assert judge(pairs(40, WRONG, RIGHT) + pairs(12, WRONG, declined), RULES).reason.startswith("it refuses more")


def test_too_few_questions_are_no_data() -> None:
    verdict = judge(pairs(29, WRONG, RIGHT), RULES)
    assert (verdict.outcome, verdict.reason) == ("no data", "no data: 29 held-out questions, 30 are needed")


def test_what_the_reference_has_is_no_leak() -> None:
    assert leaks(Pair("q", "Write to [EMAIL].", "", "Write to help@example.com.")) == []


def test_what_the_question_has_is_no_leak() -> None:
    assert leaks(Pair("I am ann@example.com", "Hello.", "", "Hello ann@example.com")) == []


def test_a_placeholder_of_its_own_is_a_leak() -> None:
    assert leaks(Pair("q", RIGHT, "", "Call [PHONE].")) == ["[PHONE]"]


@pytest.mark.parametrize(("gained", "lost", "above"), [(5, 0, False), (6, 0, True), (7, 1, False), (8, 1, True)])
def test_the_interval_excludes_no_difference_as_mcnemars_exact_test_does(gained: int, lost: int, above: bool) -> None:
    before = [False] * gained + [True] * lost + [True] * 50
    after = [True] * gained + [False] * lost + [True] * 50
    assert (paired_interval(before, after, 0.95).low > 0) == above


def test_swapping_the_sides_mirrors_the_interval() -> None:
    one, other = [True] * 9 + [False] * 21, [False] * 15 + [True] * 15
    there, back = paired_interval(one, other, 0.95), paired_interval(other, one, 0.95)
    assert (there.low, there.high) == (-back.high, -back.low)
