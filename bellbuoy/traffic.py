"""Sends a story's events to the collector at a steady rate, and the users' verdicts with the receipts that come back."""

import asyncio
import time
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import httpx
import msgspec
from tenacity import AsyncRetrying, retry_if_exception_type, stop_after_delay, wait_exponential

from bellbuoy.story import Event

BEAT_S = 0.2


class CollectorBusy(Exception):
    """The collector asked to come again later (429 or 503)."""


@dataclass
class Counts:
    """What was accepted so far."""

    interactions: int = 0
    feedback: int = 0
    changed: dict[str, int] = field(default_factory=dict)
    started: float = field(default_factory=time.monotonic)

    def per_second(self) -> float:
        return (self.interactions + self.feedback) / max(time.monotonic() - self.started, 1e-9)


class Traffic:
    """A client application: one HTTP connection, batches of what a fifth of a second brings."""

    def __init__(self, collector_url: str, api_key: str, events: Iterator[Event], rate: float) -> None:
        self.counts = Counts()
        self._events, self._rate = events, rate
        self._client = httpx.AsyncClient(base_url=collector_url, headers={"authorization": f"Bearer {api_key}"}, timeout=30)
        self._verdicts: deque[dict[str, object]] = deque()

    async def accepted(self, interactions: int) -> None:
        """Return when so many interactions have been accepted."""
        while self.counts.interactions < interactions:  # noqa: ASYNC110  # a count, not an event
            await asyncio.sleep(0.2)

    async def run(self, stop: asyncio.Event) -> None:
        """Send until `stop` is set, then the verdicts that are left."""
        beat = time.monotonic()
        owed = 0.0
        async with self._client:
            while not stop.is_set():
                owed += self._rate * BEAT_S
                await self._send([next(self._events) for _ in range(int(owed))])
                owed -= int(owed)
                beat = max(beat + BEAT_S, time.monotonic() - 1)
                await asyncio.sleep(max(0.0, beat - time.monotonic()))
            await self._send_verdicts()

    async def _send(self, batch: list[Event]) -> None:
        if not batch:
            return
        await self._send_verdicts()
        items = await self._post("/v1/interactions", [event.line for event in batch])
        for event, item in zip(batch, items, strict=True):
            if item["status"] != "accepted":
                raise RuntimeError(f"the collector refused an event of the story: {item}")
            self.counts.interactions += 1
            if event.changed:
                self.counts.changed[event.changed] = self.counts.changed.get(event.changed, 0) + 1
            if event.thumbs is not None:
                self._verdicts.append(
                    {
                        "id": f"{item['id']}-thumbs",
                        "interaction_id": item["id"],
                        "name": "thumbs",
                        "label": "up" if event.thumbs else "down",
                        "score": float(event.thumbs),
                        "receipt": item["receipt"],
                    }
                )

    async def _send_verdicts(self) -> None:
        if self._verdicts:
            batch = list(self._verdicts)
            await self._post("/v1/feedback", batch)
            self._verdicts.clear()
            self.counts.feedback += len(batch)

    async def _post(self, path: str, body: list[dict[str, object]]) -> list[dict[str, Any]]:
        content = msgspec.json.encode(body)
        async for attempt in AsyncRetrying(
            retry=retry_if_exception_type((CollectorBusy, httpx.TransportError)),
            wait=wait_exponential(0.2, max=2),
            stop=stop_after_delay(120),
            reraise=True,
        ):
            with attempt:
                reply = await self._client.post(path, content=content, headers={"content-type": "application/json"})
                if reply.status_code in (429, 503):
                    raise CollectorBusy(reply.text)
                reply.raise_for_status()
                items: list[dict[str, Any]] = reply.json()["items"]
                return items
        raise AssertionError("unreachable")
