"""The embedded stack: which processes there are, in which order they start, and what the rest of the world is told of them."""

import contextlib
import functools
import json
import logging
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from typing import Any, Final

from confluent_kafka import KafkaException

from adapters import clickhouse
from adapters import process as os_process
from adapters.broker import Broker, answers
from adapters.kafka_admin import LogOffsets, check_topics, ensure_topics, group_id
from adapters.keys import api_key
from adapters.settings import Settings
from adapters.telemetry import health_file
from bellbuoy import addresses
from bellbuoy.addresses import Ports, listens_on, pick_ports, runs_here
from bellbuoy.configuration import ensure_config
from bellbuoy.gateway_death import record_death
from bellbuoy.prepare import prepare
from bellbuoy.reach import need_kafka
from bellbuoy.restarts import Offsets
from bellbuoy.status import lock_path, status
from bellbuoy.supervisor import Child, Spec, Supervisor, health, last_lines

log = logging.getLogger(__name__)

START_LIMIT_S: Final = 180.0
HOPELESS_DEATHS: Final = 5
"""Quick deaths one after the other, after which waiting for a process makes no sense."""
PROCESSES: Final = (
    "processor",
    "sink",
    "controller",
    "collector",
    "page",
    "mlflow",
    "sandbox",
    "gateway",
    "deploy-worker",
    "finetune-worker",
    "fitter",
)
"""Those that need Kafka's topics or the store's tables, in the order of a start; stopped in reverse, what takes requests first."""
_STOP_S: Final = {"processor": 20.0, "sink": 20.0, "controller": 20.0, "store": 30.0, "gateway": 30.0} | dict.fromkeys(
    ("deploy-worker", "finetune-worker"), 20.0
)

Say = Callable[[str], None]


class StackFailed(RuntimeError):
    """The stack did not come up; the text says which process, why, and where its log is."""


def to_stderr(line: str) -> None:
    """Progress goes to stderr: stdout may be read by a program."""
    print(line, file=sys.stderr, flush=True)


class Stack:
    """Starts, watches and stops the embedded processes of one data folder.

    One thread of its own starts and stops all of them, since the kernel kills a child when the thread that started it ends.
    """

    def __init__(self, settings: Settings, *, say: Say = to_stderr) -> None:
        self.settings = settings
        self._say = say
        self._lock_file = os_process.FolderLock(lock_path(settings))
        self._supervisor = Supervisor(self._changed)
        self._broker = Broker(settings, progress=say) if settings.embedded_kafka else None
        self._ports: Ports | None = None
        self._stop = threading.Event()
        self._launched = threading.Event()
        self._ended = threading.Event()  # an interrupted Thread.join() takes a living thread for dead
        self._error: BaseException | None = None
        self._started = False
        self._thread = threading.Thread(target=self._run, name="supervisor", daemon=True)

    @staticmethod
    def is_running(settings: Settings) -> bool:
        """Whether a stack runs on this data folder, in whichever process."""
        return os_process.holder(lock_path(settings)) is not None

    def start(self, wait_ready: bool = True) -> None:
        """Start everything. StackFailed with the reason when it does not come up; FolderInUse when another stack has the folder."""
        self._lock_file.acquire(f"the data folder {self.settings.data_dir}")
        self._started = True
        self._thread.start()
        self._launched.wait()
        if self._error is not None:
            raise self._error
        if wait_ready:
            try:
                self.wait_ready()
            except BaseException:
                self.stop()
                raise

    def stop(self) -> None:
        """Stop every process cleanly, the last started first. Does nothing where nothing runs."""
        self._stop.set()
        if self._started:
            self._ended.wait()

    def join(self) -> None:
        """Wait until the supervisor ends; StackFailed when it does so by itself."""
        self._ended.wait()
        if self._error is not None:
            raise StackFailed(f"the supervisor ended: {self._error}") from self._error

    def wait_ready(self, name: str | None = None, timeout: float = START_LIMIT_S) -> None:
        """Return when a process (or each that is needed) is ready. StackFailed names what is not after `timeout` seconds."""
        names = [name] if name is not None else self._needed()
        deadline = time.monotonic() + timeout
        while names:
            reasons = {n: self._supervisor.not_ready(n) for n in names}
            names = [n for n, reason in reasons.items() if reason is not None]
            if self._error is not None:
                raise StackFailed(f"the supervisor ended: {self._error}") from self._error
            hopeless = [
                n for n in names if name is None and self._supervisor.children[n].restarts.quick_deaths >= HOPELESS_DEATHS
            ]
            if hopeless or (names and time.monotonic() > deadline):
                said = "\n".join(f"{n} {reasons[n]}\n{self._last_words(n)}" for n in hopeless or names)
                raise StackFailed(f"not ready{'' if hopeless else f' after {timeout:g} s'}:\n{said}")
            if names:
                time.sleep(0.1)
        if name is None:
            self._start_the_rest()

    def is_ready(self, name: str) -> bool:
        """Whether a process runs and says that it is ready."""
        return self._supervisor.not_ready(name) is None

    def pid(self, name: str) -> int:
        """The pid of a process (of the broker: Java's). ProcessLookupError while it is down."""
        pid = self._supervisor.pid(name)
        if pid is None:
            raise ProcessLookupError(f"{name} is not running")
        return pid

    def kill(self, name: str) -> int:
        """kill -9; the supervisor brings it back. Returns the pid that was killed."""
        return self._supervisor.kill(name)

    def hold(self, name: str) -> None:
        """Stop a process and keep it down until `release`."""
        self._supervisor.hold(name)

    def release(self, name: str) -> None:
        """Start a held process again."""
        self._supervisor.release(name)

    def urls(self) -> dict[str, str]:
        """See bellbuoy.addresses."""
        assert self._ports is not None, "the stack was not started"
        kafka = self._broker.address if self._broker is not None else self.settings.bootstrap_servers()
        return addresses.urls(self.settings, self._ports, kafka)

    def status(self) -> dict[str, Any] | None:
        """See bellbuoy.status."""
        return status(self.settings)

    # --- in the supervisor's thread -------------------------------------------------------------------------------

    def _run(self) -> None:
        try:
            self._launch()
            self._launched.set()
            while not self._stop.wait(0.1):
                self._supervisor.step()
        except BaseException as error:  # noqa: BLE001  # start() and wait_ready() raise it in the caller's thread
            self._error = error
        finally:
            self._supervisor.stop()
            self.settings.stack_file.unlink(missing_ok=True)
            self._lock_file.release()
            self._ended.set()
            self._launched.set()

    def _launch(self) -> None:
        if self._broker is None:
            need_kafka(self.settings)
        prepare(self.settings, self._say)
        self._ports = pick_ports(self.settings)
        if self._broker is not None:
            self._say("starting Kafka")
            self._add(self._broker_spec(self._broker))
        if runs_here(self.settings, "store"):
            self._say("starting the ClickHouse engine")
            self._add(self._spec("store"))
        if self._broker is not None:
            self._wait_in_thread("broker")
            made = ensure_topics(self.settings, embedded=True)
            if made:
                self._say(f"made {len(made)} topics")
        else:
            self._check_cluster()
        if runs_here(self.settings, "store"):
            self._wait_in_thread("store")
        with contextlib.closing(clickhouse.connect(self.settings)) as client:
            for name in clickhouse.migrate(client):
                self._say(f"applied migration {name}")
        ensure_config(self.settings, self._say)
        api_key(self.settings)
        self._say("starting the other processes")
        for name in PROCESSES:
            if runs_here(self.settings, name):
                self._add(self._spec(name))

    def _add(self, spec: Spec) -> None:
        if self._stop.is_set():
            raise StackFailed("stopped while starting")
        self._supervisor.add(spec, later=not spec.needed)

    def _start_the_rest(self) -> None:
        """What nobody waits for is started when the rest is ready, so that it takes no processor time from it."""
        for name, child in list(self._supervisor.children.items()):
            if not child.spec.needed and not child.started:
                self._supervisor.release(name)

    def _needed(self) -> list[str]:
        return [name for name, child in list(self._supervisor.children.items()) if child.spec.needed]

    def _wait_in_thread(self, name: str) -> None:
        """Wait for one process while the others are watched."""
        deadline = time.monotonic() + START_LIMIT_S
        while (reason := self._supervisor.not_ready(name)) is not None:
            self._supervisor.step()
            if self._stop.wait(0.1):
                raise StackFailed("stopped while starting")
            if time.monotonic() > deadline:
                raise StackFailed(f"{name} {reason}\n{self._last_words(name)}")

    def _check_cluster(self) -> None:
        found = check_topics(self.settings)
        for line in found:
            self._say(f"the cluster differs from the registry: {line}")
        if any(line.endswith("the topic is missing") for line in found):
            raise StackFailed("topics are missing; `bellbuoy topics ensure` makes them")

    def _spec(self, name: str) -> Spec:
        assert self._ports is not None
        ports = {f"{key}_port": port for key, port in vars(self._ports).items()}
        environment = self.settings.environment(**ports, host=listens_on(self.settings, name), health_port=0)
        output = self.settings.run_dir.resolve() / "logs" / f"{name}.log"
        file = health_file(self.settings, name)

        def launch(careful: bool) -> "subprocess.Popen[bytes]":
            command = [sys.executable, "-m", "bellbuoy", name, "--parent", str(os.getpid()), *(["--careful"] if careful else [])]
            return os_process.spawn(command, log=output, environment=environment)

        return Spec(
            name,
            launch,
            lambda pid: health(file, pid),
            output,
            stop_s=_STOP_S.get(name, 10.0),
            committed=self._committed if name == "processor" else None,
            needed=name != "mlflow",
            ended=self._gateway_ended if name == "gateway" else None,
        )

    def _broker_spec(self, broker: Broker) -> Spec:
        def launch(_: bool) -> "subprocess.Popen[bytes]":
            avoid = vars(self._ports).values() if self._ports is not None else ()
            broker.start(wait_ready=False, avoid_ports=avoid)
            assert broker.process is not None
            return broker.process

        return Spec(
            "broker",
            launch,
            lambda _: None if answers(broker.address, 2.0) else f"does not answer at {broker.address}",
            broker.log,
            stop_s=30.0,
        )

    def _committed(self) -> Offsets | None:
        """Committed offsets of the processor's group; None while the broker does not tell. The supervisor waits meanwhile: briefly."""
        try:
            with LogOffsets(self.settings) as offsets:
                return offsets.committed(group_id(self.settings, "processor"), timeout_s=2.0)
        except KafkaException:
            return None

    def _gateway_ended(self, again: threading.Event) -> None:
        record = functools.partial(record_death, self.settings, self.settings.instance, again)
        threading.Thread(target=record, name="gateway-death", daemon=True).start()

    def _last_words(self, name: str) -> str:
        path = self._supervisor.children[name].spec.log
        return f"{path}:\n{last_lines(path)}"

    def _changed(self) -> None:
        """Write stack.json anew."""
        description = {
            "pid": os_process.holder(lock_path(self.settings)),
            "urls": self.urls(),
            "ports": vars(self._ports),
            "data_dir": str(self.settings.data_dir.resolve()),
            "processes": [_describe(child) for child in self._supervisor.children.values()],
        }
        draft = self.settings.stack_file.with_suffix(".new")
        draft.parent.mkdir(parents=True, exist_ok=True)
        draft.write_text(json.dumps(description, indent=1))
        draft.replace(self.settings.stack_file)


def _describe(child: Child) -> dict[str, Any]:
    return {
        "name": child.spec.name,
        "pid": child.pid,
        "needed": child.spec.needed,
        "careful": child.careful,
        "restarts": child.restarts.total,
        "log": str(child.spec.log),
    }
