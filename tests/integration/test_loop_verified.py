"""Verified means verified: a whole stack, two gateways, and the second one stopped for longer than its lease and its grace."""

import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from adapters.registry import Registry, RegistryAway
from bellbuoy.control import alert_histories
from bellbuoy.routing import release_now
from bellbuoy.story import DECLINING_PROMPT, HELP_DESK_PROMPT, SANDBOX_MODEL
from benchmarks.loop_clients import Clients
from benchmarks.loop_rollbacks import GOOD, after_verified, digest, open_desk, release_bad
from benchmarks.loop_stack import ENVIRONMENT, POLICY, SECOND, LoopStack, until
from core.verification import UNVERIFIED_AFTER_MS
from schemas.messages import AlertTransition, CallConfiguration
from services.gateway_lease import GRACE_MS, LEASE_MS

pytestmark = pytest.mark.integration
TRIED, RULED, DARK = "tried", "ruled", "dark"


@pytest.fixture(scope="module")
def loop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LoopStack]:
    with LoopStack(tmp_path_factory.mktemp("verified"), policy=POLICY, reference_events=300) as loop:
        for app in (TRIED, RULED, DARK):
            open_desk(loop, app)
        with Clients(loop, {TRIED: 10.0, RULED: 40.0, DARK: 6.0}, seed=5):
            yield loop


@contextmanager
def stopped(loop: LoopStack) -> Iterator[None]:
    """The second gateway, stopped by a signal and resumed."""
    loop.second.send_signal(signal.SIGSTOP)
    try:
        yield
    finally:
        loop.second.send_signal(signal.SIGCONT)


def register(loop: LoopStack, app: str, prompt: str) -> str | None:
    try:
        return Registry(loop.settings).register(app, ENVIRONMENT, CallConfiguration(model=SANDBOX_MODEL, system_prompt=prompt))
    except RegistryAway:
        return None


def serves_again(loop: LoopStack, app: str, epoch: object) -> None:
    """Return when the second gateway has reported an epoch of an app, and has had time for what waited."""

    def applied() -> bool:
        return any(route.app == app and route.epoch == epoch for route in loop.told.present()[SECOND].routes)

    until(applied, "the second gateway applies the route")
    time.sleep(3.0)


def test_stopped_with_the_bad_version_as_candidate_it_is_done_after_its_grace_and_starts_none_when_it_goes_on(
    loop: LoopStack,
) -> None:
    prompt = f"{HELP_DESK_PROMPT} Tried."
    assert until(lambda: register(loop, TRIED, HELP_DESK_PROMPT), "MLflow", 120, 0.5) == GOOD
    version = until(lambda: register(loop, TRIED, prompt), "MLflow")
    canary = loop.ask("canary", TRIED, version, weight=5_000, step=0, gate="passed")
    until(lambda: loop.told.at(canary.id, "started/step"), "the canary's first step")
    until(lambda: loop.started_on(TRIED, version), "requests on the candidate")
    with stopped(loop):
        action = loop.ask("rollback", TRIED, version, GOOD)
        end = loop.told.ended(action.id)
        assert (end.state, end.phase) == ("succeeded", "verified"), end.reason
        verified, asked = loop.told.at(action.id, "succeeded/verified"), loop.told.at(action.id, "requested")
        assert verified is not None
        assert asked is not None
        assert verified - asked >= GRACE_MS
    serves_again(loop, TRIED, end.data["epoch"])
    assert after_verified(loop, {digest(prompt): verified}) == []
    assert verified - asked < LEASE_MS + GRACE_MS + 5_000


def test_stopped_with_the_bad_version_as_champion_it_is_named_by_a_page_and_once_it_goes_on_the_rollback_is_verified(
    loop: LoopStack,
) -> None:
    bad = CallConfiguration(model=SANDBOX_MODEL, system_prompt=DECLINING_PROMPT)
    time.sleep(12.0)  # what is judged later is compared with what came until now
    release_now(loop.settings, RULED, ENVIRONMENT, "bad", bad, "test", "an edit")
    until(lambda: loop.started_on(RULED, "bad"), "requests on the bad version")
    with stopped(loop):
        id_ = until(lambda: rollback_of(loop, RULED), "the controller asks for a rollback", 90)
        routed = until(lambda: loop.told.at(id_, "started/routed"), "the rollback's route")
        unverified = until(lambda: loop.told.at(id_, "unverified/unverified"), "unverified", 60)
        last = loop.told.last(id_)
        assert last is not None
        assert last.data["waiting"] == SECOND
        assert unverified - routed > UNVERIFIED_AFTER_MS - 1_000  # counted from the table, which was appended just before
        page = until(lambda: page_of(loop, id_), "an alert about the rollback")
        assert SECOND in page.reason
    end = loop.told.ended(id_)
    verified = loop.told.at(id_, "succeeded/verified")
    assert verified is not None, end.reason
    serves_again(loop, RULED, end.data["epoch"])
    assert after_verified(loop, {digest(DECLINING_PROMPT): verified}) == []


def test_without_store_and_registry_a_rollback_is_verified(loop: LoopStack) -> None:
    bad = release_bad(loop, DARK, "bad")
    until(lambda: loop.started_on(DARK, "bad"), "requests on the bad version")
    loop.stack.hold("store")
    loop.stack.hold("mlflow")
    try:
        action = loop.ask("rollback", DARK, "bad", GOOD)
        loop.told.ended(action.id, 30)
        verified = loop.told.at(action.id, "succeeded/verified")
    finally:
        loop.stack.release("mlflow")
        loop.stack.release("store")
    assert verified is not None
    assert after_verified(loop, {bad: verified}) == []


def rollback_of(loop: LoopStack, app: str) -> str | None:
    """The rollback that somebody asked for."""
    steps = [of[0][0] for of in list(loop.told.steps.values())]
    return next((s.id for s in steps if (s.kind, s.target.app, s.state) == ("rollback", app, "requested")), None)


def page_of(loop: LoopStack, action: str) -> AlertTransition | None:
    """The firing alert about an action that is not verified."""
    told = [entry.message for of in alert_histories(loop.settings).values() for entry in of]
    mine = [a for a in told if a.metric == "rollback.unverified" and a.slice == f"action={action}" and a.state == "firing"]
    return mine[-1] if mine else None
