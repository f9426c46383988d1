"""Which apps are to be fitted, to which prompts, and under which version."""

import msgspec

from core.cells import with_cells
from core.fitter import Earliest, Prompt, due, next_version
from core.rules import DEMO_POLICY
from schemas.messages import Config, Coordinates, FitRules, Rules
from tests.unit.test_own_cells import OWN, config

RULES = Rules(fit=FitRules(events=500), apps=(DEMO_POLICY,))
DESK = ("desk", "production")


def judged(*, own: bool = False) -> Config:
    base = msgspec.structs.replace(config(), rules=RULES)
    return with_cells(base, OWN) if own else base


def test_an_app_is_due_with_the_prompts_that_the_rules_say() -> None:
    assert due({DESK: 499, ("shop", "production"): 500, ("bank", "staging"): 900}, judged(), {}) == [
        ("bank", "staging"),
        ("shop", "production"),
    ]


def test_an_app_with_own_cells_is_never_due_again() -> None:
    assert due({DESK: 10**9}, judged(own=True), {}) == []


def test_the_demo_and_what_has_no_name_are_never_due() -> None:
    assert due({("story", "demo"): 10**9, ("other", "other"): 10**9}, judged(), {}) == []


def test_an_app_that_could_not_be_fitted_waits_for_more_prompts() -> None:
    assert due({DESK: 549}, judged(), {DESK: 550}) == []
    assert due({DESK: 550}, judged(), {DESK: 550}) == [DESK]


def test_a_version_follows_all_that_any_config_ever_had() -> None:
    later = msgspec.structs.replace(OWN, version=7)
    assert next_version([], *DESK) == 1
    assert next_version([config(later), config(OWN), config()], *DESK) == 8
    assert next_version([config(later)], "desk", "staging") == 1


def places(numbers: list[int], *, newest: bool = False) -> list[str]:
    chosen = Earliest(5, newest=newest)
    for n in numbers:
        chosen.add(n // 2, Coordinates(topic="t", topic_id="i", partition=n % 2, offset=n), Prompt(str(n), None, ""))
    return [prompt.text for prompt in chosen.prompts()]


def test_the_first_prompts_are_chosen_in_whatever_order_they_are_read() -> None:
    numbers = [*range(20, 40), *range(20)]
    assert places(numbers) == ["0", "1", "2", "3", "4"]
    assert places(numbers + numbers) == ["0", "1", "2", "3", "4"]


def test_the_newest_prompts_are_chosen_on_demand() -> None:
    assert places([*range(20, 40), *range(20)], newest=True) == ["35", "36", "37", "38", "39"]
