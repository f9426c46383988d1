"""What the sandbox provider remembers: files and fine-tuning jobs in SQLite, so that kill -9 loses nothing of it.

A job's course follows from its record and the clock: nothing runs in the background, and a restart changes nothing.
"""

import json
import sqlite3
import threading
import time
import uuid
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

import msgspec

from core.retrieval import Rows
from services.sandbox_chat import CHECKPOINT
from services.sandbox_training import Course, parse_examples

Row = dict[str, Any]
BASE_MODEL: Final = "sandbox-docs-1"
BASE_CREATED: Final = 1_767_225_600
LIVE: Final = ("validating_files", "queued", "running")
QUEUED_AT, RUNNING_AT, FAILED_AT, ENDED_AT = 0.15, 0.25, 0.6, 1.0
"""Shares of a job's time at which its phases begin."""
METHOD: Final = "supervised"


class NotPossible(ValueError):
    """The state does not allow it."""


class Job(msgspec.Struct, kw_only=True):
    """A job as it was created, and its end where it was cancelled."""

    id: str
    model: str
    training_file: str
    validation_file: str | None = None
    metadata: dict[str, str]
    suffix: str | None
    seed: int
    hyperparameters: dict[str, int | float]
    started: float
    """Seconds since 1970."""
    seconds: float
    course: Course
    failing: bool = False
    cancelled: float | None = None

    @property
    def tuned_model(self) -> str:
        return f"ft:{BASE_MODEL}:bellbuoy:{self.suffix or 'tuned'}:{self.id.removeprefix('ftjob-')[:10]}"


class SandboxState:
    """All of it. `job_seconds` is how long a job takes; `now` gives seconds since 1970. Safe for threads."""

    def __init__(self, path: Path, job_seconds: float, now: Callable[[], float] = time.time) -> None:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        path.touch(mode=0o600)
        self._job_seconds, self._now = job_seconds, now
        self._lock = threading.Lock()
        self._db = sqlite3.connect(path, check_same_thread=False, isolation_level=None)
        self._db.executescript(
            "PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL;"
            "CREATE TABLE IF NOT EXISTS file(n INTEGER PRIMARY KEY, id TEXT UNIQUE, body TEXT, content BLOB);"
            "CREATE TABLE IF NOT EXISTS job(n INTEGER PRIMARY KEY, id TEXT UNIQUE, body BLOB);"
        )
        rows = self._db.execute("SELECT body FROM job ORDER BY n").fetchall()
        self._jobs = {job.id: job for job in (msgspec.json.decode(body, type=Job) for (body,) in rows)}

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
            self._db.execute("INSERT INTO file(id, body, content) VALUES(?, ?, ?)", (file["id"], json.dumps(file), content))
        return file

    def files(self) -> list[Row]:
        """All files, the newest first."""
        with self._lock:
            found = self._db.execute("SELECT body FROM file WHERE body IS NOT NULL ORDER BY n DESC").fetchall()
        return [json.loads(body) for (body,) in found]

    def file(self, id_: str) -> Row | None:
        with self._lock:
            found = self._db.execute("SELECT body FROM file WHERE id = ? AND body IS NOT NULL", (id_,)).fetchone()
        return json.loads(found[0]) if found else None

    def content(self, id_: str) -> bytes | None:
        """A file's bytes; those of a deleted one too while a model was trained on it."""
        with self._lock:
            found = self._db.execute("SELECT content FROM file WHERE id = ?", (id_,)).fetchone()
        return bytes(found[0]) if found else None

    def delete_file(self, id_: str) -> bool:
        """Delete a file; a model that was trained on it stays, as with a real provider."""
        with self._lock:
            if any(job.training_file == id_ for job in self._jobs.values()):
                return self._db.execute("UPDATE file SET body = NULL WHERE id = ? AND body IS NOT NULL", (id_,)).rowcount > 0
            return self._db.execute("DELETE FROM file WHERE id = ?", (id_,)).rowcount > 0

    # --- jobs -----------------------------------------------------------------------------------------------------

    def add_job(
        self,
        model: str,
        training_file: str,
        validation_file: str | None,
        metadata: Mapping[str, str],
        *,
        suffix: str | None,
        seed: int,
        hyperparameters: Mapping[str, int | float],
        course: Course,
        failing: bool,
    ) -> Row:
        """Start a job; `course` is what becomes of it, `failing` a fault that was asked for."""
        job = Job(
            id=f"ftjob-{uuid.uuid4().hex[:24]}",
            model=model,
            training_file=training_file,
            validation_file=validation_file,
            metadata=dict(metadata),
            suffix=suffix,
            seed=seed,
            hyperparameters=dict(hyperparameters),
            started=self._now(),
            seconds=self._job_seconds,
            course=course,
            failing=failing,
        )
        with self._lock:
            self._db.execute("INSERT INTO job(id, body) VALUES(?, ?)", (job.id, msgspec.json.encode(job)))
            self._jobs[job.id] = job
        return self._told(job)

    def jobs(self, metadata: Mapping[str, str] | None = None) -> list[Row]:
        """The jobs that have these metadata, the newest first, as they stand now."""
        wanted = (metadata or {}).items()
        with self._lock:
            found = [job for job in self._jobs.values() if wanted <= job.metadata.items()]
        return [self._told(job) for job in reversed(found)]

    def job(self, id_: str) -> Row | None:
        """One job as it stands now."""
        job = self._jobs.get(id_)
        return self._told(job) if job is not None else None

    def cancel(self, id_: str) -> Row | None:
        """Cancel a job that still runs; None where there is none of this id. Raises NotPossible for one that has ended."""
        with self._lock:
            job = self._jobs.get(id_)
            if job is None:
                return None
            status = self._status(job)
            if status not in LIVE:
                raise NotPossible(f"the job is {status} and cannot be cancelled")
            job.cancelled = self._now()
            self._db.execute("UPDATE job SET body = ? WHERE id = ?", (msgspec.json.encode(job), id_))
        return self._told(job)

    def events(self, id_: str) -> list[Row]:
        """A job's events up to now, the newest first."""
        job = self._jobs[id_]
        examples, curve = job.course.examples, job.course.curve
        told: list[tuple[float, str, str, Row | None]] = [(0.0, "info", f"Job created, with the file {job.training_file}", None)]
        if job.course.problem is not None:
            told.append((QUEUED_AT, "error", job.course.problem, None))
        else:
            told.append((QUEUED_AT, "info", f"The file is valid: {examples} examples; the job is queued", None))
            told.append((RUNNING_AT, "info", "Training began", None))
            for number, point in enumerate(curve, 1):
                at = RUNNING_AT + (ENDED_AT - RUNNING_AT) * number / len(curve)
                told.append((at, "info", f"Step {point['step']:.0f}/{examples}: loss {point['train_loss']:.4f}", dict(point)))
            if job.failing:
                told = [event for event in told if event[0] < FAILED_AT]
                told.append((FAILED_AT, "error", "The sandbox was asked to let this job fail", None))
            else:
                told.append((ENDED_AT, "info", f"The fine-tuned model {job.tuned_model} was created", None))
        passed = self._passed(job)
        rows = [self._event(job, n, *event) for n, event in enumerate(told) if event[0] <= passed]
        if job.cancelled is not None:
            rows.append(self._event(job, len(told), passed, "info", "The job was cancelled", None))
        return rows[::-1]

    def checkpoints(self, id_: str) -> list[Row]:
        """The checkpoints of a job that succeeded, the last first: models trained on the first `step_number` examples."""
        job = self._jobs[id_]
        if self._status(job) != "succeeded":
            return []
        return [
            {
                "id": f"ftckpt_{id_.removeprefix('ftjob-')}{number}",
                "object": "fine_tuning.job.checkpoint",
                "created_at": int(job.started + job.seconds),
                "fine_tuned_model_checkpoint": f"{job.tuned_model}{CHECKPOINT}{point['step']:.0f}",
                "fine_tuning_job_id": id_,
                "metrics": point,
                "step_number": int(point["step"]),
            }
            for number, point in reversed(list(enumerate(job.course.curve, 1)))
        ]

    # --- models ---------------------------------------------------------------------------------------------------

    def models(self) -> list[tuple[str, int]]:
        """(name, created) of all models, fine-tuned ones included."""
        with self._lock:
            tuned = [job for job in self._jobs.values() if self._status(job) == "succeeded"]
        return [(BASE_MODEL, BASE_CREATED), *((job.tuned_model, int(job.started + job.seconds)) for job in tuned)]

    def trained_on(self, model: str) -> tuple[str, Rows] | None:
        """The model that a fine-tuned one was trained on top of, and its rows; None for one that there is not."""
        with self._lock:
            made = [job for job in self._jobs.values() if job.tuned_model == model and self._status(job) == "succeeded"]
        content = self.content(made[0].training_file) if made else None
        return (made[0].model, parse_examples(content)) if content is not None else None

    def close(self) -> None:
        self._db.close()

    def _passed(self, job: Job) -> float:
        """The share of a job's time that it has had."""
        until = job.cancelled if job.cancelled is not None else self._now()
        return (until - job.started) / max(job.seconds, 1e-9)

    def _status(self, job: Job) -> str:
        passed = self._passed(job)
        if job.cancelled is not None:
            return "cancelled"
        if passed < QUEUED_AT:
            return "validating_files"
        if job.course.problem is not None or (job.failing and passed >= FAILED_AT):
            return "failed"
        return "queued" if passed < RUNNING_AT else "running" if passed < ENDED_AT else "succeeded"

    def _told(self, job: Job) -> Row:
        """A job in the wire format, as it stands now."""
        status = self._status(job)
        error = None
        ended: float | None = None
        if status == "succeeded":
            ended = job.started + job.seconds
        elif status == "cancelled":
            ended = job.cancelled
        elif status == "failed":
            bad = job.course.problem is not None
            ended = job.started + job.seconds * (QUEUED_AT if bad else FAILED_AT)
            error = {
                "code": "invalid_training_file" if bad else "server_error",
                "message": job.course.problem or "the sandbox was asked to let this job fail",
                "param": "training_file" if bad else None,
            }
        return {
            "id": job.id,
            "object": "fine_tuning.job",
            "created_at": int(job.started),
            "error": error,
            "fine_tuned_model": job.tuned_model if status == "succeeded" else None,
            "finished_at": int(ended) if ended is not None else None,
            "hyperparameters": job.hyperparameters,
            "method": {"type": METHOD, METHOD: {"hyperparameters": job.hyperparameters}},
            "metadata": job.metadata,
            "model": job.model,
            "organization_id": "org-bellbuoy-sandbox",
            "result_files": [],
            "seed": job.seed,
            "status": status,
            "trained_tokens": job.course.tokens if status == "succeeded" else None,
            "training_file": job.training_file,
            "validation_file": job.validation_file,
            "estimated_finish": int(job.started + job.seconds) if status == "running" else None,
            "integrations": [],
            "user_provided_suffix": job.suffix,
        }

    def _event(self, job: Job, number: int, at: float, level: str, message: str, data: Row | None) -> Row:
        return {
            "id": f"ftevent-{job.id.removeprefix('ftjob-')}{number:02}",
            "object": "fine_tuning.job.event",
            "created_at": int(job.started + at * job.seconds),
            "level": level,
            "message": message,
            "type": "message" if data is None else "metrics",
            "data": data or {},
        }
