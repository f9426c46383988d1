"""The fine-tune worker on twins: every phase, crashes at each of them, what is away, and what calls an action off."""

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import msgspec
import pytest

from adapters.memory_action_log import MemoryActionLog, MemoryActions
from adapters.memory_registry import MemoryRegistry
from adapters.memory_tuning import MemoryTuning
from adapters.shard_log import Fenced
from core.actions import next_step
from core.dataset import Act, Dataset
from schemas.messages import (
    ActionStep,
    ActionTarget,
    AppPolicy,
    CallConfiguration,
    DatasetRules,
    GateRules,
    Precondition,
    RouteTable,
)
from services.finetune_aliases import Aliases
from services.finetune_data import NoDataset, StoreAway
from services.finetune_steps import FinetuneSteps
from services.finetune_worker import EXIT_FENCED, FinetuneWorker

BASE = CallConfiguration(model="base", system_prompt="Be brief.", parameters={"temperature": 0.5})
POLICY = AppPolicy(dataset=DatasetRules(per_actor=10, per_cluster=200), gate=GateRules())
TTL_S = 600


class Crash(BaseException):
    """The process dies here."""


def knows(model: str, question: str) -> str:
    """A base model that knows nothing, and fine-tunes that know the right answer."""
    return "I do not know that one." if model == "base" else f"The answer to {question} is written on page {len(question)}."


@dataclass
class Store:
    """Datasets in memory."""

    found: list[Act]
    away: bool = False
    files: dict[str, dict[str, bytes]] = field(default_factory=dict)

    def acts(self, app: str, environment: str, rules: DatasetRules, now_ms: int) -> list[Act]:
        if self.away:
            raise StoreAway("ClickHouse does not answer")
        return self.found

    def write(self, dataset: Dataset) -> None:
        self.files[dataset.digest] = dataset.files

    def file(self, digest: str, name: str) -> bytes:
        try:
            return self.files[digest][name]
        except KeyError:
            raise NoDataset(digest) from None


class Told:
    """Readiness as it was said last."""

    reason: str | None = "starting"

    def set_ready(self, reason: str | None) -> None:
        self.reason = reason


def corrections(count: int = 300) -> list[Act]:
    found = []
    for number in range(count):
        question = f"number{number} of shelf{number % 50} in hall{number % 7}"
        found.append(
            Act(
                id=f"f{number}",
                interaction=f"i{number}",
                source=f"t/0/{number:05}",
                arrival=number,
                actor=f"u{number % 90}",
                name="correction",
                by_receipt=True,
                correction=knows("right", question),
                question=question,
                response="I do not know that one.",
            )
        )
    return found


class World:
    """Everything around a worker, which may die and come again."""

    def __init__(self) -> None:
        self.now = 1_000_000
        self.log = MemoryActions(lambda: self.now)
        self.registry, self.provider, self.store = MemoryRegistry(), MemoryTuning(knows), Store(corrections())
        self.registry.register("desk", "demo", BASE)
        self.table: RouteTable | None = RouteTable(
            app="desk", environment="demo", epoch=4, based_on=3, champion="v1", versions={"v1": BASE}
        )
        self.told = Told()
        self.worker = self.new_worker()

    def new_worker(self, crash: Callable[[str], None] = lambda _: None) -> FinetuneWorker:
        """A worker that calls `crash` with the name of every effect, before and after it."""
        route = lambda app, environment: self.table if (app, environment) == ("desk", "demo") else None  # noqa: E731
        log = crashing(MemoryActionLog(self.log, "finetune"), crash, "append")
        provider = crashing(self.provider, crash, "upload", "submit", "keep_one", "answers")
        registry = crashing(self.registry, crash, "register", "note")
        steps = FinetuneSteps(self.store, registry, provider, route, lambda *_: POLICY, lambda: self.now)
        routes = lambda: {} if self.table is None else {("desk", "demo"): self.table}  # noqa: E731
        aliases = Aliases(self.registry, routes, monotonic=lambda: self.now / 1000)
        self.worker = FinetuneWorker(
            log, steps, aliases, self.told, threading.Event(), clock_ms=lambda: self.now, monotonic=lambda: self.now / 1000
        )
        return self.worker

    def ask(self, kind: Any = "retrain", id_: str = "a-1", **values: Any) -> ActionStep:
        given: dict[str, Any] = {"target": ActionTarget(app="desk", environment="demo"), "state": "requested", "mode": "auto"}
        step = ActionStep(
            id=id_,
            shard=0,
            sequence=1,
            incident="inc",
            kind=kind,
            attempt=1,
            window=0,
            ttl_s=TTL_S,
            reason="",
            **(given | values),
        )
        self.log.put(step)
        return step

    def turn(self, cycles: int = 40) -> None:
        for _ in range(cycles):
            self.worker.cycle()
            self.now += 1_000

    def last(self, id_: str = "a-1") -> ActionStep:
        return self.log.of(id_)[-1]


def crashing(target: Any, crash: Callable[[str], None], *names: str) -> Any:
    """The same object, with a crash before and after the named methods."""

    class Wrapped:
        def __getattr__(self, name: str) -> Any:
            call = getattr(target, name)
            if name not in names:
                return call

            def around(*args: Any, **values: Any) -> Any:
                crash(f"before {name}")
                result = call(*args, **values)
                crash(f"after {name}")
                return result

            return around

    return Wrapped()


@pytest.fixture
def world() -> World:
    made = World()
    made.worker.start()
    return made


def test_a_retrain_goes_through_its_phases_to_a_candidate(world: World) -> None:
    world.ask()
    world.turn()
    phases = [(step.state, step.phase) for step in world.log.of("a-1")]
    assert list(dict.fromkeys(phases)) == [
        ("requested", ""),
        ("started", "dataset"),
        ("started", "submitting"),
        ("started", "submitted"),
        ("started", "tuned"),
        ("started", "registered"),
        ("started", "gate"),
        ("succeeded", "candidate"),
    ]


def test_a_candidate_tells_its_version_champion_job_and_figures(world: World) -> None:
    world.ask()
    world.turn()
    data = world.last().data
    assert (data["version"], data["champion"], data["job"], data["gate"]) == ("v2", "v1", "job-1", "passed")
    assert 0 < float(data["low"]) <= float(data["improvement"]) <= float(data["high"])
    assert int(data["rows"]) + int(data["questions"]) == 300


def test_a_retrained_candidate_is_the_champion_with_another_model(world: World) -> None:
    world.ask()
    world.turn()
    assert world.registry.configuration("desk", "demo", "v2") == msgspec.structs.replace(BASE, model="ft:job-1")


def test_the_version_keeps_its_lineage(world: World) -> None:
    world.ask()
    world.turn()
    facts = world.registry.versions("desk", "demo")[1].facts
    assert (facts["parent"], facts["job"], facts["dataset"], facts["gate"]) == (
        "v1",
        "job-1",
        world.last().data["dataset"],
        "pass",
    )
    assert world.registry.manifests["desk", "demo", "v2"]["acts"] == 300


def effects() -> list[str]:
    """Every effect of a retrain in order, by name."""
    world, seen = World(), list[str]()
    world.new_worker(seen.append)
    world.worker.start()
    world.ask()
    world.turn()
    assert world.last().phase == "candidate"
    return seen


@pytest.mark.parametrize("place", range(len(effects())))
def test_a_crash_at_any_effect_leaves_one_job_one_version_and_one_candidate(place: int) -> None:
    world, seen = World(), list[str]()

    def crash(name: str) -> None:
        seen.append(name)
        if len(seen) == place + 1:
            raise Crash(name)

    world.new_worker(crash)
    world.worker.start()
    world.ask()
    with pytest.raises(Crash):
        world.turn()
    world.new_worker()
    world.worker.start()
    world.turn()
    assert (world.last().state, world.last().phase) == ("succeeded", "candidate")
    assert len(world.provider.survivors("a-1")) == 1
    assert [version.name for version in world.registry.versions("desk", "demo")] == ["v1", "v2"]
    assert [step.state for step in world.log.of("a-1")].count("succeeded") == 1


def test_a_lost_answer_to_the_creation_of_a_job_makes_no_second_one(world: World) -> None:
    world.provider.lose = 1
    world.ask()
    world.turn()
    assert world.last().phase == "candidate"
    assert list(world.provider.jobs) == ["job-1"]


def test_of_two_workers_the_later_one_goes_on_and_one_job_survives(world: World) -> None:
    def overtaken(name: str) -> None:
        if name == "before submit":
            newer = world.new_worker()
            newer.start()
            world.turn(12)

    first = world.new_worker(overtaken)
    first.start()
    world.ask()
    assert first.run() == EXIT_FENCED
    world.turn()
    assert world.last().phase == "candidate"
    assert len(world.provider.jobs) == 2
    assert len(world.provider.survivors("a-1")) == 1


def test_a_fenced_worker_writes_nothing(world: World) -> None:
    old = world.worker
    world.ask()
    world.new_worker().start()
    with pytest.raises(Fenced):
        old.cycle()
    assert len(world.log.of("a-1")) == 1


@pytest.mark.parametrize("state", ["suggested", "waiting", "rejected", "superseded"])
def test_what_may_not_run_is_never_touched(world: World, state: Any) -> None:
    world.ask(state=state)
    world.turn()
    assert len(world.log.of("a-1")) == 1
    assert world.provider.jobs == {}


def test_an_action_that_waited_too_long_expires(world: World) -> None:
    world.ask()
    world.now += TTL_S * 1_000
    world.turn()
    assert (world.last().state, world.last().reason) == ("expired", "not started within 600 s")


@pytest.mark.parametrize("asked", [Precondition(version="v0"), Precondition(route_epoch=3)])
def test_an_action_whose_precondition_does_not_hold_is_superseded(world: World, asked: Precondition) -> None:
    world.ask(precondition=asked)
    world.turn()
    assert world.last().state == "superseded"


def test_a_precondition_that_holds_is_no_hindrance(world: World) -> None:
    world.ask(precondition=Precondition(version="v1", route_epoch=4))
    world.turn()
    assert world.last().phase == "candidate"


def test_an_app_without_a_route_fails_and_says_what_to_do(world: World) -> None:
    world.table = None
    world.ask()
    world.turn()
    assert world.last().state == "failed"
    assert "bellbuoy release" in world.last().reason


def test_too_little_feedback_fails_before_anything_is_sent(world: World) -> None:
    world.store.found = corrections(8)
    world.ask()
    world.turn()
    assert (world.last().state, world.last().phase) == ("failed", "dataset")
    assert world.last().reason.startswith("too few rows: ")
    assert world.provider.files == {}


def test_too_few_questions_for_the_gate_fail_before_anything_is_sent(world: World) -> None:
    world.store.found = corrections(60)
    world.ask()
    world.turn()
    assert world.last().reason.startswith("too few held-out questions: ")
    assert world.provider.files == {}


def test_the_cost_is_said_before_anything_is_sent(world: World) -> None:
    world.ask()
    world.turn()
    (submitting,) = [step for step in world.log.of("a-1") if step.phase == "submitting"]
    assert submitting.reason.startswith(f"{submitting.data['rows']} rows, about {submitting.data['tokens']} tokens an epoch")
    assert submitting.reason.endswith("to fine-tune base, at memory")


def test_a_failed_job_fails_the_action_with_the_providers_reason(world: World) -> None:
    world.provider.fail = "line 3 is no chat"
    world.ask()
    world.turn()
    assert (world.last().state, world.last().phase) == ("failed", "submitted")
    assert world.last().reason == "job job-1 failed: line 3 is no chat"


def test_a_candidate_that_is_not_better_fails_at_the_gate(world: World) -> None:
    world.provider._answer = lambda model, question: "I do not know that one."
    world.ask()
    world.turn()
    assert (world.last().state, world.last().phase) == ("failed", "gate")
    assert world.last().reason.startswith("no improvement")
    assert world.registry.versions("desk", "demo")[1].facts["gate"] == "no improvement"


@pytest.mark.parametrize("what", ["store", "registry", "provider"])
def test_while_something_is_away_the_action_waits_and_then_goes_on(world: World, what: str) -> None:
    getattr(world, what).away = True
    world.ask()
    world.turn()
    assert world.last().state == "started"
    assert world.last().reason.startswith("waiting: ")
    assert "waits" in (world.told.reason or "")
    assert sum(1 for step in world.log.of("a-1") if step.reason.startswith("waiting")) == 1
    getattr(world, what).away = False
    world.turn()
    assert world.last().phase == "candidate"
    assert world.told.reason is None


def test_the_kill_switch_between_phases_cancels_the_job(world: World) -> None:
    world.provider._looks = 1_000
    world.ask()
    world.turn(8)
    assert [job.status for job in world.provider.survivors("a-1")] == ["running"]
    world.log.put(next_step(world.last(), "superseded", "", "kill switch", actor="ann"))
    world.turn(8)
    assert world.provider.survivors("a-1") == []
    assert world.last().state == "superseded"


def test_a_job_that_was_going_on_when_the_worker_died_is_cancelled_by_the_next_one(world: World) -> None:
    world.provider._looks = 1_000
    world.ask()
    world.turn(8)
    world.log.put(next_step(world.last(), "superseded", "", "kill switch", actor="ann"))
    world.new_worker().start()
    world.turn(8)
    assert world.provider.survivors("a-1") == []


def test_a_champion_that_changed_meanwhile_ends_the_action(world: World) -> None:
    world.provider._looks = 1_000
    world.ask()
    world.turn(8)
    assert world.table is not None
    world.table = msgspec.structs.replace(world.table, epoch=5, champion="v9", versions={"v9": BASE})
    world.provider._looks = 0
    world.turn()
    assert (world.last().state, world.last().reason) == ("failed", "v9 became the champion meanwhile, this began from v1")


def test_a_prompt_edit_is_evaluated_without_a_job(world: World) -> None:
    edited = world.registry.register("desk", "demo", msgspec.structs.replace(BASE, model="better"))
    world.ask("evaluate", target=ActionTarget(app="desk", environment="demo", version=edited))
    world.turn()
    assert (world.last().state, world.last().data["version"]) == ("succeeded", "v2")
    assert world.provider.jobs == {}


def test_an_evaluation_of_what_the_registry_does_not_have_fails(world: World) -> None:
    world.ask("evaluate", target=ActionTarget(app="desk", environment="demo", version="v7"))
    world.turn()
    assert (world.last().state, world.last().reason) == ("failed", "the registry has no v7 of 'desk'")


def aliases(world: World) -> dict[str, tuple[str, ...]]:
    return {version.name: version.aliases for version in world.registry.versions("desk", "demo")}


def promote(world: World, version: str) -> None:
    assert world.table is not None
    world.table = msgspec.structs.replace(
        world.table, epoch=9, champion=version, previous="v1", versions={version: BASE, "v1": BASE}
    )
    world.ask("canary", "c-1", target=ActionTarget(app="desk", environment="demo", version=version))
    world.log.put(next_step(world.last("c-1"), "succeeded", "promoted", "", actor="deploy worker"))


def test_a_version_that_passed_the_gate_becomes_the_candidate(world: World) -> None:
    world.ask()
    world.turn()
    assert aliases(world) == {"v1": ("champion",), "v2": ("candidate",)}


def test_a_promotion_moves_the_aliases(world: World) -> None:
    world.ask()
    world.turn()
    promote(world, "v2")
    world.turn()
    assert aliases(world) == {"v1": ("previous",), "v2": ("champion",)}


def test_what_a_person_released_at_once_moves_the_aliases_though_no_action_ended(world: World) -> None:
    name = world.registry.register("desk", "demo", msgspec.structs.replace(BASE, system_prompt="Be kind."))
    world.turn()
    world.table = RouteTable(
        app="desk", environment="demo", epoch=5, based_on=4, champion=name, previous="v1", versions={name: BASE}
    )
    world.now += 60_000
    world.turn()
    assert aliases(world) == {"v1": ("previous",), name: ("champion",)}


def test_a_candidate_that_failed_its_canary_is_none_any_more(world: World) -> None:
    world.ask()
    world.turn()
    world.ask("canary", "c-1", target=ActionTarget(app="desk", environment="demo", version="v2"))
    world.log.put(next_step(world.last("c-1"), "failed", "aborted", "", actor="deploy worker"))
    world.turn()
    assert aliases(world) == {"v1": ("champion",), "v2": ()}


def test_aliases_are_moved_later_when_the_registry_was_away(world: World) -> None:
    world.ask()
    world.turn()
    world.registry.away = True
    promote(world, "v2")
    world.turn()
    world.registry.away = False
    world.turn()
    assert aliases(world) == {"v1": ("previous",), "v2": ("champion",)}


@pytest.mark.parametrize("phase", ["dataset", "submitting", "submitted", "tuned", "registered", "gate"])
@pytest.mark.parametrize("kind", ["retrain", "evaluate"])
@pytest.mark.parametrize(
    "known", [{}, {"dataset": "../../etc"}, {"dataset": 7, "champion": "v1"}, {"champion": "v1", "version": True}]
)
def test_a_step_that_lacks_what_its_phase_needs_ends_its_action_and_no_worker(
    world: World, kind: str, phase: str, known: dict[str, Any]
) -> None:
    world.ask(kind, state="started", phase=phase, data=known)
    world.ask(id_="a-2")
    world.turn()
    assert world.last("a-2").state == "succeeded"


def test_a_route_without_its_champions_configuration_ends_the_action_and_no_worker(world: World) -> None:
    assert world.table is not None
    world.table = msgspec.structs.replace(world.table, versions={})
    world.ask()
    world.turn()
    assert (world.last().state, world.last().reason) == ("failed", "the route does not know the configuration of v1")


def test_a_provider_that_lists_no_metadata_gets_one_job(world: World) -> None:
    world.provider.forgets = True
    world.ask()
    world.turn(60)
    assert len(world.provider.jobs) == 1
    assert world.last().data["job"] == "job-1"
