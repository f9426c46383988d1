"""Gateways that only say what real ones say: they follow the routes, apply them, and report to llm.gateways."""

import threading
import time
import uuid
from collections.abc import Iterable
from types import TracebackType
from typing import Self

from adapters.follow import Follower
from adapters.gateways import report_record
from adapters.kafka import control_producer
from adapters.routes import table_of
from adapters.settings import Settings
from schemas.messages import GatewayReport, RouteReport, RouteTable
from schemas.topics import ROUTES

EVERY_S = 0.3


class GatewayFleet:
    """Simulated gateways by name, each reporting what it applied; one that is `cut` neither hears nor says anything.

    `lease_ms` and `grace_ms` may be shorter than a real gateway's, so that a test need not wait as long.
    """

    def __init__(self, settings: Settings, names: Iterable[str], *, lease_ms: int = 1_500, grace_ms: int = 2_000) -> None:
        self._settings, self._lease_ms, self._grace_ms = settings, lease_ms, grace_ms
        self.names = list(names)
        self.incarnations = {name: uuid.uuid4().hex for name in self.names}
        self.applied: dict[str, dict[tuple[str, str], RouteTable]] = {name: {} for name in self.names}
        self.cut: set[str] = set()
        self.running: dict[str, int] = {}
        self._tables: dict[tuple[str, str], RouteTable] = {}
        self._sequence = 0
        self._stop = threading.Event()
        self._follower = Follower(settings, [ROUTES])
        self._producer = control_producer(settings, None, linger_ms=0)
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._stop.set()
        self._thread.join()
        for name in self.names:
            self._report(name, stopped=True)
        self._producer.flush(timeout=10)
        self._producer.close(timeout=2)
        self._follower.close()

    def _run(self) -> None:
        due = 0.0
        while not self._stop.is_set():
            news = [table for _, record in self._follower.poll(0.05) if (table := table_of(record)) is not None]
            self._tables |= {(table.app, table.environment): table for table in news}
            if not news and time.monotonic() < due:
                continue
            for name in self.names:
                if name not in self.cut:
                    self.applied[name] = dict(self._tables)
                    self._report(name)
            due = time.monotonic() + EVERY_S

    def _report(self, name: str, *, stopped: bool = False) -> None:
        self._sequence += 1
        out = report_record(
            GatewayReport(
                instance=name,
                incarnation=self.incarnations[name],
                sequence=self._sequence,
                lease_ms=self._lease_ms,
                grace_ms=self._grace_ms,
                stopped=stopped,
                routes=[
                    RouteReport(app=t.app, environment=t.environment, epoch=t.epoch, champion=t.champion, running=self.running)
                    for t in self.applied[name].values()
                ],
            )
        )
        self._producer.send(out.topic, value=out.value, key=out.key, headers=list(out.headers), partition=out.partition)
