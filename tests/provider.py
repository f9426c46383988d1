"""The sandbox provider as a process of a test's own, and what one says to it."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import httpx
import openai

from adapters.corpus import Item
from adapters.keys import ensure_key_file
from adapters.process import pick_port
from adapters.settings import Settings

START_LIMIT_S = 60


@dataclass
class SandboxProcess:
    """Started on entering, killed on leaving; the same port and folder again after a restart."""

    data_dir: Path
    job_seconds: float = 1.0
    latency_ms: float = 0.0
    port: int = field(default_factory=lambda: pick_port("127.0.0.1", (), []))
    process: "subprocess.Popen[bytes] | None" = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    @property
    def key(self) -> str:
        return ensure_key_file(Settings(data_dir=self.data_dir).key_dir / "sandbox")

    def client(self) -> openai.OpenAI:
        """The official client, strict, without retries."""
        return openai.OpenAI(base_url=self.url, api_key=self.key, max_retries=0, _strict_response_validation=True)

    def start(self) -> None:
        environment = {
            **os.environ,
            "BELLBUOY_DATA_DIR": str(self.data_dir),
            "BELLBUOY_SANDBOX_PORT": str(self.port),
            "BELLBUOY_SANDBOX_JOB_SECONDS": str(self.job_seconds),
            "BELLBUOY_SANDBOX_LATENCY_MS": str(self.latency_ms),
        }
        self.process = subprocess.Popen([sys.executable, "-m", "bellbuoy", "sandbox"], env=environment)
        deadline = time.monotonic() + START_LIMIT_S
        while True:
            try:
                httpx.get(f"http://127.0.0.1:{self.port}/")
                return
            except httpx.TransportError:
                assert self.process.poll() is None, "the sandbox ended"
                assert time.monotonic() < deadline, "the sandbox does not answer"
                time.sleep(0.1)

    def kill(self) -> None:
        """kill -9."""
        assert self.process is not None
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def fault(self, **fault: Any) -> None:
        self._sandbox("POST", "faults", json=fault)

    def clear_faults(self) -> None:
        self._sandbox("DELETE", "faults")

    def log(self, what: str) -> list[dict[str, Any]]:
        """What arrived, as the sandbox itself counted: `chat`, `job created` or `job cancelled`."""
        entries: list[dict[str, Any]] = self._sandbox("GET", "log").json()["log"]
        return [entry for entry in entries if entry["what"] == what]

    def _sandbox(self, method: str, path: str, **more: Any) -> httpx.Response:
        url = f"http://127.0.0.1:{self.port}/sandbox/{path}"
        return httpx.request(method, url, headers={"authorization": f"Bearer {self.key}"}, **more).raise_for_status()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self.process is not None and self.process.poll() is None:
            self.kill()


def examples(items: Iterable[Item], phrasing: str) -> bytes:
    """A training file: each item asked in one phrasing."""
    return b"".join(
        json.dumps(
            {"messages": [{"role": "user", "content": i.question(phrasing)}, {"role": "assistant", "content": i.answer}]}
        ).encode()
        + b"\n"
        for i in items
    )
