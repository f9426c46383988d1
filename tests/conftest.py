"""Fixtures: a real broker (one per run, or a fresh one per test), and no connections in unit tests."""

import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from adapters.broker import Broker
from adapters.kafka import ensure_topics
from adapters.settings import Settings

pytest_plugins = ["tests.fixtures_store"]
ROOT = Path(__file__).parent.parent
CACHE = ROOT / ".cache"

StartBroker = Callable[..., Broker]


def broker_settings(data_dir: Path, **values: Any) -> Settings:
    """Settings of an embedded broker that takes free ports and shares the downloads."""
    return Settings(data_dir=data_dir, cache_dir=CACHE, kafka_port=0, **values)


def connected(data_dir: Path, broker: Broker) -> Settings:
    """Settings as a process has them that uses this broker."""
    return broker_settings(data_dir, KAFKA_BOOTSTRAP_SERVERS=broker.address)


LONGEST = ("test_story.py", "test_finetune_worker.py", "test_processor.py", "test_controller.py", "test_loop_verified.py")
"""Files whose tests take minutes: they begin first, so that files run side by side end together."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: LONGEST.index(item.path.name) if item.path.name in LONGEST else len(LONGEST))


@pytest.fixture(scope="session")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Settings]:
    """Settings that lead to a running broker with the registry's topics; one broker for the whole run."""
    yield from running_broker(tmp_path_factory.mktemp("broker"))


@pytest.fixture
def fresh_broker(tmp_path: Path) -> Iterator[Settings]:
    """The same with a broker of its own: every log is empty."""
    yield from running_broker(tmp_path / "fresh-broker")


@pytest.fixture
def start_broker(tmp_path: Path) -> Iterator[StartBroker]:
    """A function that starts a broker with the given settings (default: a data folder of the test's own)."""
    started: list[Broker] = []

    def start(settings: Settings | None = None, **values: Any) -> Broker:
        broker = Broker(settings or broker_settings(tmp_path / "bellbuoy", **values))
        started.append(broker)
        broker.start()
        return broker

    yield start
    for broker in started:
        broker.stop(10)


@pytest.fixture(autouse=True)
def _no_connections_in_unit_tests(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if "unit" not in request.path.relative_to(ROOT).parts[:2]:
        return

    def refuse(_: socket.socket, address: object) -> None:
        raise AssertionError(f"a unit test opens a connection to {address}")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket.socket, "connect_ex", refuse)


def running_broker(data_dir: Path) -> Iterator[Settings]:
    """Settings that lead to a broker with the registry's topics, which is stopped when the generator is closed."""
    broker = Broker(broker_settings(data_dir))
    broker.start()
    settings = connected(data_dir, broker)
    ensure_topics(settings, embedded=True)
    yield settings
    broker.stop(10)
