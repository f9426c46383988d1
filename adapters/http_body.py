"""Request bodies: decompressed within a limit, and cut into JSON items (object, array or one object a line)."""

import zlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import msgspec
import zstandard

from schemas.codec import InvalidMessage

MAX_ITEMS: Final = 20_000
_NDJSON: Final = frozenset(
    {"application/x-ndjson", "application/ndjson", "application/jsonl", "application/x-jsonlines", "application/json-lines"}
)
_BOM: Final = b"\xef\xbb\xbf"
_ZSTD_WINDOW: Final = 16 * 1024 * 1024
_PIECE: Final = 512


def gzip_decoder() -> Any:
    """Decoder of one member, with gzip's or zlib's head."""
    return zlib.decompressobj(wbits=47)


def zstd_decoder() -> Any:
    """Decoder of one frame."""
    return zstandard.ZstdDecompressor(max_window_size=_ZSTD_WINDOW).decompressobj()


_DECODERS: Final[Mapping[str, Callable[[], Any]]] = {"gzip": gzip_decoder, "x-gzip": gzip_decoder, "zstd": zstd_decoder}

_raw = msgspec.json.Decoder(msgspec.Raw)
_raws = msgspec.json.Decoder(list[msgspec.Raw])


class BodyTooLarge(ValueError):
    """More bytes or items than are taken at once."""


def decompress(body: bytes, encoding: str, limit: int) -> bytes:
    """The body without its content encoding (`gzip`, `zstd`, `identity`), never more than `limit` bytes in memory.

    Raises BodyTooLarge, and InvalidMessage (`encoding`) for one that is unknown or damaged.
    """
    name = encoding.strip().lower()
    if name in ("", "identity"):
        return body
    decoder = _DECODERS.get(name)
    if decoder is None:
        raise InvalidMessage("encoding", "content-encoding must be gzip, zstd or identity", "content-encoding")
    try:
        return joined_frames(body, limit, decoder)
    except EOFError:
        raise InvalidMessage("encoding", f"the {name} body ends early", "content-encoding") from None
    except (zlib.error, zstandard.ZstdError):
        raise InvalidMessage("encoding", f"the body is not valid {name}", "content-encoding") from None


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


def joined_frames(body: bytes, limit: int, decoder: Callable[[], Any]) -> bytes:
    """All frames (members) of a compressed body, decompressed; `decoder` begins one, as zlib.decompressobj does.

    In small pieces, since a few bytes may hold 128 KiB and not every decoder has a limit of its own, and since what a
    frame leaves over is copied: thousands of empty ones would copy the body each time. Raises BodyTooLarge, EOFError for
    a frame that ends early, and what the decoder raises.
    """
    parts: list[bytes] = []
    size = at = 0
    while at < len(body):
        frame = decoder()
        while not frame.eof:
            piece = body[at : at + _PIECE]
            if not piece:
                raise EOFError
            part = frame.decompress(piece)
            at += len(piece) - len(frame.unused_data or b"")
            parts.append(part)
            size += len(part)
            if size > limit:
                raise BodyTooLarge(f"the body is larger than {limit} bytes when decompressed")
    return b"".join(parts)
