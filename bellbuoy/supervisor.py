"""Keeps a list of processes running: starts them in order, restarts what dies, stops them in reverse order."""

import contextlib
import http.client
import json
import logging
import signal
import subprocess
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from adapters import process as os_process
from bellbuoy.restarts import Offsets, Restarts

log = logging.getLogger(__name__)

POLL_S: Final = 0.1
ROTATE_EVERY_S: Final = 5.0
LOG_BYTES: Final = 10_000_000


@dataclass(frozen=True)
class Spec:
    """One process: how it is started, how it says that it is ready, where its output goes, how long a clean stop may take."""

    name: str
    launch: Callable[[bool], "subprocess.Popen[bytes]"]
    """Told whether to go carefully."""
    is_ready: Callable[[int], str | None]
    """Told the pid; None, or why it is not ready."""
    log: Path
    stop_s: float = 20.0
    committed: Callable[[], Offsets | None] | None = None
    """Where there is one: deaths at one committed offset lead to a careful start."""
    needed: bool = True
    """Whether the rest is ready only together with it."""
    ended: Callable[[threading.Event], None] | None = None
    """Called when it ended by itself or is held, with an event that its next start sets; must not block."""


@dataclass
class Child:
    """What is known of one process now."""

    spec: Spec
    process: "subprocess.Popen[bytes] | None" = None
    started: float = 0.0
    due: float | None = 0.0
    """When it is to be started; None: not by itself."""
    careful: bool = False
    restarts: Restarts = field(default_factory=Restarts)
    again: threading.Event = field(default_factory=threading.Event)
    """Set by the start after the last end."""

    @property
    def pid(self) -> int | None:
        return self.process.pid if self.process is not None and self.process.poll() is None else None


class Supervisor:
    """All its methods are called by one thread, but for `pid`, `kill`, `hold`, `release` and `not_ready`.

    That thread must live as long as the children: the kernel kills them when the thread that started them ends.
    """

    def __init__(self, changed: Callable[[], None]) -> None:
        self.children: dict[str, Child] = {}
        self._changed = changed
        self._lock = threading.RLock()
        self._rotated = 0.0

    def add(self, spec: Spec, *, later: bool = False) -> None:
        """Start a process and keep it running from now on; or `later`, by `release`, with its place in the order of a stop."""
        child = Child(spec, due=None)
        with self._lock:
            self.children[spec.name] = child
            if not later:
                self._start(child)

    def step(self) -> None:
        """Look at every process once; start what is due."""
        now = time.monotonic()
        with self._lock:
            for child in self.children.values():
                if child.process is not None and child.process.poll() is not None:
                    self._ended(child, child.process.returncode, now)
                if child.process is None and child.due is not None and child.due <= now:
                    self._start(child)
        if now - self._rotated > ROTATE_EVERY_S:
            self._rotated = now
            for child in self.children.values():
                os_process.rotate(child.spec.log, LOG_BYTES)

    def stop(self) -> None:
        """Stop everything, the last started first."""
        for child in reversed(list(self.children.values())):
            with self._lock:
                child.due, process = None, child.process
            if process is not None:
                code = os_process.stop(process, child.spec.stop_s)
                log.info("stopped", extra={"fields": {"name": child.spec.name, "code": code}})
            self._changed()

    def pid(self, name: str) -> int | None:
        """The pid of a running process; None while it is down. KeyError: there is no such process here."""
        with self._lock:
            return self.children[name].pid

    def kill(self, name: str, sign: int = signal.SIGKILL) -> int:
        """Send a signal; the process is started again. Returns the pid that got it; ProcessLookupError when it is down."""
        with self._lock:
            pid = self.children[name].pid
            if pid is None:
                raise ProcessLookupError(f"{name} is not running")
            self.children[name].process.send_signal(sign)  # type: ignore[union-attr]  # it has a pid
            return pid

    def hold(self, name: str) -> None:
        """Stop a process and leave it down until `release`."""
        child = self.children[name]
        with self._lock:
            child.due, process, child.process = None, child.process, None
        if process is not None:
            os_process.stop(process, child.spec.stop_s)
            self._tell_end(child)
        self._changed()

    def release(self, name: str) -> None:
        """Let a held process be started again."""
        with self._lock:
            self.children[name].due = 0.0

    def not_ready(self, name: str) -> str | None:
        """Why a process is not ready; None when it is."""
        child = self.children[name]
        pid = child.pid
        return child.spec.is_ready(pid) if pid is not None else "is not running"

    def _start(self, child: Child) -> None:
        child.again.set()
        child.process = child.spec.launch(child.careful)
        child.started, child.due = time.monotonic(), None
        fields = {"name": child.spec.name, "pid": child.process.pid, "careful": child.careful, "restarts": child.restarts.total}
        log.info("started", extra={"fields": fields})
        self._changed()

    def _ended(self, child: Child, code: int, now: float) -> None:
        child.process = None
        was_careful, child.careful = child.careful, False
        delay = child.restarts.delay(code, now - child.started)
        if was_careful and code == 0:
            delay = 0.0
        elif child.spec.committed is not None and not was_careful:
            child.careful = child.restarts.must_be_careful(child.spec.committed())
        child.due = now + delay
        fields = {"name": child.spec.name, "code": code, "again_in_s": delay, "careful": child.careful}
        log.warning("ended", extra={"fields": fields})
        self._tell_end(child)
        self._changed()

    @staticmethod
    def _tell_end(child: Child) -> None:
        child.again = threading.Event()
        if child.spec.ended is not None:
            child.spec.ended(child.again)


def health(file: Path, pid: int) -> str | None:
    """Ask a process's /ready by its health file: None, or why it is not ready."""
    try:
        told: dict[str, Any] = json.loads(file.read_text())
        if told["pid"] != pid:
            return "is starting"
        status, body = get(told["url"], "/ready")
        reasons: dict[str, str] = json.loads(body).get("reasons", {})
    except (FileNotFoundError, ValueError, KeyError):
        return "is starting"
    except OSError as error:
        return f"does not answer: {error}"
    if status == 200:
        return None
    return "; ".join(f"{name}: {reason}" if reason else name for name, reason in reasons.items()) or "is not ready"


def get(url: str, path: str, timeout: float = 2.0) -> tuple[int, bytes]:
    """A small HTTP GET on loopback."""
    host, _, port = url.partition("//")[2].rpartition(":")
    with contextlib.closing(http.client.HTTPConnection(host, int(port), timeout=timeout)) as connection:
        connection.request("GET", path)
        response = connection.getresponse()
        return response.status, response.read()


def last_lines(path: Path, count: int = 12) -> str:
    """The end of a log, for an error message."""
    try:
        return "\n".join(path.read_text(errors="replace").splitlines()[-count:])
    except FileNotFoundError:
        return ""
