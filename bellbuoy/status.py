"""What runs on a data folder, asked from outside of the process that supervises it."""

import os
import signal
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from adapters.broker import answers
from adapters.process import holder
from adapters.settings import Settings
from adapters.telemetry import health_file
from bellbuoy.supervisor import health


def lock_path(settings: Settings) -> Path:
    """The lock that a running stack holds."""
    return settings.run_dir / "stack.lock"


def status(settings: Settings) -> dict[str, Any] | None:
    """Urls, key file, data folder, and each process with pid and readiness; None where no stack runs."""
    supervisor, stack = holder(lock_path(settings)), settings.stack()
    if supervisor is None or stack is None:
        return None
    processes = []
    for entry in stack["processes"]:
        reason = _not_ready(settings, entry["name"], entry["pid"], stack["urls"]["kafka"])
        processes.append({**entry, "ready": reason is None, "reason": reason or ""})
    return {
        "urls": stack["urls"],
        "key_file": str((settings.key_dir / "collector").resolve()),
        "data_dir": stack["data_dir"],
        "supervisor": supervisor,
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        "processes": processes,
    }


def stop_running(settings: Settings, timeout: float = 180.0) -> bool:
    """Stop the stack of this data folder, in whichever process it runs; False where none does."""
    path = lock_path(settings)
    pid = holder(path)
    if pid is None:
        return False
    deadline = time.monotonic() + timeout
    os.kill(pid, signal.SIGTERM)
    while holder(path) == pid:
        if time.monotonic() > deadline:
            os.kill(pid, signal.SIGKILL)  # its children go with it
            break
        time.sleep(0.1)
    return True


def _not_ready(settings: Settings, name: str, pid: int | None, kafka: str) -> str | None:
    if pid is None:
        return "is not running"
    if name == "broker":
        return None if answers(kafka, 2.0) else "does not answer"
    return health(health_file(settings, name), pid)
