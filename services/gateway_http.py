"""The gateway's HTTP: refusals in OpenAI's error format, and which headers are passed on in which direction."""

from collections.abc import Sequence
from typing import Any, Final

import aiohttp
import msgspec

from adapters.asgi import Header, Send, reply
from adapters.upstream import NoUpstream
from core.chat import name_of

_HOP: Final = frozenset(
    b"connection keep-alive proxy-authenticate proxy-authorization te trailer trailers transfer-encoding upgrade".split()
)
_NOT_FORWARDED: Final = _HOP | frozenset(
    b"host authorization content-length content-encoding accept-encoding expect cookie api-key x-api-key".split()
)
_NOT_RETURNED: Final = _HOP | frozenset((b"content-length", b"set-cookie", b"date", b"server"))


class Refused(Exception):
    """Answered by the gateway itself, in OpenAI's error format. `seen` is what the log calls it."""

    def __init__(self, status: int, code: str, message: str, *, seen: str | None = None, param: str | None = None) -> None:
        super().__init__(message)
        kind = "invalid_request_error" if status < 500 else "server_error"
        self.status, self.seen = status, seen
        self.body = msgspec.json.encode({"error": {"message": message, "type": kind, "param": param, "code": code}})


def unreachable(error: Exception) -> Refused:
    if isinstance(error, NoUpstream):
        return Refused(502, "no_upstream", str(error), seen="connection")
    if isinstance(error, TimeoutError) and not isinstance(error, aiohttp.ConnectionTimeoutError):
        return Refused(504, "upstream_timeout", "the provider did not answer in time", seen="timeout")
    return Refused(502, "upstream_unreachable", f"the provider cannot be reached ({type(error).__name__})", seen="connection")


def forwarded(headers: Sequence[Header]) -> list[tuple[str, str]]:
    """The client's headers that the provider is given: not the hop's, no key, none of ours."""
    return [
        (name.decode("latin-1"), _header_text(value))
        for name, value in headers
        if name not in _NOT_FORWARDED and not name.startswith(b"x-bellbuoy-")
    ]


def _header_text(value: bytes) -> str:
    try:
        return value.decode()
    except UnicodeDecodeError:
        return value.decode("latin-1")


def returned(response: aiohttp.ClientResponse) -> list[Header]:
    """The provider's headers that the client is given; the content type apart, since a reply has its own."""
    return [
        (name.lower(), value)
        for name, value in response.raw_headers
        if name.lower() not in _NOT_RETURNED and name.lower() != b"content-type" and not name.lower().startswith(b"x-bellbuoy-")
    ]


def listed_with(own: list[dict[str, Any]], body: bytes) -> bytes:
    try:
        listed = msgspec.json.decode(body, type=dict[str, Any])
        others = [model for model in listed["data"] if model["id"] not in {m["id"] for m in own}]
    except (msgspec.DecodeError, KeyError, TypeError):
        return body
    return msgspec.json.encode(listed | {"data": [*own, *others]})


def text_of(headers: dict[bytes, bytes], name: bytes, limit: int = 128) -> str | None:
    return name_of(headers.get(name, b"").decode(errors="replace"), limit)


async def refuse(send: Send, refused: Refused) -> None:
    extra: list[Header] = []
    if refused.status == 401:
        extra.append((b"www-authenticate", b"Bearer"))
    if refused.status in (401, 404, 405, 413):
        extra.append((b"connection", b"close"))  # the body may not have been read
    await reply(send, refused.status, refused.body, extra)
