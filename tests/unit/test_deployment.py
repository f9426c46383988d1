"""What the deploy worker does next, by what it knows."""

from typing import Any

import msgspec
import pytest

from core.actions import Known
from core.deployment import Change, Decision, Present, RegistryAway, UnknownVersion, Wait, Write, leftover, reconcile
from core.routing import first_table, with_candidate, with_champion
from core.verification import UNVERIFIED_AFTER_MS, Heard
from schemas.messages import (
    ActionKind,
    ActionState,
    ActionStep,
    ActionTarget,
    CallConfiguration,
    GatewayReport,
    Precondition,
    RouteReport,
    RouteTable,
    Scalar,
)

T = 1_700_000_000_000
WHO: dict[str, Any] = {"actor": "ada", "reason": "a release"}


def registry(app: str, environment: str, version: str) -> CallConfiguration:
    if version == "v9":
        raise UnknownVersion("the registry has no v9")
    return CallConfiguration(model=f"model-{version}")


def away(app: str, environment: str, version: str) -> CallConfiguration:
    raise RegistryAway("MLflow does not answer")


ONE = first_table("desk", "production", "v1", registry("desk", "production", "v1"), **WHO)
TWO = with_champion(ONE, "v2", registry("desk", "production", "v2"), **WHO)
HELD = msgspec.structs.replace(TWO, hold="ada")


def trying(version: str = "v2", action: str = "canary-1", weight: int = 1_000) -> RouteTable:
    configuration = registry("desk", "production", version)
    return with_candidate(ONE, version, configuration, weight, experiment="canary-1", action=action, **WHO)


def action(
    kind: ActionKind,
    state: ActionState = "requested",
    phase: str = "",
    *,
    version: str | None = "v2",
    to: str | None = None,
    epoch: int | None = None,
    against: str | None = None,
    **data: Scalar,
) -> Known:
    step = ActionStep(
        id=f"{kind}-1",
        shard=0,
        sequence=3,
        incident="incident",
        kind=kind,
        target=ActionTarget(app="desk", environment="production", version=version, to_version=to),
        mode="auto",
        state=state,
        phase=phase,
        attempt=1,
        window=0,
        ttl_s=60,
        reason="refusals rose",
        precondition=Precondition(route_epoch=epoch, version=against),
        data=data,
    )
    return Known(step, T, T)


def decide(known: Known, table: RouteTable | None, **more: Any) -> Decision:
    configuration = more.pop("configuration", registry)
    return reconcile(known, Present(table, **{"now": T + 1_000, **more}), configuration)


def step_of(decision: Decision) -> tuple[str, str]:
    """State and phase of the step that is to be written."""
    assert not isinstance(decision, Wait), decision
    assert decision.step is not None
    return decision.step.state, decision.step.phase


def table_of(decision: Decision) -> RouteTable:
    assert isinstance(decision, Change), decision
    return decision.table


# --- rollback: the start --------------------------------------------------------------------------------------------


def test_a_bad_champion_is_replaced_by_the_target() -> None:
    decision = decide(action("rollback", to="v1"), TWO, champion_since=T - 5)
    table = table_of(decision)
    assert (table.champion, table.bad, table.epoch, table.action) == ("v1", ["v2"], 3, "rollback-1")
    assert isinstance(decision, Change)
    assert decision.step is not None
    assert decision.step.data == {"epoch": 3, "champion": "v1", "from_champion": "v2", "champion_since": T - 5}
    assert step_of(decision) == ("started", "routed")


def test_without_a_target_the_previous_version_answers() -> None:
    assert table_of(decide(action("rollback"), TWO)).champion == "v1"


def test_a_bad_candidate_is_taken_away_and_the_champion_stays() -> None:
    table = table_of(decide(action("rollback", to="v1"), trying()))
    assert (table.champion, table.candidate, table.bad) == ("v1", None, ["v2"])


def test_a_rollback_needs_no_registry_for_what_the_table_holds() -> None:
    assert table_of(decide(action("rollback", to="v1"), TWO, configuration=away)).champion == "v1"


def test_an_older_target_comes_from_the_registry() -> None:
    assert table_of(decide(action("rollback", to="v0"), TWO)).versions["v0"].model == "model-v0"


def test_it_waits_for_the_registry_where_only_that_knows_the_target() -> None:
    assert isinstance(decide(action("rollback", to="v0"), TWO, configuration=away), Wait)


@pytest.mark.parametrize(
    ("known", "table", "ends", "says"),
    [
        (action("rollback", to="v1", epoch=1), TWO, "superseded", "asked for at epoch 1"),
        (action("rollback", to="v1"), HELD, "superseded", "a person's decision stands"),
        (action("rollback", version="v7", to="v1"), TWO, "superseded", "does not answer any more"),
        (action("rollback", to="v1"), None, "failed", "has no route"),
        (action("rollback", to="v2"), TWO, "failed", "no version to go back to"),
        (action("rollback", version="v1"), ONE, "failed", "no version to go back to"),
        (action("rollback", to="v9"), TWO, "failed", "the registry has no v9"),
        (action("rollback", to="v1"), msgspec.structs.replace(TWO, bad=["v1"]), "failed", "rolled back itself"),
    ],
)
def test_a_rollback_that_cannot_be_is_ended_with_its_reason(known: Known, table: RouteTable | None, ends: str, says: str) -> None:
    decision = decide(known, table)
    assert isinstance(decision, Write)
    assert (decision.step.state, says in decision.reason) == (ends, True), decision.reason


def test_what_expired_is_not_begun() -> None:
    outcomes = [isinstance(decide(action("rollback", to="v1"), TWO, now=T + ms), Change) for ms in (59_999, 60_000)]
    assert outcomes == [True, False]


def test_a_canary_that_moved_on_does_not_make_the_rollback_of_its_candidate_stale() -> None:
    assert table_of(decide(action("rollback", to="v1", epoch=1), trying())).candidate is None


def test_what_the_table_says_was_done_is_not_done_again() -> None:
    assert isinstance(decide(action("rollback", to="v1"), msgspec.structs.replace(TWO, action="rollback-1")), Wait)


# --- rollback: verification -----------------------------------------------------------------------------------------


def gateway(epoch: int, champion: str = "v1", at: int = T) -> Heard:
    route = RouteReport(app="desk", environment="production", epoch=epoch, champion=champion)
    return Heard(GatewayReport(instance="g1", incarnation="a", sequence=1, routes=[route]), at)


ROUTED = action("rollback", "started", "routed", champion="v1")
BACK = with_champion(TWO, "v1", bad=["v2"], action="rollback-1", **WHO)


def routed(state: ActionState = "started") -> Known:
    known = action("rollback", state, "routed", to="v1")
    return Known(msgspec.structs.replace(known.step, data={"epoch": 3, "champion_since": T - 60_000}), T, T)


def test_confirmed_it_is_verified_with_the_seconds_since_the_table() -> None:
    decision = decide(routed(), BACK, fleet=[gateway(3)], committed=T + 200)
    assert isinstance(decision, Write)
    assert step_of(decision) == ("succeeded", "verified")
    assert (decision.step.data["seconds"], decision.step.data["gateways"]) == (0.8, 1)


def test_until_then_it_waits_for_a_named_gateway() -> None:
    decision = decide(routed(), BACK, fleet=[gateway(2, "v2")], committed=T)
    assert isinstance(decision, Wait)
    assert "g1" in decision.reason


@pytest.mark.parametrize("fleet", [[gateway(2, "v2")], []])
def test_after_thirty_seconds_it_is_unverified(fleet: list[Heard]) -> None:
    decision = decide(routed(), BACK, fleet=fleet, committed=T, now=T + UNVERIFIED_AFTER_MS)
    assert step_of(decision) == ("unverified", "unverified")


def test_unverified_is_said_once_and_watched_on() -> None:
    late = {"fleet": [gateway(2, "v2")], "committed": T, "now": T + 9 * UNVERIFIED_AFTER_MS}
    assert isinstance(decide(routed("unverified"), BACK, **late), Wait)


def test_a_later_confirmation_verifies_it() -> None:
    late = {"fleet": [gateway(3)], "committed": T, "now": T + 9 * UNVERIFIED_AFTER_MS}
    decision = decide(routed("unverified"), BACK, **late)
    assert isinstance(decision, Write)
    assert (step_of(decision), decision.step.data["seconds"]) == (("succeeded", "verified"), 270.0)


def test_without_any_gateway_the_step_says_that_nothing_can_verify_it() -> None:
    decision = decide(routed(), BACK, committed=T, now=T + UNVERIFIED_AFTER_MS)
    assert "nothing can verify it" in decision.reason


def test_a_person_who_lets_the_bad_version_answer_again_ends_the_wait() -> None:
    again = with_champion(BACK, "v2", registry("desk", "production", "v2"), **WHO)
    assert step_of(decide(routed(), again, fleet=[gateway(2, "v2")]))[0] == "superseded"


def test_another_table_after_the_rollback_does_not_disturb_its_verification() -> None:
    later = with_candidate(BACK, "v3", registry("desk", "production", "v3"), 100, experiment="canary-2", **WHO)
    assert step_of(decide(routed(), later, fleet=[gateway(4)])) == ("succeeded", "verified")


def test_a_step_without_its_epoch_ends_the_action() -> None:
    assert step_of(decide(ROUTED, BACK))[0] == "failed"


# --- canary ---------------------------------------------------------------------------------------------------------


def test_a_canary_begins_at_the_weight_that_was_asked_for() -> None:
    decision = decide(action("canary", weight=500, step=0), ONE)
    table = table_of(decision)
    assert (table.candidate, table.weight, table.experiment, table.action) == ("v2", 500, "canary-1", "canary-1")
    assert isinstance(decision, Change)
    assert decision.step is not None
    assert (step_of(decision), decision.step.data) == (("started", "step"), {"epoch": 2, "step": 0, "weight": 500})


def test_a_canary_waits_for_the_registry() -> None:
    assert isinstance(decide(action("canary", weight=500), ONE, configuration=away), Wait)


def test_a_canary_waits_until_another_candidate_is_gone() -> None:
    assert isinstance(decide(action("canary", weight=500), trying("v3", action="canary-0")), Wait)


@pytest.mark.parametrize(
    ("known", "table", "ends"),
    [
        (action("canary", weight=500), HELD, "superseded"),
        (action("canary", weight=500, against="v1"), TWO, "superseded"),
        (action("canary", weight=500, epoch=4), ONE, "superseded"),
        (action("canary", weight=500), None, "failed"),
        (action("canary", weight=500, version="v9"), ONE, "failed"),
        (action("canary", weight=500, version="v1"), ONE, "failed"),
        (action("canary", weight=0), ONE, "failed"),
        (action("canary", weight=True), ONE, "failed"),
        (action("canary"), ONE, "failed"),
    ],
)
def test_a_canary_that_cannot_be_is_ended(known: Known, table: RouteTable | None, ends: str) -> None:
    assert step_of(decide(known, table))[0] == ends


def test_a_step_that_was_taken_is_waited_on() -> None:
    assert isinstance(decide(action("canary", "started", "step", weight=1_000), trying()), Wait)


def test_an_advance_raises_the_weight() -> None:
    decision = decide(action("canary", "started", "advance", step=1, weight=5_000), trying())
    assert (table_of(decision).weight, step_of(decision)) == (5_000, ("started", "step"))


@pytest.mark.parametrize("data", [{"gate": "passed"}, {"ungated_by": "ada"}])
def test_a_promotion_needs_the_gate_or_a_person(data: dict[str, Scalar]) -> None:
    decision = decide(action("canary", "started", "promote", **data), trying())
    assert (table_of(decision).champion, step_of(decision)) == ("v2", ("succeeded", "promoted"))


@pytest.mark.parametrize("data", [{}, {"gate": "failed"}, {"gate": True}, {"ungated_by": ""}, {"ungated_by": True}])
def test_without_either_the_candidate_is_taken_back(data: dict[str, Scalar]) -> None:
    decision = decide(action("canary", "started", "promote", **data), trying())
    table = table_of(decision)
    assert (table.champion, table.candidate, table.bad, step_of(decision)) == ("v1", None, [], ("failed", "aborted"))


@pytest.mark.parametrize("phase", ["advance", "promote"])
def test_a_candidate_whose_configuration_the_route_lacks_is_taken_back(phase: str) -> None:
    table = msgspec.structs.replace(trying(), versions=ONE.versions)
    decision = decide(action("canary", "started", phase, gate="passed", weight=500, step=1), table)
    assert (step_of(decision), table_of(decision).candidate) == (("failed", "aborted"), None)


@pytest.mark.parametrize("weight", [0, -1, 10_001, 10**400])
def test_a_weight_that_is_none_ends_the_canary(weight: int) -> None:
    decision = decide(action("canary", "started", "advance", weight=weight, step=1), trying())
    assert step_of(decision)[0] == "failed"


def test_an_abort_takes_the_candidate_back_as_bad() -> None:
    decision = decide(action("canary", "started", "abort"), trying())
    table = table_of(decision)
    assert (table.champion, table.candidate, table.bad, step_of(decision)) == ("v1", None, ["v2"], ("failed", "aborted"))


@pytest.mark.parametrize("phase", ["step", "advance", "promote", "abort"])
def test_a_canary_whose_candidate_was_rolled_back_has_failed(phase: str) -> None:
    back = with_champion(trying(), "v1", bad=["v2"], hold="ada", **WHO)
    decision = decide(action("canary", "started", phase, weight=5_000, gate="passed"), back)
    assert (isinstance(decision, Write), step_of(decision)) == (True, ("failed", "aborted"))


def test_a_canary_whose_champion_was_replaced_is_superseded() -> None:
    other = with_champion(trying(), "v5", registry("desk", "production", "v5"), **WHO)
    assert step_of(decide(action("canary", "started", "step"), other)) == ("superseded", "aborted")


def test_the_candidate_of_an_ended_canary_is_taken_back() -> None:
    decision = leftover(action("canary", "superseded"), trying())
    assert decision is not None
    assert (decision.table.candidate, decision.step) == (None, None)


def test_the_candidate_of_another_canary_is_not() -> None:
    assert leftover(action("canary", "superseded"), trying(action="canary-2")) is None
