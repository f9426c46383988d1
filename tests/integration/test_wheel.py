"""Every service of docker-compose.yml runs from the built wheel, in a clean environment and an empty folder."""

import json
import os
import re
import signal
import subprocess
import sys
import sysconfig
import time
import urllib.error
import urllib.request
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml

from adapters.broker import Broker
from adapters.process import pick_port
from tests.conftest import CACHE, ROOT, broker_settings
from tests.fixtures_store import StoreProcess

pytestmark = pytest.mark.integration

PACKAGES = ("schemas", "core", "adapters", "streams", "services", "bellbuoy")
SERVICES: dict[str, dict[str, Any]] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]
OURS = {name: service for name, service in SERVICES.items() if "build" in service}
ONCE = ("topics", "config", "migrate")
PROCESSES = tuple(name for name in OURS if name not in ONCE)
UPSTREAM_KEY = "any text"


@dataclass
class Installed:
    """The wheel in an environment of its own; what it depends on is borrowed from the one that runs the tests."""

    wheel: Path
    home: Path

    @property
    def python(self) -> Path:
        return self.home / "bin" / "python"

    @property
    def program(self) -> Path:
        return self.home / "bin" / "bellbuoy"


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Installed:
    folder = tmp_path_factory.mktemp("wheel")
    run(sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder), cwd=ROOT)
    (wheel,) = folder.glob("*.whl")
    found = Installed(wheel, folder / "venv")
    run(sys.executable, "-m", "venv", "--without-pip", str(found.home))
    pip = [sys.executable, "-m", "pip", "--python", str(found.python), "--disable-pip-version-check"]
    run(*pip, "install", "--quiet", "--no-deps", "--no-index", str(wheel))
    (site,) = found.home.glob("lib/python*/site-packages")
    (site / "borrowed.pth").write_text(sysconfig.get_paths()["purelib"] + "\n")
    return found


def run(*command: str, cwd: Path | None = None, env: dict[str, str] | None = None) -> str:
    done = subprocess.run(command, cwd=cwd, env=env, capture_output=True, text=True, check=False, timeout=180)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@dataclass
class Composed:
    """Each service as compose would run it, but on free ports and with addresses on this machine."""

    folder: Path
    program: Path
    kafka: str
    dsn: str
    ports: dict[str, int] = field(default_factory=dict)
    running: dict[str, "subprocess.Popen[bytes]"] = field(default_factory=dict)

    def port(self, name: str) -> int:
        if name not in self.ports:
            self.ports[name] = pick_port("127.0.0.1", (), self.ports.values())
        return self.ports[name]

    def environment(self, service: str) -> dict[str, str]:
        """The service's own, and nothing of this process's but PATH."""
        here = {
            "KAFKA_BOOTSTRAP_SERVERS": self.kafka,
            "BELLBUOY_CLICKHOUSE_DSN": self.dsn,
            "MLFLOW_TRACKING_URI": f"http://127.0.0.1:{self.port('mlflow')}",
            "BELLBUOY_UPSTREAM_URL": f"http://127.0.0.1:{self.port('sandbox')}/v1",
            "BELLBUOY_UPSTREAM_API_KEY": UPSTREAM_KEY,
            "BELLBUOY_DATA_DIR": str(self.folder / service),
            "BELLBUOY_CACHE_DIR": str(CACHE),
            "BELLBUOY_HEALTH_PORT": str(self.port(f"{service} health")),
        }
        given: dict[str, str] = OURS[service]["environment"]
        for name in given:
            if (named := re.fullmatch(r"BELLBUOY_(\w+)_PORT", name)) and name not in here:
                here[name] = str(self.port(named[1].lower()))
        assert set(here) <= set(given), "the test names what the service is not given"
        return {**given, **here, "PATH": os.environ["PATH"]}

    def prepare(self, service: str) -> Path:
        """The service's folder, empty but for the keys, which are a volume that all have."""
        folder = self.folder / service
        folder.mkdir()
        (folder / "keys").symlink_to(self.folder / "keys")
        return folder

    def once(self, service: str) -> None:
        folder = self.prepare(service)
        run(str(self.program), *OURS[service]["command"], cwd=folder, env=self.environment(service))

    def start(self, service: str) -> None:
        folder = self.prepare(service)
        command = [str(self.program), *OURS[service]["command"]]
        with (folder / "log").open("ab") as log:
            process = subprocess.Popen(command, cwd=folder, env=self.environment(service), stdout=log, stderr=log)
        self.running[service] = process

    def said(self, service: str) -> str:
        return (self.folder / service / "log").read_text(errors="replace")[-3_000:]

    def end(self) -> None:
        for process in self.running.values():
            process.send_signal(signal.SIGTERM)
        for process in self.running.values():
            try:
                process.wait(40)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


@pytest.fixture(scope="module")
def composed(tmp_path_factory: pytest.TempPathFactory, installed: Installed) -> Iterator[Composed]:
    folder = tmp_path_factory.mktemp("composed")
    (folder / "keys").mkdir(mode=0o700)
    broker = Broker(broker_settings(folder / "kafka"))
    broker.start()
    store = StoreProcess(folder / "store").start()
    store.client().command("CREATE DATABASE bellbuoy")
    dsn = f"http://default:{store.key}@127.0.0.1:{store.port}/bellbuoy"
    composed = Composed(folder, installed.program, broker.address, dsn)
    try:
        for service in ONCE:
            composed.once(service)
        for service in PROCESSES:
            composed.start(service)
        yield composed
    finally:
        composed.end()
        store.stop()
        broker.stop(10)


def test_the_wheel_has_every_file_that_is_not_python(installed: Installed) -> None:
    packed = set(zipfile.ZipFile(installed.wheel).namelist())
    files = [path for package in PACKAGES for path in (ROOT / package).rglob("*") if path.is_file()]
    data = {path.relative_to(ROOT).as_posix() for path in files if path.suffix not in (".py", ".pyc")}
    data |= {path.relative_to(ROOT).as_posix() for path in (ROOT / "infra" / "kafka").iterdir()}
    assert {Path(name).suffix for name in data} >= {".sql", ".json", ".html", ".css", ".lock", ".properties"}
    assert data <= packed


def test_the_packages_are_imported_from_the_wheel_and_not_from_the_checkout(installed: Installed, tmp_path: Path) -> None:
    code = f"import importlib, json; print(json.dumps([importlib.import_module(n).__file__ for n in {PACKAGES!r}]))"
    found = json.loads(run(str(installed.python), "-c", code, cwd=tmp_path, env={"PATH": os.environ["PATH"]}))
    assert all(Path(path).is_relative_to(installed.home) for path in found)


def test_the_wheel_brings_no_package_beside_ours(installed: Installed) -> None:
    tops = {name.split("/")[0] for name in zipfile.ZipFile(installed.wheel).namelist()}
    assert {top for top in tops if not top.endswith(".dist-info")} == {*PACKAGES, "infra"}


@pytest.mark.parametrize("service", PROCESSES)
def test_the_service_becomes_ready(composed: Composed, service: str) -> None:
    url = f"http://127.0.0.1:{composed.port(f'{service} health')}/ready"
    deadline = time.monotonic() + 120
    said = "nothing"
    while time.monotonic() < deadline and composed.running[service].poll() is None:
        try:
            with urllib.request.urlopen(url, timeout=5):
                return
        except urllib.error.HTTPError as error:
            said = error.read().decode()
        except (urllib.error.URLError, ConnectionError, TimeoutError):
            pass
        time.sleep(0.2)
    raise AssertionError(f"{service} is not ready: {said}\n{composed.said(service)}")


def test_the_sandbox_takes_the_key_that_the_gateway_sends(composed: Composed) -> None:
    request = urllib.request.Request(
        f"http://127.0.0.1:{composed.port('sandbox')}/v1/models", headers={"authorization": f"Bearer {UPSTREAM_KEY}"}
    )
    with urllib.request.urlopen(request, timeout=10) as answer:
        assert json.load(answer)["data"]


def test_every_service_ends_cleanly_when_it_is_told_to(composed: Composed) -> None:
    composed.end()
    assert {name: process.returncode for name, process in composed.running.items()} == dict.fromkeys(composed.running, 0)
