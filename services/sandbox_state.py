"""What the sandbox provider remembers: files, fine-tuning jobs and models in SQLite, so that kill -9 loses nothing of it."""

import json
import sqlite3
import threading
import time
import uuid
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

Row = dict[str, Any]
BASE_MODEL: Final = "sandbox-docs-1"
MIN_EXAMPLES: Final = 10
LIVE: Final = ("validating_files", "queued", "running")
_PHASES: Final = (("validating_files", 0.15), ("queued", 0.25), ("running", 1.0))
"""Each with the share of a job's time at which it ends."""


class BadRequest(ValueError):
    """What the client sent cannot be taken; `param` names the field."""

    def __init__(self, message: str, param: str | None = None) -> None:
        super().__init__(message)
        self.param = param


def parse_examples(content: bytes) -> list[tuple[str, str]]:
    """(question, answer) of each line of a training file. Raises BadRequest that names the line."""
    rows = []
    for number, line in enumerate(content.decode("utf-8-sig", errors="strict").splitlines(), 1):
        if not line.strip():
            continue
        try:
            messages = json.loads(line)["messages"]
            asked = [m["content"] for m in messages if m["role"] == "user"]
            answered = [m["content"] for m in messages if m["role"] == "assistant"]
            if not asked or not answered or not all(isinstance(text, str) for text in (*asked, *answered)):
                raise KeyError
        except (ValueError, KeyError, TypeError, RecursionError):
            raise BadRequest(f"line {number} is no chat example with a user and an assistant message", "training_file") from None
        rows.append((asked[-1], answered[-1]))
    if len(rows) < MIN_EXAMPLES:
        raise BadRequest(f"the file has {len(rows)} examples; at least {MIN_EXAMPLES} are needed", "training_file")
    return rows


class SandboxState:
    """All of it. `job_seconds` is how long a job takes; `now` gives seconds since 1970."""

    def __init__(self, path: Path, job_seconds: float, now: Callable[[], float] = time.time) -> None:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        path.touch(mode=0o600)
        self._job_seconds, self._now = job_seconds, now
        self._lock = threading.Lock()
        self._db = sqlite3.connect(path, check_same_thread=False, isolation_level=None)
        self._db.executescript(
            "PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL;"
            "CREATE TABLE IF NOT EXISTS files(id TEXT PRIMARY KEY, body TEXT, content BLOB, n INTEGER);"
            "CREATE TABLE IF NOT EXISTS jobs(id TEXT PRIMARY KEY, body TEXT, started REAL, failing INTEGER, n INTEGER);"
            "CREATE TABLE IF NOT EXISTS events(n INTEGER PRIMARY KEY AUTOINCREMENT, job TEXT, body TEXT);"
        )

    # --- files ----------------------------------------------------------------------------------------------------

    def add_file(self, name: str, purpose: str, content: bytes) -> Row:
        """Keep an uploaded file."""
        file = {
            "id": f"file-{uuid.uuid4().hex[:24]}",
            "object": "file",
            "bytes": len(content),
            "created_at": int(self._now()),
            "filename": name,
            "purpose": purpose,
            "status": "processed",
        }
        with self._lock:
            self._db.execute("INSERT INTO files VALUES(?, ?, ?, ?)", (file["id"], json.dumps(file), content, time.time_ns()))
        return file

    def files(self) -> list[Row]:
        """All files, the newest first."""
        with self._lock:
            return [json.loads(body) for (body,) in self._db.execute("SELECT body FROM files ORDER BY n DESC")]

    def file(self, id_: str) -> Row | None:
        with self._lock:
            found = self._db.execute("SELECT body FROM files WHERE id = ?", (id_,)).fetchone()
        return json.loads(found[0]) if found else None

    def content(self, id_: str) -> bytes | None:
        with self._lock:
            found = self._db.execute("SELECT content FROM files WHERE id = ?", (id_,)).fetchone()
        return bytes(found[0]) if found else None

    def delete_file(self, id_: str) -> bool:
        with self._lock:
            return self._db.execute("DELETE FROM files WHERE id = ?", (id_,)).rowcount > 0

    # --- jobs -----------------------------------------------------------------------------------------------------

    def add_job(
        self, model: str, training_file: str, metadata: Mapping[str, str], suffix: str | None, seed: int, *, failing: bool
    ) -> Row:
        """Start a job; `failing` is a fault that was asked for."""
        job: Row = {
            "id": f"ftjob-{uuid.uuid4().hex[:24]}",
            "object": "fine_tuning.job",
            "created_at": int(self._now()),
            "error": None,
            "fine_tuned_model": None,
            "finished_at": None,
            "hyperparameters": {"n_epochs": 1, "batch_size": 1, "learning_rate_multiplier": 1.0},
            "method": {"type": "supervised", "supervised": {"hyperparameters": {"n_epochs": 1}}},
            "metadata": dict(metadata),
            "model": model,
            "organization_id": "org-bellbuoy-sandbox",
            "result_files": [],
            "seed": seed,
            "status": "validating_files",
            "trained_tokens": None,
            "training_file": training_file,
            "validation_file": None,
            "estimated_finish": None,
            "integrations": [],
            "user_provided_suffix": suffix,
        }
        with self._lock:
            self._db.execute(
                "INSERT INTO jobs VALUES(?, ?, ?, ?, ?)",
                (job["id"], json.dumps(job), self._now(), int(failing), time.time_ns()),
            )
            self._event(job["id"], "Created fine-tuning job")
        return job

    def jobs(self) -> list[Row]:
        """All jobs, the newest first, as they stand now."""
        with self._lock:
            for id_, body, started, failing in self._db.execute("SELECT id, body, started, failing FROM jobs").fetchall():
                self._advance(id_, json.loads(body), started, bool(failing))
            return [json.loads(body) for (body,) in self._db.execute("SELECT body FROM jobs ORDER BY n DESC")]

    def job(self, id_: str) -> Row | None:
        """One job as it stands now."""
        return next((job for job in self.jobs() if job["id"] == id_), None)

    def cancel(self, id_: str) -> Row | None:
        """Cancel a job that still runs. Raises BadRequest for one that has ended."""
        job = self.job(id_)
        if job is None:
            return None
        if job["status"] not in LIVE:
            raise BadRequest(f"the job is {job['status']} and cannot be cancelled")
        job |= {"status": "cancelled", "finished_at": int(self._now())}
        with self._lock:
            self._save(job)
            self._event(id_, "Fine-tuning job cancelled")
        return job

    def events(self, id_: str) -> list[Row]:
        """A job's events, the newest first."""
        self.jobs()
        with self._lock:
            return [json.loads(b) for (b,) in self._db.execute("SELECT body FROM events WHERE job = ? ORDER BY n DESC", (id_,))]

    def checkpoints(self, id_: str) -> list[Row]:
        """The checkpoint of a job that succeeded."""
        job = self.job(id_)
        if job is None or job["status"] != "succeeded":
            return []
        return [
            {
                "id": f"ftckpt_{id_.removeprefix('ftjob-')}",
                "object": "fine_tuning.job.checkpoint",
                "created_at": job["finished_at"],
                "fine_tuned_model_checkpoint": f"{job['fine_tuned_model']}:ckpt-step-1",
                "fine_tuning_job_id": id_,
                "metrics": {"step": 1.0, "train_loss": 0.0, "train_mean_token_accuracy": 1.0},
                "step_number": 1,
            }
        ]

    def trained(self, model: str) -> list[tuple[str, str]] | None:
        """The rows that a fine-tuned model was trained on; None for a model that there is not."""
        for job in self.jobs():
            if job["fine_tuned_model"] == model:
                content = self.content(job["training_file"])
                return parse_examples(content) if content is not None else None
        return None

    def models(self) -> list[tuple[str, int]]:
        """(name, created) of all models, fine-tuned ones included."""
        tuned = [(j["fine_tuned_model"], j["finished_at"]) for j in self.jobs() if j["fine_tuned_model"]]
        return [(BASE_MODEL, 1_767_225_600), *tuned]

    def close(self) -> None:
        self._db.close()

    def _advance(self, id_: str, job: Row, started: float, failing: bool) -> None:
        """Bring a job to where the clock says that it is."""
        if job["status"] not in LIVE:
            return
        passed = (self._now() - started) / max(self._job_seconds, 1e-9)
        if passed < 1.0:
            status = next(name for name, end in _PHASES if passed < end)
            if status != job["status"]:
                self._save(job | {"status": status})
                self._event(id_, f"The job is {status}")
            return
        content = self._db.execute("SELECT content FROM files WHERE id = ?", (job["training_file"],)).fetchone()
        job["finished_at"] = int(self._now())
        try:
            rows = parse_examples(bytes(content[0]) if content else b"")
        except (BadRequest, UnicodeDecodeError) as error:
            self._fail(job, "invalid_training_file", str(error))
            return
        if failing:
            self._fail(job, "server_error", "the sandbox was asked to let this job fail")
            return
        suffix = job["user_provided_suffix"] or "tuned"
        job |= {
            "status": "succeeded",
            "fine_tuned_model": f"ft:{BASE_MODEL}:bellbuoy:{suffix}:{id_.removeprefix('ftjob-')[:10]}",
            "trained_tokens": sum(len(q.split()) + len(a.split()) for q, a in rows),
        }
        self._save(job)
        self._event(id_, f"Step 1/1: {len(rows)} examples", kind="metrics", data={"step": 1, "train_loss": 0.0})
        self._event(id_, f"New fine-tuned model created: {job['fine_tuned_model']}")

    def _fail(self, job: Row, code: str, message: str) -> None:
        self._save(job | {"status": "failed", "error": {"code": code, "message": message, "param": "training_file"}})
        self._event(job["id"], message, level="error")

    def _save(self, job: Row) -> None:
        self._db.execute("UPDATE jobs SET body = ? WHERE id = ?", (json.dumps(job), job["id"]))

    def _event(self, job: str, message: str, *, level: str = "info", kind: str = "message", data: Any = None) -> None:
        event = {
            "id": f"ftevent-{uuid.uuid4().hex[:24]}",
            "object": "fine_tuning.job.event",
            "created_at": int(self._now()),
            "level": level,
            "message": message,
            "type": kind,
            "data": data or {},
        }
        self._db.execute("INSERT INTO events(job, body) VALUES(?, ?)", (job, json.dumps(event)))
