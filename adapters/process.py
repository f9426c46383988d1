"""Operating-system processes: children that die with their parent, free ports, locks on a folder, logs of bounded size."""

import ctypes
import fcntl
import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

_PR_SET_PDEATHSIG: Final = 1
_PR_SET_NAME: Final = 15
_LOG_FILES_KEPT: Final = 2

# PDEATHSIG survives exec; the parent may have died before prctl, hence the second look at getppid.
_EXEC_BOUND: Final = (
    "import ctypes,os,sys\n"
    "ctypes.CDLL(None).prctl(1,9)\n"
    "if os.getppid()!=int(sys.argv[1]): os._exit(1)\n"
    "os.execv(sys.argv[2],sys.argv[2:])"
)


class FolderInUse(RuntimeError):
    """Another process holds the folder."""


def die_with(parent: int) -> None:
    """Have the kernel kill this process when the thread that started it ends; exit at once if `parent` is already gone."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)


def name_process(name: str) -> None:
    """The name that `top` shows; 15 characters."""
    ctypes.CDLL(None).prctl(_PR_SET_NAME, name.encode(), 0, 0, 0)


def bound(command: Sequence[str]) -> list[str]:
    """The command line that runs `command` (its first word a path) so that it dies with the thread that starts it."""
    return [sys.executable, "-I", "-S", "-c", _EXEC_BOUND, str(os.getpid()), *command]


def spawn(command: Sequence[str], *, log: Path, environment: Mapping[str, str] | None = None) -> subprocess.Popen[bytes]:
    """Start a process in a session of its own (Ctrl-C reaches the supervisor only), output appended to `log`."""
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as file:
        return subprocess.Popen(
            list(command),
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=file,
            env=dict(environment) if environment is not None else None,
            start_new_session=True,
        )


def stop(process: subprocess.Popen[Any], timeout: float) -> int:
    """SIGTERM, and SIGKILL after `timeout` seconds; returns the exit code."""
    if process.poll() is None:
        process.terminate()
        try:
            return process.wait(timeout)
        except subprocess.TimeoutExpired:
            process.kill()
    return process.wait()


def rotate(log: Path, max_bytes: int) -> bool:
    """Copy a log aside and empty it once it is larger than `max_bytes`. Writers must have it open for appending."""
    try:
        if log.stat().st_size <= max_bytes:
            return False
    except FileNotFoundError:
        return False
    for number in range(_LOG_FILES_KEPT, 1, -1):
        older = log.with_name(f"{log.name}.{number - 1}")
        if older.exists():
            older.replace(log.with_name(f"{log.name}.{number}"))
    shutil.copyfile(log, log.with_name(f"{log.name}.1"))
    os.truncate(log, 0)
    return True


def port_is_free(host: str, port: int) -> bool:
    """Whether a server could listen there now."""
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
            probe.listen(1)
        except OSError:
            return False
    return True


def pick_port(host: str, preferred: Iterable[int], taken: Iterable[int] = ()) -> int:
    """The first of `preferred` that is free and not in `taken`, else one that the system gives."""
    refused = set(taken)
    for port in preferred:
        if port and port not in refused and port_is_free(host, port):
            return port
    while True:
        with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM) as probe:
            probe.bind((host, 0))
            port = int(probe.getsockname()[1])
        if port not in refused:
            return port


class FolderLock:
    """A lock file that names its holder; the kernel lets go of it when the holder dies, however it dies."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._fd: int | None = None

    def acquire(self, what: str) -> None:
        """Take it, or raise FolderInUse naming the process that has it."""
        self._path.parent.mkdir(parents=True, exist_ok=True)
        fd = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(fd)
            raise FolderInUse(f"{what} is in use by process {holder(self._path) or '?'}") from None
        os.ftruncate(fd, 0)
        os.pwrite(fd, f"{os.getpid()}\n".encode(), 0)
        self._fd = fd

    def release(self) -> None:
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None


def holder(path: Path) -> int | None:
    """The pid that holds a FolderLock, None where nobody does."""
    try:
        fd = os.open(path, os.O_RDWR)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        text = os.pread(fd, 32, 0).decode().strip()
        return int(text) if text.isdigit() else None
    finally:
        os.close(fd)
    return None
