"""An incident: what an alert remembers, how it is named and described, and what keeps it quiet."""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

import msgspec

from core.metrics import WHOLE_APP
from schemas import codec
from schemas.messages import WINDOW_MS, AlertState, Command, Contribution, Detection, Effect, PolicyRule, Rules

ACTIVE: Final[frozenset[AlertState]] = frozenset({"firing", "acknowledged", "silenced"})
"""States in which an alert's cause is known to somebody, so that it explains others."""


@dataclass(frozen=True)
class Moment:
    """The window that is being judged, and under which rules."""

    shard: int
    window: int
    config: str
    rules: Rules
    rules_digest: str
    catching_up: bool = False
    """Alert states move, but nothing is paged or requested."""

    @property
    def end(self) -> int:
        return self.window + WINDOW_MS


class Alert(msgspec.Struct):
    """An incident. `state` None: found in this window, not judged yet. Times are window starts, ms."""

    id: str
    app: str
    environment: str
    rule: PolicyRule
    slice: str
    opened_window: int
    since: int
    """When its pending time began."""
    onset: int
    cause: str
    statistic: float = 0.0
    threshold: float = 0.0
    effect: Effect | None = None
    contributions: list[Contribution] = []
    state: AlertState | None = None
    sequence: int = 0
    paged_window: int | None = None
    owed: bool = False
    """Nobody was paged for it, because of the catch-up or because the incident had paged within its cooldown."""
    caught_up: bool = False
    """It began to fire during a catch-up."""
    fired_window: int | None = None
    judged: bool = False
    """The policy is done with it."""
    note: str = ""
    """The policy's last reason for doing nothing."""
    resolved_window: int | None = None
    acknowledged_window: int | None = None
    """When somebody said last that they look after it."""

    @property
    def metric(self) -> str:
        return self.rule.metric

    @property
    def upward(self) -> bool:
        return self.effect is not None and self.effect.after > self.effect.before


class Matcher(msgspec.Struct, frozen=True):
    """Which alerts are meant: one by its id, or all of an app, environment, metric, slice and rule (None: any)."""

    alert: str | None = None
    app: str | None = None
    environment: str | None = None
    metric: str | None = None
    slice: str | None = None
    rule: str | None = None

    @classmethod
    def of(cls, command: Command) -> "Matcher":
        """Whom a command speaks of: its alert, or its app and environment and the arguments `metric`, `slice`, `rule`."""
        if command.alert is not None:
            return cls(alert=command.alert)
        named = {name: str(command.arguments[name]) for name in ("metric", "slice", "rule") if name in command.arguments}
        return cls(app=command.app, environment=command.environment, **named)

    def covers(self, alert: Alert) -> bool:
        if self.alert is not None:
            return self.alert == alert.id
        pairs = (
            (alert.app, self.app),
            (alert.environment, self.environment),
            (alert.metric, self.metric),
            (alert.slice, self.slice),
            (alert.rule.id, self.rule),
        )
        return all(covers(value, wanted) for value, wanted in pairs)


class Silence(msgspec.Struct):
    """Until `until` (ms) no page for an alert, or for those of an app, environment, metric, slice and rule (None: any)."""

    until: int
    actor: str
    alert: str | None = None
    app: str | None = None
    environment: str | None = None
    metric: str | None = None
    slice: str | None = None
    rule: str | None = None

    @property
    def matcher(self) -> Matcher:
        return Matcher(self.alert, self.app, self.environment, self.metric, self.slice, self.rule)


def covers(value: str, wanted: str | None) -> bool:
    """Whether a command that names `wanted` (None: any) means `value`."""
    return wanted is None or wanted == value


def distance(cause: Alert, alert: Alert) -> int:
    """How far an alert lies from one that it would explain: 0 on the same slice, 1 app-wide, 2 on another slice."""
    return 0 if cause.slice == alert.slice else 1 if cause.slice == WHOLE_APP else 2


def digest_of(parts: Iterable[str]) -> str:
    """32 hex digits of a sha256 over parts that contain no NUL."""
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:32]


def incident_id(app: str, environment: str, rule: str, group: str, window: int) -> str:
    """hash(app, rule, group, window in which it first fired).

    >>> len(incident_id("help-desk", "production", "topic-shift", "all", 0))
    32
    """
    return digest_of((app, environment, rule, group, str(window)))


def describe(detection: Detection) -> str:
    """A detection in one sentence."""
    effect = detection.effect
    where = "" if detection.slice == WHOLE_APP else f" on {detection.slice}"
    carried = detection.contributions[0].name if detection.contributions else detection.metric
    what = detection.metric if carried == detection.metric else f"{detection.metric} ({carried})"
    return (
        f"{what}{where} went from {_percent(effect.before)} to {_percent(effect.after)} "
        f"(95 % interval given the onset: {_percent(effect.low)} to {_percent(effect.high)}) "
        f"in {effect.events} events since {codec.rfc3339(detection.onset)}"
    )


def _percent(rate: float) -> str:
    return f"{100 * rate:.3g} %"
