"""The sandbox provider: OpenAI's wire format for chat, models, files and fine-tuning jobs, with faults on demand.

It says that it is a sandbox: in its model names, in a header of every answer, and at `/`.
"""

import asyncio
import hashlib
import hmac
import json
import random
import time
import uuid
from collections import Counter, deque
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, Final

import msgspec
from aiohttp import web

from adapters.corpus import PHRASINGS, STDLIB, help_desk
from adapters.keys import ensure_key_file
from adapters.settings import Settings
from adapters.telemetry import Telemetry, set_up_logging
from services.sandbox_chat import Answer, Models, answer, chunks
from services.sandbox_state import BASE_MODEL, BadRequest, Row, SandboxState

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
PATHS: Final = ("chat", "files", "jobs", "models")
KINDS: Final = ("429", "500", "slow", "failed_job", "lost_answer", "disconnect")
LOG_KEPT: Final = 200_000
MAX_BODY: Final = 64 * 1024 * 1024
SAYS: Final = "This is Bellbuoy's sandbox provider: a small retrieval model behind OpenAI's wire format, for demos and tests."


class Fault(msgspec.Struct, kw_only=True):
    """A fault that was asked for: on `count` requests of a path (and model), each with probability `share`."""

    path: str
    kind: str
    model: str | None = None
    count: int = 1
    share: float = 1.0
    seconds: float = 1.0


class Sandbox:
    """The application. `latency_ms` is the median time that an answer takes (log-normal, sigma 0.4)."""

    def __init__(self, state: SandboxState, models: Models, *, key: str, log: Path, latency_ms: float) -> None:
        self._state, self._models, self._key, self._latency_ms = state, models, key, latency_ms
        self._faults: list[Fault] = []
        self._draw = random.Random("sandbox")
        self._log_file = log.open("a", buffering=1)
        log.chmod(0o600)
        self._log: deque[Row] = deque(maxlen=LOG_KEPT)
        self._counts: Counter[str] = Counter()

    def app(self) -> web.Application:
        app = web.Application(middlewares=[self._guard], client_max_size=MAX_BODY)
        app.router.add_get("/", self._root)
        app.router.add_post("/v1/chat/completions", self._faulty("chat", self._chat))
        app.router.add_get("/v1/models", self._faulty("models", self._list_models))
        app.router.add_get("/v1/models/{id:.+}", self._faulty("models", self._get_model))
        app.router.add_post("/v1/files", self._faulty("files", self._upload))
        app.router.add_get("/v1/files", self._faulty("files", self._list_files))
        app.router.add_get("/v1/files/{id}", self._faulty("files", self._get_file))
        app.router.add_get("/v1/files/{id}/content", self._faulty("files", self._get_content))
        app.router.add_delete("/v1/files/{id}", self._faulty("files", self._delete_file))
        app.router.add_post("/v1/fine_tuning/jobs", self._faulty("jobs", self._create_job))
        app.router.add_get("/v1/fine_tuning/jobs", self._faulty("jobs", self._list_jobs))
        app.router.add_get("/v1/fine_tuning/jobs/{id}", self._faulty("jobs", self._get_job))
        app.router.add_post("/v1/fine_tuning/jobs/{id}/cancel", self._faulty("jobs", self._cancel_job))
        app.router.add_get("/v1/fine_tuning/jobs/{id}/events", self._faulty("jobs", self._list_events))
        app.router.add_get("/v1/fine_tuning/jobs/{id}/checkpoints", self._faulty("jobs", self._list_checkpoints))
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
            response: web.StreamResponse = _error(401, "wrong or missing API key", "invalid_api_key")
        else:
            try:
                response = await handler(request)
            except BadRequest as error:
                response = _error(400, str(error), None, error.param)
            except (json.JSONDecodeError, UnicodeDecodeError, RecursionError):
                response = _error(400, "the body is not JSON")
            except web.HTTPNotFound:
                response = _error(404, f"there is no {request.path} here", "not_found")
            except web.HTTPMethodNotAllowed as error:
                response = _error(405, f"use {', '.join(sorted(error.allowed_methods))}")
            except web.HTTPRequestEntityTooLarge:
                response = _error(413, f"the body is larger than {MAX_BODY} bytes")
        if not response.prepared:
            response.headers["x-bellbuoy-sandbox"] = "true"
            response.headers["x-request-id"] = f"req_{uuid.uuid4().hex}"
        return response

    def _authorized(self, request: web.Request) -> bool:
        given = request.headers.get("authorization", "").removeprefix("Bearer ") or request.headers.get("api-key", "")
        return hmac.compare_digest(given.encode(), self._key.encode())

    def _faulty(self, path: str, handler: Handler) -> Handler:
        async def run(request: web.Request) -> web.StreamResponse:
            fault = await self._fault(path, request)
            if fault is None:
                return await handler(request)
            match fault.kind:
                case "429":
                    response = _error(429, "slow down", "rate_limit_exceeded")
                    response.headers["retry-after"] = f"{fault.seconds:g}"
                    return response
                case "500":
                    return _error(500, "the sandbox was asked to fail", "server_error")
                case "slow":
                    await asyncio.sleep(fault.seconds)
                    return await handler(request)
                case "failed_job":
                    request["failing"] = True
                    return await handler(request)
                case "lost_answer":
                    await handler(request)
            assert request.transport is not None
            request.transport.abort()
            return web.Response(status=500)

        return run

    async def _fault(self, path: str, request: web.Request) -> Fault | None:
        for fault in self._faults:
            if fault.path != path or (fault.kind == "failed_job" and request.method != "POST"):
                continue
            if fault.kind == "lost_answer" and request.method != "POST":
                continue
            if fault.model is not None and fault.model.encode() not in await request.read():
                continue
            if self._draw.random() >= fault.share:
                continue
            fault.count -= 1
            if fault.count <= 0:
                self._faults.remove(fault)
            return fault
        return None

    def _note(self, what: str, **fields: Any) -> None:
        entry = {"time": time.time_ns() // 1_000_000, "monotonic": time.monotonic(), "what": what, **fields}
        self._log.append(entry)
        self._counts[f"{what} {fields.get('model', '')}".strip()] += 1
        self._log_file.write(json.dumps(entry) + "\n")

    # --- chat -------------------------------------------------------------------------------------------------------

    async def _chat(self, request: web.Request) -> web.StreamResponse:
        arrived = time.time_ns() // 1_000_000
        raw = await request.read()
        body = msgspec_object(raw)
        name, messages = body.get("model"), body.get("messages")
        if not isinstance(name, str) or not name:
            raise BadRequest("you must provide a model", "model")
        if not isinstance(messages, list) or not messages or not all(isinstance(m, dict) for m in messages):
            raise BadRequest("messages must be a list of objects and not be empty", "messages")
        model = self._models.get(name.partition(":ckpt-")[0], BASE_MODEL)
        if model is None:
            return _error(404, f"the model {name!r} does not exist", "model_not_found", "model")
        system = " ".join(str(m.get("content")) for m in messages if m.get("role") in ("system", "developer"))
        self._note(
            "chat",
            model=name,
            arrived=arrived,
            system=hashlib.sha256(system.encode()).hexdigest()[:16],
            stream=bool(body.get("stream")),
            request=request.headers.get("x-bellbuoy-id", ""),
        )
        said = answer(model, messages, body)
        if self._latency_ms:
            await asyncio.sleep(self._draw.lognormvariate(0, 0.4) * self._latency_ms / 1000)
        if body.get("stream"):
            return await self._stream(request, name, said, body)
        return web.json_response(_completion(name, said))

    async def _stream(self, request: web.Request, name: str, said: Answer, body: Row) -> web.StreamResponse:
        options = body.get("stream_options") or {}
        response = web.StreamResponse(
            headers={
                "content-type": "text/event-stream; charset=utf-8",
                "cache-control": "no-cache",
                "x-bellbuoy-sandbox": "true",
            }
        )
        await response.prepare(request)
        base = {
            "id": f"chatcmpl-{uuid.uuid4().hex}",
            "object": "chat.completion.chunk",
            "created": int(time.time()),
            "model": name,
            "system_fingerprint": "fp_bellbuoy_sandbox",
        }

        async def send(**fields: Any) -> None:
            await response.write(b"data: " + msgspec.json.encode({**base, **fields}) + b"\n\n")

        first: Row = {"role": "assistant"}
        for piece in chunks(said.text):
            await send(choices=[{"index": 0, "delta": {**first, "content": piece}, "finish_reason": None}])
            first = {}
        await send(choices=[{"index": 0, "delta": {}, "finish_reason": said.finish_reason}])
        if options.get("include_usage"):
            await send(choices=[], usage=_usage(said))
        await response.write(b"data: [DONE]\n\n")
        await response.write_eof()
        return response

    # --- models -----------------------------------------------------------------------------------------------------

    async def _list_models(self, _: web.Request) -> web.Response:
        return web.json_response({"object": "list", "data": [_model(*named) for named in self._state.models()]})

    async def _get_model(self, request: web.Request) -> web.Response:
        wanted = request.match_info["id"]
        for named in self._state.models():
            if named[0] == wanted:
                return web.json_response(_model(*named))
        return _error(404, f"the model {wanted!r} does not exist", "model_not_found", "model")

    # --- files ------------------------------------------------------------------------------------------------------

    async def _upload(self, request: web.Request) -> web.Response:
        if not request.content_type.startswith("multipart/"):
            raise BadRequest("send a multipart form with file and purpose", "file")
        form = await request.post()
        file, purpose = form.get("file"), form.get("purpose")
        if not isinstance(file, web.FileField):
            raise BadRequest("file is missing", "file")
        if purpose != "fine-tune":
            raise BadRequest("the sandbox takes files for fine-tune only", "purpose")
        return web.json_response(self._state.add_file(Path(file.filename).name[:200], str(purpose), file.file.read()))

    async def _list_files(self, request: web.Request) -> web.Response:
        return _page(request, self._state.files())

    async def _get_file(self, request: web.Request) -> web.Response:
        file = self._state.file(request.match_info["id"])
        return web.json_response(file) if file else _error(404, "there is no such file", "not_found")

    async def _get_content(self, request: web.Request) -> web.Response:
        content = self._state.content(request.match_info["id"])
        if content is None:
            return _error(404, "there is no such file", "not_found")
        return web.Response(body=content, content_type="application/octet-stream")

    async def _delete_file(self, request: web.Request) -> web.Response:
        id_ = request.match_info["id"]
        if not self._state.delete_file(id_):
            return _error(404, "there is no such file", "not_found")
        return web.json_response({"id": id_, "object": "file", "deleted": True})

    # --- jobs -------------------------------------------------------------------------------------------------------

    async def _create_job(self, request: web.Request) -> web.Response:
        body = msgspec_object(await request.read())
        model, file = body.get("model"), body.get("training_file")
        if not isinstance(file, str) or self._state.file(file) is None:
            raise BadRequest("there is no such training file", "training_file")
        if not isinstance(model, str) or model not in dict(self._state.models()):
            return _error(404, f"the model {model!r} does not exist", "model_not_found", "model")
        method = body.get("method") or {"type": "supervised"}
        if not isinstance(method, dict) or method.get("type") != "supervised":
            raise BadRequest("the sandbox knows the method supervised only", "method")
        metadata = body.get("metadata") or {}
        if not isinstance(metadata, dict) or len(metadata) > 16 or not all(isinstance(v, str) for v in metadata.values()):
            raise BadRequest("metadata holds up to 16 strings", "metadata")
        suffix = body.get("suffix")
        if suffix is not None and (not isinstance(suffix, str) or not 1 <= len(suffix) <= 64):
            raise BadRequest("suffix is a string of up to 64 characters", "suffix")
        seed = body.get("seed")
        job = self._state.add_job(
            model, file, metadata, suffix, seed if isinstance(seed, int) else 0, failing=bool(request.get("failing"))
        )
        self._note("job created", id=job["id"], metadata=metadata)
        return web.json_response(job)

    async def _list_jobs(self, request: web.Request) -> web.Response:
        wanted = {k[9:-1]: v for k, v in request.query.items() if k.startswith("metadata[") and k.endswith("]")}
        return _page(request, [job for job in self._state.jobs() if wanted.items() <= job["metadata"].items()])

    async def _get_job(self, request: web.Request) -> web.Response:
        return _job(self._state.job(request.match_info["id"]))

    async def _cancel_job(self, request: web.Request) -> web.Response:
        job = self._state.cancel(request.match_info["id"])
        if job is not None:
            self._note("job cancelled", id=job["id"], metadata=job["metadata"])
        return _job(job)

    async def _list_events(self, request: web.Request) -> web.Response:
        id_ = request.match_info["id"]
        return _page(request, self._state.events(id_)) if self._state.job(id_) else _job(None)

    async def _list_checkpoints(self, request: web.Request) -> web.Response:
        id_ = request.match_info["id"]
        return _page(request, self._state.checkpoints(id_)) if self._state.job(id_) else _job(None)

    # --- the sandbox's own ------------------------------------------------------------------------------------------

    async def _root(self, _: web.Request) -> web.Response:
        return web.json_response({"sandbox": True, "says": SAYS, "base_model": BASE_MODEL})

    async def _add_fault(self, request: web.Request) -> web.Response:
        try:
            fault = msgspec.json.decode(await request.read(), type=Fault)
        except msgspec.DecodeError as error:
            raise BadRequest(str(error)) from None
        if fault.path not in PATHS or fault.kind not in KINDS:
            raise BadRequest(f"path is one of {', '.join(PATHS)}; kind one of {', '.join(KINDS)}")
        self._faults.append(fault)
        return await self._list_faults(request)

    async def _list_faults(self, _: web.Request) -> web.Response:
        return web.json_response({"faults": msgspec.to_builtins(self._faults)})

    async def _clear_faults(self, request: web.Request) -> web.Response:
        self._faults.clear()
        return await self._list_faults(request)

    async def _read_log(self, request: web.Request) -> web.Response:
        since = int(request.query.get("since", 0))
        return web.json_response({"log": [entry for entry in self._log if entry["time"] >= since]})

    async def _read_counts(self, _: web.Request) -> web.Response:
        return web.json_response(dict(self._counts))


def msgspec_object(raw: bytes) -> Row:
    """A request's JSON object. Raises BadRequest."""
    try:
        value = msgspec.json.decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise BadRequest("the body is not JSON") from None
    if not isinstance(value, dict):
        raise BadRequest("the body must be an object")
    return value


def _error(status: int, message: str, code: str | None = None, param: str | None = None) -> web.Response:
    kind = {401: "authentication_error", 429: "rate_limit_error", 500: "server_error"}.get(status, "invalid_request_error")
    return web.json_response({"error": {"message": message, "type": kind, "param": param, "code": code}}, status=status)


def _job(job: Row | None) -> web.Response:
    return web.json_response(job) if job else _error(404, "there is no such fine-tuning job", "not_found")


def _page(request: web.Request, items: list[Row]) -> web.Response:
    """A page of a list, after the item that the query names."""
    after, limit = request.query.get("after"), request.query.get("limit", "20")
    if not limit.isdigit() or not 1 <= int(limit) <= 10_000:
        raise BadRequest("limit is a number from 1 to 10000", "limit")
    if after is not None:
        ids = [item["id"] for item in items]
        items = items[ids.index(after) + 1 :] if after in ids else []
    page = items[: int(limit)]
    return web.json_response(
        {
            "object": "list",
            "data": page,
            "has_more": len(items) > len(page),
            "first_id": page[0]["id"] if page else None,
            "last_id": page[-1]["id"] if page else None,
        }
    )


def _model(name: str, created: int) -> Row:
    return {"id": name, "object": "model", "created": created, "owned_by": "bellbuoy-sandbox"}


def _usage(said: Answer) -> Row:
    return {
        "prompt_tokens": said.input_tokens,
        "completion_tokens": said.output_tokens,
        "total_tokens": said.input_tokens + said.output_tokens,
    }


def _completion(name: str, said: Answer) -> Row:
    return {
        "id": f"chatcmpl-{uuid.uuid4().hex}",
        "object": "chat.completion",
        "created": int(time.time()),
        "model": name,
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": said.text, "refusal": None},
                "logprobs": None,
                "finish_reason": said.finish_reason,
            }
        ],
        "usage": _usage(said),
        "system_fingerprint": "fp_bellbuoy_sandbox",
    }


def base_rows() -> list[tuple[str, str]]:
    """What the base model was trained on: every thing of the standard library, asked in every phrasing."""
    return [(item.question(phrasing), item.answer) for item in help_desk().items[STDLIB] for phrasing in PHRASINGS]


def build_sandbox(settings: Settings) -> Sandbox:
    """The sandbox on its own folder, with the settings' key or one of its own; its base model is trained now (about two seconds)."""
    folder, given = settings.data_dir / "sandbox", settings.upstream_api_key
    state = SandboxState(folder / "state.db", settings.sandbox_job_seconds)
    models = Models(base_rows(), state.trained)
    models.get(BASE_MODEL, BASE_MODEL)
    return Sandbox(
        state,
        models,
        key=given.get_secret_value() if given is not None else ensure_key_file(settings.key_dir / "sandbox"),
        log=folder / "requests.jsonl",
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
