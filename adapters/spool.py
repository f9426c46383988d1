"""Records that wait on disk while the broker is away: append-only segments, in order, bounded, safe against kill -9."""

import os
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple

import msgspec
from crc32c import crc32c

from schemas.codec import Outgoing

_HEAD: Final = struct.Struct(">II")
"""Length of the payload, and crc32c of length and payload."""
_PLACE: Final = struct.Struct(">QQI")
"""Segment, offset, and crc32c of both: up to where everything was delivered."""
_SUFFIX: Final = ".spool"
SEGMENT_BYTES: Final = 4 * 1024 * 1024
_MAX_RECORD: Final = 16 * 1024 * 1024

_Stored = tuple[str, bytes | None, bytes | None, list[tuple[str, bytes]]]
_encode: Final = msgspec.msgpack.Encoder().encode
_decode: Final = msgspec.msgpack.Decoder(_Stored).decode


class Position(NamedTuple):
    """Where a record ends; positions compare as their records are ordered."""

    segment: int
    end: int
    number: int
    """How many records this spool has held up to this one, since it was opened."""


class Spool:
    """One process's spool in a folder of its own (which it must have locked). Not for several threads.

    What is written is in the kernel's hands, so that it survives the process, though not a loss of power. `torn` counts
    the bytes that were cut off at opening: a record that was being written when the process died, or a damaged one with
    what follows it in its segment. OSError when the folder cannot be read or written.
    """

    def __init__(self, folder: Path, max_bytes: int, *, segment_bytes: int = SEGMENT_BYTES) -> None:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._folder, self._max_bytes, self._segment_bytes = folder, max_bytes, segment_bytes
        self._place = os.open(folder / "delivered", os.O_RDWR | os.O_CREAT, 0o600)
        self._sizes: dict[int, int] = {}
        self._write: int | None = None
        self._read: tuple[int, int] | None = None
        self.torn = 0
        self._appended = self._confirmed = self._handed = 0
        self._open()

    def __len__(self) -> int:
        """Records that wait."""
        return self._appended - self._confirmed

    @property
    def unread(self) -> int:
        """Records that wait and that `read` has not given since they were appended or rewound."""
        return self._appended - self._handed

    @property
    def size(self) -> int:
        """Bytes on disk."""
        return sum(self._sizes.values())

    def append(self, out: Outgoing, *, reserve: float = 0.0) -> Position | None:
        """Write a record behind all others; None when the disk takes no more, or it does not fit and `reserve` (a share of the bound) stays free."""
        payload = _encode((out.topic, out.key, out.value, out.headers))
        length = struct.pack(">I", len(payload))
        record = length + struct.pack(">I", crc32c(payload, crc32c(length))) + payload
        if len(payload) > _MAX_RECORD or self.size + len(record) > self._max_bytes * (1 - reserve):
            return None
        try:
            segment = self._segment_for(len(record))
        except OSError:
            return None
        start = self._sizes[segment]
        assert self._write is not None
        try:
            written = os.write(self._write, record)
        except OSError:
            written = 0
        if written != len(record):
            os.ftruncate(self._write, start)
            return None
        self._sizes[segment] = start + len(record)
        self._appended += 1
        return Position(segment, start + len(record), self._appended)

    def read(self, records: int, most_bytes: int) -> list[tuple[Position, Outgoing]]:
        """The next records in order: at most `records`, ending with the one that reaches `most_bytes`."""
        found: list[tuple[Position, Outgoing]] = []
        while len(found) < records and most_bytes > 0 and self.unread:
            segment, start = self._read_place()
            out, end = self._record_at(segment, start)
            self._handed += 1
            self._read = (segment, end)
            found.append((Position(segment, end, self._handed), out))
            most_bytes -= end - start
        return found

    def read_to_end(self) -> None:
        """Count all that waits as given: the producer has it already."""
        if self._sizes:
            last = max(self._sizes)
            self._read = (last, self._sizes[last])
        self._handed = self._appended

    def rewind(self, after: Position | None = None) -> None:
        """Give everything behind this record once more, or everything that is not confirmed."""
        self._read = None if after is None else (after.segment, after.end)
        self._handed = self._confirmed if after is None else after.number

    def confirm(self, position: Position) -> None:
        """Everything up to this record was delivered: it need not be kept."""
        if position.number <= self._confirmed:
            return
        place = struct.pack(">QQ", position.segment, position.end)
        os.pwrite(self._place, place + struct.pack(">I", crc32c(place)), 0)
        self._confirmed = position.number
        if self._confirmed == self._appended:
            self._close_segment()
            self._read = None
        for segment in [s for s in self._sizes if s < position.segment or self._confirmed == self._appended]:
            self._path(segment).unlink(missing_ok=True)
            del self._sizes[segment]
        if not self._sizes:
            self._next = position.segment + 1

    def close(self) -> None:
        self._close_segment()
        os.close(self._place)

    def _open(self) -> None:
        delivered, offset = self._delivered()
        self._next = delivered + 1
        for segment in sorted(int(p.stem) for p in self._folder.glob(f"*{_SUFFIX}") if p.stem.isdigit()):
            self._next = max(self._next, segment + 1)
            path = self._path(segment)
            size = path.stat().st_size
            start = offset if segment == delivered else 0
            if segment < delivered or start >= size:
                path.unlink()
                continue
            whole = start
            for end in _ends(path.read_bytes(), start):
                whole = end
                self._appended += 1
            if whole < size:
                self.torn += size - whole
                os.truncate(path, whole)
            if whole > start:
                self._sizes[segment] = whole
            else:
                path.unlink()

    def _delivered(self) -> tuple[int, int]:
        raw = os.pread(self._place, _PLACE.size, 0)
        if len(raw) == _PLACE.size:
            segment, offset, check = _PLACE.unpack(raw)
            if crc32c(raw[:16]) == check:
                return int(segment), int(offset)
        return 0, 0

    def _read_place(self) -> tuple[int, int]:
        if self._read is None:
            first = min(self._sizes)
            segment, offset = self._delivered()
            self._read = (first, offset if segment == first else 0)
        segment, start = self._read
        while start >= self._sizes.get(segment, 0):
            segment, start = min(s for s in self._sizes if s > segment), 0
        return segment, start

    def _record_at(self, segment: int, start: int) -> tuple[Outgoing, int]:
        with self._path(segment).open("rb") as file:
            file.seek(start)
            length, _ = _HEAD.unpack(file.read(_HEAD.size))
            topic, key, value, headers = _decode(file.read(length))
        return Outgoing(topic, key, value, headers), start + _HEAD.size + length

    def _segment_for(self, size: int) -> int:
        if self._write is not None:
            segment = max(self._sizes)
            if self._sizes[segment] + size <= self._segment_bytes:
                return segment
            self._close_segment()
        segment = self._next
        self._next += 1
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND
        self._write = os.open(self._path(segment), flags, 0o600)
        self._sizes[segment] = 0
        return segment

    def _close_segment(self) -> None:
        if self._write is not None:
            os.close(self._write)
            self._write = None

    def _path(self, segment: int) -> Path:
        return self._folder / f"{segment:016d}{_SUFFIX}"


def _ends(data: bytes, start: int) -> Iterator[int]:
    """Offsets at which the whole records from `start` on end."""
    while start + _HEAD.size <= len(data):
        length, check = _HEAD.unpack_from(data, start)
        end = start + _HEAD.size + length
        if not 0 < length <= _MAX_RECORD or end > len(data):
            return
        payload = data[start + _HEAD.size : end]
        if crc32c(payload, crc32c(data[start : start + 4])) != check:
            return
        yield end
        start = end
