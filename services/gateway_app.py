"""The gateway as an ASGI application: chat completions by the routes, models, and what it tells of itself."""

import asyncio
import hmac
import time
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final
from urllib.parse import quote

import aiohttp
import msgspec

from adapters.asgi import Disconnected, Header, Receive, Scope, Send, read_body, reply
from adapters.http_body import BodyTooLarge, decompress
from adapters.telemetry import Telemetry
from adapters.upstream import NoUpstream, Unsent, Upstream
from core.chat import CANCELLED, MAX_ID, UNNAMED, Asked, Exchange, configured, name_of, read_request
from core.identity import is_sampled
from schemas.codec import InvalidMessage
from schemas.messages import Receipt
from services.gateway_http import Refused, forwarded, listed_with, refuse, returned, text_of, unreachable
from services.gateway_routes import Choice, Routes

CHAT_PATH: Final = "/v1/chat/completions"
MODELS_PATH: Final = "/v1/models"
MAX_BODY: Final = 64 * 1024 * 1024
_OWN_PATHS: Final = ("/health", "/ready", "/metrics")
_KEPT_ANSWER: Final = 4 * 1024 * 1024
"""Bytes of an answer that are kept for the log; the client gets all."""
_ATTEMPTS: Final = 8
"""Choices for one request: the routes, or the lease, may change while a connection is being made."""


@dataclass(frozen=True)
class _Call:
    """One request for a completion, as the handlers share it."""

    asked: Asked
    body: bytes
    headers: list[tuple[str, str]]
    query: str
    key: tuple[str, str]
    unit: str
    exchange: Exchange
    began: float


class Gateway:
    """The ASGI application. `subject_key` hashes users, `sign_receipt` makes receipts; `offer` takes what is to be told."""

    def __init__(
        self,
        routes: Routes,
        upstream: Upstream,
        offer: Callable[[Exchange], None],
        *,
        key: str,
        subject_key: bytes,
        sign_receipt: Callable[[Receipt], str],
        telemetry: Telemetry,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self._routes, self._upstream, self._offer = routes, upstream, offer
        self._key, self._subject_key, self._sign = key.encode(), subject_key, sign_receipt
        self._telemetry, self._clock = telemetry, clock
        self._requests = telemetry.counter("gateway_requests", "Requests by path and status", ["path", "status"])
        self._arms = telemetry.counter("gateway_arms", "Requests that were routed, by arm", ["arm"])
        self._first_chunk = telemetry.histogram("gateway_first_chunk_seconds", "From the request to the first byte of the answer")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            raise RuntimeError(f"no {scope['type']} here")
        path, method = scope["path"], scope["method"]
        if path in _OWN_PATHS:
            accept = dict(scope["headers"]).get(b"accept", b"").decode("latin-1")
            status, kind, body = self._telemetry.answer(path, accept)
            await reply(send, status, body, content_type=kind.encode())
            return
        label = CHAT_PATH if path == CHAT_PATH else MODELS_PATH if path.startswith(MODELS_PATH) else "other"
        try:
            self._authorize(scope["headers"])
            if path == CHAT_PATH and method == "POST":
                status = await self._chat(scope, receive, send)
            elif (path == MODELS_PATH or path.startswith(MODELS_PATH + "/")) and method == "GET":
                status = await self._models(scope, send)
            elif path in (CHAT_PATH, MODELS_PATH):
                raise Refused(405, "method_not_allowed", f"{method} is not allowed here")
            else:
                raise Refused(404, "unknown_url", f"there are POST {CHAT_PATH} and GET {MODELS_PATH}")
        except Refused as refused:
            status = refused.status
            await refuse(send, refused)
        except Disconnected:
            status = 499
        self._requests.labels(label, status).inc()

    def _authorize(self, headers: Sequence[Header]) -> None:
        scheme, _, token = dict(headers).get(b"authorization", b"").partition(b" ")
        if scheme.lower() != b"bearer" or not hmac.compare_digest(token.strip(), self._key):
            raise Refused(401, "invalid_api_key", "send the gateway's key as `Authorization: Bearer …`")

    async def _models(self, scope: Scope, send: Send) -> int:
        path = scope["path"].removeprefix(MODELS_PATH).removeprefix("/")
        own = [{"id": app, "object": "model", "created": 0, "owned_by": "bellbuoy"} for app in self._routes.apps()]
        found = [model for model in own if model["id"] == path]
        if found:
            await reply(send, 200, msgspec.json.encode(found[0]))
            return 200
        try:
            response, body = await self._upstream.get(
                f"/models/{quote(path, safe='')}" if path else "/models",
                scope["query_string"].decode("latin-1"),
                forwarded(scope["headers"]),
            )
        except (aiohttp.ClientError, TimeoutError, NoUpstream) as error:
            if not own or path:
                raise unreachable(error) from None
            await reply(send, 200, msgspec.json.encode({"object": "list", "data": own}))
            return 200
        if own and not path and response.status == 200:
            body = listed_with(own, body)
        await reply(send, response.status, body, returned(response), response.headers.get("content-type", "").encode())
        return response.status

    async def _chat(self, scope: Scope, receive: Receive, send: Send) -> int:
        call = await self._read(scope, receive)
        exchange = call.exchange
        task = asyncio.current_task()
        assert task is not None
        gone = False

        def cancel(watcher: "asyncio.Task[None]") -> None:
            nonlocal gone
            if not watcher.cancelled():
                gone = True
                task.cancel()

        watcher = asyncio.ensure_future(_disconnected(receive))
        watcher.add_done_callback(cancel)
        try:
            return await self._answer(call, send)
        except Refused as refused:
            exchange.status, exchange.error_type = exchange.status or refused.status, refused.seen
            raise
        except asyncio.CancelledError:
            exchange.error_type = CANCELLED
            if not gone:
                raise
            task.uncancel()
            return 499
        finally:
            watcher.remove_done_callback(cancel)
            watcher.cancel()
            exchange.latency_ms = self._milliseconds(call)
            self._offer(exchange)

    async def _read(self, scope: Scope, receive: Receive) -> _Call:
        began = self._clock()
        headers: dict[bytes, bytes] = dict(scope["headers"])
        try:
            body = await read_body(receive, MAX_BODY, lambda _: None)
            if encoding := headers.get(b"content-encoding", b"").decode("latin-1"):
                body = await asyncio.to_thread(decompress, body, encoding, MAX_BODY)
            asked = read_request(body)
        except BodyTooLarge as error:
            raise Refused(413, "request_too_large", str(error)) from None
        except InvalidMessage as error:
            raise Refused(400, "invalid_request", error.reason, param=error.field) from None
        id_ = uuid.uuid4().hex
        model = name_of(asked.model)
        environment = text_of(headers, b"x-bellbuoy-environment") or "production"
        app = model or UNNAMED
        if (app, environment) not in self._routes:
            app = text_of(headers, b"x-bellbuoy-app") or app
        conversation = text_of(headers, b"x-bellbuoy-conversation", MAX_ID)
        exchange = Exchange(
            id=id_,
            app=app,
            environment=environment,
            started_ms=time.time_ns() // 1_000_000,
            turn=asked.turn,
            conversation=conversation,
            user=hmac.digest(self._subject_key, asked.user.encode(), "sha256").hex()[:32] if asked.user else None,
            traceparent=text_of(headers, b"traceparent"),
        )
        return _Call(
            asked=asked,
            body=body,
            headers=forwarded(scope["headers"]),
            query=scope["query_string"].decode("latin-1"),
            key=(model or UNNAMED, environment),
            unit=conversation or asked.user or id_,
            exchange=exchange,
            began=began,
        )

    async def _answer(self, call: _Call, send: Send) -> int:
        for _ in range(_ATTEMPTS):
            choice = self._routes.choose(call.key, call.unit)
            begun = False

            def may_start(choice: Choice | None = choice) -> bool:
                nonlocal begun
                begun = choice is None or self._routes.begin(choice, call.unit)
                return begun

            exchange = call.exchange
            exchange.sent = configured(call.asked, choice.configuration) if choice else call.body
            if choice:
                exchange.version, exchange.arm, exchange.route_epoch = choice.version, choice.arm, choice.epoch
            try:
                async with self._upstream.post(
                    "/chat/completions", call.query, call.headers, exchange.sent, may_start
                ) as response:
                    if choice:
                        self._arms.labels(choice.arm).inc()
                    return await self._pass_on(call, response, send)
            except Unsent:
                continue
            except (aiohttp.ClientError, TimeoutError, NoUpstream) as error:
                raise unreachable(error) from None
            finally:
                if choice and begun:
                    self._routes.finish(choice)
        raise Refused(503, "unavailable", "no connection to the provider stays open", seen="connection")

    async def _pass_on(self, call: _Call, response: aiohttp.ClientResponse, send: Send) -> int:
        exchange = call.exchange
        exchange.status = response.status
        exchange.encoding = response.headers.get("content-encoding", "")
        exchange.streamed = response.headers.get("content-type", "").startswith("text/event-stream")
        headers = [*returned(response), *self._said_of(exchange)]
        kind = [(b"content-type", value.encode("latin-1")) for value in response.headers.getall("content-type", ())]
        if not exchange.streamed:
            body = await response.read()
            self._keep(call, body)
            length = [(b"content-length", str(len(body)).encode())]
            await send({"type": "http.response.start", "status": response.status, "headers": [*kind, *length, *headers]})
            await send({"type": "http.response.body", "body": body})
            return response.status
        await send({"type": "http.response.start", "status": response.status, "headers": [*kind, *headers]})
        try:
            async for chunk in response.content.iter_any():
                if exchange.first_chunk_ms is None:
                    exchange.first_chunk_ms = self._milliseconds(call)
                    self._first_chunk.observe(exchange.first_chunk_ms / 1000)
                self._keep(call, chunk)
                await send({"type": "http.response.body", "body": chunk, "more_body": True})
        except (aiohttp.ClientError, TimeoutError) as error:
            refused = unreachable(error)
            exchange.error_type = refused.seen
            await send({"type": "http.response.body", "body": b"\n\ndata: " + refused.body + b"\n\n", "more_body": True})
        await send({"type": "http.response.body", "body": b""})
        return response.status

    def _said_of(self, exchange: Exchange) -> list[Header]:
        receipt = Receipt(
            interaction_id=exchange.id,
            app=exchange.app,
            environment=exchange.environment,
            version=exchange.version,
            turn=exchange.turn,
            route_epoch=exchange.route_epoch,
            sampled=is_sampled(exchange.turn, exchange.conversation),
        )
        said = [(b"x-bellbuoy-id", exchange.id.encode()), (b"x-bellbuoy-receipt", self._sign(receipt).encode())]
        if exchange.version is not None:
            said.append((b"x-bellbuoy-version", quote(exchange.version, safe="@:/+ ").encode()))
        return said

    def _keep(self, call: _Call, chunk: bytes) -> None:
        exchange = call.exchange
        if exchange.answer_bytes < _KEPT_ANSWER:
            exchange.answer.append(chunk)
            exchange.answer_bytes += len(chunk)

    def _milliseconds(self, call: _Call) -> float:
        return round((self._clock() - call.began) * 1000, 3)


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
