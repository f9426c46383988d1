"""The sandbox's files and fine-tuning jobs over HTTP."""

import asyncio
import re
from pathlib import PurePath
from typing import Final, Literal

import msgspec
from aiohttp import web

from services.sandbox_chat import Models
from services.sandbox_log import RequestLog, arrival
from services.sandbox_state import NotPossible, SandboxState
from services.sandbox_training import course
from services.sandbox_wire import NoSuch, NoSuchModel, Refused, answered, page, read

_SUFFIX: Final = re.compile(r"[A-Za-z0-9_.-]{1,64}")
MAX_METADATA: Final = 16
MAX_KEY: Final = 64
MAX_VALUE: Final = 512

Auto = Literal["auto"]


class Hyperparameters(msgspec.Struct):
    n_epochs: int | Auto = "auto"
    batch_size: int | Auto = "auto"
    learning_rate_multiplier: int | float | Auto = "auto"

    def resolved(self) -> dict[str, int | float]:
        """What a retrieval model makes of them: it takes them, and learns each example once."""
        return {name: 1 if value == "auto" else value for name, value in msgspec.structs.asdict(self).items()}


class Supervised(msgspec.Struct):
    hyperparameters: Hyperparameters | None = None


class Method(msgspec.Struct):
    type: Literal["supervised"] = "supervised"
    supervised: Supervised | None = None


class JobRequest(msgspec.Struct):
    model: str
    training_file: str
    validation_file: str | None = None
    method: Method | None = None
    hyperparameters: Hyperparameters | None = None
    metadata: dict[str, str] | None = None
    suffix: str | None = None
    seed: int | None = None

    def chosen(self) -> Hyperparameters:
        """The method's hyperparameters, else those of the older field."""
        inner = self.method.supervised if self.method is not None else None
        return (inner.hyperparameters if inner is not None else None) or self.hyperparameters or Hyperparameters()


class Tuning:
    """Handlers. A job is created by each POST that arrives, whatever it says of idempotency, as with real providers."""

    def __init__(self, state: SandboxState, models: Models, log: RequestLog) -> None:
        self._state, self._models, self._log = state, models, log

    async def upload(self, request: web.Request) -> web.Response:
        if not request.content_type.startswith("multipart/"):
            raise Refused("send a multipart form with file and purpose", "file")
        try:
            form = await request.post()
        except ValueError:
            raise Refused("the form cannot be read", "file") from None
        file, purpose = form.get("file"), form.get("purpose")
        if not isinstance(file, web.FileField):
            raise Refused("file is missing", "file")
        if purpose != "fine-tune":
            raise Refused("the sandbox takes files for fine-tune only", "purpose")
        name = PurePath(file.filename).name[:200].encode(errors="replace").decode()
        return answered(await asyncio.to_thread(self._state.add_file, name, "fine-tune", file.file.read()))

    async def list_files(self, request: web.Request) -> web.Response:
        return page(request, self._state.files())

    async def get_file(self, request: web.Request) -> web.Response:
        file = self._state.file(request.match_info["id"])
        if file is None:
            raise NoSuch("file")
        return answered(file)

    async def get_content(self, request: web.Request) -> web.Response:
        id_ = request.match_info["id"]
        content = self._state.content(id_) if self._state.file(id_) is not None else None
        if content is None:
            raise NoSuch("file")
        return web.Response(body=content, content_type="application/octet-stream")

    async def delete_file(self, request: web.Request) -> web.Response:
        id_ = request.match_info["id"]
        if not self._state.delete_file(id_):
            raise NoSuch("file")
        return answered({"id": id_, "object": "file", "deleted": True})

    async def create_job(self, request: web.Request) -> web.Response:
        """Create a job; its files are validated and its checkpoints measured now, and told when their time comes."""
        body = await request.read()
        time_ms, monotonic = arrival(request.transport)
        wanted = read(body, JobRequest)
        for field, id_ in (("training_file", wanted.training_file), ("validation_file", wanted.validation_file)):
            if id_ is not None and self._state.file(id_) is None:
                raise Refused(f"there is no such {field.replace('_', ' ')}", field)
        metadata = wanted.metadata or {}
        if len(metadata) > MAX_METADATA or any(len(k) > MAX_KEY or len(v) > MAX_VALUE for k, v in metadata.items()):
            raise Refused(f"metadata holds up to {MAX_METADATA} strings of up to {MAX_VALUE} characters", "metadata")
        if wanted.suffix and not _SUFFIX.fullmatch(wanted.suffix):
            raise Refused("suffix is of up to 64 letters, digits, `-`, `_` and `.`", "suffix")
        base = await asyncio.to_thread(self._models.get, wanted.model)
        if base is None:
            raise NoSuchModel(wanted.model)
        training = self._state.content(wanted.training_file) or b""
        validation = self._state.content(wanted.validation_file) if wanted.validation_file is not None else None
        job = self._state.add_job(
            wanted.model,
            wanted.training_file,
            wanted.validation_file,
            metadata,
            suffix=wanted.suffix or None,
            seed=(wanted.seed or 0) % 2**31,
            hyperparameters=wanted.chosen().resolved(),
            course=await asyncio.to_thread(course, base, training, validation),
            failing=bool(request.get("failing")),
        )
        self._log.note("job created", time_ms, monotonic, id=job["id"], metadata=metadata)
        return answered(job)

    async def list_jobs(self, request: web.Request) -> web.Response:
        query = request.query.items()
        return page(request, self._state.jobs({k[9:-1]: v for k, v in query if k.startswith("metadata[") and k.endswith("]")}))

    async def get_job(self, request: web.Request) -> web.Response:
        job = self._state.job(request.match_info["id"])
        if job is None:
            raise NoSuch("fine-tuning job")
        return answered(job)

    async def cancel_job(self, request: web.Request) -> web.Response:
        time_ms, monotonic = arrival(request.transport)
        try:
            job = self._state.cancel(request.match_info["id"])
        except NotPossible as error:
            raise Refused(str(error)) from None
        if job is None:
            raise NoSuch("fine-tuning job")
        self._log.note("job cancelled", time_ms, monotonic, id=job["id"], metadata=job["metadata"])
        return answered(job)

    async def list_events(self, request: web.Request) -> web.Response:
        await self.get_job(request)
        return page(request, self._state.events(request.match_info["id"]))

    async def list_checkpoints(self, request: web.Request) -> web.Response:
        await self.get_job(request)
        return page(request, self._state.checkpoints(request.match_info["id"]))
