"""What the loop's crash test would call a duplicate."""

import msgspec

from benchmarks.loop_crashes import epochs_back, twice_in_log, twice_in_routes
from core.actions import next_step
from core.routing import first_table, with_champion
from schemas.messages import ActionStep, ActionTarget, CallConfiguration, GatewayReport, RouteReport

ASKED = ActionStep(
    id="a",
    shard=0,
    sequence=1,
    incident="incident",
    kind="rollback",
    target=ActionTarget(app="desk", environment="demo", version="v2"),
    mode="auto",
    state="requested",
    attempt=1,
    window=0,
    ttl_s=60,
    reason="",
)
ROUTED = next_step(ASKED, "started", "routed", "", actor="worker")
FIRST = first_table("desk", "demo", "v1", CallConfiguration(model="m"), actor="test", reason="")
SECOND = with_champion(FIRST, "v2", CallConfiguration(model="n"), actor="test", reason="", action="a")


def report(epoch: int, incarnation: str = "one") -> GatewayReport:
    route = RouteReport(app="desk", environment="demo", epoch=epoch, champion="v1")
    return GatewayReport(instance="g", incarnation=incarnation, sequence=1, routes=[route])


def test_steps_that_follow_each_other_are_no_duplicates() -> None:
    assert list(twice_in_log({"a": [ASKED, ROUTED, next_step(ROUTED, "succeeded", "verified", "", actor="worker")]})) == []


def test_a_step_that_is_written_twice_is_one() -> None:
    assert list(twice_in_log({"a": [ASKED, ROUTED, ROUTED]})) == ["a has step 2 2 times", "a is routed 2 times"]


def test_an_incident_that_asks_twice_is_one() -> None:
    again = msgspec.structs.replace(ASKED, id="b")
    assert list(twice_in_log({"a": [ASKED], "b": [again]})) == ["rollback of incident incident is asked for 2 times"]


def test_a_change_of_the_route_that_an_action_makes_twice_is_one() -> None:
    again = msgspec.structs.replace(SECOND, epoch=3, based_on=2)
    assert list(twice_in_routes([FIRST, SECOND])) == []
    assert list(twice_in_routes([FIRST, SECOND, again])) == ["a routed to ('v2', None, 0) 2 times"]


def test_an_epoch_that_two_tables_have_is_one() -> None:
    assert list(twice_in_routes([FIRST, FIRST])) == ["the epochs of desk are [1, 1]"]


def test_a_gateway_that_goes_back_is_one_and_a_new_process_is_not() -> None:
    assert list(epochs_back([report(2), report(1)])) == ["g/one went back from epoch 2 of desk to 1"]
    assert list(epochs_back([report(2), report(1, "two")])) == []
