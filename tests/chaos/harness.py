"""One chaos run: a stack of its own, a story flowing through it, kill -9 round by round, and the verdict."""

import asyncio
import contextlib
import os
import random
import signal
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from itertools import cycle
from typing import Any

from adapters import clickhouse
from adapters.corpus import help_desk
from adapters.kafka import end_offsets
from adapters.keys import api_key
from adapters.settings import Settings
from bellbuoy.demo import ask_help_desk
from bellbuoy.ledger import read_ledger, wait_at_rest
from bellbuoy.stack import Stack
from bellbuoy.story import Phase, events, plan
from bellbuoy.traffic import Traffic
from schemas.topics import RAW_TOPICS
from tests.chaos.verdict import Verdict, judge

VICTIMS = ("processor", "sink", "controller", "store", "collector", "broker")
RECOVERY_LIMIT_S = 120.0
FREE_PORTS: Mapping[str, Any] = dict.fromkeys(("kafka_port", "collector_port", "store_port", "page_port"), 0)
"""The default ports are left to the stack that somebody may be running here, or starting at this moment."""
APP = "chaos"
Print = Callable[[str], None]


@dataclass
class Round:
    """One kill: who, how many accepted records were not yet queryable at that moment, and how long until they were."""

    victim: str
    in_flight: int
    recovery_s: float


@dataclass
class Outcome:
    rounds: list[Round] = field(default_factory=list)
    accepted: int = 0
    verdict: Verdict = field(default_factory=Verdict)

    def problems(self) -> list[str]:
        """Everything that must not be; empty when the run is as it should be."""
        return self.verdict.problems + [
            f"round {i}: nothing was in flight" for i, r in enumerate(self.rounds, 1) if r.in_flight <= 0
        ]


def raw_ends(settings: Settings) -> dict[tuple[str, int], int]:
    return {(topic, p): end for topic in RAW_TOPICS for p, end in end_offsets(settings, topic).items()}


class Chaos:
    """Rounds in turn through all victims, then at random by the seed, while the demo's story plays."""

    def __init__(
        self, settings: Settings, *, rounds: int, seed: int, rate: float, say: Print, victims: Sequence[str] = VICTIMS
    ) -> None:
        self._settings, self._rounds, self._seed, self._rate, self._say = settings, rounds, seed, rate, say
        self._victims = victims
        self._draw = random.Random(seed)

    def run(self) -> Outcome:
        stack = Stack(self._settings)
        stack.start()
        try:
            return asyncio.run(self._play(stack))
        finally:
            stack.stop()

    async def _play(self, stack: Stack) -> Outcome:
        active: set[Phase] = set()
        ask = ask_help_desk(help_desk(self._seed))
        story = events(plan(self._seed), APP, ask, lambda: frozenset(active))
        traffic = Traffic(stack.urls()["collector"], api_key(self._settings), story, self._rate)
        outcome, stop = Outcome(), asyncio.Event()
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(traffic.run(stop))
            try:
                await asyncio.sleep(6)
                order = cycle(self._victims)
                for number in range(1, self._rounds + 1):
                    victim = next(order) if number <= len(self._victims) else self._draw.choice(self._victims)
                    result = await self._round(stack, victim)
                    outcome.rounds.append(result)
                    self._say(
                        f"round {number}: kill -9 {victim}: {result.in_flight} records in flight, recovered in {result.recovery_s:.1f} s"
                    )
                    if traffic.counts.interactions > 6_000:
                        active.add("shift")
                    if traffic.counts.interactions > 10_000:
                        active.add("bad_version")
            finally:
                stop.set()
        outcome.accepted = traffic.counts.interactions + traffic.counts.feedback
        self._say(f"traffic stopped after {outcome.accepted:,} accepted records; waiting until at rest")
        outcome.verdict = await asyncio.to_thread(self._judge)
        return outcome

    async def _round(self, stack: Stack, victim: str) -> Round:
        await asyncio.sleep(self._draw.uniform(0.5, 4.5))
        ends = await asyncio.to_thread(raw_ends, self._settings)
        with contextlib.closing(clickhouse.connect(self._settings)) as client:
            in_flight = (await asyncio.to_thread(read_ledger, self._settings, client)).in_flight
        pid = stack.pid(victim)
        os.kill(pid, signal.SIGKILL)
        start = time.monotonic()
        while behind := await asyncio.to_thread(self._behind, stack, victim, pid, ends):
            if time.monotonic() - start > RECOVERY_LIMIT_S:
                raise TimeoutError(f"after kill -9 of {victim}, {RECOVERY_LIMIT_S:.0f} s later: {behind}")
            await asyncio.sleep(0.2)
        return Round(victim, in_flight, time.monotonic() - start)

    def _behind(self, stack: Stack, victim: str, killed: int, ends: dict[tuple[str, int], int]) -> str | None:
        """What is still missing of a recovery: a new process that is ready, and queryable rows of all that was accepted before."""
        if not stack.is_ready(victim) or stack.pid(victim) == killed:
            return f"{victim} is not ready"
        try:
            with contextlib.closing(clickhouse.connect(self._settings)) as client:
                ledger = read_ledger(self._settings, client)
        except Exception as error:
            if not clickhouse.is_away(error):
                raise
            return "the store does not answer"
        behind = [
            f"{t}/{p} at {ledger.frontier((t, p))} of {end}" for (t, p), end in ends.items() if ledger.frontier((t, p)) < end
        ]
        return ", ".join(behind) or None

    def _judge(self) -> Verdict:
        with contextlib.closing(clickhouse.connect(self._settings)) as client:
            wait_at_rest(self._settings, client, timeout=timedelta(seconds=120))
            return judge(self._settings, client)
