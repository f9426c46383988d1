"""The embedded MLflow as a process: what a registry client finds there, and what a kill leaves."""

import json
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from adapters.mlflow_server import make_database
from adapters.process import pick_port
from tests.conftest import ROOT

pytestmark = pytest.mark.integration


class Server:
    """`bellbuoy mlflow` on one data folder."""

    def __init__(self, data_dir: Path) -> None:
        self.data_dir = data_dir
        self.port = pick_port("127.0.0.1", ())
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self, **environment: str) -> "Server":
        self.data_dir.mkdir(parents=True, exist_ok=True)
        settings = {"BELLBUOY_DATA_DIR": str(self.data_dir), "BELLBUOY_MLFLOW_PORT": str(self.port)}
        with (self.data_dir / "log").open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "bellbuoy", "mlflow"],
                cwd=ROOT,
                env={**os.environ, **settings, **environment},
                stdout=log,
                stderr=log,
            )
        return self

    def until_ready(self) -> "Server":
        health = self.data_dir / "run" / "mlflow.health"
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline and self.process is not None and self.process.poll() is None:
            try:
                told = json.loads(health.read_text())
                if told["pid"] == self.process.pid:
                    urllib.request.urlopen(told["url"] + "/ready", timeout=5).close()
                    return self
            except (FileNotFoundError, urllib.error.URLError):
                time.sleep(0.1)
        raise AssertionError("MLflow did not become ready:\n" + (self.data_dir / "log").read_text()[-3_000:])

    def ask(self, path: str, **arguments: Any) -> dict[str, Any]:
        request = urllib.request.Request(self.url + "/api/2.0/mlflow/" + path, headers={"content-type": "application/json"})
        request.data = json.dumps(arguments).encode() if arguments else None
        with urllib.request.urlopen(request, timeout=30) as answer:
            value: dict[str, Any] = json.load(answer)
            return value

    def end(self, number: int = signal.SIGTERM) -> int:
        assert self.process is not None
        if self.process.poll() is None:
            self.process.send_signal(number)
        try:
            return self.process.wait(30)
        except subprocess.TimeoutExpired:
            self.process.kill()
            return self.process.wait()


@pytest.fixture
def make_server(tmp_path: Path) -> Iterator[Callable[[], Server]]:
    made: list[Server] = []

    def make() -> Server:
        made.append(Server(tmp_path / "bellbuoy"))
        return made[-1]

    yield make
    for server in made:
        if server.process is not None:
            server.end()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    server = Server(tmp_path_factory.mktemp("mlflow")).start().until_ready()
    yield server
    server.end()


def test_a_version_with_any_source_and_an_alias_is_kept(server: Server) -> None:
    server.ask("registered-models/create", name="help-desk")
    made = server.ask("model-versions/create", name="help-desk", source="openai:/ft:mini:one")
    assert made["model_version"]["version"] == "1"
    server.ask("registered-models/alias", name="help-desk", alias="champion", version="1")
    found = server.ask("registered-models/alias?name=help-desk&alias=champion")
    assert found["model_version"]["source"] == "openai:/ft:mini:one"


def test_an_artifact_that_is_uploaded_lies_in_the_data_folder(server: Server) -> None:
    url = server.url + "/api/2.0/mlflow-artifacts/artifacts/datasets/one.jsonl"
    urllib.request.urlopen(urllib.request.Request(url, data=b"{}\n", method="PUT"), timeout=30).close()
    assert (server.data_dir / "mlflow" / "artifacts" / "datasets" / "one.jsonl").read_bytes() == b"{}\n"


def test_it_is_one_process(server: Server) -> None:
    assert server.process is not None
    assert psutil.Process(server.process.pid).children(recursive=True) == []


def test_it_listens_on_loopback_only(server: Server) -> None:
    assert server.process is not None
    listening = [c.laddr.ip for c in psutil.Process(server.process.pid).net_connections("inet") if c.status == "LISTEN"]
    assert len(listening) == 2
    assert set(listening) == {"127.0.0.1"}


def test_a_page_elsewhere_that_resolves_its_name_to_this_machine_gets_nothing(server: Server) -> None:
    request = urllib.request.Request(server.url + "/api/2.0/mlflow/registered-models/search", headers={"host": "evil.example"})
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(request, timeout=30)
    assert refused.value.code == 403


def test_a_host_name_that_was_allowed_is_answered_and_the_server_is_ready(make_server: Callable[[], Server]) -> None:
    server = make_server().start(MLFLOW_SERVER_ALLOWED_HOSTS="mlflow:5000").until_ready()
    request = urllib.request.Request(server.url + "/api/2.0/mlflow/registered-models/search", headers={"host": "mlflow:5000"})
    with urllib.request.urlopen(request, timeout=30) as answer:
        assert answer.status == 200


def test_what_was_written_is_there_after_kill_9(make_server: Callable[[], Server]) -> None:
    server = make_server().start().until_ready()
    server.ask("registered-models/create", name="help-desk")
    server.end(signal.SIGKILL)
    server.start().until_ready()
    assert server.ask("registered-models/get?name=help-desk")["registered_model"]["name"] == "help-desk"
    assert server.end() == 0


def test_a_database_that_was_half_made_is_made_anew(tmp_path: Path) -> None:
    (tmp_path / "new-1").mkdir()
    (tmp_path / "new-1" / "mlflow.db").write_bytes(b"half")
    database = make_database(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [database.name]


def test_a_second_server_on_the_folder_is_refused(make_server: Callable[[], Server]) -> None:
    first = make_server().start().until_ready()
    second = make_server().start()
    assert second.process is not None
    assert second.process.wait(60) == 1
    assert first.process is not None
    assert f"in use by process {first.process.pid}" in (first.data_dir / "log").read_text()
