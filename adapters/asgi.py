"""HTTP servers: uvicorn on uvloop, raw ASGI replies, bodies read within a limit, and a stop that answers what is under way."""

import asyncio
import contextlib
import signal
import socket
from collections.abc import Awaitable, Callable, Iterator, MutableMapping, Sequence
from typing import Any

import uvicorn
import uvloop

from adapters.http_body import BodyTooLarge

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]
Header = tuple[bytes, bytes]


class Disconnected(Exception):
    """The client went away before its body was complete."""


async def read_body(receive: Receive, limit: int, hold: Callable[[int], None]) -> bytes:
    """The request's body; `hold` is told of each chunk before it is kept. Raises BodyTooLarge, Disconnected."""
    chunks: list[bytes] = []
    size = 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise Disconnected
        chunk = message.get("body", b"")
        if chunk:
            size += len(chunk)
            if size > limit:
                raise BodyTooLarge(f"the body is larger than {limit} bytes")
            hold(len(chunk))
            chunks.append(chunk)
        if not message.get("more_body", False):
            return b"".join(chunks)


async def reply(
    send: Send, status: int, body: bytes, headers: Sequence[Header] = (), content_type: bytes = b"application/json"
) -> None:
    """Send a whole response."""
    fixed = [(b"content-type", content_type), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": [*fixed, *headers]})
    await send({"type": "http.response.body", "body": body})


def listen(host: str, port: int) -> socket.socket:
    """A listening socket; port 0 takes a free one. Raises OSError when the port is taken."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.create_server((host, port), family=family, backlog=2048)
    # Connections inherit it. uvloop sets it by itself, asyncio not on these; without it a reply in two writes waits 40 ms.
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return listener


class _Server(uvicorn.Server):
    """uvicorn leaves signals to `serve`; its own way ends the process by the signal, before anything can be flushed."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


async def serve(
    app: App, listener: socket.socket, *, graceful_s: int, idle_s: int = 5, beside: Awaitable[None] | None = None
) -> None:
    """Serve until SIGTERM, SIGINT or the end of `beside`; then accept nothing more and answer what is under way.

    A connection that is idle for `idle_s` seconds is closed; a request that comes just then finds it closed.
    `beside` runs until the last answer is out and is then cancelled; what it raises is raised here.
    """
    config = uvicorn.Config(
        app,
        loop="none",
        http="httptools",
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_keep_alive=idle_s,
        timeout_graceful_shutdown=graceful_s,
    )
    server = _Server(config)

    def stop() -> None:
        server.should_exit = True

    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop)
    task = asyncio.ensure_future(beside) if beside is not None else None
    if task is not None:
        task.add_done_callback(lambda _: stop())
    await server.serve(sockets=[listener])
    if task is not None:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


def run(main: Callable[[], Awaitable[None]]) -> None:
    """Run a coroutine on uvloop."""

    async def entry() -> None:
        await main()

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(entry())
