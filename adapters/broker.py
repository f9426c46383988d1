"""The embedded Apache Kafka: a real single-node broker as a child process, with its own data folder."""

import base64
import contextlib
import json
import shutil
import signal
import subprocess
import tempfile
import time
import uuid
from collections.abc import Iterable
from pathlib import Path
from string import Template
from typing import Any, Final

import confluent_kafka as ck
import confluent_kafka.admin

from adapters import process as os_process
from adapters.java import Java, find_java
from adapters.kafka_jars import INFRA, Progress, archive_file, class_path, ensure_jars, exclusive
from adapters.settings import Settings
from schemas.topics import MAX_RECORD_BYTES

HOST: Final = "127.0.0.1"
_HEAP: Final = (
    "-Xms256m",
    "-Xmx768m",
    "-XX:+UseSerialGC",
    "-XX:TieredStopAtLevel=1",
    "-XX:+ExitOnOutOfMemoryError",
    "-Djava.awt.headless=true",
)
_START_TIMEOUT_S: Final = 90.0
_STOP_TIMEOUT_S: Final = 30.0
_PORT_TRIES: Final = 3


class BrokerFailed(RuntimeError):
    """The broker did not come up; the text holds the end of its log."""


class Broker:
    """Starts, watches and stops the broker of one data folder.

    The process dies with the thread that called `start`, so that nothing is left behind after kill -9 of the parent.
    Ports are picked once and kept in the data folder; a later start takes the same ones unless somebody else has them.
    """

    def __init__(self, settings: Settings, *, progress: Progress = print) -> None:
        self._settings = settings
        self._progress = progress
        self.home = settings.data_dir.resolve() / "kafka"
        self.log = settings.run_dir.resolve() / "logs" / "broker.log"
        self.process: subprocess.Popen[bytes] | None = None
        self.port = 0
        self.controller_port = 0

    @property
    def _said(self) -> Path:
        return self.home / "logs" / "kafka.log"

    @property
    def address(self) -> str:
        return f"{HOST}:{self.port}"

    @property
    def pid(self) -> int | None:
        return self.process.pid if self.process is not None else None

    def start(self, *, wait_ready: bool = True, avoid_ports: Iterable[int] = ()) -> None:
        """Fetch, format and configure what is not there yet, start the process, and wait until it answers.

        Somebody may take a port between its choice and its use: then others are tried, unless it has been told around.
        """
        java = find_java(self._settings.java_runtime, self._settings.java_home)
        ensure_jars(self._settings, java, self._progress)
        tries = 1 if self.port or not wait_ready else _PORT_TRIES
        for left in reversed(range(tries)):
            if self.port == 0:
                self._pick_ports(avoid_ports)
            said = self._said.stat().st_size if self._said.exists() else 0
            try:
                self._start(java, wait_ready)
                return
            except BrokerFailed:
                if left == 0 or not self._port_was_taken(said):
                    raise
                avoid_ports = (*avoid_ports, self.port, self.controller_port)
                self.port = 0

    def _start(self, java: Java, wait_ready: bool) -> None:
        command = prepare(self._settings, java, self.home, self.port, self.controller_port)
        self.process = os_process.spawn(os_process.bound(command), log=self.log)
        if wait_ready:
            self.wait_ready()

    def wait_ready(self, timeout: float = _START_TIMEOUT_S) -> None:
        """Return when an admin call answers. BrokerFailed when the process ends first, or after `timeout` seconds."""
        deadline = time.monotonic() + timeout
        while not answers(self.address, 1.0):
            if self.process is None or self.process.poll() is not None:
                code = self.process.returncode if self.process is not None else None
                raise BrokerFailed(f"the broker ended with code {code} while starting.\n{self._last_words()}")
            if time.monotonic() > deadline:
                raise BrokerFailed(f"the broker did not answer at {self.address} within {timeout:g} s.\n{self._last_words()}")
            time.sleep(0.1)

    def stop(self, timeout: float = _STOP_TIMEOUT_S) -> None:
        """SIGTERM, and SIGKILL after `timeout` seconds."""
        if self.process is not None:
            os_process.stop(self.process, timeout)
            self.process = None

    def kill(self) -> None:
        """kill -9; `start` brings it back at the same address."""
        if self.process is not None:
            self.process.send_signal(signal.SIGKILL)
            self.process.wait()
            self.process = None

    def _pick_ports(self, avoid: Iterable[int]) -> None:
        saved = self.home / "ports.json"
        before: dict[str, Any] = {}
        with contextlib.suppress(FileNotFoundError, ValueError):
            before = json.loads(saved.read_text())
        preferred = self._settings.kafka_port
        self.port = os_process.pick_port(HOST, (before.get("port", 0), preferred), avoid)
        beside = preferred + 1 if preferred else 0
        self.controller_port = os_process.pick_port(HOST, (before.get("controller_port", 0), beside), (*avoid, self.port))
        self.home.mkdir(parents=True, exist_ok=True)
        saved.write_text(json.dumps({"port": self.port, "controller_port": self.controller_port}))

    def _port_was_taken(self, since: int) -> bool:
        """Whether Kafka's own log says so behind byte `since`."""
        with contextlib.suppress(FileNotFoundError):
            text = self._said.read_bytes()
            return b"Address already in use" in (text[since:] if len(text) >= since else text)
        return False

    def _last_words(self) -> str:
        said = []
        for path in (self.log, self._said):
            with contextlib.suppress(FileNotFoundError):
                said += [f"{path}:", *path.read_text(errors="replace").splitlines()[-12:]]
        return "\n".join(said)


def prepare(settings: Settings, java: Java, home: Path, port: int, controller_port: int) -> list[str]:
    """Write the configuration, format the data folder if it is new, and return the broker's command line."""
    home.mkdir(parents=True, exist_ok=True)
    (home / "logs").mkdir(exist_ok=True)
    shutil.copyfile(INFRA / "log4j2.properties", home / "log4j2.properties")
    classes = class_path(settings)
    data = home / "data"
    if not (data / "meta.properties").is_file():
        _format(java, classes, home, data, port, controller_port)
    properties = _write_properties(home / "server.properties", data, port, controller_port)
    archive = archive_file(settings, java)
    shared = [f"-XX:SharedArchiveFile={archive}", "-Xlog:cds=off", "-Xlog:cds+dynamic=off"] if archive.is_file() else []
    return _command(java, classes, home, [*_HEAP, *shared], "kafka.Kafka", str(properties))


def cluster_id(drawn: uuid.UUID) -> str:
    """22 characters of base64. The first is never a dash, which Kafka's tools would take for an option.

    >>> cluster_id(uuid.UUID(int=0xFB << 120))
    'AwAAAAAAAAAAAAAAAAAAAA'
    """
    text = base64.urlsafe_b64encode(drawn.bytes).decode().rstrip("=")
    return "A" + text[1:] if text.startswith("-") else text


def answers(address: str, timeout: float) -> bool:
    """Whether a broker answers an admin call there. Quick where nothing listens on a port of this machine."""
    host, _, port = address.rpartition(":")
    if port.isdigit() and int(port) < 65536 and os_process.port_is_free(host, int(port)):
        return False
    quiet: dict[str, Any] = {"log_level": 0, "error_cb": lambda _: None}
    client = confluent_kafka.admin.AdminClient({"bootstrap.servers": address, **quiet})
    try:
        return bool(client.list_topics(timeout=timeout).brokers)
    except ck.KafkaException:
        return False


def ensure_archive(settings: Settings, java: Java, progress: Progress) -> bool:
    """Make the class-data archive that halves the start, unless it is there; False where this Java cannot."""
    if java.kind != "system":
        return False
    archive = archive_file(settings, java)
    if archive.is_file():
        return True
    with exclusive(archive.parent):
        if archive.is_file():
            return True
        progress("making Java's class-data archive for the broker, about 15 s")
        for old in archive.parent.glob("classes-*.jsa"):
            old.unlink()
        with tempfile.TemporaryDirectory(prefix="archive-", dir=archive.parent) as folder:
            draft = Path(folder, "classes.jsa")
            port = os_process.pick_port(HOST, ())
            command = prepare(settings, java, Path(folder), port, os_process.pick_port(HOST, (), (port,)))
            command.insert(1, f"-XX:ArchiveClassesAtExit={draft}")
            broker = os_process.spawn(os_process.bound(command), log=Path(folder, "broker.log"))
            try:
                deadline = time.monotonic() + _START_TIMEOUT_S
                while not answers(f"{HOST}:{port}", 1.0):
                    if broker.poll() is not None or time.monotonic() > deadline:
                        break
                    time.sleep(0.1)
                else:
                    _exercise(f"{HOST}:{port}")
            finally:
                os_process.stop(broker, 60.0)
            if not draft.is_file():
                progress("  this Java made none; the broker starts a few seconds slower")
                return False
            draft.rename(archive)
    return True


def _exercise(address: str) -> None:
    """Load the classes that a start and the first records need."""
    admin = confluent_kafka.admin.AdminClient({"bootstrap.servers": address})
    for future in admin.create_topics([ck.admin.NewTopic("warm", 1, 1)]).values():  # type: ignore[attr-defined]  # missing from its __all__
        future.result(30)
    producer = ck.Producer(
        {"bootstrap.servers": address, "transactional.id": "warm", "transaction.timeout.ms": 20_000, "log_level": 2}
    )
    producer.init_transactions(30)
    producer.begin_transaction()
    producer.produce("warm", b"x")
    producer.commit_transaction(30)
    consumer = ck.Consumer({"bootstrap.servers": address, "group.id": "warm", "auto.offset.reset": "earliest"})
    consumer.subscribe(["warm"])
    consumer.poll(10)
    consumer.close()


def _format(java: Java, classes: str, home: Path, data: Path, port: int, controller_port: int) -> None:
    """Format beside the final place and rename, so that a folder is formatted whole or not at all."""
    draft = home / "data.new"
    shutil.rmtree(draft, ignore_errors=True)
    if data.exists():
        raise BrokerFailed(f"{data} is there but is no formatted Kafka folder (no meta.properties); move it away to start anew")
    properties = _write_properties(home / "format.properties", draft, port, controller_port)
    arguments = ["format", "--standalone", "-t", cluster_id(uuid.uuid4()), "-c", str(properties)]
    command = _command(
        java, classes, home, ["-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1"], "kafka.tools.StorageTool", *arguments
    )
    made = subprocess.run(command, capture_output=True, text=True, check=False)
    if made.returncode != 0:
        raise BrokerFailed(f"the data folder {data} could not be formatted:\n{made.stdout[-2000:]}{made.stderr[-2000:]}")
    draft.rename(data)


def _write_properties(path: Path, data: Path, port: int, controller_port: int) -> Path:
    text = Template((INFRA / "server.properties").read_text())
    filled = text.substitute(port=port, controller_port=controller_port, data=data, max_bytes=MAX_RECORD_BYTES + 4096)
    path.write_text(filled)
    return path


def _command(java: Java, classes: str, home: Path, options: list[str], main: str, *arguments: str) -> list[str]:
    return [
        str(java.path),
        *java.options(),
        *options,
        f"-Dkafka.logs.dir={home / 'logs'}",
        f"-Dlog4j2.configurationFile={home / 'log4j2.properties'}",
        "-cp",
        classes,
        main,
        *arguments,
    ]
