"""Checks the ledger while the sink runs, beside it: what is missing is posted, so that an alert opens."""

import contextlib
import threading
from typing import Final

from adapters.clickhouse import UNAVAILABLE, connect
from adapters.kafka import HotProducer, LogOffsets, ProduceFailed
from adapters.settings import Settings
from adapters.telemetry import Telemetry
from core.ledger import Ledger
from schemas.topics import COMMANDS
from services.ledger_reader import RECENT_MS, Reporter, read_ledger

EVERY_S: Final = 30.0
WHOLE_EVERY: Final = 60
"""Every how many checks the whole store is counted instead of the last hour."""


class LedgerWatch(threading.Thread):
    """A daemon thread. `active` only in the sink that owns the first partition of llm.summaries, so that one sink checks."""

    def __init__(self, settings: Settings, telemetry: Telemetry, *, every_s: float = EVERY_S) -> None:
        super().__init__(name="ledger", daemon=True)
        self._settings, self._telemetry, self._every_s = settings, telemetry, every_s
        self._stopping = threading.Event()
        self.active = False
        self.failure: BaseException | None = None
        self._records = telemetry.gauge("ledger_records", "Records by class, of the blocks last checked", ["class"])
        self._age = telemetry.gauge("ledger_in_flight_age_seconds", "Age of the oldest record that is not accounted for")
        self._problems = telemetry.gauge("ledger_problems", "Contradictions in the ledger")

    def run(self) -> None:
        try:
            number = 0
            while not self._stopping.wait(self._every_s):
                if self.active:
                    # The second check is the first whole one: a store that comes back with old rows gone is found at once.
                    self._check(whole=number % WHOLE_EVERY == 1)
                    number += 1
        except BaseException as error:  # noqa: BLE001  # raised by the sink's own loop
            self.failure = error

    def stop(self) -> None:
        self._stopping.set()

    def _check(self, *, whole: bool) -> None:
        try:
            with contextlib.closing(connect(self._settings)) as client, LogOffsets(self._settings) as offsets:
                ledger = read_ledger(client, offsets, recent_ms=None if whole else RECENT_MS)
                self._show(ledger)
                if ledger.gaps or whole:
                    producer = HotProducer(self._settings)
                    new = Reporter(client, producer, producer.partitions(COMMANDS)).report(ledger, whole=whole)
                    for gap in new:
                        self._telemetry.event("missing in the store", topic=gap.topic, partition=gap.partition, start=gap.start,
                                              end=gap.end, records=gap.records, what=gap.what)  # fmt: skip
        except (*UNAVAILABLE, ProduceFailed, BufferError) as error:
            self._telemetry.event("the ledger was not checked", reason=f"{type(error).__name__}: {error}")

    def _show(self, ledger: Ledger) -> None:
        for name in ("received", "stored", "dead", "missing", "in_flight", "tick", "expired", "deleted"):
            self._records.labels(name).set(getattr(ledger, name))
        self._age.set(ledger.in_flight_age_s or 0.0)
        self._problems.set(len(ledger.problems))
        for problem in ledger.problems:
            self._telemetry.event("the ledger contradicts itself", problem=problem)
