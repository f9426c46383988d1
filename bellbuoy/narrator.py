"""Prints a story as it happens: traffic, alerts with delay and evidence, and every step of an action."""

import contextlib
import time
from collections.abc import Callable

from rich.console import Console
from rich.markup import escape

from adapters import clickhouse
from adapters.settings import Settings
from bellbuoy.cli.printing import percent, safe, when
from bellbuoy.watch import Seen
from schemas.messages import ActionStep, AlertTransition

_STYLES = {"succeeded": "bold green", "failed": "bold yellow", "unverified": "bold red"}


class Narrator:
    """One app's story on a console. `story_of` names the change that an alert belongs to, where there is one."""

    def __init__(self, settings: Settings, console: Console, app: str, story_of: Callable[[AlertTransition], str | None]) -> None:
        self._settings, self._console, self._app, self._story_of = settings, console, app, story_of
        self._delays: dict[str, tuple[int, float]] = {}
        self._began = time.monotonic()

    def say(self, line: str) -> None:
        self._console.print(f"[dim]{time.monotonic() - self._began:6.1f} s[/]  {line}", soft_wrap=True)

    def tell(self, seen: Seen) -> None:
        """Print a transition or a step."""
        match seen.message:
            case AlertTransition() as alert if alert.state == "firing":
                self._tell_firing(alert, seen.append_time)
            case AlertTransition() as alert:
                said = safe(_last_clause(alert.reason))
                self.say(f"[dim]alert {alert.metric} on {safe(alert.slice)}: {alert.state}; {said}[/]")
            case ActionStep() as step:
                self._tell_step(step)

    def _tell_step(self, step: ActionStep) -> None:
        target = step.target
        about = (
            f" {target.version} → {target.to_version}" if target.to_version else f" {target.version}" if target.version else ""
        )
        if step.sequence == 1:
            self.say(f"[bold magenta]EVENT {step.kind}{safe(about)}[/]: {step.state} (mode {step.mode})")
            self.say(f"   because {safe(step.reason)}")
            self.say(f"   `bellbuoy actions show {step.id[:8]}` tells its story")
            return
        style = _STYLES.get(step.state, "magenta")
        phase = step.phase or step.state
        self.say(f"   [{style}]{step.kind}{safe(about)}: {safe(phase)}[/] by {safe(step.actor)}; {safe(step.reason)}")

    def _tell_firing(self, alert: AlertTransition, append_time: int) -> None:
        delay = self.delay(alert, append_time)
        after = f", {delay[1]:.1f} s and {delay[0]:,} requests after the first changed one" if delay else ""
        self.say(f"[bold red]ALERT {alert.metric}[/] on {safe(alert.slice)}{after}")
        if e := alert.effect:
            interval = f"95 % interval given that onset {percent(e.low)} to {percent(e.high)}"
            self.say(f"   {percent(e.before)} before, {percent(e.after)} since {when(alert.onset)} UTC ({interval})")
        for c in alert.contributions[:4]:
            share = f" ({c.share:.0%} of the evidence)" if c.share >= 0.01 else ""
            self.say(f"   carried by {escape(c.name)}: {percent(c.before)} → {percent(c.after)}{share}")

    def delay(self, alert: AlertTransition, append_time: int) -> tuple[int, float] | None:
        """Records and seconds from the first changed record's append time to the alert's."""
        if alert.id in self._delays:
            return self._delays[alert.id]
        story = self._story_of(alert)
        if story is None:
            return None
        with contextlib.closing(clickhouse.connect(self._settings)) as client:
            row = client.query(
                clickhouse.named_query("story_delay"),
                parameters={"app": self._app, "story": story, "until": append_time},
            ).first_row
        if not row or not row[0]:
            return None
        self._delays[alert.id] = found = (int(row[1]), (append_time - int(row[0])) / 1000)
        return found


def _last_clause(reason: str) -> str:
    """The end of a reason, which says what follows from it; `actions show` and `alerts show` have the whole."""
    return reason.rpartition("; ")[2]
