"""The collector: JSON over HTTP in, records on the raw topics out; a 2xx means that the broker has them."""

import asyncio
import gc
import hmac
import itertools
import time
import uuid
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

import msgspec

from adapters.asgi import Disconnected, Header, Receive, Scope, Send, listen, read_body, reply, run, serve
from adapters.deliveries import Deliveries
from adapters.http_body import BodyTooLarge, decompress, split_items
from adapters.kafka import HotProducer, ProduceFailed, Producer
from adapters.keys import api_key, ensure_key_file, receipt_key
from adapters.settings import Settings
from adapters.telemetry import Telemetry, set_up_logging
from core.intake import Intake, Request, Taken, id_seed
from core.receipts import sign
from schemas.codec import InvalidMessage
from schemas.topics import RAW_TOPICS

Headers = dict[bytes, bytes]

INTERACTIONS_PATH: Final = "/v1/interactions"
FEEDBACK_PATH: Final = "/v1/feedback"
_GET_PATHS: Final = ("/health", "/ready", "/metrics")
_ITEMS_PER_TURN: Final = 64
"""Items handled before other requests get their turn on the event loop."""
_LINGER_MS: Final = 20
"""About what the items of one request take: they travel together."""
_GC_THRESHOLDS: Final = (50_000, 20, 50)
_RETRY_AFTER: Final = b"1"
_TOO_LARGE_FOR_BROKER: Final = ("MSG_SIZE_TOO_LARGE", "RECORD_LIST_TOO_LARGE")
_NO_BROKER: Final = "the broker does not answer"


@dataclass(frozen=True)
class Limits:
    """What is taken at once; bytes and seconds."""

    body: int = 16 * 1024 * 1024
    in_flight: int = 48 * 1024 * 1024
    """Below the producer's own queue, so that a request is refused before its records are."""
    read: float = 30.0
    delivery: float = 10.0
    stalled: float = 5.0
    shutdown: int = 15


class Refused(Exception):
    """The whole request is refused."""

    def __init__(self, status: int, code: str, reason: str, field: str | None = None) -> None:
        super().__init__(reason)
        self.status, self.error = status, _error(code, reason, field)


class Item(msgspec.Struct, omit_defaults=True):
    """What the client is told about one item, in the order of the request."""

    status: Literal["accepted", "error"]
    id: str | None = None
    receipt: str | None = None
    retry_counts_twice: bool = False
    code: str | None = None
    reason: str | None = None
    field: str | None = None


class Collector:
    """The ASGI application. `prepare` blocks until the broker has told what a first record needs, or raises BufferError."""

    def __init__(
        self,
        intake: Intake,
        producer: Producer,
        *,
        key: str,
        prepare: Callable[[], object],
        telemetry: Telemetry,
        now_ms: Callable[[], int],
        limits: Limits | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._limits = limits or Limits()
        self._intake, self._key, self._prepare, self._now_ms, self._clock = intake, key, prepare, now_ms, clock
        self._deliveries = Deliveries(producer, max_bytes=self._limits.in_flight, stalled_after=self._limits.stalled, clock=clock)
        self._prepared = False
        self._telemetry = telemetry
        self._items = telemetry.counter("collector_items", "Items by path and outcome", ["path", "outcome"])
        self._requests = telemetry.counter("collector_requests", "Requests by path and status", ["path", "status"])
        self._seconds = telemetry.histogram("collector_request_seconds", "From the request to the broker's word")
        in_flight = telemetry.gauge("collector_in_flight_bytes", "Bytes read and not yet confirmed by the broker")
        in_flight.set_function(lambda: self._deliveries.in_flight)
        telemetry.ready("broker", False, _NO_BROKER)

    async def run(self) -> None:
        """Wait for the broker, then run delivery reports until cancelled. Raises ProduceFailed when only a new start helps."""
        while not self._prepared:
            try:
                await asyncio.to_thread(self._prepare)
                self._prepared = True
            except BufferError as error:
                self._telemetry.ready("broker", False, str(error))
                await asyncio.sleep(1)
        watch = asyncio.ensure_future(self._watch())
        try:
            await self._deliveries.pump()
        finally:
            watch.cancel()

    async def flush(self) -> None:
        """Wait for the last confirmations. Raises ProduceFailed."""
        await self._deliveries.flush(self._limits.shutdown)

    def ready(self) -> bool:
        return self._prepared and not self._deliveries.stalled()

    async def _watch(self) -> None:
        while True:
            self._telemetry.ready("broker", self.ready(), _NO_BROKER)
            await asyncio.sleep(0.5)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            raise RuntimeError(f"no {scope['type']} here")
        path, method = scope["path"], scope["method"]
        if path in (INTERACTIONS_PATH, FEEDBACK_PATH):
            if method == "POST":
                await self._post(path, scope, receive, send)
            else:
                await _refuse(send, Refused(405, "method", "use POST"), [(b"allow", b"POST")])
        elif path in _GET_PATHS:
            if method in ("GET", "HEAD"):
                await self._get(path, scope, send)
            else:
                await _refuse(send, Refused(405, "method", "use GET"), [(b"allow", b"GET, HEAD")])
        else:
            await _refuse(send, Refused(404, "path", f"post to {INTERACTIONS_PATH} or {FEEDBACK_PATH}"))

    async def _get(self, path: str, scope: Scope, send: Send) -> None:
        self._telemetry.ready("broker", self.ready(), _NO_BROKER)
        accept = dict(scope["headers"]).get(b"accept", b"").decode("latin-1")
        status, kind, body = self._telemetry.answer(path, accept)
        await reply(send, status, body, content_type=kind.encode())

    async def _post(self, path: str, scope: Scope, receive: Receive, send: Send) -> None:
        started = self._clock()
        held = _Held(self._deliveries)
        try:
            items = await self._take(path, scope, receive, held)
            status = _status(items)
            body: dict[str, Any] = {"items": items}
            if status != 200:
                body["error"] = _first_error(items)
            await reply(send, status, msgspec.json.encode(body), [(b"retry-after", _RETRY_AFTER)] if status == 503 else [])
        except Refused as refused:
            status = refused.status
            await _refuse(send, refused)
        finally:
            held.release()
        self._requests.labels(path, status).inc()
        self._seconds.observe(self._clock() - started)

    async def _take(self, path: str, scope: Scope, receive: Receive, held: "_Held") -> list[Item]:
        headers = dict(scope["headers"])
        self._authorize(headers)
        if not self.ready():
            raise Refused(503, "unavailable", f"{_NO_BROKER}; send it again later")
        body = await self._body(headers, receive, held)
        idempotency_key = headers.get(b"idempotency-key")
        request = Request(
            now_ms=self._now_ms(),
            id_seed=id_seed(self._key, idempotency_key.decode("latin-1") if idempotency_key else None),
            receipts=b"receipts=0" not in scope["query_string"].split(b"&"),
        )
        read = self._intake.interaction if path == INTERACTIONS_PATH else self._intake.feedback
        items = await self._send(read, body, request)
        refused = sum(item.status == "error" for item in items)
        self._items.labels(path, "accepted").inc(len(items) - refused)
        self._items.labels(path, "error").inc(refused)
        return items

    def _authorize(self, headers: Headers) -> None:
        given = headers.get(b"x-api-key", b"")
        scheme, _, token = headers.get(b"authorization", b"").partition(b" ")
        if not given and scheme.lower() == b"bearer":
            given = token.strip()
        if not hmac.compare_digest(given, self._key.encode()):
            raise Refused(401, "key", "send the key as `Authorization: Bearer …` or `x-api-key`", "authorization")

    async def _body(self, headers: Headers, receive: Receive, held: "_Held") -> list[bytes]:
        limit = self._limits.body
        declared = headers.get(b"content-length", b"0")
        try:
            if declared.isdigit() and int(declared) > limit:
                raise BodyTooLarge(f"the body is larger than {limit} bytes")
            async with asyncio.timeout(self._limits.read):
                raw = await read_body(receive, limit, held.hold)
            encoding = headers.get(b"content-encoding", b"").decode("latin-1")
            plain = await asyncio.to_thread(decompress, raw, encoding, limit) if encoding else raw
            if plain is not raw:
                held.hold(len(plain))
            return split_items(plain, headers.get(b"content-type", b"").decode("latin-1"))
        except BodyTooLarge as error:
            raise Refused(413, "too_large", str(error)) from None
        except InvalidMessage as error:
            raise Refused(400, error.code, error.reason, error.field) from None
        except Disconnected:
            raise Refused(400, "disconnected", "the client went away before its body was complete") from None
        except TimeoutError:
            raise Refused(408, "slow", f"the body did not arrive within {self._limits.read:g} s") from None

    async def _send(self, read: Callable[[bytes, int, Request], Taken], body: Sequence[bytes], request: Request) -> list[Item]:
        sending = self._deliveries.sending()
        items: list[Item] = []
        sent: list[Item] = []
        for index, value in enumerate(body):
            if index % _ITEMS_PER_TURN == _ITEMS_PER_TURN - 1:
                await asyncio.sleep(0)
            try:
                taken = read(value, index, request)
            except InvalidMessage as error:
                items.append(Item("error", code=error.code, reason=error.reason, field=error.field))
                continue
            try:
                sending.add(taken.records)
            except ProduceFailed:
                raise Refused(503, "unavailable", "the collector is restarting; send it again later") from None
            item = Item("accepted", taken.id, taken.receipt, taken.retry_counts_twice)
            items.append(item)
            sent.append(item)
        for item, reason in zip(sent, await sending.outcomes(self._limits.delivery), strict=True):
            if reason is not None:
                # What is not confirmed may have arrived: a retry under a fresh id may still count twice.
                item.status, item.receipt = "error", None
                if reason.startswith(_TOO_LARGE_FOR_BROKER):
                    item.retry_counts_twice = False
                    item.code, item.reason = "too_large", "the broker takes no record of this size"
                else:
                    item.code, item.reason = "unavailable", f"{reason}; send it again"
        return items


class _Held:
    """Bytes of one request that count as in flight until it is answered."""

    def __init__(self, deliveries: Deliveries) -> None:
        self._deliveries, self._size = deliveries, 0

    def hold(self, size: int) -> None:
        if not self._deliveries.hold(size):
            raise Refused(429, "busy", "too much is in flight; send it again later")
        self._size += size

    def release(self) -> None:
        self._deliveries.release(self._size)


def _status(items: Sequence[Item]) -> int:
    """200 when something was accepted (or nothing was sent), 503 when the broker did not take all, 413 and 400 when all is bad."""
    codes = {item.code for item in items if item.status == "error"}
    if "unavailable" in codes:
        return 503
    if not codes or any(item.status == "accepted" for item in items):
        return 200
    return 413 if codes == {"too_large"} else 400


def _first_error(items: Sequence[Item]) -> dict[str, str | None]:
    index, item = next((n, item) for n, item in enumerate(items) if item.status == "error")
    return _error(
        item.code or "", item.reason or "", item.field if len(items) == 1 else f"[{index}].{item.field or ''}".rstrip(".")
    )


def _error(code: str, reason: str, field: str | None) -> dict[str, str | None]:
    return {"code": code, "reason": reason, "field": field}


async def _refuse(send: Send, refused: Refused, headers: Sequence[Header] = ()) -> None:
    extra = [*headers]
    if refused.status in (429, 503):
        extra.append((b"retry-after", _RETRY_AFTER))
    if refused.status == 401:
        extra.append((b"www-authenticate", b"Bearer"))
    if refused.status in (401, 408, 413, 429, 503):
        extra.append((b"connection", b"close"))  # the body may not have been read
    await reply(send, refused.status, msgspec.json.encode({"error": refused.error}), extra)


def build_collector(
    settings: Settings,
    producer: Producer,
    prepare: Callable[[], object],
    telemetry: Telemetry,
    *,
    started_ms: int,
    limits: Limits | None = None,
) -> Collector:
    """The collector with this machine's keys; its instance name is new at each start, its sequences count from 0."""
    receipts = receipt_key(settings)
    sequences: dict[str, Iterator[int]] = defaultdict(itertools.count)
    intake = Intake(
        subject_key=ensure_key_file(settings.key_dir / "subjects").encode(),
        sign=lambda receipt: sign(receipt, receipts.private, receipts.id),
        instance=f"collector-{settings.instance}-{started_ms:x}",
        fresh_id=lambda: uuid.uuid4().hex,
        next_sequence=lambda topic: next(sequences[topic]),
    )
    return Collector(intake, producer, key=api_key(settings), prepare=prepare, telemetry=telemetry, now_ms=_now_ms, limits=limits)


def _now_ms() -> int:
    return time.time_ns() // 1_000_000


def main(settings: Settings) -> None:
    """Run until SIGTERM or SIGINT: then stop accepting, answer what is under way, flush, exit."""
    set_up_logging("collector", settings)
    listener = listen(settings.host, settings.collector_port)
    producer = HotProducer(settings, linger_ms=_LINGER_MS, dead_letter_file=settings.run_dir / "collector.deadletter.jsonl")

    with Telemetry("collector", settings) as telemetry:
        collector = build_collector(
            settings,
            producer,
            lambda: [producer.partitions(topic) for topic in RAW_TOPICS],
            telemetry,
            started_ms=_now_ms(),
        )

        async def serve_until_stopped() -> None:
            await serve(collector, listener, graceful_s=Limits().shutdown, beside=collector.run())
            await collector.flush()

        # What is loaded now stays, and a request leaves no cycles: searching for garbage as often as by default only costs.
        gc.collect()
        gc.freeze()
        gc.set_threshold(*_GC_THRESHOLDS)
        run(serve_until_stopped)


if __name__ == "__main__":
    main(Settings())
