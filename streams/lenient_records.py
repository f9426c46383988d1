"""aiokafka's record batches, read also where the name of a header is not UTF-8: one such record would end every processor for ever.

The broker takes any bytes as a header's name; aiokafka's parser raises, and the same batch is fetched again and again.
"""

import struct
from collections.abc import Iterator
from dataclasses import replace
from typing import Any, Final

from aiokafka.record.default_records import _DefaultRecordBatchPy
from aiokafka.record.memory_records import MemoryRecords

from schemas.codec import UNREADABLE_HEADERS

_LENGTH: Final = struct.Struct(">i")
_LENGTH_AT: Final = 8
_OVERHEAD: Final = 12
"""Bytes of a batch before what its length counts: base offset and the length itself."""


class LenientRecords:
    """In the place of aiokafka's MemoryRecords: the same batches, each of which can be read."""

    def __init__(self, raw: bytes) -> None:
        self._batches: Any = MemoryRecords(raw)
        self._raw, self._at = memoryview(raw), 0

    def size_in_bytes(self) -> int:
        return int(self._batches.size_in_bytes())

    def has_next(self) -> bool:
        return bool(self._batches.has_next())

    def next_batch(self) -> "LenientBatch":
        begin = self._at
        self._at = begin + _OVERHEAD + _LENGTH.unpack_from(self._raw, begin + _LENGTH_AT)[0]
        return LenientBatch(self._batches.next_batch(), self._raw[begin : self._at])


class LenientBatch:
    """A batch by aiokafka's own parser, which is fast, or else by its slow one with another way to read names."""

    def __init__(self, batch: Any, raw: memoryview) -> None:
        self._batch, self._raw = batch, raw

    def __getattr__(self, name: str) -> Any:
        return getattr(self._batch, name)

    def __next__(self) -> Any:
        """The only record of a control batch."""
        return next(self._batch)

    def __iter__(self) -> Iterator[Any]:
        try:
            return iter(list(self._batch))
        except UnicodeDecodeError:
            return _read(self._raw)


def _read(raw: memoryview) -> Iterator[Any]:
    batch: Any = _DefaultRecordBatchPy(raw)
    iter(batch)  # decompresses
    batch._buffer = _Bytes(batch._buffer)
    for record in batch:
        names = "".join(name for name, _ in record.headers)
        readable = not any("\ud800" <= character <= "\udfff" for character in names)
        yield record if readable else replace(record, headers=list(UNREADABLE_HEADERS))


class _Bytes(bytearray):
    """Bytes whose slices keep what is no UTF-8 as lone surrogates, which nothing valid decodes to."""

    def __getitem__(self, at: Any) -> Any:
        found = super().__getitem__(at)
        return _Bytes(found) if isinstance(at, slice) else found

    def decode(self, *_: Any, **__: Any) -> str:
        return bytes(self).partition(b"\0")[0].decode("utf-8", "surrogateescape")
