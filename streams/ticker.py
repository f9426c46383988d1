"""Appends a tick to each silent partition, so that its block closes although nobody speaks: design rule of the log's time."""

import asyncio
import time
from collections.abc import Callable, Iterable
from typing import Final, Protocol

from adapters.kafka import ProduceFailed, Producer
from schemas.codec import Outgoing, cloud_headers, encode
from schemas.messages import WINDOW_MS, Tick

DELAY_MS: Final = 200
"""After each border, and again until the broker's own clock has passed it."""
_REPORT_TIMEOUT_S: Final = 5.0

Place = tuple[str, int]


class Partitions(Protocol):
    """What a ticker must know of the partitions that this process owns."""

    def owned(self) -> Iterable[Place]: ...

    def newest_window(self, place: Place) -> int:
        """The newest window of which a record was read; -1 for none."""

    def at_end(self, place: Place) -> bool:
        """Whether everything that the log holds of it has been read."""


def tick(place: Place, window: int) -> Outgoing:
    """The tick of a partition for the window that has begun."""
    topic, partition = place
    headers = cloud_headers(Tick, id_=f"{topic}/{partition}/{window}", time_ms=window, source="bellbuoy.processor")
    return Outgoing(topic, None, encode(Tick(window=window)), headers, partition)


class Ticker:
    """`beat` is called 200 ms after a border; `run` calls it, by the wall clock, which decides nothing but when to look."""

    def __init__(
        self,
        partitions: Partitions,
        producer: Producer,
        *,
        clock_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000,
        ticked: Callable[[Place], None] | None = None,
    ) -> None:
        self._partitions, self._producer, self._clock_ms, self._ticked = partitions, producer, clock_ms, ticked
        self.failed = 0
        """Rounds in which the broker did not take the ticks in time."""

    async def run(self, stopping: Callable[[], bool]) -> None:
        while not stopping():
            now = self._clock_ms()
            border = now - now % WINDOW_MS + WINDOW_MS
            await asyncio.sleep((border + DELAY_MS - now) / 1000)
            behind = list(self._partitions.owned())
            while behind and not stopping() and self._clock_ms() < border + WINDOW_MS - DELAY_MS:
                behind = await self.beat(border, behind)
                if behind:
                    await asyncio.sleep(DELAY_MS / 1000)

    async def beat(self, border: int, places: Iterable[Place]) -> list[Place]:
        """Tick those of `places` that need it; returns those whose tick the broker stamped before the border."""
        stamps: dict[Place, int | None] = {}
        for place in places:
            if self._partitions.newest_window(place) < border and self._partitions.at_end(place):
                stamps[place] = None
                self._producer.produce(tick(place, border), _reporting(stamps, place))
                if self._ticked is not None:
                    self._ticked(place)
        if stamps:
            try:
                await asyncio.to_thread(self._producer.flush, _REPORT_TIMEOUT_S)
            except ProduceFailed:
                # They stay queued and arrive later; a tick too many does no harm.
                self.failed += 1
        return [place for place, stamp in stamps.items() if stamp is not None and stamp < border]


def _reporting(stamps: dict[Place, int | None], place: Place) -> Callable[[int | None, str | None], None]:
    def report(timestamp: int | None, _: str | None) -> None:
        stamps[place] = timestamp

    return report
