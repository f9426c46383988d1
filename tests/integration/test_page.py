"""The page as a process over a real store: rows in, words out; and the store taken away."""

import contextlib
import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from urllib.parse import quote

import httpx
import pytest

from adapters import clickhouse
from adapters.process import pick_port
from adapters.settings import Settings
from services.page_data import process_states

pytestmark = pytest.mark.integration
ROOT = Path(__file__).parents[2]
HOSTILE = "<script>alert(1)</script>"


@contextlib.contextmanager
def process(name: str, settings: Settings, log: Path) -> Iterator[subprocess.Popen[bytes]]:
    with log.open("wb") as file:
        started = subprocess.Popen(
            [sys.executable, "-m", "bellbuoy", name], cwd=ROOT, env=settings.environment(), stdout=file, stderr=file
        )
    try:
        yield started
    finally:
        if started.poll() is None:
            started.send_signal(signal.SIGTERM)
            started.wait(30)


def until(settings: Settings, name: str, running: subprocess.Popen[bytes], log: Path) -> None:
    """Wait until a process says that it is ready."""
    end = time.monotonic() + 60
    while not any(state["name"] == name and state["ready"] for state in process_states(settings)()):
        assert running.poll() is None, log.read_text()
        assert time.monotonic() < end, log.read_text()
        time.sleep(0.1)


def fill(settings: Settings) -> None:
    """One firing alert, one action, traffic of one app."""
    client = clickhouse.connect(settings)
    clickhouse.migrate(client)
    now = datetime.now(UTC)
    effect = json.dumps({"before": 0.02, "after": 0.31, "low": 0.24, "high": 0.39, "events": 180})
    place = {"app": HOSTILE, "lane": "live", "environment": "production", "arrival": now}
    for sequence, state in ((1, "pending"), (2, "firing")):
        insert(client, "alerts", place | {"id": "a-1", "sequence": sequence, "state": state, "metric": "refusal", "slice": "version=v8",
               "window": now, "opened_window": now, "onset": now, "effect": effect, "contributions": "[]"})  # fmt: skip
    insert(client, "actions", place | {"id": "b-1", "sequence": 1, "kind": "rollback", "version": "v8", "state": "suggested",
           "evidence": [HOSTILE], "window": now})  # fmt: skip
    for n in range(1, 13):
        window = now - timedelta(seconds=5 * n)
        for metric, counted in (("refusal@1", 100), ("response.empty@1", 100), ("thumbs.down@1", 900)):
            insert(client, "window_rows", {"app": HOSTILE, "lane": "live", "environment": "production", "resolution": 5,
                   "metric": metric, "version": "v8", "window": window, "n": counted})  # fmt: skip
    hour = now.replace(minute=0, second=0, microsecond=0) - timedelta(hours=2)
    for metric in ("refusal@1", "refusal@1", "scorer.error@1"):  # a row that was written twice counts once
        insert(client, "window_rows", {"app": HOSTILE, "lane": "live", "environment": "production", "resolution": 3_600,
               "metric": metric, "version": "v8", "window": hour, "n": 500, "bins": [0, 1], "counts": [470, 30]})  # fmt: skip


def insert(client: clickhouse.Client, table: str, row: dict[str, object]) -> None:
    client.insert(table, [list(row.values())], column_names=list(row))


def test_the_page_tells_what_the_store_holds_and_says_when_it_is_away(tmp_path: Path) -> None:
    ports = [pick_port("127.0.0.1", ())]
    ports.append(pick_port("127.0.0.1", (), ports))
    settings = Settings(
        data_dir=tmp_path,
        store_port=ports[0],
        page_port=ports[1],
        KAFKA_BOOTSTRAP_SERVERS=f"127.0.0.1:{pick_port('127.0.0.1', (), ports)}",
    )
    client = httpx.Client(base_url=f"http://127.0.0.1:{ports[1]}", timeout=60)
    with client, process("page", settings, tmp_path / "page.log") as page:
        until(settings, "page", page, tmp_path / "page.log")
        assert client.get("/api/status").json()["errors"]["alerts"] == "the store does not answer"
        with process("store", settings, tmp_path / "store.log") as store:
            until(settings, "store", store, tmp_path / "store.log")
            fill(settings)
            time.sleep(2)
            status = client.get("/api/status").json()
            assert set(status["errors"]) <= {"ledger"}, "there is no broker here"
            assert [(alert["id"], alert["state"]) for alert in status["alerts"]] == [("a-1", "firing")]
            assert [action["id"] for action in status["actions"]] == ["b-1"]
            assert [(app["app"], app["total"]) for app in status["traffic"]] == [(HOSTILE, 1200)]
            (app,) = client.get("/api/overview?range=day").json()["apps"]
            assert (app["app"], app["total"], sum(app["counts"])) == (HOSTILE, 500, 500)
            history = client.get(f"/api/apps/{quote(HOSTILE)}").json()
            assert [(s["metric"], s["total"], sum(s["fired"])) for s in history["series"]] == [
                (name, 500, 30) for name in ("refusal@1", "scorer.error@1")
            ]
            assert client.get("/api/apps/desk").json()["series"] == []
            html = client.get("/").text
            assert HOSTILE not in html
            assert "&lt;script&gt;" in html
        time.sleep(2)
        status = client.get("/api/status").json()
        assert status["errors"]["alerts"] == "the store does not answer"
        assert client.get("/", headers={"host": "evil.example"}).status_code == 421
        page.send_signal(signal.SIGTERM)
        assert page.wait(30) == 0, (tmp_path / "page.log").read_text()


def test_a_process_that_was_killed_is_said_not_to_answer(tmp_path: Path) -> None:
    run = tmp_path / "run"
    run.mkdir()
    port = pick_port("127.0.0.1", ())
    (run / "sink.health").write_text(json.dumps({"pid": 1, "port": port, "url": f"http://127.0.0.1:{port}"}))
    [state] = process_states(Settings(data_dir=tmp_path))()
    assert (state["ready"], state["reason"]) == (False, "does not answer")
