"""Delivery reports of a producer as something that a coroutine can wait for, and how much is in flight."""

import asyncio
import contextlib
from collections.abc import Callable, Sequence
from functools import partial
from typing import Final

from adapters.kafka import Producer
from schemas.codec import Outgoing

UNCONFIRMED: Final = "the broker has not confirmed it in time"
QUEUE_FULL: Final = "the queue to the broker is full"
_POLL_S: Final = 0.005
_IDLE_S: Final = 1.0


class Sending:
    """Items of one request on their way to the broker; an item may be several records."""

    def __init__(self, deliveries: "Deliveries") -> None:
        self._deliveries = deliveries
        self._open: list[int] = []
        self._reasons: dict[int, str] = {}
        self._waiting = 0
        self._done = asyncio.Event()

    def add(self, records: Sequence[Outgoing]) -> int:
        """Hand an item's records over; returns its index among the outcomes."""
        index = len(self._open)
        self._open.append(0)
        for record in records:
            self._open[index] += 1
            self._waiting += 1
            try:
                self._deliveries.produce(record, partial(self._reported, index))
            except BufferError:
                self._reported(index, QUEUE_FULL)
        return index

    async def outcomes(self, timeout_s: float) -> list[str | None]:
        """Per item: None once the broker has all of it, else why not. Waits at most `timeout_s` seconds."""
        if self._waiting:
            self._done.clear()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._done.wait(), timeout_s)
        return [self._reasons.get(index, UNCONFIRMED if left else None) for index, left in enumerate(self._open)]

    def _reported(self, index: int, reason: str | None) -> None:
        self._open[index] -= 1
        self._waiting -= 1
        if reason is not None:
            self._reasons[index] = reason
        if not self._waiting:
            self._done.set()


class Deliveries:
    """A producer inside one event loop: `pump` runs its callbacks there, so that nothing needs a lock.

    Bytes count as in flight from `hold` or `produce` on until `release` or the broker's report, also when nobody waits
    for the report any more: memory stays bounded while the broker is away.
    """

    def __init__(self, producer: Producer, *, max_bytes: int, stalled_after: float, clock: Callable[[], float]) -> None:
        self.in_flight = 0
        self._producer = producer
        self._max_bytes, self._stalled_after, self._clock = max_bytes, stalled_after, clock
        self._undelivered = 0
        self._moved = clock()
        self._work = asyncio.Event()

    def sending(self) -> Sending:
        return Sending(self)

    def hold(self, size: int) -> bool:
        """Count `size` bytes as in flight, if there is room."""
        if self.in_flight + size > self._max_bytes:
            return False
        self.in_flight += size
        return True

    def release(self, size: int) -> None:
        self.in_flight -= size

    def stalled(self) -> bool:
        """Whether records have been waiting for the broker for a while and none has moved."""
        return self._undelivered > 0 and self._clock() - self._moved > self._stalled_after

    def produce(self, record: Outgoing, on_report: Callable[[str | None], None]) -> None:
        """Hand a record over; `on_report` gets None, or why it will never arrive. BufferError: no room in the queue."""
        size = len(record.value or b"")

        def reported(_: int | None, reason: str | None) -> None:
            self.in_flight -= size
            self._undelivered -= 1
            self._moved = self._clock()
            on_report(reason)

        if not self._undelivered:
            self._moved = self._clock()
        self.in_flight += size
        self._undelivered += 1
        try:
            self._producer.produce(record, reported)
        except BaseException:
            self.in_flight -= size
            self._undelivered -= 1
            raise
        self._work.set()

    async def pump(self) -> None:
        """Run due callbacks until cancelled. Raises what the producer raises when it cannot go on."""
        while True:
            self._producer.poll()
            if self._undelivered:
                await asyncio.sleep(_POLL_S)
                continue
            self._work.clear()
            try:
                await asyncio.wait_for(self._work.wait(), _IDLE_S)
            except TimeoutError:
                continue

    async def flush(self, timeout_s: float) -> None:
        """Wait until everything is delivered, off the loop. Raises ProduceFailed. `pump` must not run any more."""
        await asyncio.to_thread(self._producer.flush, timeout_s)
