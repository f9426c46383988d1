"""What a person's rollback makes of a route, what the commands print, and how the worker asks the registry."""

import threading

import msgspec
import pytest

from adapters.follow import BrokerClock
from bellbuoy.cli.rollback import outcome, told
from bellbuoy.cli.routes import described, lease
from bellbuoy.routing import RolledBack, Waited, rolled_back
from core.deployment import RegistryAway, UnknownVersion
from core.routing import Refused, first_table, with_candidate, with_champion
from core.verification import Heard, Verdict
from schemas.messages import CallConfiguration, GatewayReport, RouteTable
from services.deploy_registry import Lookup

HELD = CallConfiguration(model="m", system_prompt="be brief", parameters={"temperature": 0.2})
ONE = first_table("desk", "production", "v1", HELD, actor="ada", reason="first")
TWO = with_champion(ONE, "v2", HELD, actor="ada", reason="second")
TRYING = with_candidate(TWO, "v3", HELD, 1_000, experiment="canary-1", actor="deploy worker", reason="step 0")


def registry(app: str, environment: str, version: str) -> CallConfiguration:
    if version == "v404":
        raise KeyError(version)
    return CallConfiguration(model=f"model-{version}")


def back(now: RouteTable | None, to: str | None = None) -> RouteTable:
    return rolled_back(now, "desk", "production", to, "ada", "wrong prices", registry)


def test_a_persons_rollback_takes_champion_and_candidate_off_and_holds_the_route() -> None:
    table = back(TRYING)
    assert (table.champion, table.candidate, table.bad, table.hold) == ("v1", None, ["v2", "v3"], "ada")


def test_to_the_champion_it_takes_the_candidate_off() -> None:
    table = back(TRYING, "v2")
    assert (table.champion, table.candidate, table.bad) == ("v2", None, ["v3"])


def test_a_version_that_the_table_does_not_hold_comes_from_the_registry() -> None:
    assert back(TWO, "v0").versions["v0"].model == "model-v0"


@pytest.mark.parametrize(
    ("now", "to", "says"),
    [(None, None, "has no route"), (ONE, None, "remembers no version before v1"), (TWO, "v2", "answers everything already")],
)
def test_what_cannot_be_rolled_back_is_refused(now: RouteTable | None, to: str | None, says: str) -> None:
    with pytest.raises(Refused, match=says):
        back(now, to)


def test_the_command_says_what_answers_instead_of_what() -> None:
    said = told(RolledBack(TRYING, back(TRYING), None), dry_run=True)
    assert said == "desk: v1 would answer everything instead of v2 and v3 (epoch 4, held by ada)"


def test_its_json_names_the_gateways_that_are_waited_for() -> None:
    waited = Waited(Verdict("unverified", "waiting for g1", ("g1",), ("g2",), 3), 30.0)
    said = outcome(RolledBack(TRYING, back(TRYING), None), waited, dry_run=False)
    assert (said["verified"], said["waiting"], said["confirmed"], said["running"]) == (False, ["g1"], ["g2"], 3)


def test_json_without_waiting_claims_nothing() -> None:
    assert outcome(RolledBack(TRYING, back(TRYING), None), None, dry_run=False)["verified"] is None


def test_a_route_is_shown_without_the_text_of_its_prompts() -> None:
    lines = described(TRYING)
    assert "candidate  v3, 10 % of the units" in lines
    assert "version    v1: m, prompt of 8 characters, temperature=0.2" in lines


@pytest.mark.parametrize(
    ("changes", "after", "says"),
    [
        ({}, 3_000, "live"),
        ({}, 4_000, "over for 1 s"),
        ({}, 14_000, "over for 11 s, champions only"),
        ({"stopped": True}, 100, "stopped"),
        ({"known_dead": "ada"}, 100, "known dead (ada)"),
    ],
)
def test_a_lease_is_told_in_words(changes: dict[str, object], after: int, says: str) -> None:
    report = msgspec.structs.replace(GatewayReport(instance="g1", incarnation="a", sequence=1), **changes)
    assert lease(Heard(report, 1_000_000), 1_000_000 + after) == says


def test_the_brokers_time_goes_on_between_records() -> None:
    seconds = [10.0]
    clock = BrokerClock(lambda: seconds[0])
    before = clock.now()
    clock.take(5_000)
    seconds[0] += 1.5
    assert (before, clock.now()) == (0, 6_500)


def test_a_registry_that_is_slow_is_waited_for_elsewhere() -> None:
    answered = threading.Event()

    def slow(app: str, environment: str, version: str) -> CallConfiguration:
        answered.wait(30)
        return registry(app, environment, version)

    lookup = Lookup(slow)
    with pytest.raises(RegistryAway, match="being asked"):
        lookup("desk", "production", "v1")
    answered.set()
    assert soon(lookup, "v1").model == "model-v1"


def test_a_version_that_the_registry_does_not_have_is_unknown() -> None:
    with pytest.raises(UnknownVersion):
        soon(Lookup(registry), "v404")


def test_a_registry_that_fails_is_asked_again_after_a_while() -> None:
    seconds, calls = [0.0], list[str]()

    def flaky(app: str, environment: str, version: str) -> CallConfiguration:
        calls.append(version)
        if len(calls) == 1:
            raise OSError("no answer")
        return registry(app, environment, version)

    lookup = Lookup(flaky, lambda: seconds[0])
    with pytest.raises(RegistryAway, match="no answer"):
        soon(lookup, "v1")
    seconds[0] += 10
    assert (soon(lookup, "v1").model, len(calls)) == ("model-v1", 2)


def soon(lookup: Lookup, version: str) -> CallConfiguration:
    """What the lookup says once the registry has answered."""
    while True:
        try:
            return lookup("desk", "production", version)
        except RegistryAway as error:
            if "being asked" not in str(error):
                raise
            threading.Event().wait(0.01)
