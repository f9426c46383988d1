"""A gateway as a process, and an upstream in this one that keeps a log of what reached it."""

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import confluent_kafka as ck
import httpx
import openai
from aiohttp import web

from adapters.kafka import read_all
from adapters.process import pick_port
from adapters.routes import RouteWriter
from adapters.settings import Settings
from core.routing import first_table
from schemas import codec
from schemas.messages import CallConfiguration, GatewayReport, Interaction, RouteTable
from schemas.topics import GATEWAYS, INTERACTIONS, TOPICS

ROOT = Path(__file__).parents[2]
KEY = "the-key"
CHUNKS = ("So ", "it ", "is.")


def until(what: Callable[[], Any], seconds: float = 30) -> Any:
    """What `what` gives once it is true."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if found := what():
            return found
        time.sleep(0.05)
    raise AssertionError("it did not come true in time")


def completion(model: str, message: dict[str, Any], finish: str = "stop") -> dict[str, Any]:
    return {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 1,
        "model": model,
        "choices": [{"index": 0, "message": {"role": "assistant", **message}, "finish_reason": finish, "logprobs": None}],
        "usage": {"prompt_tokens": 11, "completion_tokens": 3, "total_tokens": 14},
    }


@dataclass
class Provider:
    """Answers as OpenAI does. A user message of the form `do:<something>` asks for a fault."""

    port: int = field(default_factory=lambda: pick_port("127.0.0.1", (0,)))
    requests: list[dict[str, Any]] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    bodies: list[bytes] = field(default_factory=list)
    queries: list[str] = field(default_factory=list)
    aborted: int = 0
    release: threading.Event = field(default_factory=threading.Event)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    def models(self) -> list[str]:
        return [request["model"] for request in self.requests]

    @contextlib.contextmanager
    def running(self) -> Iterator["Provider"]:
        loop = asyncio.new_event_loop()
        up = threading.Event()

        async def serve() -> None:
            app = web.Application(client_max_size=2**27)
            app.router.add_post("/v1/chat/completions", self._chat)
            app.router.add_get("/v1/models", self._models)
            runner = web.AppRunner(app, handler_cancellation=True)
            await runner.setup()
            await web.TCPSite(runner, "127.0.0.1", self.port).start()
            up.set()

        thread = threading.Thread(target=lambda: (loop.run_until_complete(serve()), loop.run_forever()), daemon=True)
        thread.start()
        assert up.wait(10)
        yield self
        loop.call_soon_threadsafe(loop.stop)
        thread.join(10)

    async def _models(self, _: web.Request) -> web.Response:
        return web.json_response({"object": "list", "data": [{"id": "gpt", "object": "model", "created": 1, "owned_by": "them"}]})

    async def _chat(self, request: web.Request) -> web.StreamResponse:
        body = await request.read()
        asked = json.loads(body)
        self.bodies.append(body)
        self.requests.append(asked)
        self.headers.append(dict(request.headers))
        self.queries.append(request.rel_url.raw_query_string)
        content = asked["messages"][-1]["content"]
        do = content.removeprefix("do:") if isinstance(content, str) and content.startswith("do:") else ""
        if do.isdigit():
            error = {"message": "as asked", "type": "server_error", "param": None, "code": "asked"}
            return web.json_response({"error": error}, status=int(do), headers={"Retry-After": "7", "x-theirs": "1"})
        if do == "hang":
            try:
                await asyncio.to_thread(self.release.wait, 30)
            except asyncio.CancelledError:
                self.aborted += 1
                raise
        if asked.get("stream"):
            return await self._stream(request, asked, do)
        if asked.get("tools"):
            call = {"id": "call_1", "type": "function", "function": {"name": "look_up", "arguments": '{"x": 1}'}}
            return web.json_response(completion(asked["model"], {"content": None, "tool_calls": [call]}, "tool_calls"))
        return web.json_response(completion(asked["model"], {"content": "".join(CHUNKS)}))

    async def _stream(self, request: web.Request, asked: dict[str, Any], do: str) -> web.StreamResponse:
        response = web.StreamResponse(headers={"content-type": "text/event-stream; charset=utf-8"})
        await response.prepare(request)
        base = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": asked["model"]}
        try:
            for number, text in enumerate(CHUNKS):
                delta = {"content": text} | ({"role": "assistant"} if not number else {})
                choice = {"index": 0, "delta": delta, "finish_reason": None}
                await response.write(b"data: " + json.dumps(base | {"choices": [choice]}).encode() + b"\n\n")
                if do == "pause":
                    await asyncio.sleep(0.01)
                    await asyncio.to_thread(self.release.wait, 30)
                if do == "break":
                    assert request.transport is not None
                    request.transport.abort()
                    return response
        except (asyncio.CancelledError, ConnectionResetError):
            self.aborted += 1
            raise
        last = {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}
        await response.write(b"data: " + json.dumps(base | last).encode() + b"\n\ndata: [DONE]\n\n")
        return response


class Running:
    """One gateway process and the official client that knows its key."""

    def __init__(self, settings: Settings, upstream: str, log: Path, **environment: str) -> None:
        self.settings, self.log = settings, log
        self.port = pick_port(settings.host, (0,))
        self.url = f"http://127.0.0.1:{self.port}/v1"
        values = os.environ | {
            "BELLBUOY_DATA_DIR": str(settings.data_dir),
            "BELLBUOY_API_KEY": KEY,
            "BELLBUOY_GATEWAY_PORT": str(self.port),
            "BELLBUOY_INSTANCE": settings.instance,
            "BELLBUOY_UPSTREAM_URL": upstream,
            "BELLBUOY_UPSTREAM_API_KEY": "their-key",
            "KAFKA_BOOTSTRAP_SERVERS": settings.bootstrap_servers(),
        }
        with log.open("ab") as file:
            command = [sys.executable, "-m", "services.gateway"]
            self.process = subprocess.Popen(command, cwd=ROOT, env=values | environment, stdout=file, stderr=file)
        self.client = openai.OpenAI(base_url=self.url, api_key=KEY, max_retries=0, timeout=30, _strict_response_validation=True)

    def ask(self, model: str, content: str = "How?", **more: Any) -> Any:
        """The raw response of one question, whose headers can be looked at."""
        messages: Any = [{"role": "user", "content": content}]
        return self.client.chat.completions.with_raw_response.create(model=model, messages=messages, **more)

    def wait(self, seconds: float = 30) -> "Running":
        def answers() -> bool:
            assert self.process.poll() is None, self.log.read_text()
            with contextlib.suppress(httpx.TransportError):
                return httpx.get(f"http://127.0.0.1:{self.port}/ready").status_code == 200
            return False

        until(answers, seconds)
        return self

    def stop(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(40)
        except subprocess.TimeoutExpired:
            self.process.kill()
            raise

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()


@contextlib.contextmanager
def gateway(settings: Settings, upstream: str, log: Path, **environment: str) -> Iterator[Running]:
    running = Running(settings, upstream, log, **environment)
    try:
        yield running
    finally:
        if running.process.poll() is None:
            running.kill()
        running.client.close()


def interactions(settings: Settings, app: str) -> list[Interaction]:
    """All of an app's interactions, partition by partition."""
    return [
        message
        for partition in range(TOPICS[INTERACTIONS].partitions(embedded=True))
        for record in read_all(settings, INTERACTIONS, partition)
        if (message := codec.decode(Interaction, record.value)).app == app
    ]


def arrived(settings: Settings, app: str, count: int = 1) -> list[Interaction]:
    """An app's interactions, once there are that many; a broker that has just been started may not tell yet."""

    def found() -> list[Interaction] | None:
        with contextlib.suppress(ck.KafkaException):
            seen = interactions(settings, app)
            return seen if len(seen) >= count else None
        return None

    return until(found)  # type: ignore[no-any-return]


def reports(settings: Settings, instance: str) -> list[GatewayReport]:
    """What an instance has reported so far."""
    return [
        message
        for record in read_all(settings, GATEWAYS, 0)
        if isinstance(message := codec.read(record), GatewayReport) and message.instance == instance
    ]


def release(settings: Settings, app: str, version: str, **configuration: Any) -> RouteTable:
    """Write an app's first table."""
    value = CallConfiguration(**({"model": f"model-of-{version}"} | configuration))
    with RouteWriter(settings, app, "production") as writer:
        return writer.change(lambda _: first_table(app, "production", version, value, actor="test", reason="a test"))
