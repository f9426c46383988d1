"""The sandbox provider: OpenAI's wire format for chat, models, files and fine-tuning jobs, with faults on demand.

It says that it is a sandbox: in its model names, in a header of every answer, and at `/`.
"""

import asyncio
import hashlib
import hmac
import uuid
from collections.abc import Awaitable, Callable
from random import Random
from typing import Final

import msgspec
from aiohttp import web

from adapters.corpus import PHRASINGS, STDLIB, help_desk
from adapters.keys import ensure_key_file
from adapters.settings import Settings
from adapters.telemetry import Telemetry, set_up_logging
from services.sandbox_chat import Answer, ChatRequest, Models, answer, chunks
from services.sandbox_faults import Fault, Faults, Hit, Path
from services.sandbox_log import RequestLog, arrival
from services.sandbox_state import BASE_MODEL, SandboxState
from services.sandbox_tuning import Tuning
from services.sandbox_wire import (
    DONE,
    SAYS_SO,
    NoSuchModel,
    Refused,
    answered,
    chunk_events,
    completion,
    error,
    model,
    read,
)

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
MAX_BODY: Final = 64 * 1024 * 1024
MAX_LOGGED: Final = 200
SAYS: Final = "This is Bellbuoy's sandbox provider: a small retrieval model behind OpenAI's wire format, for demos and tests."


class Sandbox:
    """The application. `latency_ms` is the median time that an answer takes (log-normal, sigma 0.4)."""

    def __init__(self, state: SandboxState, models: Models, log: RequestLog, *, key: str, latency_ms: float) -> None:
        self._state, self._models, self._log = state, models, log
        self._key, self._latency_ms = key.encode(), latency_ms
        self._draw = Random("sandbox")
        self._faults = Faults(Random("faults"))

    def app(self) -> web.Application:
        app = web.Application(middlewares=[self._guard], client_max_size=MAX_BODY)
        tuning, file, job = Tuning(self._state, self._models, self._log), "/v1/files/{id}", "/v1/fine_tuning/jobs/{id}"
        app.router.add_get("/", self._root)
        app.router.add_post("/v1/chat/completions", self._chat)
        app.router.add_get("/v1/models", self._faulty("models", self._list_models))
        app.router.add_get("/v1/models/{id:.+}", self._faulty("models", self._get_model))
        app.router.add_post("/v1/files", self._faulty("files", tuning.upload))
        app.router.add_get("/v1/files", self._faulty("files", tuning.list_files))
        app.router.add_get(file, self._faulty("files", tuning.get_file))
        app.router.add_get(f"{file}/content", self._faulty("files", tuning.get_content))
        app.router.add_delete(file, self._faulty("files", tuning.delete_file))
        app.router.add_post("/v1/fine_tuning/jobs", self._faulty("jobs", tuning.create_job))
        app.router.add_get("/v1/fine_tuning/jobs", self._faulty("jobs", tuning.list_jobs))
        app.router.add_get(job, self._faulty("jobs", tuning.get_job))
        app.router.add_post(f"{job}/cancel", self._faulty("jobs", tuning.cancel_job))
        app.router.add_get(f"{job}/events", self._faulty("jobs", tuning.list_events))
        app.router.add_get(f"{job}/checkpoints", self._faulty("jobs", tuning.list_checkpoints))
        app.router.add_post("/sandbox/faults", self._add_fault)
        app.router.add_get("/sandbox/faults", self._list_faults)
        app.router.add_delete("/sandbox/faults", self._clear_faults)
        app.router.add_get("/sandbox/log", self._read_log)
        app.router.add_get("/sandbox/counts", self._read_counts)
        return app

    # --- what surrounds every request -------------------------------------------------------------------------------

    @web.middleware
    async def _guard(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        if request.path != "/" and not self._authorized(request):
            response: web.StreamResponse = error(401, "wrong or missing API key", "invalid_api_key")
        else:
            try:
                response = await handler(request)
            except Refused as refused:
                response = error(refused.status, str(refused), refused.code, refused.param)
            except web.HTTPNotFound:
                response = error(404, "there is no such path here", "not_found")
            except web.HTTPMethodNotAllowed as wrong:
                response = error(405, f"use {', '.join(sorted(wrong.allowed_methods))}")
            except web.HTTPRequestEntityTooLarge:
                response = error(413, f"the body is larger than {MAX_BODY} bytes")
        if not response.prepared:
            response.headers.update(SAYS_SO)
            response.headers["x-request-id"] = f"req_{uuid.uuid4().hex}"
        return response

    def _authorized(self, request: web.Request) -> bool:
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        given = token.strip() if scheme.lower() == "bearer" else request.headers.get("api-key", "")
        return hmac.compare_digest(given.encode(errors="replace"), self._key)

    def _faulty(self, path: Path, handler: Handler) -> Handler:
        async def run(request: web.Request) -> web.StreamResponse:
            named = await self._model_of(request) if any(fault.model for fault in self._faults.standing) else None
            return await self._under(self._faults.hit(path, request.method, named, None), request, handler)

        return run

    async def _model_of(self, request: web.Request) -> str | None:
        if request.content_type != "application/json" or not request.body_exists:
            return None
        named = read(await request.read(), dict[str, object]).get("model")
        return named if isinstance(named, str) else None

    async def _under(self, hit: Hit, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Answer as the faults that hit the request want it."""
        if hit.delay:
            await asyncio.sleep(hit.delay)
        kind = hit.fault.kind if hit.fault is not None else None
        if kind == "429":
            slow_down = error(429, "the sandbox was asked to slow you down", "rate_limit_exceeded")
            slow_down.headers["retry-after"] = f"{hit.fault.seconds:g}" if hit.fault is not None else "1"
            return slow_down
        if kind == "500":
            return error(500, "the sandbox was asked to fail", "server_error")
        if kind == "failed_job":
            request["failing"] = True
        if kind != "disconnect":
            response = await handler(request)
            if kind != "lost_answer":
                return response
        return _cut(request)

    # --- chat and models --------------------------------------------------------------------------------------------

    async def _chat(self, request: web.Request) -> web.StreamResponse:
        body = await request.read()
        time_ms, monotonic = arrival(request.transport)
        wanted = read(body, ChatRequest)
        digest = hashlib.sha256(wanted.system().encode()).hexdigest()[:16]
        self._log.note(
            "chat",
            time_ms,
            monotonic,
            model=wanted.model[:MAX_LOGGED],
            system=digest,
            stream=bool(wanted.stream),
            conversation=_header(request, "x-bellbuoy-conversation"),
            request=_header(request, "x-bellbuoy-id"),
        )
        hit = self._faults.hit("chat", "POST", wanted.model, digest)

        async def handler(request: web.Request) -> web.StreamResponse:
            said = await self._answer(wanted)
            if wanted.stream:
                return await self._stream(request, wanted, said, hit)
            return answered(completion(wanted.model, said))

        return await self._under(hit, request, handler)

    async def _answer(self, wanted: ChatRequest) -> Answer:
        wrong = wanted.wrong()
        if wrong is not None:
            raise Refused(wrong[1], wrong[0])
        trained = self._models.kept(wanted.model) or await asyncio.to_thread(self._models.get, wanted.model)
        if trained is None:
            raise NoSuchModel(wanted.model)
        said = answer(trained, wanted)
        if self._latency_ms:
            await asyncio.sleep(self._draw.lognormvariate(0, 0.4) * self._latency_ms / 1000)
        return said

    async def _stream(self, request: web.Request, wanted: ChatRequest, said: Answer, hit: Hit) -> web.StreamResponse:
        """The first piece by itself; the others together, since a write costs more than a piece, unless a fault spreads them."""
        usage = wanted.stream_options is not None and wanted.stream_options.include_usage
        events = chunk_events(wanted.model, said, chunks(said.text), usage=usage)
        kind = hit.fault.kind if hit.fault is not None else None
        if kind == "lost_answer":
            return web.Response()
        if kind == "half_stream":
            events = events[: len(events) // 2]
        response = web.StreamResponse(headers=SAYS_SO | {"cache-control": "no-cache"})
        response.content_type, response.charset = "text/event-stream", "utf-8"
        await response.prepare(request)
        await response.write(events[0])
        if hit.stream_delay:
            for event in events[1:]:
                await asyncio.sleep(hit.stream_delay / len(events))
                await response.write(event)
        elif len(events) > 1:
            await response.write(b"".join(events[1:]))
        if kind == "half_stream":
            await asyncio.sleep(0)
            return _cut(request, response)
        await response.write(DONE)
        await response.write_eof()
        return response

    async def _list_models(self, _: web.Request) -> web.Response:
        return answered({"object": "list", "data": [model(*named) for named in self._state.models()]})

    async def _get_model(self, request: web.Request) -> web.Response:
        wanted = request.match_info["id"]
        created = dict(self._state.models()).get(wanted)
        if created is None:
            raise NoSuchModel(wanted)
        return answered(model(wanted, created))

    # --- the sandbox's own ------------------------------------------------------------------------------------------

    async def _root(self, _: web.Request) -> web.Response:
        return answered({"sandbox": True, "says": SAYS, "base_model": BASE_MODEL})

    async def _add_fault(self, request: web.Request) -> web.Response:
        self._faults.standing.append(read(await request.read(), Fault))
        return await self._list_faults(request)

    async def _list_faults(self, _: web.Request) -> web.Response:
        return answered({"faults": msgspec.to_builtins(self._faults.standing)})

    async def _clear_faults(self, request: web.Request) -> web.Response:
        self._faults.standing.clear()
        return await self._list_faults(request)

    async def _read_log(self, request: web.Request) -> web.Response:
        since = request.query.get("since", "0")
        if not (since.isascii() and since.isdigit() and len(since) < 16):
            raise Refused("since is a moment in milliseconds since 1970", "since")
        return web.Response(body=self._log.since(int(since)), content_type="application/json")

    async def _read_counts(self, _: web.Request) -> web.Response:
        return answered(dict(self._log.counts))


def _cut(request: web.Request, response: web.StreamResponse | None = None) -> web.StreamResponse:
    """Cut the connection; what is returned reaches nobody."""
    if request.transport is not None:
        request.transport.abort()
    return response or web.Response(status=500)


def _header(request: web.Request, name: str) -> str:
    return request.headers.get(name, "")[:MAX_LOGGED].encode(errors="replace").decode()


def base_rows() -> list[tuple[str, str]]:
    """What the base model was trained on: every thing of the standard library, asked in every phrasing."""
    return [(item.question(phrasing), item.answer) for item in help_desk(topics=[STDLIB]).items[STDLIB] for phrasing in PHRASINGS]


def build_sandbox(settings: Settings) -> Sandbox:
    """The sandbox on its own folder, with the settings' key or one of its own; its base model is trained now (about two seconds)."""
    folder, given = settings.data_dir / "sandbox", settings.upstream_api_key
    state = SandboxState(folder / "state.sqlite", settings.sandbox_job_seconds)
    return Sandbox(
        state,
        Models(BASE_MODEL, base_rows(), state.trained_on),
        RequestLog(folder / "requests.jsonl"),
        key=given.get_secret_value() if given is not None else ensure_key_file(settings.key_dir / "sandbox"),
        latency_ms=settings.sandbox_latency_ms,
    )


def main(settings: Settings) -> None:
    """Serve on `settings.host` and `settings.sandbox_port` until SIGTERM or SIGINT; an embedded stack has it on loopback."""
    set_up_logging("sandbox", settings)
    with Telemetry("sandbox", settings) as telemetry:
        telemetry.set_ready("training the base model")
        app = build_sandbox(settings).app()

        async def ready(_: web.Application) -> None:
            telemetry.set_ready(None)

        app.on_startup.append(ready)
        web.run_app(app, host=settings.host, port=settings.sandbox_port, print=None, access_log=None, shutdown_timeout=3)


if __name__ == "__main__":
    main(Settings())
