"""The provider behind the gateway: one pooled HTTP client, no retries of its own, and a last word before a request is written."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from typing import Any, Final

import aiohttp
from aiohttp.abc import AbstractStreamWriter
from aiohttp.payload import BytesPayload
from yarl import URL

from adapters.keys import ensure_key_file
from adapters.settings import Settings

_CONNECT_S: Final = 10.0
_KEEPALIVE_S: Final = 4.0
"""Less than servers commonly keep an idle connection, so that none is used that the other side is closing."""
_READ_BUFFER: Final = 256 * 1024


class NoUpstream(RuntimeError):
    """No provider is configured, and no sandbox runs."""


class Unsent(RuntimeError):
    """Nothing of the request was written."""


class _Guarded(BytesPayload):
    """A body that asks `may_start` right before it is written, in the same step as the write."""

    def __init__(self, value: bytes, may_start: Callable[[], bool]) -> None:
        super().__init__(value, content_type="application/json")
        self._may_start = may_start
        self.unsent = False

    async def write_with_length(self, writer: AbstractStreamWriter, content_length: int | None) -> None:
        if not self._may_start():
            self.unsent = True
            raise Unsent
        try:
            await super().write_with_length(writer, content_length)
        except aiohttp.ClientConnectionResetError:
            self.unsent = True  # the connection was closed before it was used
            raise


class Upstream:
    """`address` gives base URL and key; it is asked until it knows one. Open it inside the event loop."""

    def __init__(self, address: Callable[[], tuple[str, str] | None], *, silence_s: float) -> None:
        self._address, self._silence_s = address, silence_s
        self._found: tuple[str, str] | None = None
        self._session: aiohttp.ClientSession | None = None

    async def open(self) -> None:
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=_KEEPALIVE_S),
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=_CONNECT_S, sock_read=self._silence_s),
            cookie_jar=aiohttp.DummyCookieJar(),  # one user's cookies are not another's
            auto_decompress=False,
            read_bufsize=_READ_BUFFER,
            skip_auto_headers=("User-Agent",),
        )

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()

    @asynccontextmanager
    async def post(
        self, path: str, query: str, headers: Iterable[tuple[str, str]], body: bytes, may_start: Callable[[], bool]
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """Post to `path` below the base URL. Raises NoUpstream, Unsent (also where `may_start` says no), aiohttp.ClientError,
        TimeoutError."""
        payload = _Guarded(body, may_start)
        try:
            response = await self._request("POST", path, query, headers, payload)
        except aiohttp.ClientError:
            if payload.unsent:
                raise Unsent from None
            raise
        try:
            yield response
        except BaseException:
            response.close()
            raise
        response.release()

    async def get(self, path: str, query: str, headers: Iterable[tuple[str, str]]) -> tuple[aiohttp.ClientResponse, bytes]:
        """Get `path`: the response and its whole body. Raises as `post` does."""
        response = await self._request("GET", path, query, headers, None)
        try:
            return response, await response.read()
        finally:
            response.release()

    async def _request(
        self, method: str, path: str, query: str, headers: Iterable[tuple[str, str]], data: Any
    ) -> aiohttp.ClientResponse:
        assert self._session is not None, "open it first"
        if self._found is None:
            self._found = await asyncio.to_thread(self._address)
            if self._found is None:
                raise NoUpstream("no provider: set BELLBUOY_UPSTREAM_URL, or start the sandbox")
        base, key = self._found
        url = URL(base.rstrip("/") + path + (f"?{query}" if query else ""), encoded=True)
        own = [("Authorization", f"Bearer {key}"), ("Accept-Encoding", "identity")]
        return await self._session.request(method, url, data=data, headers=[*headers, *own], allow_redirects=False)


def upstream_address(settings: Settings) -> tuple[str, str] | None:
    """Base URL and key of the provider: the settings', else the sandbox's of the running stack; None where there is neither."""
    url = settings.upstream_url
    key = settings.upstream_api_key.get_secret_value() if settings.upstream_api_key is not None else None
    if url is None:
        sandbox = settings.stack_urls().get("sandbox")
        if sandbox is None:
            return None
        url = f"{sandbox.rstrip('/')}/v1"
        key = key or ensure_key_file(settings.key_dir / "sandbox")
    return url, key or ""
