"""The gateways' leases and confirmations on llm.gateways, and a word for those that somebody saw dead."""

import contextlib
import time
from collections.abc import Iterable

import msgspec

from adapters.kafka import control_producer
from adapters.settings import Settings
from adapters.tail import Tail, broker_errors
from schemas.codec import InvalidMessage, Outgoing, Record, cloud_headers, encode, read
from schemas.messages import GatewayReport
from schemas.topics import GATEWAYS


class GatewayReports:
    """The last report of every instance, kept up to date by `poll`. Methods raise BrokerAway."""

    def __init__(self, settings: Settings) -> None:
        self._tail = Tail(settings, GATEWAYS)
        self._newest = (0, time.monotonic())
        self.reports: dict[str, tuple[GatewayReport, int]] = {}
        """Instance → report and its append time (ms)."""

    def read(self) -> dict[str, tuple[GatewayReport, int]]:
        """Read to the end of the log."""
        self._take(self._tail.read_to_end())
        return self.reports

    def poll(self, timeout: float) -> bool:
        """Take what came; whether anything did."""
        records = self._tail.poll(timeout)
        self._take(records)
        return bool(records)

    def now(self, at_least: int = 0) -> int:
        """The broker's time (ms), rather too early than too late: the newest append time seen, and what has passed here since.

        `at_least` is an append time of another topic that has passed.
        """
        appended, seen = self._newest
        if at_least > appended:
            self._newest = (at_least, time.monotonic())
            return at_least
        return appended + int((time.monotonic() - seen) * 1000)

    def close(self) -> None:
        self._tail.close()

    def _take(self, records: Iterable[Record]) -> None:
        for record in records:
            if record.timestamp >= self.now():
                self._newest = (record.timestamp, time.monotonic())
            if record.value is None:
                self.reports.pop((record.key or b"").decode(errors="replace"), None)
                continue
            with contextlib.suppress(InvalidMessage):
                report = read(record)
                if isinstance(report, GatewayReport) and record.key == report.instance.encode():
                    self.reports[report.instance] = (report, record.timestamp)


def mark_dead(settings: Settings, instance: str, who: str, *, incarnation: str | None = None) -> bool:
    """Record that an instance's process is gone, as `who` saw it; False where there is nothing to say.

    With `incarnation` given, a report of another one (it has been started again) is left as it is. Raises BrokerAway.
    """
    reports = GatewayReports(settings)
    try:
        last, _ = reports.read().get(instance, (None, 0))
    finally:
        reports.close()
    if last is None or last.stopped or last.known_dead or incarnation not in (None, last.incarnation):
        return False
    dead = msgspec.structs.replace(last, sequence=last.sequence + 1, known_dead=who)
    out = report_record(dead, source="bellbuoy.supervisor")
    with broker_errors(), contextlib.closing(control_producer(settings, None, linger_ms=0)) as producer:
        producer.send(out.topic, value=out.value, key=out.key, headers=out.headers, partition=out.partition).get(timeout=10)
    return True


def report_record(report: GatewayReport, *, source: str = "bellbuoy.gateway") -> Outgoing:
    """A report as its record."""
    id_ = f"{report.instance}/{report.incarnation}/{report.sequence}"
    headers = cloud_headers(GatewayReport, id_=id_, time_ms=int(time.time() * 1000), source=source)
    return Outgoing(GATEWAYS, report.instance.encode(), encode(report), headers, 0)
