"""Which version answers, and what a route table becomes."""

from itertools import pairwise
from typing import Any

import msgspec
import pytest

from core.routing import (
    BAD_KEPT,
    Refused,
    choose,
    first_table,
    share_of,
    with_candidate,
    with_champion,
    without_candidate,
    without_hold,
)
from schemas.messages import WEIGHT_ONE, CallConfiguration, RouteTable

UNITS = [f"conversation-{number}" for number in range(4_000)]
WHO: dict[str, Any] = {"actor": "ada", "reason": "because"}


def held(version: str) -> CallConfiguration:
    return CallConfiguration(model=f"model-{version}")


FIRST = first_table("desk", "production", "v1", held("v1"), **WHO)


def trying(weight: int, table: RouteTable = FIRST) -> RouteTable:
    return with_candidate(table, "v2", held("v2"), weight, experiment="canary-1", **WHO)


def on_candidate(table: RouteTable) -> set[str]:
    return {unit for unit in UNITS if choose(table, unit).arm == "candidate"}


def test_raising_the_weight_only_adds_units() -> None:
    arms = [on_candidate(trying(weight)) for weight in (100, 500, 2_500, 9_000, WEIGHT_ONE)]
    assert all(smaller < larger for smaller, larger in pairwise(arms))


def test_the_whole_weight_is_everybody() -> None:
    assert on_candidate(trying(WEIGHT_ONE)) == set(UNITS)


def test_the_candidates_share_is_its_weight() -> None:
    assert abs(len(on_candidate(trying(2_500))) / len(UNITS) - 0.25) < 0.03


def test_another_experiment_draws_other_units() -> None:
    other = msgspec.structs.replace(trying(2_500), experiment="canary-2")
    assert 0.05 < len(on_candidate(trying(2_500)) & on_candidate(other)) / len(UNITS) < 0.075


def test_gateways_of_every_release_draw_the_same_units() -> None:
    assert [share_of("canary-1", "desk", "production", unit) for unit in UNITS[:3]] == [2_095, 6_653, 4_445]


def test_cut_off_from_the_broker_the_champion_answers() -> None:
    assert {choose(trying(WEIGHT_ONE), unit, champion_only=True) for unit in UNITS} == {("v1", "champion")}


def test_without_a_candidate_the_champion_answers() -> None:
    assert {choose(FIRST, unit) for unit in UNITS} == {("v1", "champion")}


def test_a_table_is_based_on_the_one_before_it() -> None:
    second = trying(100)
    assert (FIRST.epoch, FIRST.based_on, second.epoch, second.based_on) == (1, 0, 2, 1)


def test_a_promotion_keeps_the_champion_before_as_previous_with_its_configuration() -> None:
    promoted = with_champion(trying(100), "v2", **WHO)
    assert (promoted.champion, promoted.candidate, promoted.weight, promoted.previous) == ("v2", None, 0, "v1")
    assert promoted.versions == {"v1": held("v1"), "v2": held("v2")}


def test_a_bad_version_is_remembered_and_never_previous() -> None:
    promoted = with_champion(trying(100), "v2", **WHO)
    back = with_champion(promoted, "v1", bad=["v2"], hold="ada", **WHO)
    assert (back.champion, back.previous, back.bad, back.hold, list(back.versions)) == ("v1", None, ["v2"], "ada", ["v1"])


def test_a_version_that_answers_again_is_not_bad_any_more() -> None:
    back = with_champion(with_champion(trying(100), "v2", **WHO), "v1", bad=["v2"], **WHO)
    assert with_champion(back, "v2", held("v2"), **WHO).bad == []


def test_the_oldest_bad_versions_are_forgotten() -> None:
    many = with_champion(FIRST, "v1", bad=[f"b{n}" for n in range(BAD_KEPT + 3)], **WHO)
    assert (many.bad[0], len(many.bad)) == ("b3", BAD_KEPT)


def test_an_abort_leaves_the_champion_alone() -> None:
    back = without_candidate(trying(100), bad=["v2"], **WHO)
    assert (back.champion, back.candidate, back.weight, back.bad, list(back.versions)) == ("v1", None, 0, ["v2"], ["v1"])


def test_a_version_without_a_configuration_cannot_answer() -> None:
    with pytest.raises(Refused, match="does not know the configuration of v9"):
        with_champion(FIRST, "v9", **WHO)


@pytest.mark.parametrize(
    ("table", "version", "weight", "says"),
    [
        (msgspec.structs.replace(FIRST, hold="ada"), "v2", 100, "a person's decision stands"),
        (FIRST, "v1", 100, "answers already"),
        (trying(100), "v3", 100, "one candidate at a time"),
        (FIRST, "v2", 0, "a weight must lie"),
        (FIRST, "v2", WEIGHT_ONE + 1, "a weight must lie"),
    ],
)
def test_what_the_table_does_not_allow_is_refused(table: RouteTable, version: str, weight: int, says: str) -> None:
    with pytest.raises(Refused, match=says):
        with_candidate(table, version, held(version), weight, experiment="canary-1", **WHO)


def test_a_hold_is_released_by_a_table_of_its_own() -> None:
    kept = with_champion(FIRST, "v1", hold="ada", **WHO)
    assert (without_hold(kept, **WHO).hold, without_hold(kept, **WHO).epoch) == (None, kept.epoch + 1)


def test_what_nobody_holds_cannot_be_released() -> None:
    with pytest.raises(Refused, match="nobody holds"):
        without_hold(FIRST, **WHO)
