"""The collector as an ASGI application over a producer in memory whose broker can be slow, away or strict."""

import asyncio
import contextlib
import gzip
import json
import logging
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest
import zstandard

from adapters.deliveries import Deliveries
from adapters.kafka import OnDelivery, ProduceFailed
from adapters.settings import Settings
from adapters.telemetry import Telemetry
from schemas.codec import Outgoing
from services.collector import Collector, Limits, build_collector

KEY = "the-key"
LINE = {"app": "help-desk", "prompt": "q", "response": "a"}
GOOD = {"id": "i-1", "app": "help-desk", "input": [{"role": "user", "content": "q"}]}


@dataclass
class MemoryProducer:
    """Delivers at the next poll, unless it is told otherwise."""

    away: bool = False
    full: bool = False
    broken: bool = False
    refuse: str | None = None
    delivered: list[Outgoing] = field(default_factory=list)
    queue: list[tuple[Outgoing, OnDelivery | None]] = field(default_factory=list)

    def produce(self, out: Outgoing, on_delivery: OnDelivery | None = None) -> None:
        if self.broken:
            raise ProduceFailed("fatal")
        if self.full:
            raise BufferError
        self.queue.append((out, on_delivery))

    def poll(self) -> None:
        if self.broken:
            raise ProduceFailed("fatal")
        if self.away:
            return
        due, self.queue = self.queue, []
        for out, on_delivery in due:
            if self.refuse is None:
                self.delivered.append(out)
            if on_delivery is not None:
                on_delivery(None if self.refuse else 1, self.refuse)

    def flush(self, timeout: float) -> None:
        self.poll()
        if self.queue:
            raise ProduceFailed(f"{len(self.queue)} records were not delivered")


class Bench:
    """A collector with its producer and a client that knows the key."""

    def __init__(self, tmp_path: Path, limits: Limits, producer: MemoryProducer) -> None:
        self.settings = Settings(data_dir=tmp_path, api_key=KEY)
        self.producer = producer
        self.telemetry = Telemetry("collector", self.settings)
        self.collector: Collector = build_collector(
            self.settings, producer, lambda: None, self.telemetry, started_ms=1, limits=limits
        )
        self.client = httpx.AsyncClient(
            transport=httpx.ASGITransport(self.collector), base_url="http://collector", headers={"x-api-key": KEY}
        )

    async def post(self, body: Any, path: str = "/v1/interactions", **headers: str) -> httpx.Response:
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        return await self.client.post(path, content=content, headers={n.replace("_", "-"): v for n, v in headers.items()})


@contextlib.asynccontextmanager
async def running(tmp_path: Path, limits: Limits, producer: MemoryProducer) -> AsyncIterator[Bench]:
    bench = Bench(tmp_path, limits, producer)
    pump = asyncio.ensure_future(bench.collector.run())
    async with bench.client:
        while not bench.collector.ready():  # noqa: ASYNC110 (nothing announces it)
            await asyncio.sleep(0)
        yield bench
    pump.cancel()
    with contextlib.suppress(asyncio.CancelledError, ProduceFailed):
        await pump


Steps = Callable[[Bench], Any]


@pytest.fixture
def play(tmp_path: Path) -> Callable[..., Any]:
    """Runs an async function against a fresh collector."""

    def run(steps: Steps, limits: Limits | None = None, producer: MemoryProducer | None = None) -> Any:
        async def main() -> Any:
            async with running(tmp_path, limits or Limits(), producer or MemoryProducer()) as bench:
                return await steps(bench)

        return asyncio.run(main())

    return run


def post(play: Any, body: Any, path: str = "/v1/interactions", **headers: str) -> tuple[httpx.Response, list[Outgoing]]:
    producer = MemoryProducer()
    return play(lambda bench: bench.post(body, path, **headers), producer=producer), producer.delivered


def test_an_object_is_accepted_once_it_is_delivered(play: Any) -> None:
    response, delivered = post(play, GOOD)
    assert (response.status_code, len(delivered)) == (200, 1)
    [item] = response.json()["items"]
    assert (item["id"], item["status"]) == ("i-1", "accepted")
    assert item["receipt"]


def test_a_line_and_a_full_interaction_may_share_an_array(play: Any) -> None:
    response, delivered = post(play, [LINE, GOOD])
    assert [item["status"] for item in response.json()["items"]] == ["accepted", "accepted"]
    assert len(delivered) == 2


def test_an_array_with_bad_items_keeps_the_good_ones(play: Any) -> None:
    response, delivered = post(play, [GOOD, {"app": 7, "input": []}, 5, None, LINE | {"time": "never"}, LINE])
    assert response.status_code == 200
    items = response.json()["items"]
    assert [item["status"] for item in items] == ["accepted", "error", "error", "error", "error", "accepted"]
    assert (items[1]["field"], items[4]["field"]) == ("app", "time")
    assert all(item["reason"] for item in items if item["status"] == "error")
    assert len(delivered) == 2


def test_lines_of_ndjson_are_judged_one_by_one(play: Any) -> None:
    body = b"\n".join([json.dumps(GOOD).encode(), b"{broken", b'{"app":"a","prompt":"\xff"}', json.dumps(LINE).encode()])
    response, delivered = post(play, body, content_type="application/x-ndjson")
    assert [item["status"] for item in response.json()["items"]] == ["accepted", "error", "error", "accepted"]
    assert len(delivered) == 2


def test_ndjson_is_recognised_without_its_content_type(play: Any) -> None:
    response, delivered = post(play, b"\n".join([json.dumps(LINE).encode()] * 3))
    assert (response.status_code, len(delivered)) == (200, 3)


def test_an_empty_array_is_nothing_to_complain_about(play: Any) -> None:
    response, _ = post(play, [])
    assert (response.status_code, response.json()) == (200, {"items": []})


@pytest.mark.parametrize(
    ("body", "code", "field"),
    [
        (b"", "empty", None),
        (b"{", "not_json", None),
        (b"hello", "not_json", None),
        (b"\xff\xfe\x00", "not_json", None),
        (b'{"app":"a","prompt":"\xff"}', "not_json", None),
        (b'{"app":"a","prompt":"\x00"}', "not_json", None),
        (b'{"app":"a","prompt":"\\ud800"}', "not_json", None),
        (b"[" * 100_000, "not_json", None),
        ({"app": "a", "prompt": 5}, "invalid", "prompt"),
        ({"app": 5, "prompt": "q"}, "invalid", "app"),
        ({"prompt": "q"}, "invalid", "app"),
        ({"app": "a", "input": [{"role": "user", "content": 5}]}, "invalid", "input[0].content"),
        ({"app": "a\x00", "input": []}, "invalid", "app"),
        ({"app": "a" * 129, "input": []}, "too_long", "app"),
        ([GOOD | {"kind": "sermon"}], "invalid", "kind"),
        ([GOOD | {"kind": "sermon"}, 5], "invalid", "[0].kind"),
    ],
    ids=lambda value: repr(value)[:40],
)
def test_a_body_in_which_nothing_is_good_gets_400_with_field_and_reason(
    play: Any, body: Any, code: str, field: str | None
) -> None:
    response, delivered = post(play, body)
    error = response.json()["error"]
    assert response.status_code == 400
    assert (error["code"], error["field"]) == (code, field)
    assert error["reason"]
    assert delivered == []


def test_a_refusal_does_not_repeat_what_was_sent(play: Any) -> None:
    response, _ = post(play, [{"app": "a", "kind": "hunter2", "input": []}, "hunter2", {"prompt": {"hunter2": 1}, "app": "a"}])
    assert "hunter2" not in response.text


@pytest.mark.parametrize("time", ["1970-01-01T00:00:00Z", "2100-01-01T00:00:00Z"])
def test_event_times_far_away_are_accepted(play: Any, time: str) -> None:
    assert post(play, GOOD | {"time": time})[0].status_code == 200


def test_a_null_byte_in_a_text_is_accepted(play: Any) -> None:
    assert post(play, LINE | {"prompt": "a\x00b"})[0].status_code == 200


def test_repeated_ids_are_accepted_again(play: Any) -> None:
    response, delivered = post(play, [GOOD, GOOD])
    assert [item["id"] for item in response.json()["items"]] == ["i-1", "i-1"]
    assert len(delivered) == 2


def test_ten_megabytes_of_text_get_413(play: Any) -> None:
    response, delivered = post(play, LINE | {"prompt": "x" * 10_000_000})
    assert (response.status_code, response.json()["error"]["code"]) == (413, "too_large")
    assert delivered == []


def test_ten_megabytes_of_text_do_not_harm_their_neighbours(play: Any) -> None:
    response, delivered = post(play, [LINE, LINE | {"prompt": "x" * 10_000_000}, LINE])
    assert [item["status"] for item in response.json()["items"]] == ["accepted", "error", "accepted"]
    assert len(delivered) == 2


@pytest.mark.parametrize("encoding", ["gzip", "zstd"])
def test_compressed_bodies_are_read(play: Any, encoding: str) -> None:
    compress = gzip.compress if encoding == "gzip" else zstandard.ZstdCompressor().compress
    response, delivered = post(play, compress(json.dumps([GOOD, LINE]).encode()), content_encoding=encoding)
    assert (response.status_code, len(delivered)) == (200, 2)


@pytest.mark.parametrize("encoding", ["gzip", "zstd"])
def test_a_bomb_gets_413(play: Any, encoding: str) -> None:
    compress = gzip.compress if encoding == "gzip" else zstandard.ZstdCompressor().compress
    assert post(play, compress(bytes(100_000_000)), content_encoding=encoding)[0].status_code == 413


def test_a_body_over_the_limit_gets_413(play: Any) -> None:
    response = play(lambda bench: bench.post(b" " * 5_000), limits=Limits(body=4_000))
    assert response.status_code == 413


@pytest.mark.parametrize(
    "headers",
    [
        {"x-api-key": "wrong"},
        {"x-api-key": ""},
        {"x-api-key": "", "authorization": "Bearer wrong"},
        {"x-api-key": "", "authorization": KEY},
    ],
)
def test_a_wrong_or_missing_key_gets_401(play: Any, headers: dict[str, str]) -> None:
    async def steps(bench: Bench) -> httpx.Response:
        return await bench.client.post("/v1/interactions", json=GOOD, headers=headers)

    response = play(steps)
    assert response.status_code == 401
    assert response.json()["error"]["field"] == "authorization"


def test_a_bearer_token_is_a_key(play: Any) -> None:
    async def steps(bench: Bench) -> httpx.Response:
        return await bench.client.post("/v1/interactions", json=GOOD, headers={"x-api-key": "", "authorization": f"bearer {KEY}"})

    assert play(steps).status_code == 200


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/", 404),
        ("POST", "/v1/traces", 404),
        ("POST", "/v1/interactions/", 404),
        ("GET", "/v1/interactions", 405),
        ("DELETE", "/v1/feedback", 405),
        ("POST", "/health", 405),
    ],
)
def test_other_paths_and_methods_get_json_errors(play: Any, method: str, path: str, status: int) -> None:
    response = play(lambda bench: bench.client.request(method, path))
    assert response.status_code == status
    assert response.json()["error"]["reason"]


def test_feedback_goes_to_its_own_topic(play: Any) -> None:
    act = {"interaction_id": "i-1", "name": "thumbs", "label": "down", "receipt": "a.b"}
    response, delivered = post(play, [act], path="/v1/feedback")
    assert response.status_code == 200
    assert [out.topic for out in delivered] == ["llm.feedback"]


def test_receipts_can_be_left_out(play: Any) -> None:
    assert "receipt" not in post(play, GOOD, path="/v1/interactions?receipts=0")[0].json()["items"][0]


def test_a_fresh_id_says_that_a_retry_counts_twice(play: Any) -> None:
    items = post(play, [GOOD, LINE])[0].json()["items"]
    assert [item.get("retry_counts_twice", False) for item in items] == [False, True]


def test_an_idempotency_key_gives_a_retry_the_same_ids(play: Any) -> None:
    first = post(play, [LINE, LINE], idempotency_key="once")[0].json()["items"]
    second = post(play, [LINE, LINE], idempotency_key="once")[0].json()["items"]
    assert [item["id"] for item in first] == [item["id"] for item in second]
    assert first[0]["id"] != first[1]["id"]


def test_while_the_broker_is_away_nothing_is_accepted(play: Any) -> None:
    response = play(lambda bench: bench.post([GOOD]), limits=Limits(delivery=0.01), producer=MemoryProducer(away=True))
    assert response.status_code == 503
    assert response.headers["retry-after"]
    [item] = response.json()["items"]
    assert (item["status"], item["code"]) == ("error", "unavailable")
    assert "receipt" not in item


def test_what_may_still_arrive_says_that_a_retry_counts_twice(play: Any) -> None:
    async def steps(bench: Bench) -> Any:
        return (await bench.post([GOOD, LINE])).json()["items"]

    items = play(steps, limits=Limits(delivery=0.01), producer=MemoryProducer(away=True))
    assert [(item["status"], item.get("retry_counts_twice", False)) for item in items] == [("error", False), ("error", True)]
    assert all(item["id"] for item in items)


def test_once_the_broker_has_been_away_for_a_while_requests_are_refused_unread(play: Any) -> None:
    async def steps(bench: Bench) -> httpx.Response:
        await bench.post([GOOD])
        await asyncio.sleep(0.03)
        return await bench.post([GOOD])

    response = play(steps, limits=Limits(delivery=0.01, stalled=0.02), producer=MemoryProducer(away=True))
    assert (response.status_code, response.json()["error"]["code"]) == (503, "unavailable")
    assert response.headers["retry-after"]


def test_when_the_broker_comes_back_requests_are_accepted_again(play: Any) -> None:
    async def steps(bench: Bench) -> list[int]:
        first = await bench.post([GOOD])
        await asyncio.sleep(0.03)
        bench.producer.away = False
        await asyncio.sleep(0.03)
        return [first.status_code, (await bench.post([GOOD])).status_code]

    producer = MemoryProducer(away=True)
    assert play(steps, limits=Limits(delivery=0.01, stalled=0.02), producer=producer) == [503, 200]
    assert len(producer.delivered) == 2, "what was queued is not lost; the client was told to send it again"


def test_memory_stays_bounded_while_the_broker_is_away(play: Any) -> None:
    async def steps(bench: Bench) -> list[int]:
        return [(await bench.post(LINE | {"prompt": "x" * 4_000})).status_code for _ in range(20)]

    producer = MemoryProducer(away=True)
    statuses = play(steps, limits=Limits(delivery=0.001, in_flight=20_000, stalled=60), producer=producer)
    assert set(statuses) == {503, 429}
    assert sum(len(out.value or b"") for out, _ in producer.queue) < 20_000


def test_too_much_in_flight_gets_429_with_retry_after(play: Any) -> None:
    response = play(lambda bench: bench.post(LINE | {"prompt": "x" * 4_000}), limits=Limits(in_flight=2_000))
    assert (response.status_code, response.json()["error"]["code"]) == (429, "busy")
    assert response.headers["retry-after"]


def test_nothing_stays_counted_as_in_flight(play: Any) -> None:
    async def steps(bench: Bench) -> str:
        for body in (GOOD, b"{", [GOOD, 5], LINE | {"prompt": "x" * 2_000_000}):
            await bench.post(body)
        return (await bench.client.get("/metrics")).text

    assert "bellbuoy_collector_in_flight_bytes 0.0" in play(steps)


def test_a_full_queue_is_the_clients_to_retry(play: Any) -> None:
    response = play(lambda bench: bench.post([GOOD]), producer=MemoryProducer(full=True))
    assert (response.status_code, response.json()["error"]["code"]) == (503, "unavailable")


def test_what_the_broker_finds_too_large_is_not_to_be_retried(play: Any) -> None:
    response = play(lambda bench: bench.post(GOOD), producer=MemoryProducer(refuse="MSG_SIZE_TOO_LARGE: no"))
    assert (response.status_code, response.json()["error"]["code"]) == (413, "too_large")


def test_a_producer_that_cannot_go_on_ends_the_process(tmp_path: Path) -> None:
    async def main() -> None:
        producer = MemoryProducer()
        bench = Bench(tmp_path, Limits(), producer)
        producer.broken = True
        await bench.collector.run()

    with pytest.raises(ProduceFailed):
        asyncio.run(main())


def test_until_the_broker_has_answered_the_collector_is_not_ready(tmp_path: Path) -> None:
    async def main() -> tuple[int, int, int]:
        bench = Bench(tmp_path, Limits(), MemoryProducer())
        async with bench.client:
            refused = await bench.post(GOOD)
            return (
                refused.status_code,
                (await bench.client.get("/ready")).status_code,
                (await bench.client.get("/health")).status_code,
            )

    assert asyncio.run(main()) == (503, 503, 200)


def test_health_ready_and_metrics_are_served_beside(play: Any) -> None:
    async def steps(bench: Bench) -> list[httpx.Response]:
        await bench.post([GOOD, 5])
        return [await bench.client.get(path) for path in ("/health", "/ready", "/metrics")]

    health, ready, metrics = play(steps)
    assert (health.status_code, ready.status_code, metrics.status_code) == (200, 200, 200)
    assert 'bellbuoy_collector_items_total{outcome="accepted",path="/v1/interactions"} 1.0' in metrics.text
    assert 'bellbuoy_collector_requests_total{path="/v1/interactions",status="200"} 1.0' in metrics.text


def test_no_text_reaches_the_logs(play: Any, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    post(play, [LINE | {"prompt": "hunter2"}, {"prompt": ["hunter2"], "app": "a"}, "hunter2"])
    assert "hunter2" not in caplog.text


def test_a_sending_with_many_records_per_item_fails_as_a_whole() -> None:
    async def main() -> list[str | None]:
        producer = MemoryProducer()
        deliveries = Deliveries(producer, max_bytes=1_000, stalled_after=1, clock=lambda: 0.0)
        sending = deliveries.sending()
        records = [Outgoing("t", b"k", b"v", []) for _ in range(2)]
        sending.add(records)
        sending.add(records[:1])
        producer.refuse = "no"
        first = producer.queue.pop(0)
        assert first[1] is not None
        first[1](1, None)
        due, producer.queue = producer.queue[1:], producer.queue[:1]
        producer.poll()
        producer.refuse, producer.queue = None, due
        producer.poll()
        return await sending.outcomes(1)

    assert asyncio.run(main()) == ["no", None]
