"""The `store` process: the ClickHouse engine (chDB) behind ClickHouse's HTTP interface, on loopback, for stock clients."""

import asyncio
import json
import secrets
import time
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, suppress
from dataclasses import asdict, dataclass
from typing import Any, Final

from adapters.asgi import Disconnected, Receive, Scope, Send, listen, read_body, reply, run, serve
from adapters.http_body import BodyTooLarge
from adapters.keys import ensure_key_file
from adapters.settings import Settings
from adapters.telemetry import Telemetry, set_up_logging
from services.store_engine import Engine, EngineError, Handle, Request, Summary
from services.store_guard import READONLY, DataInsert, Refused, data_insert
from services.store_http import (
    Encoder,
    Question,
    authorised,
    choose_encoder,
    decode_body,
    error_text,
    exception_block,
    header_pairs,
    read_question,
)

MAX_BODY: Final = 64 * 1024 * 1024
MAX_DECODED: Final = 256 * 1024 * 1024
QUEUE_TIMEOUT_S: Final = 30.0
TIMEOUT_EXCEEDED: Final = 159
WAS_CANCELLED: Final = 394
TOO_MANY: Final = 202
STATUS: Final = {
    516: 403,
    497: 403,
    164: 403,
    344: 403,
    60: 404,
    81: 404,
    62: 400,
    47: 400,
    36: 400,
    354: 400,
    457: 400,
    115: 400,
    202: 503,
}

TEXT: Final = b"text/plain; charset=UTF-8"


@dataclass(frozen=True)
class LaneRule:
    """How many statements of a kind run at once, how many may wait, and how long each may take."""

    handles: int
    waiting: int
    time_limit: float


LANES: Final = {
    "write": LaneRule(2, 8, 120.0),
    "control": LaneRule(1, 32, 300.0),
    "read": LaneRule(2, 32, 60.0),
    "short": LaneRule(1, 32, 10.0),
}
"""Short statements (no table, or the system's) never wait behind long reads, inserts or mutations."""


class Lane:
    """The workers of one kind of statement."""

    def __init__(self, name: str, rule: LaneRule) -> None:
        self.rule = rule
        self._slots = asyncio.Semaphore(rule.handles)
        self._workers = ThreadPoolExecutor(rule.handles, thread_name_prefix=name)
        self._waiting = 0

    @asynccontextmanager
    async def slot(self) -> AsyncIterator[None]:
        """Wait for a worker. Refused when too many wait, or for too long."""
        if self._waiting >= self.rule.waiting:
            raise Refused("too many statements wait for this store", TOO_MANY, "TOO_MANY_SIMULTANEOUS_QUERIES")
        self._waiting += 1
        try:
            await asyncio.wait_for(self._slots.acquire(), QUEUE_TIMEOUT_S)
        except TimeoutError:
            raise Refused("no worker became free in time", TOO_MANY, "TOO_MANY_SIMULTANEOUS_QUERIES") from None
        finally:
            self._waiting -= 1
        try:
            yield
        finally:
            self._slots.release()

    async def run(self, function: Callable[..., Any], *arguments: Any) -> Any:
        return await asyncio.get_running_loop().run_in_executor(self._workers, function, *arguments)

    def close(self) -> None:
        self._workers.shutdown()


class Store:
    """The raw ASGI application."""

    def __init__(self, engine: Engine, key: str, telemetry: Telemetry) -> None:
        self._engine = engine
        self._key = key
        self._statements = telemetry.counter("store_statements", "Statements by lane and outcome", ["lane", "outcome"])
        self._seconds = telemetry.histogram("store_statement_seconds", "Time from a free worker to the answer, by lane", ["lane"])
        self._rows = telemetry.counter("store_written_rows", "Rows written")
        self._lanes = {name: Lane(name, rule) for name, rule in LANES.items()}
        self._judges = ThreadPoolExecutor(1, thread_name_prefix="judge")
        self._killers = ThreadPoolExecutor(1, thread_name_prefix="kill")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        headers = header_pairs(scope["headers"])
        try:
            if scope["path"] in ("/ping", "/replicas_status"):
                await reply(send, 200, b"Ok.\n", content_type=TEXT)
            elif not authorised(headers, self._key):
                raise Refused("default: Authentication failed: the key is missing or wrong", 516, "AUTHENTICATION_FAILED")
            else:
                if int(headers.get(b"content-length", b"0")) > MAX_BODY:
                    raise BodyTooLarge("by its content-length")
                body = await read_body(receive, MAX_BODY, lambda _: None)
                if encoding := headers.get(b"content-encoding"):
                    body = await asyncio.to_thread(decode_body, body, encoding, MAX_DECODED)
                await self._answer(read_question(scope["query_string"], headers, body), scope["method"], headers, receive, send)
        except BodyTooLarge:
            await _fail(send, 413, 1002, f"the body is larger than {MAX_BODY} bytes, or {MAX_DECODED} decoded")
        except Disconnected:
            return
        except Refused as refusal:
            await _fail(send, STATUS.get(refusal.code, 500), refusal.code, str(refusal), refusal.name)
        except EngineError as error:
            await _fail(send, STATUS.get(error.code, 500), error.code, str(error))

    async def watch(self, telemetry: Telemetry) -> None:
        """Tell readiness by asking the engine every two seconds."""
        while True:
            alive = await asyncio.get_running_loop().run_in_executor(self._killers, self._engine.alive)
            telemetry.ready("engine", alive, "the engine does not answer")
            await asyncio.sleep(2)

    def close(self) -> None:
        """Let the running statements end and close the engine."""
        for lane in self._lanes.values():
            lane.close()
        self._judges.shutdown()
        self._killers.shutdown()
        self._engine.close()

    async def _answer(self, question: Question, method: str, headers: dict[bytes, bytes], receive: Receive, send: Send) -> None:
        insert = data_insert(question.text)
        if insert is not None:
            lane_name, format_, streams, readonly = "write", insert.format, False, False
        else:
            try:
                sql = question.text.decode()
            except UnicodeDecodeError:
                raise Refused("the statement is not valid UTF-8", 36, "BAD_ARGUMENTS") from None
            verdict = await asyncio.get_running_loop().run_in_executor(
                self._judges, self._engine.judge, sql, question.database, question.parameters
            )
            lane_name, streams, readonly = verdict.lane, verdict.streams, verdict.readonly
            format_ = verdict.format or question.default_format or "TabSeparated"
        reads = lane_name in ("read", "short")
        if method in ("GET", "HEAD") and not reads:
            raise Refused("Cannot execute query in readonly mode: a GET request only reads", READONLY, "READONLY")
        lane = self._lanes[lane_name]
        request = Request(
            sql=insert.statement if insert else sql,
            format=format_,
            readonly=readonly,
            streams=streams,
            time_limit=min(question.time_limit or lane.rule.time_limit, lane.rule.time_limit),
            database=question.database,
            settings=question.settings,
            parameters=question.parameters,
        )
        encoder = choose_encoder(headers.get(b"accept-encoding", b"")) if question.compress else None
        async with lane.slot():
            statement = _Statement(self._engine, lane, request, insert, question)
            watcher = asyncio.create_task(self._watch(statement, receive if reads else None))
            began, outcome = time.monotonic(), "error"
            try:
                await statement.send(send, encoder)
                outcome = "ok"
            except EngineError as error:
                if statement.timed_out and error.code == WAS_CANCELLED:
                    raise EngineError(statement.timeout_text()) from None
                raise
            finally:
                watcher.cancel()
                with suppress(asyncio.CancelledError):
                    await watcher
                self._statements.labels(lane_name, outcome).inc()
                self._seconds.labels(lane_name).observe(time.monotonic() - began)
                self._rows.inc(statement.written)

    async def _watch(self, statement: "_Statement", receive: Receive | None) -> None:
        """Stop a statement that outlives its limit (the engine's own check may be late), or whose reader is gone."""
        gone = asyncio.ensure_future(_disconnect(receive)) if receive else None
        try:
            await asyncio.wait(
                [gone] if gone else [asyncio.ensure_future(asyncio.sleep(3600))], timeout=statement.request.time_limit + 1
            )
            statement.timed_out = gone is None or not gone.done()
            statement.stopped = True
            while True:
                await asyncio.get_running_loop().run_in_executor(self._killers, self._engine.kill, statement.request.tag)
                await asyncio.sleep(0.5)
        finally:
            if gone:
                gone.cancel()


class _Statement:
    """One statement on its way through a lane and back to the client."""

    def __init__(self, engine: Engine, lane: Lane, request: Request, insert: DataInsert | None, question: Question) -> None:
        self.request = request
        self.timed_out = self.stopped = False
        self.written = 0
        self._engine, self._lane, self._insert, self._question = engine, lane, insert, question

    def timeout_text(self) -> str:
        limit = self.request.time_limit
        return f"Code: {TIMEOUT_EXCEEDED}. DB::Exception: Timeout exceeded: maximum: {limit * 1000:g} ms. (TIMEOUT_EXCEEDED)"

    async def send(self, send: Send, encoder: Encoder | None) -> None:
        """Run it and send the result; EngineError only as long as nothing is sent."""
        run = self._lane.run
        handle: Handle = await run(lambda: self._engine.open(self.request).__enter__())
        chunks: Iterator[bytes] = iter(())
        try:
            if self._insert is not None:
                await run(handle.insert, memoryview(self._question.text)[self._insert.start :])
            else:
                chunks = handle.chunks()
            first = await run(next, chunks, b"")
            second = await run(next, chunks, b"") if first else b""
            if not second:
                self.written = handle.summary.written_rows
                await self._whole(send, encoder, first, handle.summary)
                return
            await self._stream(send, encoder, first, second, chunks, handle.summary)
        finally:
            await run(_close, chunks, handle)

    async def _whole(self, send: Send, encoder: Encoder | None, body: bytes, summary: Summary) -> None:
        headers = self._headers(summary)
        if encoder and body:
            headers.append((b"content-encoding", encoder.name))
            body = encoder.add(body) + encoder.end()
        await reply(send, 200, body, headers, content_type=TEXT)

    async def _stream(
        self, send: Send, encoder: Encoder | None, first: bytes, second: bytes, rest: Iterator[bytes], summary: Summary
    ) -> None:
        tag = secrets.token_hex(8)
        headers = [(b"content-type", TEXT), *self._headers(summary), (b"x-clickhouse-exception-tag", tag.encode())]
        if encoder:
            headers.append((b"content-encoding", encoder.name))
        await send({"type": "http.response.start", "status": 200, "headers": headers})

        async def part(data: bytes) -> None:
            data = encoder.add(data) if encoder else data
            if data:
                await send({"type": "http.response.body", "body": data, "more_body": True})

        await part(first)
        await part(second)
        try:
            while not self.stopped and (chunk := await self._lane.run(next, rest, b"")):
                await part(chunk)
            failure = self.timeout_text() if self.stopped else None
        except EngineError as error:
            failure = self.timeout_text() if self.timed_out else str(error)
        if failure:
            await part(exception_block(tag, failure))
        await send({"type": "http.response.body", "body": encoder.end() if encoder else b"", "more_body": False})

    def _headers(self, summary: Summary) -> list[tuple[bytes, bytes]]:
        figures = {name: str(value) for name, value in asdict(summary).items()}
        return [
            (b"x-clickhouse-format", self.request.format.encode()),
            (b"x-clickhouse-timezone", b"UTC"),
            (b"x-clickhouse-query-id", self._question.query_id.encode()),
            (b"x-clickhouse-summary", json.dumps(figures).encode()),
        ]


def _close(chunks: Iterator[bytes], handle: Handle) -> None:
    close = getattr(chunks, "close", None)
    try:
        if close:
            close()
    finally:
        handle.__exit__(None, None, None)


async def _disconnect(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def _fail(send: Send, status: int, code: int, message: str, name: str | None = None) -> None:
    headers = [(b"x-clickhouse-exception-code", str(code).encode())]
    await reply(send, status, error_text(code, message, name).encode() + b"\n", headers, content_type=TEXT)


def build_store(settings: Settings, telemetry: Telemetry) -> Store:
    """Open the data folder and the key file (made where there is none)."""
    return Store(Engine(settings.data_dir / "clickhouse"), ensure_key_file(settings.key_dir / "store"), telemetry)


def main(settings: Settings) -> None:
    """Serve on loopback until a signal."""
    set_up_logging("store", settings)
    with Telemetry("store", settings) as telemetry:
        listener = listen("127.0.0.1", settings.store_port)
        store = build_store(settings, telemetry)
        run(lambda: serve(store, listener, graceful_s=5, beside=store.watch(telemetry)))
        store.close()
