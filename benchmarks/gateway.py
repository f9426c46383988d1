"""What the gateway adds to a request: the same upstream, directly and through the gateway, in turn, 32 requests in flight.

The upstream answers after 200 ms, whole or as a stream of 20 chunks. Broker and processor run, and every request is told to
them; with --away the same is measured once more while the broker is away.
    python -m benchmarks.gateway --rounds 10
"""

import argparse
import asyncio
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import NamedTuple

import aiohttp
import httpx
import numpy as np
import psutil

from adapters.asgi import Receive, Scope, Send, listen, read_body, reply, run, serve
from adapters.keys import api_key
from adapters.process import pick_port
from adapters.routes import RouteWriter
from adapters.settings import Settings
from bellbuoy.stack import Stack
from benchmarks.report import emit
from core.routing import first_table
from schemas.messages import CallConfiguration

PACKAGES = ("aiohttp", "uvicorn", "msgspec", "confluent-kafka")
IN_FLIGHT = 32
ANSWER_S = 0.2
CHUNKS = 20
APP = "benchmark"
PROMPT = "How do I change the delivery address of an order that has been paid for already? " * 8
ANSWER = "Open the order, choose the address, and confirm it; what was sent already is not affected. " * 8
WHOLE = json.dumps(
    {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 1,
        "model": APP,
        "choices": [{"index": 0, "message": {"role": "assistant", "content": ANSWER}, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 100, "completion_tokens": 100, "total_tokens": 200},
    }
).encode()
CHUNK = json.dumps(
    {
        "id": "chatcmpl-1",
        "object": "chat.completion.chunk",
        "created": 1,
        "model": APP,
        "choices": [{"index": 0, "delta": {"content": ANSWER[:40]}, "finish_reason": None}],
    }
).encode()


class Seen(NamedTuple):
    """Milliseconds until the first bytes of each answer and until its end."""

    first: list[float]
    whole: list[float]


async def upstream(scope: Scope, receive: Receive, send: Send) -> None:
    """The stand-in for a provider."""
    if scope["type"] != "http":
        return
    body = await read_body(receive, 2**24, lambda _: None)
    if scope["method"] == "GET":
        await reply(send, 200, b"{}")
        return
    await asyncio.sleep(ANSWER_S)
    if b'"stream":true' not in body:
        await reply(send, 200, WHOLE)
        return
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/event-stream")]})
    for _ in range(CHUNKS):
        await send({"type": "http.response.body", "body": b"data: " + CHUNK + b"\n\n", "more_body": True})
    await send({"type": "http.response.body", "body": b"data: [DONE]\n\n"})


async def ask(session: aiohttp.ClientSession, url: str, key: str, number: int, *, stream: bool) -> tuple[float, float]:
    """Milliseconds until the first bytes and until the end of one answer."""
    body = {"model": APP, "messages": [{"role": "user", "content": f"{number} {PROMPT}"}], "stream": stream}
    data = json.dumps(body, separators=(",", ":")).encode()
    headers = {"authorization": f"Bearer {key}", "content-type": "application/json"}
    start = time.perf_counter()
    first = 0.0
    async with session.post(f"{url}/chat/completions", data=data, headers=headers) as response:
        async for chunk in response.content.iter_any():
            if chunk and not first:
                first = time.perf_counter() - start
        if response.status != 200:
            raise SystemExit(f"{url} answered {response.status}")
    return first * 1000, (time.perf_counter() - start) * 1000


async def measure(url: str, key: str, requests: int, *, stream: bool) -> Seen:
    """Ask `requests` times, 32 at a time."""
    seen = Seen([], [])
    numbers = iter(range(requests))

    async def worker(session: aiohttp.ClientSession, delay: float) -> None:
        await asyncio.sleep(delay)  # a provider's clients do not all ask at once
        for number in numbers:
            first, whole = await ask(session, url, key, number, stream=stream)
            seen.first.append(first)
            seen.whole.append(whole)

    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
        await asyncio.gather(*(worker(session, ANSWER_S * n / IN_FLIGHT) for n in range(IN_FLIGHT)))
    return seen


@contextmanager
def process(command: list[str], environment: dict[str, str], url: str) -> Iterator[psutil.Process]:
    """A process that serves at `url`."""
    child = subprocess.Popen(command, env=os.environ | environment)
    try:
        for _ in range(300):
            try:
                httpx.get(url, timeout=5)
                break
            except httpx.TransportError:
                time.sleep(0.1)
        yield psutil.Process(child.pid)
    finally:
        child.terminate()
        child.wait(30)


def compare(direct: str, through: str, key: str, gateway: psutil.Process, rounds: int, requests: int, suffix: str) -> None:
    """Both ways in turn, streaming and not; print what the gateway adds."""
    for stream in (False, True):
        seen = {url: Seen([], []) for url in (direct, through)}
        used = 0.0
        for number in range(rounds + 1):
            for url in (direct, through) if number % 2 else (through, direct):
                before = sum(gateway.cpu_times()[:2])
                found = asyncio.run(measure(url, key, requests, stream=stream))
                if not number:
                    continue  # connections, caches
                used += sum(gateway.cpu_times()[:2]) - before if url == through else 0
                seen[url].first.extend(found.first)
                seen[url].whole.extend(found.whole)
        kind = "first" if stream else "whole"
        name = "gateway.added_first_chunk" if stream else "gateway.added"
        for percent in (50, 99):
            values = {url: float(np.percentile(getattr(seen[url], kind), percent)) for url in seen}
            emit(f"{name}_p{percent}_ms_c32{suffix}", values[through] - values[direct], "ms", PACKAGES)
            emit(f"{name}_p{percent}_ms_c32{suffix}.direct", values[direct], "ms", PACKAGES)
        word = "stream" if stream else "whole"
        emit(f"gateway.cpu_ms.{word}{suffix}", 1000 * used / len(seen[through].whole), "CPU-ms/request", PACKAGES)


def bench(data_dir: Path, rounds: int, requests: int, *, away: bool) -> None:
    """Start a stack, an upstream and a gateway of its own; measure; stop them."""
    settings = Settings(data_dir=data_dir, instance="benchmark-gateway")
    stack = Stack(Settings(data_dir=data_dir))
    stack.start()
    try:
        with RouteWriter(settings, APP, "production") as writer:
            configuration = CallConfiguration(model="model", system_prompt="Be kind.", parameters={"temperature": 0.2})
            writer.change(lambda _: first_table(APP, "production", "v1", configuration, actor="benchmark", reason="a benchmark"))
        ports = [pick_port("127.0.0.1", (0,)) for _ in range(2)]
        direct, through = (f"http://127.0.0.1:{port}/v1" for port in ports)
        environment = settings.model_copy(update={"gateway_port": ports[1], "upstream_url": direct}).environment()
        with ExitStack() as processes:
            command = [sys.executable, "-m", "benchmarks.gateway", "--upstream", str(ports[0])]
            processes.enter_context(process(command, {}, direct))
            ready = through.removesuffix("/v1") + "/ready"
            command = [sys.executable, "-m", "services.gateway"]
            gateway = processes.enter_context(process(command, environment, ready))
            time.sleep(2)
            compare(direct, through, api_key(settings), gateway, rounds, requests, "")
            if away:
                stack.hold("broker")
                time.sleep(3)
                compare(direct, through, api_key(settings), gateway, rounds, requests, ".broker_away")
                stack.release("broker")
    finally:
        stack.stop()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=10, help="turns of each way, streaming and not (default 10)")
    parser.add_argument("--requests", type=int, default=480, help="requests in a turn (default 480)")
    parser.add_argument("--away", action="store_true", help="measure also while the broker is away")
    parser.add_argument("--upstream", type=int, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.upstream:
        run(lambda: serve(upstream, listen("127.0.0.1", args.upstream), graceful_s=1))
        return
    with tempfile.TemporaryDirectory(prefix="bellbuoy-gateway-") as folder:
        bench(Path(folder), args.rounds, args.requests, away=args.away)


if __name__ == "__main__":
    main()
