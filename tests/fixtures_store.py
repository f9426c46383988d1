"""Fixtures: real store processes, each with a data folder and a port of its own."""

import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from adapters.clickhouse import Client, connect
from adapters.process import pick_port
from adapters.settings import Settings

ROOT = Path(__file__).parent.parent


@dataclass
class StoreProcess:
    """A store in a process of its own; `kill` is kill -9."""

    data_dir: Path
    port: int = field(default_factory=lambda: pick_port("127.0.0.1", (0,), []))
    process: "subprocess.Popen[bytes] | None" = None

    @property
    def settings(self) -> Settings:
        return Settings(data_dir=self.data_dir, store_port=self.port)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def key(self) -> str:
        return (self.data_dir / "keys" / "store").read_text()

    def start(self) -> "StoreProcess":
        code = "from adapters.settings import Settings; from services.store import main; main(Settings())"
        environment = {**os.environ, "BELLBUOY_DATA_DIR": str(self.data_dir), "BELLBUOY_STORE_PORT": str(self.port)}
        environment |= {"PYTHONPATH": str(ROOT)}
        self.data_dir.mkdir(parents=True, exist_ok=True)
        with (self.data_dir / "store.log").open("ab") as log:
            self.process = subprocess.Popen([sys.executable, "-c", code], env=environment, stdout=log, stderr=log)
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            try:
                with urllib.request.urlopen(self.url + "/ping", timeout=5):
                    return self
            except (urllib.error.URLError, ConnectionError):
                if self.process.poll() is not None:
                    break
                time.sleep(0.05)
        raise AssertionError("the store did not start:\n" + (self.data_dir / "store.log").read_text()[-3_000:])

    def kill(self) -> None:
        self._end(signal.SIGKILL)

    def stop(self) -> None:
        self._end(signal.SIGTERM)

    def _end(self, number: int) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(number)
            try:
                self.process.wait(20)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait(20)

    def client(self, **values: object) -> Client:
        return connect(self.settings, database="default", **values)  # type: ignore[arg-type]  # passed through


@pytest.fixture(scope="session")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StoreProcess]:
    """One running store for the whole run; tests use databases of their own."""
    process = StoreProcess(tmp_path_factory.mktemp("store")).start()
    yield process
    process.stop()


@pytest.fixture
def start_store(tmp_path: Path) -> Iterator[Callable[[], StoreProcess]]:
    """A function that makes a store on the test's own data folder, to be started and killed."""
    made: list[StoreProcess] = []

    def make() -> StoreProcess:
        made.append(StoreProcess(tmp_path / "bellbuoy"))
        return made[-1]

    yield make
    for process in made:
        process.stop()
