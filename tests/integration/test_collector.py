"""The collector as a process in front of a real broker: what a client gets, and what stands on the raw topics."""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from adapters.kafka import ensure_topics, partition_by_key, read_all
from adapters.keys import receipt_key
from adapters.settings import Settings
from core.receipts import key_id, verify
from schemas import codec
from schemas.messages import Feedback, Interaction
from schemas.topics import FEEDBACK, INTERACTIONS, TOPICS
from tests.conftest import StartBroker, connected

pytestmark = pytest.mark.integration
ROOT = Path(__file__).parents[2]
KEY = "the-key"
GOOD = {"app": "help-desk", "input": [{"role": "user", "content": "How?"}], "output": [{"role": "assistant", "content": "So."}]}


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Running:
    """One collector process and a client that knows its key."""

    def __init__(self, settings: Settings, log: Path) -> None:
        self.port = free_port()
        self.settings, self.log = settings, log
        environment = os.environ | {
            "BELLBUOY_DATA_DIR": str(settings.data_dir),
            "BELLBUOY_API_KEY": KEY,
            "BELLBUOY_COLLECTOR_PORT": str(self.port),
            "KAFKA_BOOTSTRAP_SERVERS": settings.bootstrap_servers(),
        }
        with log.open("wb") as file:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "services.collector"], cwd=ROOT, env=environment, stdout=file, stderr=file
            )
        self.client = httpx.Client(base_url=f"http://127.0.0.1:{self.port}", headers={"x-api-key": KEY}, timeout=60)

    def wait(self, status: int, seconds: float = 30) -> None:
        """Wait until /ready answers with this status."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            assert self.process.poll() is None, self.log.read_text()
            with contextlib.suppress(httpx.TransportError):
                if self.client.get("/ready").status_code == status:
                    return
            time.sleep(0.05)
        raise AssertionError(f"/ready did not become {status}: {self.log.read_text()}")

    def post(self, body: Any, path: str = "/v1/interactions", **headers: str) -> httpx.Response:
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        return self.client.post(path, content=content, headers=headers)

    def stop(self) -> int:
        self.client.close()
        self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(30)
        except subprocess.TimeoutExpired:
            self.process.kill()
            raise


@contextlib.contextmanager
def collector(settings: Settings, log: Path) -> Iterator[Running]:
    running = Running(settings, log)
    try:
        yield running
    finally:
        if running.process.poll() is None:
            running.process.kill()
            running.process.wait()
        running.client.close()


@pytest.fixture(scope="module")
def running(broker: Settings, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with collector(broker, tmp_path_factory.mktemp("collector") / "log") as one:
        one.wait(200)
        yield one


def records(settings: Settings, topic: str, wanted: Callable[[bytes], bool]) -> list[tuple[int, codec.Record]]:
    """(partition, record) of a topic whose values are wanted."""
    return [
        (partition, record)
        for partition in range(TOPICS[topic].partitions(embedded=True))
        for record in read_all(settings, topic, partition)
        if record.value is not None and wanted(record.value)
    ]


def test_what_was_accepted_is_on_the_topic_when_the_answer_comes(running: Running) -> None:
    body = [GOOD | {"app": "acked", "id": f"acked-{n}", "conversation": f"c-{n}", "later": n} for n in range(50)]
    answer = running.post(body)
    assert [item["status"] for item in answer.json()["items"]] == ["accepted"] * 50
    found = records(running.settings, INTERACTIONS, lambda value: b'"acked"' in value)
    messages = {m.id: m for m in (codec.decode(Interaction, record.value) for _, record in found)}
    assert set(messages) == {f"acked-{n}" for n in range(50)}
    assert {int(bytes(m.extra["later"])) for m in messages.values()} == set(range(50))
    assert sorted(m.producer_sequence or 0 for m in messages.values()) == list(
        range(
            min(m.producer_sequence or 0 for m in messages.values()), max(m.producer_sequence or 0 for m in messages.values()) + 1
        )
    )
    for partition, record in found:
        assert record.key is not None
        assert partition == partition_by_key(record.key, 4)
        assert dict(record.headers)["ce_type"] == b"bellbuoy.interaction.v1"


def test_a_receipt_comes_back_and_verifies(running: Running) -> None:
    [item] = running.post(GOOD | {"id": "receipt-1", "version": "v7"}).json()["items"]
    public = receipt_key(running.settings).private.public_key()
    assert verify(item["receipt"], {key_id(public): public}).version == "v7"
    act = {"interaction_id": item["id"], "name": "thumbs", "score": 0, "receipt": item["receipt"], "actor": "ana"}
    assert running.post(act, "/v1/feedback").status_code == 200
    [(_, record)] = records(running.settings, FEEDBACK, lambda value: b"receipt-1" in value)
    stored = codec.decode(Feedback, record.value)
    assert (record.key, stored.receipt) == (b"receipt-1", item["receipt"])
    assert stored.actor != "ana"


BAD_LINES = [
    b"{malformed",
    b'"text"',
    b'{"app":7,"input":[]}',
    b'{"app":"a","input":"text"}',
    b'{"app":"a","prompt":"\xff\xfe"}',
    b'{"app":"a","prompt":"\x00"}',
    b'{"app":"a\\u0000","prompt":"q"}',
    b'{"app":"a","prompt":"\\ud800"}',
    b'{"app":"a","prompt":"q","time":"tomorrow"}',
    b'{"app":"a","prompt":"' + b"x" * 10_000_000 + b'"}',
    b'{"app":"a","input":[],"deep":' + b"[" * 5_000 + b"]" * 5_000 + b"}",
    b'{"app":"a","input":[],"input_tokens":' + b"9" * 100 + b"}",
]


def test_bad_lines_are_answered_with_a_reason_and_harm_no_other(running: Running) -> None:
    good = [json.dumps(GOOD | {"id": f"neighbour-{n}"}).encode() for n in range(len(BAD_LINES))]
    lines = [line for pair in zip(good, BAD_LINES, strict=True) for line in pair]
    answer = running.post(b"\n".join(lines), **{"content-type": "application/x-ndjson"})
    assert answer.status_code == 200
    items = answer.json()["items"]
    assert [item["status"] for item in items] == ["accepted", "error"] * len(BAD_LINES)
    assert all(item["reason"] for item in items[1::2])
    assert len(records(running.settings, INTERACTIONS, lambda value: b"neighbour-" in value)) == len(BAD_LINES)


def test_the_clients_clock_changes_nothing_of_the_append_time(running: Running) -> None:
    before = time.time() * 1000 - 60_000
    body = [GOOD | {"id": f"clock-{n}", "time": text} for n, text in enumerate(("1970-01-01T00:00:00Z", "2100-01-01T00:00:00Z"))]
    assert running.post(body).status_code == 200
    found = records(running.settings, INTERACTIONS, lambda value: b'"clock-' in value)
    assert len(found) == 2
    assert all(before < record.timestamp < before + 120_000 for _, record in found)


def test_unknown_apps_and_repeated_ids_are_taken(running: Running) -> None:
    body = [GOOD | {"id": "twice", "app": f"never-seen-{n}"} for n in range(2)]
    assert [item["status"] for item in running.post(body).json()["items"]] == ["accepted", "accepted"]


def test_a_stop_answers_and_flushes_what_is_under_way(broker: Settings, tmp_path: Path) -> None:
    with collector(broker, tmp_path / "log") as one:
        one.wait(200)
        assert one.post([GOOD | {"id": f"stop-{n}"} for n in range(100)]).status_code == 200
        assert one.stop() == 0, one.log.read_text()
    assert len(records(broker, INTERACTIONS, lambda value: b'"stop-' in value)) == 100


def test_while_the_broker_is_away_clients_are_told_to_come_back(start_broker: StartBroker, tmp_path: Path) -> None:
    broker = start_broker()
    settings = connected(tmp_path / "bellbuoy", broker)
    ensure_topics(settings, embedded=True)
    with collector(settings, tmp_path / "log") as one:
        one.wait(200)
        assert one.post(GOOD | {"id": "before"}).status_code == 200
        broker.kill()
        answers = [one.post(GOOD | {"id": f"away-{n}"}) for n in range(2)]
        assert [answer.status_code for answer in answers] == [503, 503]
        assert all(answer.headers["retry-after"] for answer in answers)
        broker.start()
        one.wait(200, 60)
        assert one.post(GOOD | {"id": "after"}).status_code == 200
        assert one.stop() == 0, one.log.read_text()
    ids = [codec.decode(Interaction, r.value).id for _, r in records(settings, INTERACTIONS, lambda value: b"help-desk" in value)]
    assert {"before", "after"} <= set(ids)


def test_a_collector_that_starts_before_its_broker_waits_for_it(tmp_path: Path) -> None:
    settings = Settings(data_dir=tmp_path, KAFKA_BOOTSTRAP_SERVERS=f"127.0.0.1:{free_port()}")
    with collector(settings, tmp_path / "log") as one:
        one.wait(503)
        answer = one.post(GOOD)
        assert (answer.status_code, answer.json()["error"]["code"]) == (503, "unavailable")
        assert one.stop() == 0, one.log.read_text()
