"""ClickHouse's HTTP interface as bytes: credentials, content encodings, what a request asks for, exception blocks."""

import base64
import binascii
import re
import secrets
import zlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import parse_qsl

import lz4.frame  # type: ignore[import-untyped]  # ships no types
import zstandard

from adapters.http_body import gzip_decoder, joined_frames, zstd_decoder
from services.store_guard import BAD_REQUEST, PARAMETER_NAME, Refused, check_settings

TRANSPORT: Final = frozenset(
    {
        "buffer_size", "client_protocol_version", "close_session", "compress", "database", "decompress", "default_format",
        "enable_http_compression", "http_headers_progress_interval_ms", "password", "query", "query_id", "quota_key", "role",
        "send_progress_in_http_headers", "session_check", "session_id", "session_timeout", "user", "wait_end_of_query",
    }
)  # fmt: skip
_DECODERS: Final[Mapping[bytes, Callable[[], Any]]] = {
    b"lz4": lz4.frame.LZ4FrameDecompressor,
    b"zstd": zstd_decoder,
    b"gzip": gzip_decoder,
    b"deflate": gzip_decoder,
}


@dataclass(frozen=True)
class Question:
    """What one HTTP request asks for. `text` is the statement, behind it the data of an insert."""

    text: bytes
    query_id: str
    database: str | None
    default_format: str | None
    compress: bool
    settings: Mapping[str, str]
    parameters: Mapping[str, str]
    time_limit: float | None


def read_question(query_string: bytes, headers: Mapping[bytes, bytes], body: bytes) -> Question:
    """Put URL, headers and (decoded) body together. Raises Refused for names that are not valid."""
    pairs = parse_qsl(query_string.decode("ascii", "replace"), keep_blank_values=True)
    kind = headers.get(b"content-type", b"")
    if kind.startswith(b"multipart/form-data"):
        pairs += _form(kind, body)
        body = b""
    elif kind.startswith(b"application/x-www-form-urlencoded") and body.startswith(b"query="):
        pairs += parse_qsl(body.decode("utf-8", "replace"), keep_blank_values=True)
        body = b""
    values = dict(pairs)
    query = values.get("query", "").encode()
    settings = check_settings((k, v) for k, v in values.items() if k not in TRANSPORT and not k.startswith("param_"))
    parameters = {k.removeprefix("param_"): v for k, v in values.items() if k.startswith("param_")}
    if not all(PARAMETER_NAME.match(name) for name in parameters):
        raise Refused("a parameter's name is not valid", BAD_REQUEST, "BAD_ARGUMENTS")
    limit = settings.pop("max_execution_time", None)
    if limit is not None and not re.fullmatch(r"\d{1,9}(\.\d{1,9})?", limit):
        raise Refused("max_execution_time is not a number", BAD_REQUEST, "BAD_ARGUMENTS")
    query_id = values.get("query_id", "")
    return Question(
        text=query + (b"\n" if query and body else b"") + body,
        query_id=query_id if re.fullmatch(r"[\w.:\-]{1,100}", query_id, re.ASCII) else secrets.token_hex(16),
        database=values.get("database") or headers.get(b"x-clickhouse-database", b"").decode("latin1") or None,
        default_format=values.get("default_format") or headers.get(b"x-clickhouse-format", b"").decode("latin1") or None,
        compress=values.get("enable_http_compression") == "1",
        settings=settings,
        parameters=parameters,
        time_limit=float(limit) if limit and float(limit) > 0 else None,
    )


def _form(kind: bytes, body: bytes) -> list[tuple[str, str]]:
    """Plain fields of multipart/form-data; files (external tables) are refused."""
    found = re.search(rb'boundary="?([^";]+)"?', kind)
    if found is None:
        raise Refused("the form has no boundary", BAD_REQUEST, "BAD_ARGUMENTS")
    fields = []
    for part in body.split(b"--" + found[1])[1:-1]:
        head, _, value = part.partition(b"\r\n\r\n")
        if b"filename=" in head:
            raise Refused("external data is not available in this store")
        if name := re.search(rb'name="([^"]*)"', head):
            fields.append((name[1].decode("utf-8", "replace"), value.removesuffix(b"\r\n").decode("utf-8", "replace")))
    return fields


def authorised(headers: Mapping[bytes, bytes], key: str) -> bool:
    """Whether the request carries the key, as user `default`: by X-ClickHouse-Key or by basic auth."""
    user, given = headers.get(b"x-clickhouse-user", b"default"), headers.get(b"x-clickhouse-key")
    if given is None:
        scheme, _, encoded = headers.get(b"authorization", b"").partition(b" ")
        if scheme.lower() != b"basic":
            return False
        try:
            user, _, given = base64.b64decode(encoded, validate=True).partition(b":")
        except binascii.Error:
            return False
    matches = secrets.compare_digest(given, key.encode())
    return matches and user in (b"default", b"")


def decode_body(body: bytes, encoding: bytes, limit: int) -> bytes:
    """Undo the content encoding. Raises BodyTooLarge beyond `limit` bytes, Refused for bytes that do not decode to their end."""
    name = encoding.strip().lower()
    if name in (b"", b"identity"):
        return body
    decoder = _DECODERS.get(name)
    if decoder is None:
        raise Refused("the content encoding is not known: lz4, zstd, gzip and deflate are", BAD_REQUEST, "BAD_ARGUMENTS")
    try:
        return joined_frames(body, limit, decoder)
    except (RuntimeError, zstandard.ZstdError, zlib.error, EOFError):
        raise Refused("the body does not decode by its content encoding", 354, "CANNOT_DECOMPRESS") from None


@dataclass(frozen=True)
class Encoder:
    """A streaming content encoder."""

    name: bytes
    add: Callable[[bytes], bytes]
    end: Callable[[], bytes]


def choose_encoder(accepted: bytes) -> Encoder | None:
    """The first encoding that the client names and this store writes."""
    for name in (part.partition(b";")[0].strip().lower() for part in accepted.split(b",")):
        coder: Any
        if name == b"lz4":
            coder = lz4.frame.LZ4FrameCompressor()
            head = [coder.begin()]
            return Encoder(name, lambda b, c=coder, h=head: (h.pop() if h else b"") + c.compress(b), coder.flush)  # type: ignore[misc]
        if name == b"zstd":
            coder = zstandard.ZstdCompressor(level=1).compressobj()
            return Encoder(name, coder.compress, coder.flush)
        if name in (b"gzip", b"deflate"):
            coder = zlib.compressobj(1, wbits=31 if name == b"gzip" else 15)
            return Encoder(name, coder.compress, coder.flush)
    return None


def exception_block(tag: str, message: str) -> bytes:
    """What ClickHouse appends to a result that it has begun to send and cannot finish."""
    text = message.encode()
    return b"__exception__\r\n%b\r\n%b\n%d %b\r\n__exception__\r\n" % (tag.encode(), text, len(text), tag.encode())


def error_text(code: int, message: str, name: str | None = None) -> str:
    """An error in ClickHouse's own form."""
    return message if message.startswith("Code: ") else f"Code: {code}. DB::Exception: {message}. ({name or 'UNKNOWN_EXCEPTION'})"


def header_pairs(headers: Iterable[tuple[bytes, bytes]]) -> dict[bytes, bytes]:
    return {name.lower(): value for name, value in headers}
