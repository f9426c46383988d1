"""Tells the story on the running stack: real traffic, a change, the alarm, the action, the ledger."""

import asyncio
import contextlib
import random
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import msgspec
from rich.console import Console
from rich.markup import escape

from adapters import clickhouse
from adapters.corpus import PYARROW, STDLIB, HelpDesk
from adapters.keys import api_key
from adapters.settings import Settings
from bellbuoy.cli.printing import percent, when
from bellbuoy.ledger import read_ledger, wait_at_rest
from bellbuoy.story import BAD, CHAMPION, Ask, Event, Phase, Plan, events
from bellbuoy.traffic import Traffic
from bellbuoy.watch import Seen, Watch
from core.ledger import Ledger
from schemas.codec import rfc3339
from schemas.messages import ActionStep, AlertTransition

SETTLE_S = 8.0
"""A window and a half: what has been sent by then has been folded."""
ALERT_TIMEOUT_S = 60.0


class DetectionReport(msgspec.Struct, kw_only=True):
    metric: str
    slice: str
    opened_at: str
    delay_events: int | None
    delay_seconds: float | None


class ActionReport(msgspec.Struct, kw_only=True):
    id: str
    kind: str
    target: dict[str, Any]
    state: str


class DemoReport(msgspec.Struct, kw_only=True):
    """The last line of `bellbuoy demo --json`."""

    ledger: dict[str, int]
    detections: list[DetectionReport]
    actions: list[ActionReport]
    events_per_second: float


@dataclass(frozen=True)
class Script:
    """Everything that a story needs besides the stack."""

    app: str
    plan: Plan
    ask: Ask
    rate: float
    reference_events: int
    new_topic: str
    strict: bool
    """Whether the alerts must be exactly those of the plan (a user's own corpus may hold changes of its own)."""


class Demo:
    """One story: conduct the traffic, print what happens, judge the outcome."""

    def __init__(self, settings: Settings, urls: dict[str, str], script: Script, console: Console) -> None:
        self._settings, self._urls, self._script, self._console = settings, urls, script, console
        self._active: set[Phase] = set()
        self._watch = Watch(settings, script.app, self._tell)
        self._traffic = Traffic(urls["collector"], api_key(settings), self._events(), script.rate)
        self._delays: dict[str, tuple[int, float]] = {}
        self._began = time.monotonic()

    def _events(self) -> Iterator[Event]:
        s = self._script
        return events(s.plan, s.app, s.ask, lambda: frozenset(self._active))

    async def run(self) -> tuple[DemoReport, list[str]]:
        """Play the story to its end; returns the report and what is not as it should be."""
        stop_traffic, stop_watch = asyncio.Event(), asyncio.Event()
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._watch.run(stop_watch))
            tasks.create_task(self._progress(stop_traffic))
            traffic = tasks.create_task(self._traffic.run(stop_traffic))
            try:
                problems = await self._conduct()
                rate = self._traffic.counts.per_second()
            finally:
                stop_traffic.set()
            await traffic
            self._say("waiting until everything that was sent is scored, stored and counted")
            ledger = await asyncio.to_thread(self._at_rest)
            stop_watch.set()
        return await asyncio.to_thread(self._report, ledger, rate, problems)

    async def _conduct(self) -> list[str]:
        s, plan, problems = self._script, self._script.plan, list[str]()
        self._say(
            f"app [bold]{escape(s.app)}[/]: {s.rate:.0f} requests a second; "
            f"the first {s.reference_events:,} become the reference that everything later is compared with"
        )
        await self._traffic.accepted(s.reference_events)
        await asyncio.sleep(SETTLE_S)
        self._say("the reference is complete")
        if plan.shift_after is not None:
            await asyncio.sleep(plan.shift_after)
            self._say(f"[yellow]now {plan.shift_share:.0%} of the users begin to ask about {escape(s.new_topic)}[/]")
            self._active.add("shift")
            problems += await self._await("topic.mix", "all", "retrain")
        if plan.bad_version_after is not None:
            await asyncio.sleep(plan.bad_version_after)
            self._say(f"[yellow]now somebody rolls out {BAD} beside {CHAMPION}, for {plan.bad_share:.0%} of the requests[/]")
            self._active.add("bad_version")
            problems += await self._await("refusal", f"version={BAD}", "rollback")
        if not self._active:
            await asyncio.sleep(plan.calm_seconds)
        await asyncio.sleep(SETTLE_S)
        return problems

    async def _await(self, metric: str, slice_: str, action: str) -> list[str]:
        """Wait for the alert and its action; what did not come is returned in words."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(ALERT_TIMEOUT_S):
                while True:
                    fired = {(a.metric, a.slice) for a, _ in self._watch.fired()}
                    asked = {step.kind for step in self._watch.actions().values()}
                    if (metric, slice_) in fired and action in asked:
                        return []
                    await asyncio.sleep(0.2)
        return [f"no alert {metric} on {slice_} followed by {action} within {ALERT_TIMEOUT_S:.0f} s"]

    async def _progress(self, stop: asyncio.Event) -> None:
        before, since = 0, time.monotonic()
        while not stop.is_set():
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(stop.wait(), 5)
            counts = self._traffic.counts
            now, at = counts.interactions + counts.feedback, time.monotonic()
            rate = (now - before) / max(at - since, 0.1)
            self._say(f"[dim]{counts.interactions:>7,} interactions {counts.feedback:>6,} feedback {rate:>6.0f} events/s[/]")
            before, since = now, at

    def _tell(self, seen: Seen) -> None:
        match seen.message:
            case AlertTransition() as alert:
                if alert.state == "firing":
                    self._tell_firing(alert, seen.append_time)
                else:
                    said = escape(_last_clause(alert.reason))
                    self._say(f"[dim]alert {alert.metric} on {escape(alert.slice)}: {alert.state}; {said}[/]")
            case ActionStep() as step:
                target = f" from {step.target.version} to {step.target.to_version}" if step.target.to_version else ""
                self._say(f"[bold magenta]EVENT {step.kind}{escape(target)}[/]: {step.state} (mode {step.mode})")
                self._say(f"   because {escape(step.reason)}")
                self._say(f"   `bellbuoy actions show {step.id[:8]}` tells its story")

    def _tell_firing(self, alert: AlertTransition, append_time: int) -> None:
        delay = self._delay(alert, append_time)
        after = f", {delay[1]:.1f} s and {delay[0]:,} requests after the first changed one" if delay else ""
        self._say(f"[bold red]ALERT {alert.metric}[/] on {escape(alert.slice)}{after}")
        if e := alert.effect:
            interval = f"95 % interval given that onset {percent(e.low)} to {percent(e.high)}"
            self._say(f"   {percent(e.before)} before, {percent(e.after)} since {when(alert.onset)} UTC ({interval})")
        for c in alert.contributions[:4]:
            share = f" ({c.share:.0%} of the evidence)" if c.share >= 0.01 else ""
            self._say(f"   carried by {escape(c.name)}: {percent(c.before)} → {percent(c.after)}{share}")

    def _delay(self, alert: AlertTransition, append_time: int) -> tuple[int, float] | None:
        """Records and seconds from the first changed record's append time to the alert's."""
        story = "bad_version" if alert.slice.endswith(BAD) else "shift"
        if story not in self._active:
            return None
        with contextlib.closing(clickhouse.connect(self._settings)) as client:
            row = client.query(
                clickhouse.named_query("story_delay"),
                parameters={"app": self._script.app, "story": story, "until": append_time},
            ).first_row
        if not row or not row[0]:
            return None
        self._delays[alert.id] = delay = (int(row[1]), (append_time - int(row[0])) / 1000)
        return delay

    def _at_rest(self) -> Ledger:
        with contextlib.closing(clickhouse.connect(self._settings)) as client:
            wait_at_rest(self._settings, client, timeout=timedelta(seconds=90))
            return read_ledger(self._settings, client)

    def _report(self, ledger: Ledger, rate: float, problems: list[str]) -> tuple[DemoReport, list[str]]:
        detections = []
        for alert, append_time in self._watch.fired():
            delay = self._delays.get(alert.id) or self._delay(alert, append_time)
            detections.append(
                DetectionReport(
                    metric=alert.metric,
                    slice=alert.slice,
                    opened_at=rfc3339(append_time),
                    delay_events=delay[0] if delay else None,
                    delay_seconds=delay[1] if delay else None,
                )
            )
        actions = [
            ActionReport(id=a.id, kind=a.kind, target=msgspec.to_builtins(a.target), state=a.state)
            for a in self._watch.actions().values()
        ]
        report = DemoReport(
            ledger={name: getattr(ledger, name) for name in ("received", "stored", "dead", "missing", "repeated")},
            detections=detections,
            actions=actions,
            events_per_second=round(rate, 1),
        )
        return report, problems + self._judge(report)

    def _judge(self, report: DemoReport) -> list[str]:
        problems = []
        if report.ledger["missing"]:
            problems.append(f"{report.ledger['missing']} records are missing; `bellbuoy ledger --verify` names them")
        if report.ledger["received"] != report.ledger["stored"] + report.ledger["dead"] + report.ledger["missing"]:
            problems.append(f"the ledger does not add up: {report.ledger}")
        if not self._script.strict:
            return problems
        plan = self._script.plan
        want = set[tuple[str, str]]()
        if plan.shift_after is not None:
            want.add(("topic.mix", "all"))
        if plan.bad_version_after is not None:
            want.add(("refusal", f"version={BAD}"))
        got = {(d.metric, d.slice) for d in report.detections}
        problems += [f"alert {metric} on {slice_} was not expected" for metric, slice_ in sorted(got - want)]
        asked = sorted(a.kind for a in report.actions)
        planned = sorted(
            ({"retrain"} if plan.shift_after is not None else set())
            | ({"rollback"} if plan.bad_version_after is not None else set())
        )
        if asked != planned:
            problems.append(f"actions {asked} instead of {planned}")
        return problems

    def _say(self, line: str) -> None:
        self._console.print(f"[dim]{time.monotonic() - self._began:6.1f} s[/]  {line}", soft_wrap=True)


def _last_clause(reason: str) -> str:
    """The end of a reason, which says what follows from it; `actions show` and `alerts show` have the whole."""
    return reason.rpartition("; ")[2]


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
