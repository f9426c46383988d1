"""The fine-tune worker as a process: Kafka, the store, MLflow's own SQLite, the sandbox provider; killed at every recorded step."""

import contextlib
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import msgspec
import pytest

from adapters.action_log import step_record
from adapters.clickhouse import Client, connect, migrate
from adapters.corpus import PHRASINGS, PYARROW, help_desk
from adapters.kafka import control_producer, read_all
from adapters.patience import EXIT_FENCED
from adapters.registry import Registry
from adapters.routes import RouteWriter
from adapters.settings import Settings
from adapters.tuning import ACTION
from core.retrieval import UNKNOWN
from core.routing import first_table
from schemas.codec import read
from schemas.messages import (
    FIXED_ONE,
    ActionStep,
    ActionTarget,
    CallConfiguration,
    ChatMessage,
    Coordinates,
    Score,
    ScoredFeedback,
    ScoredInteraction,
)
from schemas.topics import ACTIONS, EMBEDDED_SHARDS
from services import sink_rows
from services.sandbox_state import BASE_MODEL
from tests.conftest import ROOT
from tests.fixtures_store import StoreProcess
from tests.provider import SandboxProcess

pytestmark = pytest.mark.integration
NOW = int(time.time()) * 1000
BASE = CallConfiguration(model=BASE_MODEL, system_prompt="You are the help desk.")
ITEMS = help_desk().items[PYARROW][:25]
CODE = "import sys; from adapters.settings import Settings; from services.finetune_worker import main; sys.exit(main(Settings()))"


@dataclass
class Worker:
    """Fine-tune workers of one app, each a process."""

    settings: Settings
    app: str
    provider: SandboxProcess
    client: Client
    processes: "list[subprocess.Popen[bytes]]" = field(default_factory=list)

    def start(self) -> "subprocess.Popen[bytes]":
        environment = self.settings.environment(health_port=0) | {"PYTHONPATH": str(ROOT)}
        with (self.settings.data_dir / "worker.log").open("ab") as log:
            process = subprocess.Popen([sys.executable, "-c", CODE], env=environment, stdout=log, stderr=log)
        self.processes.append(process)
        return process

    def steps(self, id_: str) -> list[ActionStep]:
        found = []
        for shard in range(EMBEDDED_SHARDS):
            for record in read_all(self.settings, ACTIONS, shard):
                message = read(record)
                if isinstance(message, ActionStep) and message.id == id_:
                    found.append(message)
        return found

    def wait(self, id_: str, steps: int, seconds: float = 90.0) -> list[ActionStep]:
        """The action's steps once there are so many, or it has ended."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            found = self.steps(id_)
            if len(found) >= steps or found[-1].state in ("succeeded", "failed", "superseded", "expired"):
                return found
            time.sleep(0.1)
        raise AssertionError((self.settings.data_dir / "worker.log").read_text()[-3_000:])

    def survivors(self, action: str) -> set[str]:
        """Jobs of the action that the provider made and did not cancel, by its own log."""
        made, cancelled = (
            {entry["id"] for entry in self.provider.log(what) if entry["metadata"] == {ACTION: action}}
            for what in ("job created", "job cancelled")
        )
        return made - cancelled

    def ask(self, **values: object) -> str:
        step = ActionStep(
            id=uuid.uuid4().hex,
            shard=0,
            sequence=1,
            incident="inc",
            kind="retrain",
            target=ActionTarget(app=self.app, environment="demo"),
            mode="auto",
            state="requested",
            attempt=1,
            window=0,
            ttl_s=600,
            reason="the topics have shifted",
            **values,  # type: ignore[arg-type]  # fields of the step
        )
        with contextlib.closing(control_producer(self.settings, None)) as producer:
            out = step_record(step, "test")
            producer.send(out.topic, value=out.value, key=out.key, headers=list(out.headers), partition=out.partition)
            producer.flush(timeout=20)
        return step.id


@pytest.fixture
def worker(broker: Settings, store: StoreProcess, tmp_path: Path) -> Iterator[Worker]:
    """A worker's surroundings: an app with a route, feedback in a database of its own, and the provider."""
    database, app = f"test_{uuid.uuid4().hex}", f"desk {uuid.uuid4().hex[:8]}"
    with (
        SandboxProcess(tmp_path / "sandbox") as provider,
        contextlib.closing(connect(store.settings, database=database)) as client,
    ):
        migrate(client)
        settings = Settings(
            data_dir=tmp_path,
            KAFKA_BOOTSTRAP_SERVERS=broker.bootstrap_servers(),
            clickhouse_dsn=f"http://default:{store.key}@127.0.0.1:{store.port}/{database}",
            upstream_url=provider.url,
            upstream_api_key=provider.key,  # type: ignore[arg-type]  # read as a secret
            consumer_group_prefix=f"test-{uuid.uuid4().hex[:8]}",
            MLFLOW_TRACKING_URI=f"sqlite:///{tmp_path}/mlflow.db",
        )
        assert Registry(settings).register(app, "demo", BASE) == "v1"
        with RouteWriter(settings, app, "demo") as writer:
            writer.change(lambda _: first_table(app, "demo", "v1", BASE, actor="test", reason="first"))
        one = Worker(settings, app, provider, client)
        yield one
        for process in one.processes:
            process.kill()
            process.wait(20)
        client.command(f"DROP DATABASE {database}", use_database=False)


def put_feedback(worker: Worker, count: int = 300) -> None:
    """Questions on things that the base model does not know, in many phrasings: most corrected, some rated, refused ones."""
    interactions, acts = [], []
    for number in range(count):
        item = ITEMS[number % len(ITEMS)]
        question = item.question(PHRASINGS[number // len(ITEMS)])
        refused = number % 30 == 29
        interactions.append(
            ScoredInteraction(
                coordinates=Coordinates(topic="llm.interactions", topic_id="i", partition=0, offset=number),
                append_time=NOW - 60_000 + number,
                config="c",
                id=f"i{number}",
                app=worker.app,
                version="v1",
                environment="demo",
                prompt=question,
                response=UNKNOWN,
                messages=[
                    ChatMessage(role="system", content="You are the help desk."),
                    ChatMessage(role="user", content=question),
                    ChatMessage(role="assistant", content=UNKNOWN),
                ],
                scores={"refusal": Score(scorer="refusal@1", value=FIXED_ONE if refused else 0)},
            )
        )
        acts.append(
            ScoredFeedback(
                coordinates=Coordinates(topic="llm.feedback", topic_id="f", partition=0, offset=number),
                append_time=NOW - 30_000 + number,
                config="c",
                id=f"f{number}",
                interaction_id=f"i{number}",
                name="correction",
                attribution="receipt",
                app=worker.app,
                environment="demo",
                version="v1",
                correction=None if refused else item.answer,
                actor=f"u{number % 100}",
                scores={"thumbs.down": Score(scorer="thumbs@1", value=0)} if refused else {},
            )
        )
    worker.client.insert_arrow("interactions", sink_rows.table(sink_rows.interactions(interactions, [])))
    worker.client.insert_arrow("feedback", sink_rows.table(sink_rows.feedback(acts, [])))


def test_a_retrain_ends_with_a_better_candidate_and_all_of_its_lineage(worker: Worker) -> None:
    put_feedback(worker)
    action = worker.ask()
    worker.start()
    last = worker.wait(action, 99)[-1]
    assert (last.state, last.phase, last.data.get("version")) == ("succeeded", "candidate", "v2"), last.reason
    assert float(last.data["low"]) > 0
    version = Registry(worker.settings).versions(worker.app, "demo")[-1]
    assert version.facts["job"] == last.data["job"]
    assert version.configuration == msgspec.structs.replace(BASE, model=str(last.data["model"]))
    dataset = worker.settings.data_dir / "datasets" / str(last.data["dataset"])
    assert {path.name: path.stat().st_mode & 0o777 for path in dataset.iterdir()} == dict.fromkeys(
        ("training.jsonl", "held_out.jsonl", "manifest.json"), 384
    )
    assert b'"answer: refusal":10' in (dataset / "manifest.json").read_bytes()


def test_a_worker_that_is_killed_at_every_recorded_step_makes_one_candidate_of_one_job(worker: Worker) -> None:
    put_feedback(worker)
    worker.provider.fault(path="jobs", kind="lost_answer")
    action = worker.ask()
    seen, killed_at = 1, []
    while True:
        process = worker.start()
        steps = worker.wait(action, seen + 1)
        process.send_signal(signal.SIGKILL)
        process.wait(20)
        seen = len(worker.steps(action))
        killed_at.append(steps[-1].phase)
        if steps[-1].state != "started":
            break
    assert (steps[-1].state, steps[-1].phase) == ("succeeded", "candidate"), steps[-1].reason
    assert len(set(killed_at)) >= 3
    assert len(worker.survivors(action)) == 1
    assert [version.name for version in Registry(worker.settings).versions(worker.app, "demo")] == ["v1", "v2"]
    assert [step.state for step in worker.steps(action)].count("succeeded") == 1


def test_of_two_workers_one_ends_fenced_and_one_job_survives(worker: Worker) -> None:
    put_feedback(worker)
    action = worker.ask()
    first, second = worker.start(), worker.start()
    assert worker.wait(action, 99)[-1].phase == "candidate"
    worker.ask()
    deadline = time.monotonic() + 60
    while first.poll() is None and second.poll() is None and time.monotonic() < deadline:
        time.sleep(0.1)
    assert sorted(str(code) for code in (first.poll(), second.poll())) == [str(EXIT_FENCED), "None"]
    assert len(worker.survivors(action)) == 1


def test_while_the_store_does_not_answer_the_action_waits_and_says_so(worker: Worker) -> None:
    away = worker.settings.model_copy(update={"clickhouse_dsn": type(worker.settings.clickhouse_dsn)("http://127.0.0.1:9/x")})
    action = worker.ask()
    there, worker.settings = worker.settings, away
    process = worker.start()
    assert worker.wait(action, 3)[-1].reason == "waiting: ClickHouse does not answer"
    process.kill()
    worker.settings = there
    put_feedback(worker)
    worker.start()
    assert worker.wait(action, 99)[-1].phase == "candidate"
