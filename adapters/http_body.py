"""Request bodies: decompressed within a limit, and cut into JSON items (object, array or one object a line)."""

import zlib
from collections.abc import Sequence
from typing import Final

import msgspec
import zstandard

from schemas.codec import InvalidMessage

MAX_ITEMS: Final = 20_000
_NDJSON: Final = frozenset(
    {"application/x-ndjson", "application/ndjson", "application/jsonl", "application/x-jsonlines", "application/json-lines"}
)
_BOM: Final = b"\xef\xbb\xbf"
_ZSTD_WINDOW: Final = 16 * 1024 * 1024
_ZSTD_PIECE: Final = 512

_raw = msgspec.json.Decoder(msgspec.Raw)
_raws = msgspec.json.Decoder(list[msgspec.Raw])


class BodyTooLarge(ValueError):
    """More bytes or items than are taken at once."""


def decompress(body: bytes, encoding: str, limit: int) -> bytes:
    """The body without its content encoding (`gzip`, `zstd`, `identity`), never more than `limit` bytes in memory.

    Raises BodyTooLarge, and InvalidMessage (`encoding`) for one that is unknown or damaged.
    """
    match encoding.strip().lower():
        case "" | "identity":
            return body
        case "gzip" | "x-gzip":
            return _gunzip(body, limit)
        case "zstd":
            return _unzstd(body, limit)
    raise InvalidMessage("encoding", "content-encoding must be gzip, zstd or identity", "content-encoding")


def split_items(body: bytes, content_type: str) -> list[bytes]:
    """The JSON texts of the items; each is a whole JSON value, except in NDJSON, where a line may be anything.

    Raises BodyTooLarge for too many, InvalidMessage (`empty`, `not_json`) for a body that is no JSON.
    """
    body = body.removeprefix(_BOM).strip()
    if not body:
        raise InvalidMessage("empty", "the body is empty")
    if content_type.partition(";")[0].strip().lower() in _NDJSON:
        return _lines(body)
    try:
        items: Sequence[msgspec.Raw] = _raws.decode(body) if body.startswith(b"[") else [_raw.decode(body)]
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        if body.startswith(b"{") and _is_object(body.partition(b"\n")[0]):
            return _lines(body)
        reason = str(error) if isinstance(error, msgspec.DecodeError) else "invalid UTF-8"
        raise InvalidMessage("not_json", f"the body is not JSON: {reason}") from None
    except RecursionError:
        raise InvalidMessage("not_json", "the body is nested too deeply") from None
    _check_count(len(items))
    return [bytes(item) for item in items]


def _lines(body: bytes) -> list[bytes]:
    _check_count(body.count(b"\n"))
    return [line for line in (part.strip() for part in body.split(b"\n")) if line]


def _is_object(line: bytes) -> bool:
    try:
        _raw.decode(line)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return False
    return True


def _check_count(count: int) -> None:
    if count > MAX_ITEMS:
        raise BodyTooLarge(f"more than {MAX_ITEMS} items")


def _gunzip(body: bytes, limit: int) -> bytes:
    parts: list[bytes] = []
    room = limit + 1
    while body:
        member = zlib.decompressobj(wbits=31)
        try:
            part = member.decompress(body, room)
        except zlib.error:
            raise InvalidMessage("encoding", "the body is not valid gzip", "content-encoding") from None
        parts.append(part)
        room -= len(part)
        if room <= 0:
            raise BodyTooLarge(f"the body is larger than {limit} bytes when decompressed")
        if not member.eof:
            raise InvalidMessage("encoding", "the gzip body ends early", "content-encoding")
        body = member.unused_data
    return b"".join(parts)


def _unzstd(body: bytes, limit: int) -> bytes:
    """In small pieces, since a block of 4 bytes may hold 128 KiB and the decoder has no limit of its own."""
    decompressor = zstandard.ZstdDecompressor(max_window_size=_ZSTD_WINDOW)
    parts: list[bytes] = []
    size = at = 0
    while at < len(body):
        frame = decompressor.decompressobj()
        while not frame.eof:
            piece = body[at : at + _ZSTD_PIECE]
            if not piece:
                raise InvalidMessage("encoding", "the zstd body ends early", "content-encoding")
            try:
                part = frame.decompress(piece)
            except zstandard.ZstdError:
                raise InvalidMessage("encoding", "the body is not valid zstd", "content-encoding") from None
            at += len(piece) - len(frame.unused_data)
            parts.append(part)
            size += len(part)
            if size > limit:
                raise BodyTooLarge(f"the body is larger than {limit} bytes when decompressed")
    return b"".join(parts)
