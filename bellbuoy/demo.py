"""Tells a story on the running stack: real traffic, a change, the alarm, what follows from it, the ledger."""

import asyncio
import contextlib
import random
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Final, Protocol

import httpx
from rich.console import Console
from rich.markup import escape

from adapters import clickhouse
from adapters.corpus import PYARROW, STDLIB, HelpDesk
from adapters.keys import api_key
from adapters.registry import Registry, RegistryAway
from adapters.settings import Settings
from bellbuoy.ledger import read_ledger, wait_at_rest
from bellbuoy.narrator import Narrator
from bellbuoy.report import DemoReport, Expected, problems, report
from bellbuoy.routing import release_now
from bellbuoy.story import (
    BAD,
    CHAMPION,
    DECLINING_PROMPT,
    HELP_DESK_PROMPT,
    SANDBOX_MODEL,
    Ask,
    Phase,
    Plan,
    events,
    questions,
)
from bellbuoy.traffic import Counts, Traffic
from bellbuoy.users import Users
from bellbuoy.watch import Watch
from core.ledger import Ledger
from core.rules import DEMO_ENVIRONMENT
from schemas.messages import AlertTransition, CallConfiguration

SETTLE_S: Final = 8.0
"""A window and a half: what has been sent by then has been folded."""
ALERT_TIMEOUT_S: Final = 60.0
PROMOTION_TIMEOUT_S: Final = 180.0
ROLLBACK_TIMEOUT_S: Final = 45.0
REGISTRY_TIMEOUT_S: Final = 120.0
ROUTE_TRIES: Final = 300
ACTOR: Final = "demo"


class Sender(Protocol):
    """Traffic of a story."""

    counts: Counts

    async def accepted(self, interactions: int) -> None:
        """Return when so many interactions have been accepted."""

    async def run(self, stop: asyncio.Event) -> None:
        """Send until `stop` is set."""


@dataclass(frozen=True)
class Script:
    """What every story needs besides the stack."""

    app: str
    plan: Plan
    rate: float
    reference_events: int


class Story(ABC):
    """One story: conduct the traffic, print what happens, judge the outcome."""

    def __init__(self, settings: Settings, script: Script, console: Console) -> None:
        self._settings, self._script = settings, script
        self._active: set[Phase] = set()
        self._narrator = Narrator(settings, console, script.app, self._story_of)
        self._say = self._narrator.say
        self._watch = Watch(settings, script.app, self._narrator.tell)
        self._traffic: Sender

    async def run(self) -> tuple[DemoReport, list[str]]:
        """Play the story to its end; returns the report and what is not as it should be."""
        stop_traffic, stop_watch = asyncio.Event(), asyncio.Event()
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._watch.run(stop_watch))
            await self._prepare()
            tasks.create_task(self._progress(stop_traffic))
            traffic = tasks.create_task(self._traffic.run(stop_traffic))
            try:
                found = await self._conduct()
                rate = self._traffic.counts.per_second()
            finally:
                stop_traffic.set()
            await traffic
            self._say("waiting until everything that was sent is scored, stored and counted")
            ledger = await asyncio.to_thread(self._at_rest)
            stop_watch.set()
        outcome = await asyncio.to_thread(report, self._watch, self._narrator, ledger, rate)
        return outcome, [*found, *self._complaints(), *problems(outcome, self._expected())]

    async def _prepare(self) -> None:  # noqa: B027  # a story may need nothing
        """What comes before the traffic."""

    @abstractmethod
    async def _conduct(self) -> list[str]:
        """Make things happen and wait for what follows; what did not come, in words."""

    def _expected(self) -> Expected | None:
        """What must have come; None: the ledger alone is judged."""
        return None

    def _complaints(self) -> list[str]:
        """What the senders of the traffic have to complain of."""
        return []

    @abstractmethod
    def _story_of(self, alert: AlertTransition) -> str | None:
        """The change that an alert belongs to."""

    async def _reference(self) -> None:
        s = self._script
        self._say(
            f"app [bold]{escape(s.app)}[/]: {s.rate:.0f} requests a second; "
            f"the first {s.reference_events:,} become the reference that everything later is compared with"
        )
        await self._traffic.accepted(s.reference_events)
        await asyncio.sleep(SETTLE_S)
        self._say("the reference is complete")

    async def _until(self, what: str, came: Callable[[], bool], seconds: float) -> list[str]:
        """Wait for something; what did not come, in words."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while not came():  # noqa: ASYNC110  # what is watched has no event of its own
                    await asyncio.sleep(0.1)
                return []
        return [f"{what} did not come within {seconds:.0f} s"]

    def _fired(self, metric: str, slice_: str) -> bool:
        return any((alert.metric, alert.slice) == (metric, slice_) for alert, _ in self._watch.fired())

    def _state(self, kind: str) -> str | None:
        span = self._watch.span(kind)
        return span.last.state if span else None

    async def _progress(self, stop: asyncio.Event) -> None:
        before, since = 0, time.monotonic()
        while not stop.is_set():
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(stop.wait(), 5)
            counts = self._traffic.counts
            now, at = counts.interactions + counts.feedback, time.monotonic()
            rate = (now - before) / max(at - since, 0.1)
            self._say(
                f"[dim]{counts.interactions:>7,} interactions {counts.feedback:>6,} feedback {rate:>6.0f} events/s"
                f"{self._progress_extra()}[/]"
            )
            before, since = now, at

    def _progress_extra(self) -> str:
        return ""

    def _at_rest(self) -> Ledger:
        with contextlib.closing(clickhouse.connect(self._settings)) as client:
            wait_at_rest(self._settings, client, timeout=timedelta(seconds=90))
            return read_ledger(self._settings, client)


class HelpDeskStory(Story):
    """A help desk behind the gateway: what users begin to ask about leads to a better version, a bad edit to a rollback."""

    def __init__(
        self,
        settings: Settings,
        urls: dict[str, str],
        script: Script,
        desk: HelpDesk,
        console: Console,
        *,
        opinions: bool = True,
    ) -> None:
        super().__init__(settings, script, console)
        self._opinions, self._urls = opinions, urls
        self._bad: str | None = None
        self._registry = Registry(settings)
        self._users = Users(
            urls,
            api_key(settings),
            script.app,
            questions(script.plan, script.app, desk.items[STDLIB], desk.items[PYARROW], lambda: frozenset(self._active)),
            script.rate,
            seed=script.plan.seed,
            opinions=opinions,
        )
        self._traffic = self._users

    async def _prepare(self) -> None:
        first = CallConfiguration(model=SANDBOX_MODEL, system_prompt=HELP_DESK_PROMPT)
        await self._release("v1", first, "the help desk opens")
        await self._routed()
        self._say(f"the gateway sends [bold]{escape(self._script.app)}[/] to version v1 ({SANDBOX_MODEL}, a sandbox)")

    async def _routed(self) -> None:
        """Return when the gateway has applied the app's route: until then it would pass its requests through."""
        headers = {"authorization": f"Bearer {api_key(self._settings)}"}
        async with httpx.AsyncClient(base_url=self._urls["gateway"], headers=headers, timeout=10) as client:
            for _ in range(ROUTE_TRIES):
                answer = await client.get("/v1/models")
                if answer.is_success and self._script.app in {model["id"] for model in answer.json()["data"]}:
                    return
                await asyncio.sleep(0.1)
        raise RuntimeError("the gateway does not apply the route")

    async def _conduct(self) -> list[str]:
        plan = self._script.plan
        registered = asyncio.create_task(
            self._register(CallConfiguration(model=SANDBOX_MODEL, system_prompt=HELP_DESK_PROMPT), "the first version")
        )
        await self._reference()
        version = await registered
        found = [] if version == "v1" else [f"the registry calls the first version {version}"]
        if plan.shift_after is not None:
            found += await self._shift(plan)
        if plan.bad_version_after is not None:
            found += await self._bad_version(plan)
        if not self._active:
            await asyncio.sleep(plan.calm_seconds)
        await asyncio.sleep(SETTLE_S)
        return found

    async def _shift(self, plan: Plan) -> list[str]:
        assert plan.shift_after is not None
        await asyncio.sleep(plan.shift_after)
        self._say(
            f"[yellow]now {plan.shift_share:.0%} of the users begin to ask about {PYARROW}, which the help desk has not learned[/]"
        )
        self._active.add("shift")
        found = await self._until("the alert topic.mix", lambda: self._fired("topic.mix", "all"), ALERT_TIMEOUT_S)
        if found:
            return found
        if not self._opinions:
            return await self._until("the end of the retraining", lambda: self._state("retrain") == "failed", PROMOTION_TIMEOUT_S)
        return await self._until(
            "the promotion of a retrained version",
            lambda: self._state("canary") in ("succeeded", "failed") or self._state("retrain") == "failed",
            PROMOTION_TIMEOUT_S,
        )

    async def _bad_version(self, plan: Plan) -> list[str]:
        assert plan.bad_version_after is not None
        await asyncio.sleep(plan.bad_version_after)
        bad = CallConfiguration(model=SANDBOX_MODEL, system_prompt=DECLINING_PROMPT)
        self._bad = version = await self._register(bad, "a more careful prompt")
        self._say(f"[yellow]now somebody rolls out {version}, an edit of the prompt, past gate and canary[/]")
        self._active.add("bad_version")
        await self._release(version, bad, "a more careful prompt, at once")
        found = await self._until(
            f"the alert refusal on {version}", lambda: self._fired("refusal", f"version={version}"), ALERT_TIMEOUT_S
        )
        if found:
            return found
        return await self._until("a verified rollback", lambda: self._state("rollback") == "succeeded", ROLLBACK_TIMEOUT_S)

    async def _release(self, version: str, configuration: CallConfiguration, reason: str) -> None:
        await asyncio.to_thread(
            release_now,
            self._settings,
            self._script.app,
            DEMO_ENVIRONMENT,
            version,
            configuration,
            actor=ACTOR,
            reason=reason,
        )

    async def _register(self, configuration: CallConfiguration, reason: str) -> str:
        """Register a version; MLflow may still be starting."""
        deadline = time.monotonic() + REGISTRY_TIMEOUT_S
        while True:
            try:
                return await asyncio.to_thread(
                    self._registry.register,
                    self._script.app,
                    DEMO_ENVIRONMENT,
                    configuration,
                    action=f"{ACTOR}: {reason}",  # so that a second try finds what the first one made
                    facts={"reason": reason, "actor": ACTOR},
                )
            except RegistryAway:
                if time.monotonic() > deadline:
                    raise
                await asyncio.sleep(1)

    def _expected(self) -> Expected:
        plan = self._script.plan
        alerts, actions = list[tuple[str, str]](), list[tuple[str, str]]()
        if plan.shift_after is not None:
            alerts.append(("topic.mix", "all"))
            actions += [("retrain", "succeeded"), ("canary", "succeeded")] if self._opinions else [("retrain", "failed")]
        if plan.bad_version_after is not None:
            alerts.append(("refusal", f"version={self._bad}"))
            actions.append(("rollback", "succeeded"))
        return Expected(alerts, actions)

    def _complaints(self) -> list[str]:
        return [f"{count:,} requests failed: {kind}" for kind, count in sorted(self._users.failed.items())]

    def _progress_extra(self) -> str:
        shares = [
            f"{version} {right / max(right + wrong, 1):.0%} right"
            for version, (right, wrong) in sorted(self._users.answered.items())
            if version
        ]
        self._users.answered.clear()
        return "  " + ", ".join(shares) if shares else ""

    def _story_of(self, alert: AlertTransition) -> str | None:
        if self._bad is not None and alert.slice == f"version={self._bad}":
            return "bad_version"
        return "shift" if "shift" in self._active else None


class CorpusStory(Story):
    """A user's own texts through the collector. They may hold changes of their own: besides the bad version's alert and action,
    only the ledger is judged."""

    def __init__(self, settings: Settings, urls: dict[str, str], script: Script, ask: Ask, console: Console) -> None:
        super().__init__(settings, script, console)
        told = events(script.plan, script.app, ask, lambda: frozenset(self._active))
        self._traffic = Traffic(urls["collector"], api_key(settings), told, script.rate)

    async def _conduct(self) -> list[str]:
        plan = self._script.plan
        await self._reference()
        if plan.bad_version_after is None:
            await asyncio.sleep(plan.calm_seconds + SETTLE_S)
            return []
        await asyncio.sleep(plan.bad_version_after)
        self._say(f"[yellow]now somebody rolls out {BAD} beside {CHAMPION}, for {plan.bad_share:.0%} of the requests[/]")
        self._active.add("bad_version")
        alert, action = ("refusal", f"version={BAD}"), "rollback"
        found = await self._until(
            f"the alert refusal on {BAD} with its action",
            lambda: self._fired(*alert) and self._state(action) is not None,
            ALERT_TIMEOUT_S,
        )
        await asyncio.sleep(SETTLE_S)
        return found

    def _story_of(self, alert: AlertTransition) -> str | None:
        return "bad_version" if alert.slice.endswith(BAD) and "bad_version" in self._active else None


def ask_from_rows(rows: list[tuple[str, str | None]]) -> Ask:
    """Plays a user's corpus in its own order, again from the beginning when it ends."""
    position = 0

    def ask(_: random.Random, __: str) -> tuple[str, str]:
        nonlocal position
        prompt, response = rows[position % len(rows)]
        position += 1
        return prompt, response or ""

    return ask


def ask_help_desk(desk: HelpDesk) -> Ask:
    """Known questions are about the standard library, new ones about another package."""
    return lambda draw, who: desk.ask(draw, PYARROW if who == "new" else STDLIB)
