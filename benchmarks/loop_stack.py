"""A stack for measuring the loop: two gateways, a policy whose canaries last seconds, and what its log and its provider tell."""

import contextlib
import json
import os
import subprocess
import sys
import threading
import time
import urllib.request
import uuid
from collections import defaultdict
from collections.abc import Callable, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any, Final, Self, TypeVar

import msgspec

from adapters.action_log import step_of, step_record
from adapters.broker import Broker
from adapters.follow import Follower
from adapters.gateways import report_of
from adapters.kafka import control_producer, ensure_topics
from adapters.keys import api_key, ensure_key_file
from adapters.process import pick_port
from adapters.routes import table_of
from adapters.settings import Settings
from bellbuoy.configuration import Change, change_config, installation
from bellbuoy.control import shard_for
from bellbuoy.stack import Stack
from bellbuoy.supervisor import get
from core.actions import ENDED
from core.configs import ConfigLog
from core.rules import DEFAULT_RULES, DEMO_ENVIRONMENT, default_config
from schemas.messages import (
    ActionKind,
    ActionStep,
    ActionTarget,
    AppPolicy,
    CanaryRules,
    DatasetRules,
    GateRules,
    GatewayReport,
    RouteTable,
    Scalar,
)
from schemas.topics import ACTIONS, GATEWAYS, ROUTES

T = TypeVar("T")
ENVIRONMENT: Final = DEMO_ENVIRONMENT
SECOND: Final = "second"
POLICY: Final = AppPolicy(
    environment=ENVIRONMENT,
    mode="auto",
    canary=CanaryRules(weights=(5_000,), step_s=5, step_units=20, margin=20.0, tolerable=0.9, max_s=90),
    dataset=DatasetRules(min_rows=10, per_actor=100, per_cluster=100),
    gate=GateRules(min_questions=5),
)
"""What is measured is the loop, not the evidence: a canary ends after a step of five seconds, a gate asks few questions."""
PORTS: Final = ("kafka", "collector", "store", "page", "gateway", "sandbox", "mlflow")


class NotInTime(TimeoutError):
    """What was waited for did not come; the text says what there was instead."""


def until(what: Callable[[], T | None], said: str, timeout: float = 60.0, every: float = 0.02) -> T:
    """What `what` gives once it is true. Raises NotInTime."""
    deadline = time.monotonic() + timeout
    while True:
        if found := what():
            return found
        if time.monotonic() > deadline:
            raise NotInTime(f"{said}: not within {timeout:g} s")
        time.sleep(every)


class Told:
    """llm.actions, llm.routes and llm.gateways as they are committed, read by a thread."""

    def __init__(self, settings: Settings) -> None:
        self.steps: dict[str, list[tuple[ActionStep, int]]] = defaultdict(list)
        """By action: each step with its append time, ms."""
        self.tables: list[tuple[RouteTable, int]] = []
        self.reports: list[tuple[GatewayReport, int]] = []
        self.log: list[tuple[ActionStep, float]] = []
        """Every step with the monotonic time at which it was read."""
        self._settings = settings
        self._stop = threading.Event()
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="told", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def last(self, id_: str) -> ActionStep | None:
        """The last step of an action."""
        self.check()
        steps = self.steps.get(id_)
        return steps[-1][0] if steps else None

    def at(self, id_: str, phase: str) -> int | None:
        """Append time of the first step of this state and phase (`succeeded/verified`), ms."""
        return next((t for s, t in list(self.steps.get(id_, ())) if f"{s.state}/{s.phase}".rstrip("/") == phase), None)

    def ended(self, id_: str, timeout: float = 120.0) -> ActionStep:
        """The step with which an action ended. Raises NotInTime."""

        def end() -> ActionStep | None:
            step = self.last(id_)
            return step if step is not None and step.state in ENDED else None

        try:
            return until(end, f"the end of {id_}", timeout)
        except NotInTime as error:
            raise NotInTime(f"{error}; it is at {self._place(id_)}") from None

    def present(self) -> dict[str, GatewayReport]:
        """The last report of each gateway instance."""
        return {report.instance: report for report, _ in list(self.reports)}

    def check(self) -> None:
        """Raises what ended the reading."""
        if self._error is not None:
            raise RuntimeError("the log is not read any more") from self._error

    def _place(self, id_: str) -> str:
        step = self.last(id_)
        return "no step" if step is None else f"{step.kind} {step.state}/{step.phase}: {step.reason}"

    def _run(self) -> None:
        try:
            with Follower(self._settings, (ACTIONS, ROUTES, GATEWAYS)) as follower:
                while not self._stop.is_set():
                    for topic, record in follower.poll(0.2):
                        if topic == ACTIONS and (step := step_of(record)) is not None:
                            self.steps[step.id].append((step, record.timestamp))
                            self.log.append((step, time.monotonic()))
                        elif topic == ROUTES and (table := table_of(record)) is not None:
                            self.tables.append((table, record.timestamp))
                        elif topic == GATEWAYS and (report := report_of(record)) is not None:
                            self.reports.append((report, record.timestamp))
        except BaseException as error:  # noqa: BLE001  # `check` raises it in the caller's thread
            self._error = error


class LoopStack:
    """A broker of its own with the policy above as its first config, the embedded stack, and a second gateway."""

    def __init__(self, folder: Path, *, job_seconds: float = 1.5, policy: AppPolicy = POLICY, **rules: Any) -> None:
        self._folder, self._policy, self._rules = folder, policy, rules
        values: dict[str, Any] = {f"{name}_port": 0 for name in PORTS}
        values |= {"data_dir": folder / "data", "sandbox_job_seconds": job_seconds, "sandbox_latency_ms": 20.0}
        self._broker = Broker(Settings(**values), progress=_to_stderr)
        self._values = values
        self._second: subprocess.Popen[bytes] | None = None
        self._second_port = pick_port("127.0.0.1", (0,))

    def __enter__(self) -> Self:
        self._broker.start()
        try:
            self.settings = Settings(**(self._values | {"KAFKA_BOOTSTRAP_SERVERS": self._broker.address}))
            ensure_topics(self.settings, embedded=True)
            change_config(self.settings, self._first_config, who="benchmark")
            self.stack = Stack(self.settings, say=_to_stderr)
            self.stack.start()
            try:
                self.key = api_key(self.settings)
                self.start_second()
                self.told = Told(self.settings).__enter__()
                until(lambda: {self.settings.instance, SECOND} <= self.told.present().keys(), "both gateways report", 60)
            except BaseException:
                self.__exit__()
                raise
        except BaseException:
            self._broker.stop(10)
            raise
        return self

    def __exit__(self, *_: object) -> None:
        if hasattr(self, "told"):
            self.told.__exit__()
        if self._second is not None:
            self._second.kill()
            self._second.wait()
        self.stack.stop()
        self._broker.stop(10)

    @property
    def gateways(self) -> dict[str, str]:
        """Addresses by instance."""
        return {self.settings.instance: self.stack.urls()["gateway"], SECOND: f"http://127.0.0.1:{self._second_port}"}

    def start_second(self) -> None:
        """Start the gateway that no supervisor watches, with a folder and a name of its own."""
        environment = self.settings.environment(
            data_dir=self._folder / SECOND,
            instance=SECOND,
            gateway_port=self._second_port,
            api_key=self.key,
            upstream_url=self.stack.urls()["sandbox"] + "/v1",
            upstream_api_key=ensure_key_file(self.settings.key_dir / "sandbox"),
        )
        self._second = spawn(["gateway"], environment, self._folder / "second.log")

    @property
    def second(self) -> "subprocess.Popen[bytes]":
        assert self._second is not None
        return self._second

    def second_answers(self) -> bool:
        """Whether the second gateway serves."""
        with contextlib.suppress(OSError):
            return get(self.gateways[SECOND], "/ready", 1.0)[0] == 200
        return False

    def ask(
        self, kind: ActionKind, app: str, version: str | None = None, to_version: str | None = None, **data: Scalar
    ) -> ActionStep:
        """An action as the controller asks for it, written to the log."""
        step = ActionStep(
            id=f"{kind}-{uuid.uuid4().hex}",
            shard=shard_for(self.settings, app, ENVIRONMENT),
            sequence=1,
            incident=f"incident-{uuid.uuid4().hex}",
            kind=kind,
            target=ActionTarget(app=app, environment=ENVIRONMENT, version=version, to_version=to_version),
            mode="auto",
            state="requested",
            attempt=1,
            window=0,
            ttl_s=600,
            reason="asked for by the benchmark",
            data=data,
        )
        out = step_record(step, "controller")
        with closing(control_producer(self.settings, None, linger_ms=0)) as producer:
            future = producer.send(out.topic, value=out.value, key=out.key, headers=list(out.headers), partition=out.partition)
            producer.flush(timeout=10)
            future.get(timeout=1)
        return step

    def started_on(self, app: str, version: str) -> bool:
        """Whether every gateway has reported requests that it started on a version."""
        reports = self.told.present()
        return all(
            any(r.app == app and r.started.get(version, 0) > 0 for r in reports[instance].routes) for instance in self.gateways
        )

    def sandbox_log(self, what: str) -> list[dict[str, Any]]:
        """What arrived at the provider, as it counted itself: `chat`, `job created` or `job cancelled`."""
        return [entry for entry in self._sandbox("/sandbox/log")["log"] if entry["what"] == what]

    def jobs(self) -> list[dict[str, Any]]:
        """The provider's fine-tuning jobs, whatever became of them."""
        found: list[dict[str, Any]] = self._sandbox("/v1/fine_tuning/jobs?limit=10000")["data"]
        return found

    def _sandbox(self, path: str) -> dict[str, Any]:
        key = ensure_key_file(self.settings.key_dir / "sandbox")
        request = urllib.request.Request(self.stack.urls()["sandbox"] + path, headers={"authorization": f"Bearer {key}"})
        with urllib.request.urlopen(request, timeout=30) as answer:
            told: dict[str, Any] = json.loads(answer.read())
        return told

    def _first_config(self, configs: ConfigLog) -> Change | None:
        if configs.activations:
            return None
        here = installation(self.settings)
        rules = msgspec.structs.replace(DEFAULT_RULES, apps=(self._policy,), **self._rules)
        config = default_config(
            scorers=here.scorers,
            embedding=here.embedding,
            heads=here.heads,
            partitions=here.partitions,
            shards=here.shards,
            receipt_keys=here.receipt_keys,
            rules=rules,
        )
        return Change(config, "the benchmark's policy")


def spawn(arguments: list[str], environment: Mapping[str, str], log: Path) -> "subprocess.Popen[bytes]":
    """One of Bellbuoy's processes beside those of the stack."""
    with log.open("ab") as file:
        command = [sys.executable, "-m", "bellbuoy", *arguments]
        return subprocess.Popen(command, env={**os.environ, **environment}, stdout=file, stderr=file)


def _to_stderr(line: str) -> None:
    print(f"# {line}", file=sys.stderr, flush=True)
