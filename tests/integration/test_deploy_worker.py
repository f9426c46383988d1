"""The deploy worker on a real broker, with gateways that the test plays: what was asked for happens once, and is verified."""

import os
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest

from adapters.action_log import step_of, step_record
from adapters.follow import Follower
from adapters.gateways import mark_dead
from adapters.kafka import control_producer, read_all
from adapters.routes import read_route, route_log, route_record
from adapters.settings import Settings
from bellbuoy.control import shard_for
from bellbuoy.routing import release_hold, release_now, roll_back_now, wait_verified
from core.actions import next_step
from core.routing import with_champion
from schemas.codec import read
from schemas.messages import ActionKind, ActionStep, ActionTarget, Command, Precondition, RouteTable, Scalar
from schemas.topics import ACTIONS, COMMANDS
from services.deploy_worker import EXIT_FENCED, build_deploy_worker
from tests.conftest import ROOT, running_broker
from tests.gateway_fleet import GatewayFleet
from tests.integration.deploy_process import configuration

pytestmark = pytest.mark.integration
ENVIRONMENT = "production"


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Settings]:
    """One of its own: a rollback would wait for the gateways that other files leave on a shared one."""
    yield from running_broker(tmp_path_factory.mktemp("deploy"))


class Silent:
    """A readiness that nobody looks at."""

    def set_ready(self, reason: str | None) -> None: ...


@contextmanager
def worker(settings: Settings) -> Iterator[list[int]]:
    """A deploy worker in a thread; the list gets its exit code."""
    stop, codes = threading.Event(), list[int]()
    thread = threading.Thread(
        target=lambda: codes.append(build_deploy_worker(settings, configuration, Silent(), stop).run()), daemon=True
    )
    thread.start()
    try:
        yield codes
    finally:
        stop.set()
        thread.join(30)


class Process:
    """A deploy worker in a process of its own."""

    def __init__(self, settings: Settings, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        environment = settings.environment(data_dir=folder) | {"PYTHONPATH": str(ROOT)}
        with (folder / "log").open("ab") as file:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "tests.integration.deploy_process"], env=environment, stdout=file, stderr=file, cwd=ROOT
            )

    def kill(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()


def until(true: Callable[[], bool], what: str, timeout: float = 60) -> None:
    deadline = time.monotonic() + timeout
    while not true():
        if time.monotonic() > deadline:
            raise AssertionError(f"{what}: not within {timeout} s")
        time.sleep(0.05)


@pytest.fixture
def app() -> str:
    return f"desk-{uuid.uuid4().hex[:8]}"


def released(settings: Settings, app: str, *versions: str) -> RouteTable:
    """The route after these versions were released one after the other."""
    tables = [
        release_now(settings, app, ENVIRONMENT, v, configuration(app, ENVIRONMENT, v), "ada", "a release") for v in versions
    ]
    return tables[-1]


def say(settings: Settings, *steps: ActionStep) -> None:
    """Steps as the controller writes them."""
    with closing(control_producer(settings, None, linger_ms=0)) as producer:
        for step in steps:
            out = step_record(step, "controller")
            producer.send(out.topic, value=out.value, key=out.key, headers=list(out.headers), partition=out.partition)
        producer.flush(timeout=10)


def request(
    settings: Settings,
    app: str,
    kind: ActionKind,
    version: str,
    to_version: str | None = None,
    *,
    route_epoch: int | None = None,
    ttl_s: int = 300,
    **data: Scalar,
) -> ActionStep:
    """An action as the controller asks for it."""
    return ActionStep(
        id=f"{kind}-{uuid.uuid4().hex}",
        shard=shard_for(settings, app, ENVIRONMENT),
        sequence=1,
        incident="incident",
        kind=kind,
        target=ActionTarget(app=app, environment=ENVIRONMENT, version=version, to_version=to_version),
        mode="auto",
        state="requested",
        attempt=1,
        window=0,
        ttl_s=ttl_s,
        reason="asked for by the test",
        precondition=Precondition(route_epoch=route_epoch),
        data=data,
    )


def asked(settings: Settings, app: str, kind: ActionKind, version: str, to_version: str | None = None, **more: Any) -> ActionStep:
    """The same, written to the log."""
    step = request(settings, app, kind, version, to_version, **more)
    say(settings, step)
    return step


def steps(settings: Settings, action: ActionStep) -> list[ActionStep]:
    with Follower(settings, [ACTIONS]) as follower:
        found = [step_of(record) for _, record in follower.read_to_end()]
    return [step for step in found if step is not None and step.id == action.id]


def phases(settings: Settings, action: ActionStep) -> list[str]:
    return [f"{step.state}/{step.phase}" if step.phase else step.state for step in steps(settings, action)]


def arrives(settings: Settings, action: ActionStep, phase: str, timeout: float = 60) -> ActionStep:
    try:
        until(lambda: phases(settings, action)[-1:] == [phase], f"{action.kind} at {phase}", timeout)
    except AssertionError as error:
        raise AssertionError(f"{error}; its steps: {[(s.state, s.phase, s.reason) for s in steps(settings, action)]}") from None
    return steps(settings, action)[-1]


def present(settings: Settings, app: str) -> RouteTable:
    table = read_route(settings, app, ENVIRONMENT)
    assert table is not None
    return table


def epochs(settings: Settings, app: str) -> list[tuple[int, str, str | None, int]]:
    return [(t.epoch, t.champion, t.candidate, t.weight) for t, _ in route_log(settings) if t.app == app]


def answer(settings: Settings, step: ActionStep, phase: str, /, **data: Scalar) -> None:
    """The controller's next word about a canary."""
    say(settings, next_step(step, "started", phase, f"the figures say {phase}", actor="controller", data=data))


# --- rollback -------------------------------------------------------------------------------------------------------


def test_a_rollback_changes_the_route_once_and_ends_verified(broker: Settings, app: str) -> None:
    released(broker, app, "v1", "v2")
    with GatewayFleet(broker, ["g1", "g2"]), worker(broker):
        action = asked(broker, app, "rollback", "v2", "v1", route_epoch=2)
        last = arrives(broker, action, "succeeded/verified")
    assert phases(broker, action) == ["requested", "started/routed", "succeeded/verified"]
    assert epochs(broker, app) == [(1, "v1", None, 0), (2, "v2", None, 0), (3, "v1", None, 0)]
    assert present(broker, app).bad == ["v2"]
    assert last.data["gateways"] == 2


def test_a_gateway_cut_off_with_the_bad_champion_is_named_and_once_it_confirms_the_rollback_is_verified(
    broker: Settings, app: str
) -> None:
    released(broker, app, "v1", "v2")
    with GatewayFleet(broker, ["g1", "g2"]) as fleet, worker(broker):
        until(lambda: all(app in {a for a, _ in t} for t in fleet.applied.values()), "both gateways have the route")
        time.sleep(1.0)
        fleet.cut.add("g2")
        action = asked(broker, app, "rollback", "v2", "v1")
        last = arrives(broker, action, "unverified/unverified")
        assert last.data["waiting"] == "g2"
        fleet.cut.clear()
        arrives(broker, action, "succeeded/verified")


def test_a_gateway_cut_off_with_the_bad_version_as_candidate_is_done_after_its_grace(broker: Settings, app: str) -> None:
    released(broker, app, "v1")
    with GatewayFleet(broker, ["g1", "g2"]) as fleet, worker(broker):
        canary = asked(broker, app, "canary", "v2", weight=1_000, gate="passed")
        arrives(broker, canary, "started/step")
        until(lambda: fleet.applied["g2"].get((app, ENVIRONMENT), present(broker, app)).candidate == "v2", "g2 has the canary")
        time.sleep(1.0)
        fleet.cut.add("g2")
        action = asked(broker, app, "rollback", "v2", "v1")
        last = arrives(broker, action, "succeeded/verified")
        arrives(broker, canary, "failed/aborted")
    assert (last.data["gateways"], present(broker, app).champion, present(broker, app).candidate) == (1, "v1", None)
    assert float(last.data["seconds"]) >= 2.0


def test_a_gateway_that_is_marked_dead_is_not_waited_for(broker: Settings, app: str) -> None:
    released(broker, app, "v1", "v2")
    with GatewayFleet(broker, ["g1", "g2"]) as fleet, worker(broker):
        until(lambda: all(app in {a for a, _ in t} for t in fleet.applied.values()), "both gateways have the route")
        time.sleep(1.0)
        fleet.cut.add("g2")
        assert mark_dead(broker, "g2", "the supervisor", "another incarnation") is None
        assert mark_dead(broker, "g2", "the supervisor", fleet.incarnations["g2"]) is not None
        arrives(broker, asked(broker, app, "rollback", "v2", "v1"), "succeeded/verified")


def test_an_action_that_is_stale_or_not_true_any_more_is_superseded(broker: Settings, app: str) -> None:
    released(broker, app, "v1", "v2")
    stale = asked(broker, app, "rollback", "v2", "v1", ttl_s=0)
    other = asked(broker, app, "rollback", "v2", "v1", route_epoch=1)
    gone = asked(broker, app, "rollback", "v7", "v1")
    with worker(broker):
        for action in (stale, other, gone):
            arrives(broker, action, "superseded/refused")
    assert len(epochs(broker, app)) == 2


@pytest.mark.parametrize("shard", [-1, 1 << 40])
def test_a_step_that_names_a_shard_which_is_none_stops_nobody(broker: Settings, app: str, shard: int) -> None:
    released(broker, app, "v1", "v2")
    stranger = msgspec.structs.replace(request(broker, app, "rollback", "v2", "v1"), shard=shard)
    with closing(control_producer(broker, None, linger_ms=0)) as producer:
        out = step_record(stranger, "controller")
        producer.send(out.topic, value=out.value, key=out.key, headers=list(out.headers), partition=0)
        producer.flush(timeout=10)
    with GatewayFleet(broker, ["g1"]), worker(broker):
        action = asked(broker, app, "rollback", "v2", "v1")
        arrives(broker, action, "succeeded/verified", timeout=20)


@pytest.mark.parametrize("after", ["requested", "started/routed", "unverified/unverified"])
def test_a_worker_killed_at_any_step_leaves_nothing_undone_and_does_nothing_twice(
    broker: Settings, app: str, tmp_path: Path, after: str
) -> None:
    released(broker, app, "v1", "v2")
    with GatewayFleet(broker, ["g1"]) as fleet:
        until(lambda: (app, ENVIRONMENT) in fleet.applied["g1"], "the gateway has the route")
        time.sleep(1.0)
        fleet.cut.add("g1")
        first = Process(broker, tmp_path / "first")
        action = asked(broker, app, "rollback", "v2", "v1")
        try:
            if after == "requested":
                time.sleep(0.3)
            else:
                arrives(broker, action, after)
        finally:
            first.kill()
        with worker(broker):
            fleet.cut.clear()
            arrives(broker, action, "succeeded/verified")
    assert len(epochs(broker, app)) == 3
    assert phases(broker, action).count("started/routed") == 1


def test_a_transaction_that_a_killed_worker_left_open_is_undone_by_the_next_one(broker: Settings, app: str) -> None:
    before = released(broker, app, "v1", "v2")
    action = asked(broker, app, "rollback", "v2", "v1")
    lost = with_champion(before, "v1", action=action.id, actor="deploy worker", reason="never committed", bad=["v2"])
    step = next_step(action, "started", "routed", "never committed", actor="deploy worker", data={"epoch": 3})
    killed = control_producer(broker, f"routes-{app}/{ENVIRONMENT}", linger_ms=0)
    killed.init_transactions()
    killed.begin_transaction()
    for out in (route_record(lost), step_record(step, "deploy")):
        killed.send(out.topic, value=out.value, key=out.key, headers=list(out.headers), partition=out.partition)
    killed.flush(timeout=10)
    with GatewayFleet(broker, ["g1"]), worker(broker):
        arrives(broker, action, "succeeded/verified")
    assert [s.reason for s in steps(broker, action) if s.state == "started"] == ["epoch 3: v1 answers in place of v2"]
    killed.close(timeout=1)


def test_two_workers_at_once_do_it_once(broker: Settings, app: str, tmp_path: Path) -> None:
    released(broker, app, "v1", "v2")
    with GatewayFleet(broker, ["g1"]), worker(broker) as codes:
        process = Process(broker, tmp_path / "second")
        try:
            actions = []
            for number in range(6):
                bad, good = ("v2", "v1") if number % 2 == 0 else ("v1", "v2")
                if number:
                    released(broker, app, good, bad)
                actions.append(asked(broker, app, "rollback", bad, good))
                arrives(broker, actions[-1], "succeeded/verified")
            until(lambda: bool(codes), "the fenced worker ends")
        finally:
            process.kill()
    assert codes == [EXIT_FENCED]
    assert [phases(broker, action).count("started/routed") for action in actions] == [1] * 6


# --- a person --------------------------------------------------------------------------------------------------------


def test_a_persons_rollback_goes_at_once_and_stands_against_the_workers(broker: Settings, app: str) -> None:
    released(broker, app, "v1", "v2")
    with GatewayFleet(broker, ["g1"]), worker(broker):
        canary = asked(broker, app, "canary", "v3", weight=1_000, gate="passed")
        step = arrives(broker, canary, "started/step")
        done = roll_back_now(broker, app, ENVIRONMENT, None, "ada", "wrong prices", configuration)
        answer(broker, step, "promote")
        verdict = wait_verified(broker, done.table, done.bad, done.champion_since).verdict
        late = asked(broker, app, "rollback", "v1", "v2")
        until(lambda: "failed/aborted" in phases(broker, canary), "the canary has ended")
        arrives(broker, late, "superseded/refused")
    table = present(broker, app)
    assert (verdict.outcome, done.bad) == ("verified", ["v2", "v3"])
    assert (table.champion, table.candidate, table.hold, table.bad) == ("v1", None, "ada", ["v2", "v3"])
    assert release_hold(broker, app, ENVIRONMENT, "ada", "all is well").hold is None


def test_a_persons_rollback_tells_the_controller_in_the_same_transaction(broker: Settings, app: str) -> None:
    released(broker, app, "v1", "v2")
    roll_back_now(broker, app, ENVIRONMENT, "v1", "ada", "wrong prices")
    messages = [read(record) for record in read_all(broker, COMMANDS, shard_for(broker, app, ENVIRONMENT))]
    said = [(m.kind, m.arguments) for m in messages if isinstance(m, Command) and m.app == app]
    assert said == [
        ("deploy_marker", {"version": "v1", "epoch": 1}),
        ("deploy_marker", {"version": "v2", "epoch": 2}),
        ("roll_back", {"version": "v2", "to_version": "v1", "hold": True, "epoch": 3}),
    ]


def test_what_is_released_already_is_not_written_again(broker: Settings, app: str) -> None:
    assert released(broker, app, "v1", "v1").epoch == 1


def test_rollback_on_the_command_line_names_the_gateway_that_does_not_confirm(broker: Settings, app: str) -> None:
    released(broker, app, "v1", "v2")
    with GatewayFleet(broker, ["g1", "far-away"]) as fleet:
        until(lambda: (app, ENVIRONMENT) in fleet.applied["far-away"], "the gateway has the route")
        time.sleep(1.0)
        fleet.cut.add("far-away")
        result = subprocess.run(
            [sys.executable, "-m", "bellbuoy", "rollback", app, "--json"],
            env=os.environ | {"KAFKA_BOOTSTRAP_SERVERS": broker.bootstrap_servers(), "PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            timeout=120,
        )
    said = msgspec.json.decode(result.stdout)
    assert (result.returncode, said["verified"], said["waiting"], said["epoch"]) == (1, False, ["far-away"], 3), result.stderr
    assert "far-away" in result.stderr


# --- canary ----------------------------------------------------------------------------------------------------------


def test_a_canary_goes_step_by_step_to_its_promotion(broker: Settings, app: str) -> None:
    released(broker, app, "v1")
    with worker(broker):
        action = asked(broker, app, "canary", "v2", route_epoch=1, weight=1_000, step=0, gate="passed")
        answer(broker, arrives(broker, action, "started/step"), "advance", step=1, weight=5_000)
        until(lambda: present(broker, app).weight == 5_000, "the second step")
        answer(broker, arrives(broker, action, "started/step"), "promote")
        last = arrives(broker, action, "succeeded/promoted")
    assert epochs(broker, app) == [(1, "v1", None, 0), (2, "v1", "v2", 1_000), (3, "v1", "v2", 5_000), (4, "v2", None, 0)]
    assert (last.data["epoch"], present(broker, app).previous, present(broker, app).action) == (4, "v1", action.id)


def test_an_aborted_canary_leaves_the_champion_and_remembers_the_bad_version(broker: Settings, app: str) -> None:
    released(broker, app, "v1")
    with worker(broker):
        action = asked(broker, app, "canary", "v2", weight=1_000, gate="passed")
        answer(broker, arrives(broker, action, "started/step"), "abort")
        arrives(broker, action, "failed/aborted")
    table = present(broker, app)
    assert (table.champion, table.candidate, table.bad) == ("v1", None, ["v2"])


def test_a_candidate_that_did_not_come_through_the_gate_is_not_promoted(broker: Settings, app: str) -> None:
    released(broker, app, "v1")
    with worker(broker):
        action = asked(broker, app, "canary", "v2", weight=1_000)
        answer(broker, arrives(broker, action, "started/step"), "promote")
        arrives(broker, action, "failed/aborted")
    assert (present(broker, app).champion, present(broker, app).candidate) == ("v1", None)


def test_the_candidate_of_a_canary_that_another_hand_ended_does_not_stay(broker: Settings, app: str) -> None:
    released(broker, app, "v1")
    with worker(broker):
        action = asked(broker, app, "canary", "v2", weight=1_000, gate="passed")
        step = arrives(broker, action, "started/step")
        say(broker, next_step(step, "superseded", "", "kill switch", actor="ada"))
        until(lambda: present(broker, app).candidate is None, "the candidate is taken back")
    assert len(epochs(broker, app)) == 3


@pytest.mark.parametrize("word", ["advance", "promote", "abort"])
def test_a_canary_survives_its_worker_at_every_step(broker: Settings, app: str, tmp_path: Path, word: str) -> None:
    released(broker, app, "v1")
    ends = {"advance": "started/step", "promote": "succeeded/promoted", "abort": "failed/aborted"}
    process = Process(broker, tmp_path / "first")
    action = asked(broker, app, "canary", "v2", weight=1_000, gate="passed")
    try:
        step = arrives(broker, action, "started/step")
    finally:
        process.kill()
    answer(broker, step, word, **({"step": 1, "weight": 5_000} if word == "advance" else {}))
    second = Process(broker, tmp_path / "second")
    try:
        arrives(broker, action, ends[word])
    finally:
        second.kill()
    with worker(broker):
        marker = asked(broker, app, "rollback", "nobody")
        arrives(broker, marker, "superseded/refused")
    assert phases(broker, action) == ["requested", "started/step", f"started/{word}", ends[word]]
    assert len(epochs(broker, app)) == 3
