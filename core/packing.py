"""State as short JSON strings: base64 of deflated bytes, so that a section stays far below the largest message."""

import base64
import zlib
from typing import Any, TypeVar

import msgspec

T = TypeVar("T")


def pack_bytes(value: bytes) -> str:
    return base64.b64encode(zlib.compress(value, 1)).decode()


def unpack_bytes(text: str) -> bytes:
    """Inverse of `pack_bytes`.

    >>> unpack_bytes(pack_bytes(b"abc"))
    b'abc'
    """
    return zlib.decompress(base64.b64decode(text))


def pack(value: Any) -> msgspec.Raw:
    """Any JSON value (structs too; floats exactly) as one JSON string."""
    return msgspec.Raw(msgspec.json.encode(pack_bytes(msgspec.json.encode(value))))


def unpack(data: msgspec.Raw, type_: type[T]) -> T:
    """Inverse of `pack`.

    >>> unpack(pack([0.1, 2.0]), list[float])
    [0.1, 2.0]
    """
    return msgspec.json.decode(unpack_bytes(msgspec.json.decode(data, type=str)), type=type_)
