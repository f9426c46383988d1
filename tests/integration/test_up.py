"""`bellbuoy up`, `status`, `down` on the whole stack, from outside as a user sees it."""

import json
import os
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from bellbuoy.stack import PROCESSES as REST
from tests.conftest import CACHE, ROOT

pytestmark = pytest.mark.integration

PROCESSES = ["broker", "store", *REST]
PORTS = ("KAFKA", "COLLECTOR", "STORE", "PAGE", "GATEWAY", "SANDBOX", "MLFLOW")


class Here:
    """The command line on one data folder, with ports of its own."""

    def __init__(self, data_dir: Path) -> None:
        self.data_dir = data_dir
        ports = {f"BELLBUOY_{name}_PORT": "0" for name in PORTS}
        self.environment = {**os.environ, **ports, "BELLBUOY_DATA_DIR": str(data_dir), "BELLBUOY_CACHE_DIR": str(CACHE)}

    def run(self, *arguments: str) -> "subprocess.CompletedProcess[str]":
        command = [sys.executable, "-m", "bellbuoy", *arguments]
        return subprocess.run(command, cwd=ROOT, env=self.environment, capture_output=True, text=True, check=False, timeout=240)

    def status(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.run("status", "--json").stdout)
        return found

    def processes(self) -> dict[str, dict[str, Any]]:
        return {process["name"]: process for process in self.status()["processes"]}

    def until(self, what: Callable[[dict[str, dict[str, Any]]], bool]) -> dict[str, dict[str, Any]]:
        deadline = time.monotonic() + 120
        while not what(found := self.processes()):
            assert time.monotonic() < deadline, found
            time.sleep(0.3)
        return found


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Here]:
    here = Here(tmp_path_factory.mktemp("up"))
    started = here.run("up", "--detach")
    assert started.returncode == 0, started.stderr
    yield here
    here.run("down")


def test_status_says_where_everything_is(here: Here) -> None:
    status = here.status()
    assert set(status["urls"]) == {"collector", "gateway", "store", "page", "sandbox", "mlflow", "kafka"}
    assert Path(status["key_file"]).read_text().strip()
    assert status["data_dir"] == str(here.data_dir)
    assert [process["name"] for process in status["processes"]] == PROCESSES
    assert all(process["ready"] for process in status["processes"] if process["needed"])
    assert [process["name"] for process in status["processes"] if not process["needed"]] == ["mlflow"]


def test_the_gateway_and_mlflow_answer_at_the_addresses_that_status_prints(here: Here) -> None:
    here.until(lambda found: found["mlflow"]["ready"])
    status = here.status()
    key = {"authorization": f"Bearer {Path(status['key_file']).read_text().strip()}"}
    for url in (status["urls"]["gateway"] + "/v1/models", status["urls"]["mlflow"] + "/version"):
        with urllib.request.urlopen(urllib.request.Request(url, headers=key), timeout=30) as answer:
            assert answer.status == 200


def test_doctor_finds_nothing_wrong(here: Here) -> None:
    checks = json.loads(here.run("doctor", "--json").stdout)
    assert [check for check in checks if check["state"] == "problem"] == []
    assert {"java", "jars", "kafka", "clickhouse", "config"} <= {check["name"] for check in checks}


def test_every_process_serves_health_readiness_and_metrics(here: Here) -> None:
    for name in PROCESSES[1:]:
        url = json.loads((here.data_dir / "run" / f"{name}.health").read_text())["url"]
        for path in ("/health", "/ready", "/metrics"):
            with urllib.request.urlopen(url + path, timeout=10) as answer:
                assert answer.status == 200


def test_a_second_stack_on_the_same_folder_is_refused(here: Here) -> None:
    second = here.run("up")
    assert second.returncode == 1
    assert f"in use by process {here.status()['supervisor']}" in second.stderr
    assert "Traceback" not in second.stderr


@pytest.mark.parametrize("name", PROCESSES)
def test_what_is_killed_comes_back_ready_and_at_the_same_address(here: Here, name: str) -> None:
    before = here.status()
    pid = next(process["pid"] for process in before["processes"] if process["name"] == name)
    os.kill(pid, signal.SIGKILL)
    here.until(lambda found: found[name]["pid"] not in (None, pid) and all(process["ready"] for process in found.values()))
    assert here.status()["urls"] == before["urls"]


def test_down_stops_everything_and_says_so_again(here: Here) -> None:
    running = [psutil.Process(process["pid"]) for process in here.processes().values()]
    assert here.run("down").stdout.strip() == "stopped"
    assert [process for process in running if process.is_running()] == []
    log = [json.loads(line) for line in (here.data_dir / "run" / "logs" / "supervisor.log").read_text().splitlines()]
    stopped = [(line["name"], line["code"]) for line in log if line["message"] == "stopped"]
    assert [name for name, _ in stopped] == list(reversed(PROCESSES))
    assert {code for name, code in stopped if name != "broker"} == {0}
    assert dict(stopped)["broker"] in (0, 143)
    nothing = here.run("status", "--json")
    assert nothing.returncode == 3
    assert json.loads(nothing.stdout)["processes"] == []
    assert here.run("down").returncode == 0


def test_it_goes_on_with_the_same_data_and_leaves_no_orphan_after_kill_9_of_the_supervisor(here: Here) -> None:
    started = here.run("up", "--detach")
    assert started.returncode == 0, started.stderr
    status = here.status()
    children = [psutil.Process(process["pid"]) for process in status["processes"]]
    os.kill(status["supervisor"], signal.SIGKILL)
    _, alive = psutil.wait_procs(children, timeout=30)
    assert alive == []
    again = here.run("up", "--detach")
    assert again.returncode == 0, again.stderr
