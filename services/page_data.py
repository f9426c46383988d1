"""What the status page shows, read from where it stands: health files, the store, the broker. Each part may fail alone."""

import json
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Final

import confluent_kafka
import httpx
from clickhouse_connect.driver.exceptions import Error as StoreError

from adapters.broker import answers
from adapters.clickhouse import Client, connect, is_away, rows
from adapters.kafka_admin import LogOffsets
from adapters.settings import Settings
from core.explanation import as_json, explained
from core.ledger import Ledger
from schemas.topics import DAY_MS
from services.ledger_reader import RECENT_MS, read_ledger

Row = Mapping[str, Any]
Query = Callable[[str, Mapping[str, Any]], Sequence[Row]]

TRAFFIC_MS: Final = 15 * 60_000
BUCKET_MS: Final = 5_000
"""One window: what is younger is not counted yet."""
BUCKETS: Final = TRAFFIC_MS // BUCKET_MS


class Unavailable(RuntimeError):
    """A part cannot be read now; the text is for the page."""


@dataclass(frozen=True)
class Part:
    """One part of the page: its value, or why there is none. `as_of` in ms."""

    as_of: int
    value: Any = None
    error: str | None = None


@dataclass(frozen=True)
class Status:
    """Everything on the page."""

    time: int
    processes: Part
    ledger: Part
    traffic: Part
    alerts: Part
    actions: Part

    def problems(self) -> list[str]:
        """What needs a person, in words; empty when all is well."""
        found = [f"{p['name']} {p['reason']}" for p in self.processes.value or [] if not p["ready"]]
        firing = sum(alert["state"] == "firing" for alert in self.alerts.value or [])
        if firing:
            found.append(f"{firing} alert{'s' if firing > 1 else ''} firing")
        if self.ledger.value and self.ledger.value["missing"]:
            found.append(f"{self.ledger.value['missing']} records missing")
        errors = {part.error for part in (self.processes, self.ledger, self.traffic, self.alerts, self.actions) if part.error}
        return found + sorted(errors)


@dataclass
class Source:
    """One part's reader with its last answer; asked again after `every_ms`, and never more than a tenth of the time."""

    read: Callable[[int], Any]
    every_ms: int
    last: Part | None = None
    _due: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def part(self, now: Callable[[], int]) -> Part:
        with self._lock:
            started = now()
            if self.last is None or started >= self._due:
                try:
                    self.last = Part(started, self.read(started))
                except Unavailable as error:
                    self.last = Part(started, None, str(error))
                self._due = max(started + self.every_ms, started + 10 * (now() - started))
            return self.last


class StatusReader:
    """Reads the parts; the functions that reach out are given, so that tests need no process."""

    def __init__(
        self,
        *,
        query: Query,
        ledger: Callable[[], Ledger],
        processes: Callable[[], list[dict[str, Any]]],
        now: Callable[[], int],
    ) -> None:
        self._query, self._now = query, now
        self._sources = {
            "processes": Source(lambda _: processes(), 1_500),
            "ledger": Source(lambda _: _totals(ledger()), 10_000),
            "traffic": Source(self._traffic, 1_500),
            "alerts": Source(self._alerts, 1_500),
            "actions": Source(self._actions, 1_500),
        }

    def status(self) -> Status:
        """The present state; parts that were read a moment ago are taken as they are. May be called from any thread."""
        return Status(self._now(), **{name: source.part(self._now) for name, source in self._sources.items()})

    def _traffic(self, now: int) -> list[dict[str, Any]]:
        since = now // BUCKET_MS * BUCKET_MS - TRAFFIC_MS + BUCKET_MS
        apps = []
        for row in self._query("page_traffic", {"since": since, "bucket": BUCKET_MS, "apps": 12}):
            counts = [0] * BUCKETS
            for bucket, events in row["buckets"]:
                if 0 <= bucket < BUCKETS:
                    counts[bucket] = int(events)
            apps.append({"app": row["app"], "environment": row["environment"], "total": int(row["total"]), "counts": counts})
        return apps

    def _alerts(self, now: int) -> list[dict[str, Any]]:
        rows = self._query("page_alerts", {"since": now - 7 * DAY_MS, "limit": 50})
        return [{**row, "effect": _json(row["effect"]), "contributions": _json(row["contributions"]) or []} for row in rows]

    def _actions(self, now: int) -> list[dict[str, Any]]:
        return [dict(row) for row in self._query("page_actions", {"since": now - 7 * DAY_MS, "limit": 50})]


class Store:
    """The store, asked when it is there: a client is made when one is needed, and again after a failure."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._client: Client | None = None
        self._lock = threading.Lock()

    @contextmanager
    def client(self) -> Iterator[Client]:
        """A client for any thread; what fails while it is used becomes Unavailable."""
        try:
            with self._lock:
                self._client = client = self._client or connect(self._settings, timeout_s=15)
            yield client
        except (StoreError, OSError) as error:
            with self._lock:
                self._client = None
            away = isinstance(error, OSError) or is_away(error)
            raise Unavailable("the store does not answer" if away else "the store has no tables yet") from error

    def query(self, name: str, parameters: Mapping[str, Any]) -> Sequence[Row]:
        """Run a named query."""
        with self.client() as client:
            return rows(client, name, parameters)

    def ledger(self) -> Ledger:
        """The account of the last hour."""
        try:
            with self.client() as client, LogOffsets(self._settings) as offsets:
                return read_ledger(client, offsets, recent_ms=RECENT_MS)
        except (confluent_kafka.KafkaException, KeyError) as error:
            raise Unavailable("the broker does not answer") from error


def explainer(store: Store) -> Callable[[str, str], list[dict[str, Any]]]:
    """(id, app or empty) → the stored interactions of that id as plain values, without the scorers' versions, which stand on Kafka."""

    def explain(id_: str, app: str) -> list[dict[str, Any]]:
        return [as_json(explained(row, None)) for row in store.query("explain", {"id": id_, "app": app})]

    return explain


def process_states(
    settings: Settings, *, broker_answers: Callable[[str, float], bool] = answers
) -> Callable[[], list[dict[str, Any]]]:
    """Every process with a health file or a place in the stack, asked for its readiness; Kafka, which has no file, by a call."""

    def read() -> list[dict[str, Any]]:
        found = {path.stem: _told(path.read_text()) for path in sorted(settings.run_dir.glob("*.health"))}
        supervised = {str(entry["name"]): entry.get("pid") for entry in (settings.stack() or {}).get("processes", [])}
        wanted = list(dict.fromkeys([*supervised, *found]))

        def state(name: str) -> dict[str, Any]:
            if name in supervised and supervised[name] is None:
                return {"ready": False, "reason": "is not running", "pid": None}
            if name == "broker" and name not in found:
                address = settings.bootstrap_servers()
                ready = broker_answers(address, 1.0)
                return {"ready": ready, "reason": "" if ready else f"does not answer at {address}", "pid": supervised[name]}
            return _state(found.get(name))

        with ThreadPoolExecutor(max_workers=8) as pool:
            return [{"name": name, **told} for name, told in zip(wanted, pool.map(state, wanted), strict=True)]

    return read


def _told(text: str) -> dict[str, Any] | None:
    value = _json(text)
    return value if isinstance(value, dict) and str(value.get("url", "")).startswith("http://") else None


def _state(told: dict[str, Any] | None) -> dict[str, Any]:
    if told is None:
        return {"ready": False, "reason": "is starting", "pid": None}
    try:
        answer = httpx.get(f"{told['url']}/ready", timeout=1, trust_env=False)
    except httpx.HTTPError:
        return {"ready": False, "reason": "does not answer", "pid": told.get("pid")}
    if answer.status_code == 200:
        return {"ready": True, "reason": "", "pid": told.get("pid")}
    told_reasons = _json(answer.content)
    reasons = told_reasons.get("reasons", {}) if isinstance(told_reasons, dict) else {}
    words = "; ".join(f"{name}: {reason}" for name, reason in reasons.items())
    return {"ready": False, "reason": words or "is not ready", "pid": told.get("pid")}


def _totals(ledger: Ledger) -> dict[str, Any]:
    names = ("received", "stored", "dead", "poison", "tick", "control", "expired", "missing", "deleted", "in_flight")
    return {name: getattr(ledger, name) for name in names} | {
        "gaps": [f"{gap.topic}/{gap.partition} [{gap.start}, {gap.end}): {gap.records} {gap.what}" for gap in ledger.gaps[:20]],
        "problems": list(ledger.problems[:20]),
    }


def _json(text: str | bytes) -> Any:
    try:
        return json.loads(text) if text else None
    except ValueError:
        return None


def now_ms() -> int:
    return time.time_ns() // 1_000_000
