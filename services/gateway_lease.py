"""A gateway's lease: reports to llm.gateways, and whether the last confirmed one is young enough to route to candidates."""

import contextlib
import threading
import time
from collections.abc import Callable
from typing import Final

from adapters.kafka import OnDelivery, ProduceFailed, Producer
from schemas.codec import Outgoing, cloud_headers, encode
from schemas.messages import GatewayReport, RouteReport
from schemas.topics import GATEWAYS

LEASE_MS: Final = 3_000
GRACE_MS: Final = 10_000
EVERY_S: Final = 0.5
DELIVERY_S: Final = 2.0
"""A report that the broker has not taken by then is dropped: an old one must not come late and look young."""


def boot_time() -> float:
    """Seconds since boot, also those in which machine or process slept."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


class Lease:
    """One report at a time, every half second and whenever `wake` is called. The producer is this lease's own.

    The lease counts from the moment before a report was handed over, once its delivery is confirmed. One that had lapsed counts
    again only after `refresh`, called after that confirmation, has brought the routes to the end of the log: a rollback that was
    verified without this gateway is in them, and one that comes later waits for its reports.
    """

    def __init__(
        self,
        instance: str,
        incarnation: str,
        make_producer: Callable[[], Producer],
        *,
        routes: Callable[[], list[RouteReport]] = list,
        spooled: Callable[[], int] = lambda: 0,
        shed: Callable[[], int] = lambda: 0,
        refresh: Callable[[], bool] = lambda: True,
        clock: Callable[[], float] = boot_time,
    ) -> None:
        self.instance, self.incarnation = instance, incarnation
        self.confirmed: float | None = None
        self.sequence = 0
        self._make_producer, self._producer = make_producer, make_producer()
        self._routes, self._spooled, self._shed, self._clock = routes, spooled, shed, clock
        self._refresh = refresh
        self._wake, self._stop = threading.Event(), threading.Event()

    def holds(self) -> bool:
        """Whether candidates may be routed to: a report was confirmed, and it is younger than the grace."""
        confirmed = self.confirmed
        return confirmed is not None and (self._clock() - confirmed) * 1000 < GRACE_MS

    def wake(self) -> None:
        """Report at once."""
        self._wake.set()

    def run(self) -> None:
        """Report until `stop`."""
        while not self._stop.is_set():
            self._wake.clear()
            self.report()
            self._wake.wait(EVERY_S)

    def stop(self) -> None:
        self._stop.set()
        self._wake.set()

    def report(self, *, stopped: bool = False) -> bool:
        """Send one report and wait for the broker's word; whether it came in time."""
        before = self._clock()
        report = GatewayReport(
            instance=self.instance,
            incarnation=self.incarnation,
            sequence=self.sequence,
            lease_ms=LEASE_MS,
            grace_ms=GRACE_MS,
            stopped=stopped,
            routes=self._routes(),
            spooled=self._spooled(),
            shed=self._shed(),
        )
        self.sequence += 1
        taken = threading.Event()
        try:
            self._producer.produce(_record(report), _on_taken(taken))
        except ProduceFailed:
            self._producer = self._make_producer()  # its predecessor is beyond repair
            return False
        with contextlib.suppress(ProduceFailed):
            self._producer.flush(DELIVERY_S + 1)
        if taken.is_set() and (self.holds() or self._refresh()):
            self.confirmed = before
        return taken.is_set()


def _on_taken(taken: threading.Event) -> OnDelivery:
    def report(_: int | None, reason: str | None) -> None:
        if reason is None:
            taken.set()

    return report


def _record(report: GatewayReport) -> Outgoing:
    id_ = f"{report.instance}/{report.incarnation}/{report.sequence}"
    headers = cloud_headers(GatewayReport, id_=id_, time_ms=time.time_ns() // 1_000_000, source="bellbuoy/gateway")
    return Outgoing(GATEWAYS, report.instance.encode(), encode(report), headers, 0)
