"""Clients of the loop's benchmark: users on every gateway at once, who tell when a request failed and at which gateway."""

import asyncio
import threading
import time
from dataclasses import dataclass
from typing import Self

from adapters.corpus import PYARROW, STDLIB, help_desk
from bellbuoy.story import plan, questions
from bellbuoy.users import Users
from benchmarks.loop_stack import ENVIRONMENT, LoopStack


@dataclass(frozen=True)
class Failure:
    """A request that got no answer: at which gateway, when (monotonic), and an HTTP status or the name of an error."""

    instance: str
    at: float
    kind: str


class _Users(Users):
    """Users who remember when a request of theirs failed."""

    instance: str
    failures: list[Failure]

    def _count_failure(self, kind: str) -> None:
        super()._count_failure(kind)
        self.failures.append(Failure(self.instance, time.monotonic(), kind))


class Clients:
    """`rate` requests a second for each app, spread over the gateways; a third of the questions has not been learned."""

    def __init__(self, loop: LoopStack, rates: dict[str, float], *, seed: int) -> None:
        self.failures: list[Failure] = []
        self._stop: asyncio.Event | None = None
        self._ready = threading.Event()
        desk, urls = help_desk(seed), loop.stack.urls()
        self._users: dict[str, list[_Users]] = {app: [] for app in rates}
        for app, rate in rates.items():
            for instance, url in loop.gateways.items():
                told = questions(
                    plan(seed), f"{app}/{instance}", desk.items[STDLIB], desk.items[PYARROW], lambda: frozenset(("shift",))
                )
                share = rate / len(loop.gateways)
                users = _Users({**urls, "gateway": url}, loop.key, app, told, share, seed=seed, environment=ENVIRONMENT)
                users.instance, users.failures = instance, self.failures
                self._users[app].append(users)
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()), name="clients", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        self._ready.wait()
        return self

    def __exit__(self, *_: object) -> None:
        assert self._stop is not None
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join()

    @property
    def answered(self) -> int:
        """Requests that were answered."""
        return sum(users.counts.interactions for of_app in self._users.values() for users in of_app)

    def opinions(self, app: str) -> int:
        """Opinions on an app's answers that the collector has taken."""
        return sum(users.counts.feedback for users in self._users[app])

    async def _run(self) -> None:
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        self._ready.set()
        await asyncio.gather(*(users.run(self._stop) for of_app in self._users.values() for users in of_app))
