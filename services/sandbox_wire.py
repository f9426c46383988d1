"""OpenAI's wire format as the sandbox writes it: errors, pages of lists, models, completions and their chunks."""

import time
import uuid
from typing import Any, Final, TypeVar

import msgspec
from aiohttp import web

from services.sandbox_chat import Answer

Row = dict[str, Any]
OWNER: Final = "bellbuoy-sandbox"
FINGERPRINT: Final = "fp_bellbuoy_sandbox"
SAYS_SO: Final = {"x-bellbuoy-sandbox": "true"}
MAX_SHOWN: Final = 200
MAX_PAGE: Final = 10_000
_TYPES: Final = {401: "authentication_error", 429: "rate_limit_error", 500: "server_error"}

T = TypeVar("T")


class Refused(Exception):
    """A request that is answered with an error; `param` names the field."""

    def __init__(self, message: str, param: str | None = None, *, status: int = 400, code: str | None = None) -> None:
        super().__init__(message)
        self.status, self.param, self.code = status, param, code


class NoSuch(Refused):
    """What the request names is not there."""

    def __init__(self, what: str) -> None:
        super().__init__(f"there is no such {what}", status=404, code="not_found")


class NoSuchModel(Refused):
    """The request names a model that there is not."""

    def __init__(self, name: str) -> None:
        super().__init__(f"the model {name[:MAX_SHOWN]!r} does not exist", "model", status=404, code="model_not_found")


def read(body: bytes, into: type[T]) -> T:
    """A request's JSON body. Raises Refused, with the field where it is known."""
    try:
        return msgspec.json.decode(body, type=into)
    except msgspec.ValidationError as error:
        reason, _, path = str(error).partition(" - at `$")
        field = path.rstrip("`").lstrip(".") or (reason.rpartition("field `")[2].rstrip("`") if "field `" in reason else None)
        raise Refused(f"{reason}: {field}" if path.strip("`") else reason, field) from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise Refused("the body is not JSON") from None


def answered(value: Any, status: int = 200) -> web.Response:
    """A JSON response."""
    return web.Response(body=msgspec.json.encode(value), status=status, content_type="application/json")


def error(status: int, message: str, code: str | None = None, param: str | None = None) -> web.Response:
    """An error as the official clients read it."""
    kind = _TYPES.get(status, "invalid_request_error")
    return answered({"error": {"message": message, "type": kind, "param": param, "code": code}}, status)


def page(request: web.Request, items: list[Row]) -> web.Response:
    """A page of a list, after the item that the query names. Raises Refused."""
    after, limit = request.query.get("after"), request.query.get("limit", "20")
    if not (limit.isascii() and limit.isdigit() and 1 <= int(limit[:9]) <= MAX_PAGE):
        raise Refused(f"limit is a number from 1 to {MAX_PAGE}", "limit")
    if after is not None:
        at = next((n for n, item in enumerate(items) if item["id"] == after), None)
        if at is None:
            raise Refused("there is no such item to go on after", "after")
        items = items[at + 1 :]
    shown = items[: int(limit)]
    return answered(
        {
            "object": "list",
            "data": shown,
            "has_more": len(items) > len(shown),
            "first_id": shown[0]["id"] if shown else None,
            "last_id": shown[-1]["id"] if shown else None,
        }
    )


def model(name: str, created: int) -> Row:
    return {"id": name, "object": "model", "created": created, "owned_by": OWNER}


def completion(name: str, said: Answer) -> Row:
    """A whole answer."""
    message = {"role": "assistant", "content": said.text, "refusal": None}
    return {
        **_base("chat.completion", name),
        "choices": [{"index": 0, "message": message, "logprobs": None, "finish_reason": said.finish_reason}],
        "usage": _usage(said),
    }


def chunk_events(name: str, said: Answer, pieces: list[str], *, usage: bool) -> list[bytes]:
    """The server-sent events of a streamed answer, but for the last one (`DONE`): one a piece, the finish, the usage."""
    head = b"data: " + msgspec.json.encode(_base("chat.completion.chunk", name))[:-1]

    def event(choices: list[Row], **more: Any) -> bytes:
        return head + b"," + msgspec.json.encode({"choices": choices, **more})[1:] + b"\n\n"

    def choice(delta: Row, finish: str | None = None) -> list[Row]:
        return [{"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}]

    first = event(choice({"role": "assistant", "content": pieces[0]}))
    events = [first, *(event(choice({"content": piece})) for piece in pieces[1:]), event(choice({}, said.finish_reason))]
    return [*events, event([], usage=_usage(said))] if usage else events


DONE: Final = b"data: [DONE]\n\n"


def _base(kind: str, name: str) -> Row:
    return {
        "id": f"chatcmpl-{uuid.uuid4().hex}",
        "object": kind,
        "created": int(time.time()),
        "model": name,
        "system_fingerprint": FINGERPRINT,
    }


def _usage(said: Answer) -> Row:
    return {
        "prompt_tokens": said.input_tokens,
        "completion_tokens": said.output_tokens,
        "total_tokens": said.input_tokens + said.output_tokens,
    }
