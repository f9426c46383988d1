"""The help desk's users: they ask through the gateway, rate some answers and correct some of the wrong ones."""

import asyncio
import random
import time
from collections import deque
from collections.abc import Iterator
from typing import Any, Final

import aiohttp
import msgspec

from bellbuoy.story import Question
from bellbuoy.traffic import Counts
from core.rules import DEMO_ENVIRONMENT

BEAT_S: Final = 0.05
UNDER_WAY: Final = 600
"""Requests under way at most: beyond that the users wait, as people do."""
PATIENCE_S: Final = 30.0
OPINIONS: Final = 0.4
"""Share of the answers that somebody gives an opinion on."""
HONEST: Final = 0.95
"""Share of the opinions that say what is so."""
CORRECTED: Final = 0.8
"""Share of the opinions on wrong answers that come with the right one."""
_SAME: Final = 120
"""Characters by which an answer is told to be the right one."""


class Users:
    """Ask at a steady rate until told to stop. What they get wrong they say; a request that fails is counted and told."""

    def __init__(
        self,
        urls: dict[str, str],
        api_key: str,
        app: str,
        questions: Iterator[Question],
        rate: float,
        *,
        seed: int,
        opinions: bool = True,
        environment: str = DEMO_ENVIRONMENT,
    ) -> None:
        self.counts = Counts()
        self.failed: dict[str, int] = {}
        self.answered: dict[str, list[int]] = {}
        """Version → [right, wrong] answers."""
        self._urls, self._key, self._app, self._environment = urls, api_key, app, environment
        self._questions, self._rate, self._opinions = questions, rate, opinions
        self._draw = random.Random(f"users/{seed}/{app}")
        self._verdicts: deque[dict[str, object]] = deque()

    async def accepted(self, interactions: int) -> None:
        """Return when so many requests have been answered."""
        while self.counts.interactions < interactions:  # noqa: ASYNC110  # a count, not an event
            await asyncio.sleep(0.2)

    async def run(self, stop: asyncio.Event) -> None:
        """Ask until `stop` is set, wait for the answers that are due, send the opinions that are left."""
        headers = {"authorization": f"Bearer {self._key}", "x-bellbuoy-environment": self._environment}
        timeout = aiohttp.ClientTimeout(total=PATIENCE_S)
        connector = aiohttp.TCPConnector(limit=0)
        beat, owed = time.monotonic(), 0.0
        waiting: set[asyncio.Task[None]] = set()
        async with aiohttp.ClientSession(headers=headers, timeout=timeout, connector=connector) as session:
            opinions = asyncio.create_task(self._tell(session, stop))
            while not stop.is_set():
                owed += self._rate * BEAT_S
                for _ in range(min(int(owed), UNDER_WAY - len(waiting))):
                    task = asyncio.create_task(self._ask(session, next(self._questions)))
                    waiting.add(task)
                    task.add_done_callback(waiting.discard)
                owed -= int(owed)
                beat = max(beat + BEAT_S, time.monotonic() - 1)
                await asyncio.sleep(max(0.0, beat - time.monotonic()))
            if waiting:
                await asyncio.wait(waiting)
            await opinions
            await self._send(session)

    async def _ask(self, session: aiohttp.ClientSession, question: Question) -> None:
        body: dict[str, Any] = {
            "model": self._app,
            "messages": [{"role": "user", "content": question.text}],
            "user": question.user,
        }
        if question.changed:
            body["metadata"] = {"story": question.changed}
        try:
            async with session.post(
                f"{self._urls['gateway']}/v1/chat/completions",
                data=msgspec.json.encode(body),
                headers={"content-type": "application/json"},
            ) as reply:
                raw = await reply.read()
                if reply.status != 200:
                    self._count_failure(f"HTTP {reply.status}")
                    return
                version = reply.headers.get("x-bellbuoy-version", "")
                id_, receipt = reply.headers.get("x-bellbuoy-id", ""), reply.headers.get("x-bellbuoy-receipt")
        except (aiohttp.ClientError, TimeoutError) as error:
            self._count_failure(type(error).__name__)
            return
        answer: str = msgspec.json.decode(raw)["choices"][0]["message"]["content"] or ""
        self.counts.interactions += 1
        if question.changed:
            self.counts.changed[question.changed] = self.counts.changed.get(question.changed, 0) + 1
        right = answer[:_SAME] == question.expected[:_SAME]
        self.answered.setdefault(version, [0, 0])[0 if right else 1] += 1
        if self._opinions and self._draw.random() < OPINIONS:
            self._verdicts.append(self._opinion(question, id_, receipt, right))

    def _opinion(self, question: Question, id_: str, receipt: str | None, right: bool) -> dict[str, object]:
        up = right if self._draw.random() < HONEST else not right
        act: dict[str, object] = {
            "id": f"{id_}-thumbs",
            "interaction_id": id_,
            "name": "thumbs",
            "label": "up" if up else "down",
            "score": float(up),
            "actor": question.user,
            "receipt": receipt,
        }
        if not up and not right and self._draw.random() < CORRECTED:
            act["correction"] = question.expected
        return act

    async def _tell(self, session: aiohttp.ClientSession, stop: asyncio.Event) -> None:
        while not stop.is_set():
            await asyncio.sleep(0.3)
            await self._send(session)

    async def _send(self, session: aiohttp.ClientSession) -> None:
        while self._verdicts:
            batch = [self._verdicts.popleft() for _ in range(min(len(self._verdicts), 200))]
            try:
                async with session.post(
                    f"{self._urls['collector']}/v1/feedback",
                    data=msgspec.json.encode(batch),
                    headers={"content-type": "application/json"},
                ) as reply:
                    if reply.status == 200:
                        self.counts.feedback += len(batch)
                        continue
            except (aiohttp.ClientError, TimeoutError):
                pass
            self._verdicts.extendleft(reversed(batch))  # their ids make a repetition harmless
            await asyncio.sleep(1)

    def _count_failure(self, kind: str) -> None:
        self.failed[kind] = self.failed.get(kind, 0) + 1
