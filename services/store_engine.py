"""The ClickHouse engine inside this process: one short-lived handle per request, so that nothing of it outlives it.

A fresh handle costs 0.1 ms and starts with the default database, settings and no parameters: the reset after each
request, also after a failed one, is to drop the handle.
"""

import re
import secrets
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType, TracebackType
from typing import Any, Final, Self

import chdb

from services.store_guard import Guard, Verdict, escape, quote

_connect: Any = chdb.connect  # says that it has types, and has none

CONCATENABLE: Final = frozenset(
    {"Native", "TabSeparated", "TSV", "TabSeparatedRaw", "TSVRaw", "CSV", "JSONEachRow", "JSONCompactEachRow", "RowBinary", "LineAsString"}
)  # fmt: skip
"""Formats whose chunks may follow each other; every other one is made whole in memory, up to MAX_WHOLE_RESULT bytes."""

MAX_WHOLE_RESULT: Final = 256 * 1024 * 1024
MAX_MEMORY: Final = 4 * 1024**3
_ARROW_END: Final = b"\xff\xff\xff\xff\x00\x00\x00\x00"
_CODE = re.compile(r"Code: (\d+)\.")
_NAME = re.compile(r"\(([A-Z][A-Z0-9_]+)\)[^()]*(?:\(version [^)]*\))?\s*\Z")


class EngineError(Exception):
    """What the engine says is wrong, with ClickHouse's code."""

    def __init__(self, message: str) -> None:
        super().__init__(message)
        found = _CODE.search(message)
        self.code = int(found[1]) if found else 1002


@dataclass(frozen=True)
class Request:
    """One statement with what belongs to it. `tag` marks it among the engine's running queries."""

    sql: str
    format: str
    readonly: bool
    streams: bool
    time_limit: float
    database: str | None = None
    settings: Mapping[str, str] = field(default_factory=dict)
    parameters: Mapping[str, str] = field(default_factory=dict)
    tag: str = field(default_factory=lambda: secrets.token_hex(16))


@dataclass(frozen=True)
class Summary:
    """The figures of ClickHouse's X-ClickHouse-Summary."""

    read_rows: int = 0
    read_bytes: int = 0
    written_rows: int = 0
    written_bytes: int = 0
    result_rows: int = 0
    result_bytes: int = 0
    elapsed_ns: int = 0


class Engine:
    """The engine of one data folder. Only one process may open a folder; a second one fails at start."""

    def __init__(self, path: Path) -> None:
        path.mkdir(parents=True, exist_ok=True)
        self._path = str(path)
        (path / "metadata" / "default.sql").unlink(missing_ok=True)
        self._keeper = _connect(self._path)
        self._close_default()
        functions = self._keeper.query("SELECT name FROM system.table_functions", "TSV").bytes()
        self.guard = Guard(functions.decode().split())
        self._killer = _connect(self._path)

    def _close_default(self) -> None:
        """chDB's own `default` database reads any file that a table name spells; an empty one takes its place."""
        self._keeper.query("DETACH DATABASE default")
        self._keeper.query("CREATE DATABASE default ENGINE = Memory")

    def judge(self, sql: str, database: str | None, parameters: Mapping[str, str] = MappingProxyType({})) -> Verdict:
        """The guard's verdict on a statement; EngineError where it does not parse. For one thread at a time."""
        try:
            result = self._keeper.query("SELECT formatQuerySingleLine({q:String})", "RawBLOB", params={"q": escape(sql)})
        except RuntimeError as error:
            raise EngineError(str(error).replace(": In scope SELECT formatQuerySingleLine", "")) from None
        return self.guard.judge(result.bytes().decode(errors="replace"), database or "default", parameters)

    def open(self, request: Request) -> "Handle":
        return Handle(self._path, request)

    def kill(self, tag: str) -> None:
        """Stop the query of a request, if it runs. For one thread at a time."""
        self._killer.query(f"KILL QUERY WHERE Settings['log_comment'] = {quote(tag)} ASYNC")

    def alive(self) -> bool:
        return bool(self._killer.query("SELECT 1", "TSV").bytes() == b"1\n")

    def close(self) -> None:
        self._killer.close()
        self._keeper.close()


class Handle:
    """One request's handle, a context manager. Its methods block and belong to a worker thread."""

    def __init__(self, path: str, request: Request) -> None:
        self._request = request
        self.summary = Summary()
        self._connection = _connect(path)

    def __enter__(self) -> Self:
        try:
            self._prepare()
        except BaseException:
            self._connection.close()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._connection.close()

    def _prepare(self) -> None:
        request = self._request
        settings = {
            "max_memory_usage": str(MAX_MEMORY),
            **request.settings,
            "max_execution_time": f"{request.time_limit:g}",
            "timeout_overflow_mode": "throw",
            "log_comment": request.tag,
            "input_format_values_interpret_expressions": "0",
            "input_format_values_deduce_templates_of_expressions": "0",
        }
        if not request.streams or request.format not in CONCATENABLE | {"ArrowStream"}:
            settings["max_result_bytes"] = str(MAX_WHOLE_RESULT)
        if request.database:
            quoted = request.database.replace("\\", "\\\\").replace("`", "\\`")
            self._call(self._connection.query, f"USE `{quoted}`")
        readonly = ", readonly = 1" if request.readonly else ""
        self._call(self._connection.query, "SET " + ", ".join(f"{k} = {quote(v)}" for k, v in settings.items()) + readonly)

    def run(self) -> bytes:
        """The whole result."""
        request = self._request
        result = self._call(self._connection.query, request.sql, request.format, params=dict(request.parameters))
        self._note(result)
        return bytes(result.bytes())

    def insert(self, data: bytes) -> None:
        """Append `data`, in the request's format, to the table that the statement names."""
        stream = self._call(self._connection.send_insert, self._request.sql, self._request.format)
        try:
            self._call(stream.append, data)
            done = self._call(stream.finish)
        finally:
            stream.close()
        self.summary = Summary(
            written_rows=done.rows_written, written_bytes=done.bytes_written, elapsed_ns=int(done.elapsed * 1_000_000_000)
        )

    def chunks(self) -> Iterator[bytes]:
        """The result piece by piece, none of them empty; formats that cannot be cut come as one piece."""
        request = self._request
        if not request.streams:
            yield self.run()
        elif request.format in CONCATENABLE:
            yield from self._pieces()
        elif request.format == "ArrowStream":
            yield from self._arrow()
        else:
            yield self.run()

    def _pieces(self) -> Iterator[bytes]:
        request = self._request
        stream = self._call(self._connection.send_query, request.sql, request.format, params=dict(request.parameters))
        with stream:
            while (result := self._call(stream.fetch)) is not None:
                piece = bytes(result.bytes())
                if not piece:
                    return
                self._note(result)
                yield piece

    def _arrow(self) -> Iterator[bytes]:
        """Each piece is a whole stream; all but the first lose their schema, all their end mark, and one closes them."""
        first = True
        for piece in self._pieces():
            body = piece.removesuffix(_ARROW_END)
            yield body if first else body[8 + int.from_bytes(body[4:8], "little") :]
            first = False
        yield self.run() if first else _ARROW_END

    def _note(self, result: Any) -> None:
        old = self.summary
        self.summary = Summary(
            read_rows=max(old.read_rows, result.storage_rows_read()),
            read_bytes=max(old.read_bytes, result.storage_bytes_read()),
            written_rows=old.written_rows + result.rows_written(),
            written_bytes=old.written_bytes + result.bytes_written(),
            result_rows=old.result_rows + result.rows_read(),
            result_bytes=old.result_bytes + result.bytes_read(),
            elapsed_ns=old.elapsed_ns + int(result.elapsed() * 1_000_000_000),
        )

    @staticmethod
    def _call(function: Any, *args: Any, **named: Any) -> Any:
        """chDB raises a RuntimeError for everything that the engine refuses."""
        try:
            return function(*args, **named)
        except RuntimeError as error:
            message = str(error)
            start = message.find("Code: ")
            raise EngineError(message[start:] if start > 0 else message) from None
