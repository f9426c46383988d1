"""What a process tells about itself: structured logs, Prometheus metrics, and /health, /ready, /metrics over HTTP."""

import json
import logging
import os
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, PlatformCollector, ProcessCollector
from prometheus_client.exposition import choose_encoder

from adapters.settings import Settings

PREFIX: Final = "bellbuoy"
_LOUD_LIBRARIES: Final = (
    "kafka",
    "aiokafka",
    "urllib3",
    "httpx",
    "httpcore",
    "mode",
    "faust",
    "abc",
    "asyncio",
    "uvicorn",
    "clickhouse_connect",
)


class JsonLines(logging.Formatter):
    """One JSON object per event. `extra={"fields": {…}}` adds fields; texts of prompts and responses are never among them."""

    def __init__(self, process: str, instance: str) -> None:
        super().__init__()
        self._always = {"process": process, "instance": instance}

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            **self._always,
            "logger": record.name,
            "message": record.getMessage(),
            **getattr(record, "fields", {}),
        }
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False, default=str)


def set_up_logging(process: str, settings: Settings) -> None:
    """Log to stderr: readable on a terminal, else JSON lines. Libraries speak from WARNING on."""
    handler: logging.Handler
    if sys.stderr.isatty():
        from rich.console import Console
        from rich.logging import RichHandler

        handler = RichHandler(console=Console(stderr=True), show_path=False, markup=False)
        handler.setFormatter(logging.Formatter(f"{process}: %(message)s"))
    else:
        handler = logging.StreamHandler()
        handler.setFormatter(JsonLines(process, settings.instance))
    logging.basicConfig(level=settings.log_level.upper(), handlers=[handler], force=True)
    for name in _LOUD_LIBRARIES:
        logging.getLogger(name).setLevel(max(logging.WARNING, logging.getLogger().level))
    logging.getLogger("kafka.net.selector").setLevel(logging.ERROR)  # it warns whenever the machine is busy
    logging.captureWarnings(True)
    sys.excepthook = _log_uncaught


def _log_uncaught(type_: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    logging.getLogger(PREFIX).critical("ended by %s", type_.__name__, exc_info=(type_, error, trace))


class Telemetry:
    """One per process. Conditions are reported by name; the process is ready when there is one and all hold.

    `serve` writes `<run_dir>/<process>.health` (`{"pid", "port", "url"}`), by which supervisor and page find it.
    """

    def __init__(self, process: str, settings: Settings) -> None:
        self.process = process
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        PlatformCollector(registry=self.registry)
        self.log = logging.getLogger(f"{PREFIX}.{process}")
        self._settings = settings
        self._conditions: dict[str, str | None] = {}
        self._lock = threading.Lock()
        self._server: ThreadingHTTPServer | None = None
        self._started = time.time()

    def ready(self, name: str, ok: bool, reason: str = "") -> None:
        """Report one condition; `reason` says in words why it does not hold."""
        self._report(name, None if ok else reason or "not ready")

    def set_ready(self, reason: str | None) -> None:
        """Report the process as a whole: None, or why it is not ready."""
        self._report(self.process, reason)

    def is_ready(self) -> bool:
        with self._lock:
            return bool(self._conditions) and not any(self._conditions.values())

    def reasons(self) -> dict[str, str]:
        """Conditions that do not hold."""
        with self._lock:
            if not self._conditions:
                return {self.process: "starting"}
            return {name: reason for name, reason in self._conditions.items() if reason is not None}

    def event(self, message: str, *, level: int = logging.INFO, **fields: Any) -> None:
        """Log an event with fields."""
        self.log.log(level, message, extra={"fields": fields})

    def counter(self, name: str, help_: str, labels: Sequence[str] = ()) -> Counter:
        """A counter `bellbuoy_<name>` of this process."""
        return Counter(f"{PREFIX}_{name}", help_, labels, registry=self.registry)

    def gauge(self, name: str, help_: str, labels: Sequence[str] = ()) -> Gauge:
        """A gauge `bellbuoy_<name>` of this process."""
        return Gauge(f"{PREFIX}_{name}", help_, labels, registry=self.registry)

    def histogram(
        self, name: str, help_: str, labels: Sequence[str] = (), *, buckets: Sequence[float] = Histogram.DEFAULT_BUCKETS
    ) -> Histogram:
        """A histogram `bellbuoy_<name>` of this process."""
        return Histogram(f"{PREFIX}_{name}", help_, labels, buckets=buckets, registry=self.registry)

    @property
    def health_file(self) -> Path:
        return health_file(self._settings, self.process)

    def serve(self) -> int:
        """Serve in a daemon thread; returns the port (the setting's `health_port`, or a free one)."""
        server = ThreadingHTTPServer((self._settings.host, self._settings.health_port), _handler(self))
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, name="telemetry", daemon=True).start()
        self._server = server
        port = int(server.server_address[1])
        self.health_file.parent.mkdir(parents=True, exist_ok=True)
        draft = self.health_file.with_suffix(".health.new")
        draft.write_text(json.dumps({"pid": os.getpid(), "port": port, "url": f"http://{self._settings.host}:{port}"}))
        draft.replace(self.health_file)
        return port

    def close(self) -> None:
        """Stop serving and take the health file away."""
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
            self._server = None
            self.health_file.unlink(missing_ok=True)

    def __enter__(self) -> Self:
        self.serve()
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def _report(self, name: str, reason: str | None) -> None:
        with self._lock:
            before, self._conditions[name] = self._conditions.get(name, ""), reason
        if before != reason:
            self.event("ready" if reason is None else "not ready", condition=name, reason=reason or "")

    def answer(self, path: str, accept: str) -> tuple[int, str, bytes]:
        """Status, content type and body of a GET."""
        if path == "/metrics":
            encode, kind = choose_encoder(accept)
            return 200, kind, encode(self.registry)
        if path == "/health":
            return (
                200,
                "application/json",
                _json({"process": self.process, "pid": os.getpid(), "uptime_s": round(time.time() - self._started, 1)}),
            )
        if path == "/ready":
            ok = self.is_ready()
            return 200 if ok else 503, "application/json", _json({"ready": ok, "reasons": self.reasons()})
        return 404, "application/json", _json({"error": "there are /health, /ready and /metrics"})


def health_file(settings: Settings, process: str) -> Path:
    """Where a process writes on which port it serves its health."""
    return settings.run_dir / f"{process}.health"


def _json(value: Mapping[str, Any]) -> bytes:
    return json.dumps(value).encode()


def _handler(telemetry: Telemetry) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            status, kind, body = telemetry.answer(self.path.partition("?")[0], self.headers.get("Accept", ""))
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: Any) -> None:
            """Probes are not news."""

    return Handler
