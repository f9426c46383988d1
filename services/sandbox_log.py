"""The sandbox's own log, by which tests count at the receiver: on disk, with its newest entries in memory."""

import asyncio
import os
import socket
import sys
import time
from collections import Counter, deque
from pathlib import Path
from typing import Any, Final

import msgspec

KEPT: Final = 50_000
"""Entries in memory."""
MAX_BYTES: Final = 128 * 1024 * 1024
"""Of the file; the one before it is kept beside it."""


_LAST_DATA: Final = slice(52, 56)
"""Where Linux's `struct tcp_info` holds the milliseconds since data last came (tcpi_last_data_recv)."""


class _Entry(msgspec.Struct):
    time: int
    what: str
    model: str = ""

    @property
    def counted_as(self) -> str:
        return f"{self.what} {self.model}".strip()


class RequestLog:
    """Entries `{"time": ms, "monotonic": s, "what": "chat" | "job created" | "job cancelled", …}`, one a line, mode 0600.

    Each is written before the request is answered, so that kill -9 loses none. Counts go on from what the file holds.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._kept: deque[tuple[int, bytes]] = deque(maxlen=KEPT)
        self._left_out = False
        self.counts: Counter[str] = Counter()
        self._fd, self._size = self._open()
        self._restore()

    def note(self, what: str, time_ms: int, monotonic: float, **fields: Any) -> None:
        """Write an entry; `time_ms` and `monotonic` (seconds) are the moment of arrival."""
        line = msgspec.json.encode({"time": time_ms, "monotonic": monotonic, "what": what, **fields})
        self._remember(_Entry(time_ms, what, fields.get("model", "")), line)
        os.write(self._fd, line + b"\n")
        self._size += len(line) + 1
        if self._size > MAX_BYTES:
            os.close(self._fd)
            self._path.replace(self._path.with_name(f"{self._path.name}.1"))
            self._fd, self._size = self._open()

    def since(self, time_ms: int) -> bytes:
        """`{"log": […], "complete": …}` with the entries from a moment on; not complete where older ones are on disk only."""
        found = [line for time, line in self._kept if time >= time_ms]
        complete = not self._left_out or (bool(self._kept) and self._kept[0][0] < time_ms)
        return b'{"log":[' + b",".join(found) + b'],"complete":' + (b"true" if complete else b"false") + b"}"

    def _remember(self, entry: _Entry, line: bytes) -> None:
        self._left_out = self._left_out or len(self._kept) == KEPT
        self._kept.append((entry.time, line))
        self.counts[entry.counted_as] += 1

    def _open(self) -> tuple[int, int]:
        fd = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600)
        return fd, os.fstat(fd).st_size

    def _restore(self) -> None:
        """Read what the file holds; a line that a kill cut short is closed and left out."""
        decoder = msgspec.json.Decoder(_Entry)
        last = b"\n"
        with self._path.open("rb") as lines:
            for last in lines:
                try:
                    self._remember(decoder.decode(last), last.rstrip(b"\n"))
                except (msgspec.DecodeError, UnicodeDecodeError):
                    continue
        if not last.endswith(b"\n"):
            os.write(self._fd, b"\n")


def arrival(transport: asyncio.BaseTransport | None) -> tuple[int, float]:
    """When the last bytes of a request reached this machine: milliseconds since 1970, and seconds of the monotonic clock.

    The kernel says how long ago that was; the handler of a busy server may begin much later.
    """
    waited_ms = _since_last_data_ms(transport)
    return time.time_ns() // 1_000_000 - waited_ms, time.monotonic() - waited_ms / 1000


def _since_last_data_ms(transport: asyncio.BaseTransport | None) -> int:
    connection = transport.get_extra_info("socket") if transport is not None else None
    if connection is None:
        return 0
    info = connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _LAST_DATA.stop)
    return int.from_bytes(info[_LAST_DATA], sys.byteorder)
