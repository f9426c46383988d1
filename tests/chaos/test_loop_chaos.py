"""The loop's workers, the controller and the gateways are killed while they act; `python -m benchmarks.loop` does that at length."""

from collections.abc import Iterator

import pytest

from benchmarks.loop_crashes import Crashes, Outcome
from benchmarks.loop_stack import LoopStack

pytestmark = pytest.mark.chaos
KILLS = 16


@pytest.fixture(scope="module")
def outcome(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Outcome]:
    with LoopStack(tmp_path_factory.mktemp("loop")) as loop:
        yield Crashes(loop, crashes=KILLS, seed=3, say=print, rivals_every=6).run(("rollback", "canary", "retrain"))


def test_whoever_acts_was_killed_at_a_step_of_its_own(outcome: Outcome) -> None:
    victims = {(place.split()[0], victim) for place, victim in outcome.kills}
    assert {kind for kind, _ in victims} == {"rollback", "canary", "retrain"}
    assert {"deploy-worker", "finetune-worker", "controller"} <= {victim for _, victim in victims}
    assert (outcome.crashes, outcome.rivals > 0) == (KILLS, True)


def test_a_rollback_was_verified_a_candidate_promoted_and_a_retrain_came_to_its_end(outcome: Outcome) -> None:
    assert outcome.actions["rollback succeeded/verified"] > 0
    assert outcome.actions["canary succeeded/promoted"] > 0
    assert outcome.actions["retrain succeeded/candidate"] + outcome.actions["retrain failed/gate"] > 0


def test_the_log_the_routes_the_gateways_and_the_provider_saw_nothing_twice(outcome: Outcome) -> None:
    assert outcome.duplicates == []


def test_every_action_came_to_an_end(outcome: Outcome) -> None:
    assert outcome.stuck == []


def test_only_requests_whose_gateway_was_killed_failed(outcome: Outcome) -> None:
    assert (dict(outcome.refused), outcome.answered > 500) == ({}, True)


def test_no_request_reached_a_bad_version_after_its_rollback_was_verified(outcome: Outcome) -> None:
    assert outcome.after_verified == []
