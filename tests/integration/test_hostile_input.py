"""What nobody should send, sent through the whole stack and past the collector: all is named or counted, the rest is unharmed.

The tests follow each other on one running stack.
"""

import contextlib
import json
import random
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import confluent_kafka as ck
import httpx
import kafka
import psutil
import pytest

from adapters import clickhouse
from adapters.clickhouse import Client
from adapters.embedding import load_embedding
from adapters.heads import load_heads
from adapters.kafka import control_producer, read_all
from adapters.keys import api_key
from adapters.recorded import record_log
from adapters.settings import Settings
from bellbuoy.ledger import read_ledger, wait_at_rest
from core.fold import MAX_APPS
from schemas import codec
from schemas.messages import DeadLetter, Feedback
from schemas.topics import DEADLETTER, EMBEDDED_SHARDS, FEEDBACK, INTERACTIONS, shard_of
from streams.backtest import compare, recompute
from tests.conftest import CACHE
from tests.integration.test_collector import BAD_LINES
from tests.integration.test_up import Here
from tests.unit.test_blocks import chat

pytestmark = pytest.mark.integration

MARK = "PAYLOAD-9f2c"
"""Stands in every bad record; no dead letter may hold it."""
CODECS = (None, "gzip", "snappy", "lz4", "zstd")
APPS = 100_000
ORDINARY = 40
"""Requests of an ordinary app between two batches of the flood."""
BATCH = 2_000
GIGABYTE = 1024**3
REST = timedelta(seconds=240)


@dataclass
class World:
    """A running stack, a client of its collector and one of its broker."""

    here: Here
    settings: Settings
    http: httpx.Client
    store: Client

    def post(self, items: list[dict[str, Any]], path: str = "/v1/interactions") -> list[dict[str, Any]]:
        """Every item must be accepted."""
        for _ in range(60):
            answer = self.http.post(f"{path}?receipts=0", content=json.dumps(items).encode())
            if answer.status_code not in (429, 503):
                break
            time.sleep(0.5)
        assert answer.status_code == 200, answer.text[:500]
        found: list[dict[str, Any]] = answer.json()["items"]
        assert {item["status"] for item in found} == {"accepted"}
        return found

    def rest(self) -> None:
        wait_at_rest(self.settings, self.store, timeout=REST)

    def texts(self, app: str) -> dict[str, str]:
        rows = self.store.query("SELECT id, prompt FROM interactions WHERE app = {app:String}", parameters={"app": app})
        return dict(rows.result_rows)

    def resident(self) -> dict[str, int]:
        """Bytes of memory by process."""
        return {name: psutil.Process(process["pid"]).memory_info().rss for name, process in self.here.processes().items()}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    here = Here(tmp_path_factory.mktemp("hostile"))
    started = here.run("up", "--detach")
    assert started.returncode == 0, started.stderr
    try:
        settings = Settings(data_dir=here.data_dir, cache_dir=CACHE)
        headers = {"x-api-key": api_key(settings)}
        url = here.status()["urls"]["collector"]
        with (
            httpx.Client(base_url=url, headers=headers, timeout=120) as http,
            contextlib.closing(clickhouse.connect(settings)) as store,
        ):
            yield World(here, settings, http, store)
    finally:
        here.run("down")


TEXTS = {
    "sql": "'; DROP TABLE interactions; -- \\' OR '1'='1' {app:String} $(id) `id` %s {{7*7}}",
    "html": "<script>alert(1)</script><img src=x onerror=alert(2)>\"'&amp;</textarea>",
    "terminal": "\x1b[2J\x1b]0;owned\x07\x08\x08\r\n\t\x7f [bold red]markup[/]",
    "null": "a\x00b\x00",
    "unicode": "\u202etxt.exe\u200b\ufeff\uffff\U0010ffff e\u0301 👩‍👩‍👧",
    "nothing": "",
    "long": "long text " * 30_000,
}


def test_texts_that_attack_readers_are_stored_as_they_are(world: World) -> None:
    world.post([{"id": f"text-{name}", "app": "texts", "prompt": text, "response": text} for name, text in TEXTS.items()])
    world.rest()
    stored = world.texts("texts")
    assert stored.keys() == {f"text-{name}" for name in TEXTS}
    assert {name: stored[f"text-{name}"] for name in TEXTS if name != "long"} == {n: t for n, t in TEXTS.items() if n != "long"}
    assert TEXTS["long"].startswith(stored["text-long"][:30_000])


def test_strange_names_times_and_ids_are_taken_as_they_are(world: World) -> None:
    names = ["'; DROP TABLE headers; --", "<script>alert(1)</script>", "../../etc/passwd", "other", "%s{}[bold]", "x" * 128]
    world.post([{"id": f"name-{n}", "app": name, "prompt": "q"} for n, name in enumerate(names)])
    world.post([{"id": f"time-{y}", "app": "times", "prompt": "q", "time": f"{y}-01-01T00:00:00Z"} for y in (1970, 2100)])
    world.post([{"id": "twice", "app": "twice", "prompt": f"{n}"} for n in range(3)])
    world.rest()
    apps = {row[0] for row in world.store.query("SELECT DISTINCT app FROM interactions").result_rows}
    assert set(names) <= apps
    times = world.store.query("SELECT id, toYear(event_time), toYear(arrival) FROM interactions WHERE app = 'times' ORDER BY id")
    assert [row[:2] for row in times.result_rows] == [("time-1970", 1970), ("time-2100", 2100)]
    assert all(2020 < row[2] < 2100 for row in times.result_rows)
    records = world.store.query("SELECT records, prompt FROM interactions_by_id WHERE app = 'twice'").result_rows
    assert [row[0] for row in records] == [3]
    assert read_ledger(world.settings, world.store).repeated == 2


def test_what_the_collector_refuses_leaves_nothing_behind(world: World) -> None:
    before = read_ledger(world.settings, world.store)
    for line in BAD_LINES:
        answer = world.http.post("/v1/interactions", content=line)
        assert answer.status_code in (400, 413), answer.text[:200]
        assert answer.json()["items"][0]["reason"] if "items" in answer.json() else answer.json()["error"]["reason"]
    world.rest()
    after = read_ledger(world.settings, world.store)
    assert (after.received, after.dead, after.missing) == (before.received, 0, 0)


class Name(str):
    """A header's name of any bytes, for kafka-python, which encodes what it is given."""

    __slots__ = ("written",)

    def __new__(cls, written: bytes) -> "Name":
        name = super().__new__(cls, written.decode(errors="replace"))
        name.written = written
        return name

    def encode(self, *_: object, **__: object) -> bytes:
        return self.written


ODD_HEADERS = (
    ("ce_type", b"bellbuoy.interaction.v1"),
    ("traceparent", b"\xff"),
    ("traceparent", b""),
    ("\U0001f4a3" * 100, b"\x00" * 1_000),
    *[("again", b"and again")] * 200,
)


def bad_records() -> list[tuple[str, bytes | None, list[tuple[str, bytes]]]]:
    """(topic, value, headers) of records that are no message of their topic."""
    good = json.loads(codec.encode(chat(f"{MARK}-id", prompt=MARK)))
    act = json.loads(codec.encode(Feedback(id=f"{MARK}-f", interaction_id="x", name="thumbs", score=1.0)))

    def without(field: str) -> dict[str, Any]:
        return {name: value for name, value in good.items() if name != field}

    values: list[bytes | None] = [
        None,
        b"",
        b"{",
        MARK.encode(),
        b"\xff\xfe" + MARK.encode(),
        b"\x00" * 1_000,
        b"null",
        b"[]",
        json.dumps(MARK).encode(),
        json.dumps([good]).encode(),
        json.dumps(good).encode()[:-1],
        json.dumps(good).encode() + MARK.encode(),
        json.dumps(good).encode().replace(MARK.encode(), MARK.encode() + b"\xc3\x28"),
        json.dumps(good | {"id": ""}).encode(),
        json.dumps(good | {"id": MARK * 100}).encode(),
        json.dumps(good | {"app": f"{MARK}\x1b[2J"}).encode(),
        json.dumps(good | {"app": {MARK: MARK}}).encode(),
        json.dumps(good | {"input": MARK}).encode(),
        json.dumps(good | {"input": [{"role": MARK, "content": 7}]}).encode(),
        json.dumps(good | {"kind": MARK}).encode(),
        json.dumps(good | {"latency_ms": MARK}).encode(),
        json.dumps(good | {"latency_ms": -1}).encode(),
        json.dumps(good | {"input_tokens": 10**40}).encode(),
        json.dumps(good | {"time": MARK}).encode(),
        json.dumps(good | {"schema_version": "9.0"}).encode(),
        json.dumps(good | {"attributes": {MARK: [MARK]}}).encode(),
        json.dumps(good | {"attributes": {f"{MARK}{n}": MARK for n in range(500)}}).encode(),
        json.dumps(good | {"__extra__": {MARK: MARK}}).encode(),
        json.dumps(good)[:-1].encode() + b',"deep":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
        json.dumps(without("app")).encode(),
        json.dumps(without("id") | {f"id {MARK}": 1}).encode(),
    ]
    found: list[tuple[str, bytes | None, list[tuple[str, bytes]]]] = [(INTERACTIONS, value, []) for value in values]
    whole = json.dumps(good).encode()
    for type_ in (b"bellbuoy.feedback.v1", b"bellbuoy.scored_interaction.v1", b"\xff", MARK.encode()):
        found.append((INTERACTIONS, whole, [("ce_type", type_)]))
    # librdkafka's clients see a type here, and so must all others; none sees any where a name is not UTF-8.
    found.append((INTERACTIONS, whole, [(Name(b"ce_type\0"), MARK.encode())]))
    found += [
        (topic, value, [(Name(b"\xff\xfe\x80"), b"x")]) for topic in (INTERACTIONS, FEEDBACK) for value in (whole, b"", None)
    ]
    feedback = [{"score": 2}, {"score": -0.1}, {"score": MARK}, {"interaction_id": None}, {"name": ""}, {"label": MARK * 50}]
    found += [(FEEDBACK, json.dumps(act | wrong).encode(), []) for wrong in feedback]
    found.append((FEEDBACK, whole, []))
    # More than a scored record may hold, and yet small for the broker when it comes compressed.
    many = good | {"attributes": {f"a{n}": MARK + "v" * 40_000 for n in range(250)}}
    found.insert(CODECS.index("gzip"), (INTERACTIONS, json.dumps(many).encode(), []))
    return found


def hostile_producer(settings: Settings, compression: str | None) -> kafka.KafkaProducer:
    """Takes records of any size; the broker counts compressed bytes."""
    return control_producer(settings, None, compression_type=compression, max_request_size=64 * 1024 * 1024)


def test_what_is_written_past_the_collector_is_a_row_a_tick_or_a_dead_letter(world: World) -> None:
    draw = random.Random(1)
    before = read_ledger(world.settings, world.store)
    bad, good, ticks = bad_records(), 0, 0
    for number, compression in enumerate(CODECS):
        producer = hostile_producer(world.settings, compression)
        for topic, value, headers in bad[number :: len(CODECS)]:
            partition = draw.randrange(4 if topic == INTERACTIONS else 2)
            producer.send(topic, key=MARK.encode(), value=value, headers=headers, partition=partition)
        for partition in range(4):
            for n in range(10):
                value = codec.encode(chat(f"{compression}-{partition}-{n}", app="direct", prompt="q" * 2_000))
                producer.send(INTERACTIONS, key=draw.randbytes(300), value=value, headers=list(ODD_HEADERS), partition=partition)
                good += 1
            producer.send(INTERACTIONS, value=MARK.encode(), headers=[("ce_type", codec.TICK_TYPE)], partition=partition)
            ticks += 1
        if compression:
            huge = chat(f"{compression}-huge", app="direct", prompt=" all work and no play" * 500_000)
            producer.send(INTERACTIONS, value=codec.encode(huge), partition=draw.randrange(4))
            good += 1
        producer.flush(30)
        producer.close(5)
    other = ck.Producer({"bootstrap.servers": world.settings.bootstrap_servers()})
    nothing: Any = [("ce_type", None), ("traceparent", None), ("", b"")]
    other.produce(INTERACTIONS, codec.encode(chat("headers without values", app="direct")), headers=nothing)
    assert other.flush(30) == 0
    good += 1
    world.rest()
    after = read_ledger(world.settings, world.store)
    assert (after.missing, list(after.problems)) == (0, [])
    letters = {codec.header(letter.headers, "ce_id") for letter in read_all(world.settings, DEADLETTER, 0)}
    assert after.dead - before.dead == len(bad) == len(letters)
    assert after.stored - before.stored == good == len(world.texts("direct"))
    assert after.tick - before.tick >= ticks
    cut_off = world.store.query("SELECT id FROM interactions WHERE app = 'direct' AND text_truncated ORDER BY id").result_rows
    assert [id_ for (id_,) in cut_off] == sorted(f"{compression}-huge" for compression in CODECS if compression)


def test_every_dead_letter_has_a_code_a_reason_and_coordinates_and_none_has_text(world: World) -> None:
    letters = [codec.decode(DeadLetter, record.value) for record in read_all(world.settings, DEADLETTER, 0)]
    assert letters
    for letter in letters:
        assert letter.code, letter
        assert letter.reason, letter
        assert letter.coordinates.topic in (INTERACTIONS, FEEDBACK), letter
        assert len(letter.sha256) == 64, letter
    assert {letter.code for letter in letters} >= {
        "empty",
        "not_json",
        "invalid",
        "type",
        "too_large",
        "too_long",
        "too_many",
        "version",
    }
    everything = b"".join(bytes(r.value or b"") + repr(r.headers).encode() for r in read_all(world.settings, DEADLETTER, 0))
    assert MARK.encode() not in everything
    rows = world.store.query("SELECT topic, partition, offset, code, reason, field FROM dead_letters FINAL").result_rows
    assert {(row[0], row[1], row[2]) for row in rows} == {
        (c.topic, c.partition, c.offset) for c in (x.coordinates for x in letters)
    }
    assert MARK not in repr(rows)


def test_the_page_shows_hostile_names_as_text(world: World) -> None:
    page = httpx.get(world.here.status()["urls"]["page"], timeout=30, follow_redirects=True)
    assert page.status_code == 200
    assert "<script>alert" not in page.text


def test_blocks_and_decisions_equal_a_recomputation_of_the_log(world: World) -> None:
    log = record_log(world.settings)
    assert compare(log, recompute(log, load_embedding(world.settings), load_heads())) == []


def test_a_hundred_thousand_app_names_are_bounded_and_harm_no_other_app(world: World) -> None:
    world.post(
        ordinary := [{"id": f"shop-before-{n}", "app": "shop", "prompt": "How?", "response": "So."} for n in range(ORDINARY)]
    )
    world.rest()
    sent, began = len(ordinary), time.monotonic()
    windows = set()
    for first in range(0, APPS, BATCH):
        flood = [{"id": f"flood-{n}", "app": f"app {n}", "prompt": "q", "response": "a"} for n in range(first, first + BATCH)]
        ordinary = [{"id": f"shop-{sent + n}", "app": "shop", "prompt": "How?", "response": "So."} for n in range(ORDINARY)]
        world.post(ordinary)
        world.post(flood)
        sent += ORDINARY
        windows.add(int(time.time() / 5))
    accepted = time.monotonic() - began
    assert len(windows) >= 2
    world.rest()
    print(f"{APPS} apps accepted in {accepted:.0f} s and stored after {time.monotonic() - began:.0f} s")
    resident = world.resident()
    print("memory: " + ", ".join(f"{name} {size / 1e6:.0f} MB" for name, size in resident.items()))
    assert all(size < 1.5 * GIGABYTE for size in resident.values()), resident

    ledger = read_ledger(world.settings, world.store)
    assert (ledger.missing, list(ledger.problems)) == (0, [])
    assert ledger.received == ledger.stored + ledger.dead
    counted = "SELECT uniqExact(id) FROM interactions WHERE app = {app:String}"
    assert world.store.query(counted, parameters={"app": "shop"}).first_row == (sent,)
    assert world.store.query("SELECT uniqExact(app) FROM interactions WHERE id LIKE 'flood-%'").first_row == (APPS,)
    in_windows = world.store.query(
        "SELECT sum(n) FROM window_rows FINAL WHERE app = 'shop' AND resolution = 5 AND metric LIKE 'response.length%'"
    ).first_row
    assert in_windows == (sent,)


def test_the_fold_keeps_a_thousand_apps_per_shard_and_says_so(world: World) -> None:
    rows = world.store.query("SELECT DISTINCT app, environment FROM window_rows WHERE app != 'other' OR environment != 'other'")
    by_shard = [0] * EMBEDDED_SHARDS
    for app, environment in rows.result_rows:
        by_shard[shard_of(app, environment, EMBEDDED_SHARDS)] += 1
    print(f"apps in the fold by shard: {by_shard}")
    assert all(count <= MAX_APPS for count in by_shard)
    alerts = json.loads(world.here.run("alerts", "list", "--json").stdout)
    assert {(a["metric"], a["state"]) for a in alerts} == {("apps.overflow", "firing")}
    assert {a["slice"] for a in alerts} == {f"shard={n}" for n in range(EMBEDDED_SHARDS)}
    said = world.here.run("alerts", "list").stdout
    assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f]", said)
