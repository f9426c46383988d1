"""What a backtest found: alarms with the places in the log where they began and were raised, and what was not judged."""

from array import array
from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from core.metric_names import is_named, stated_name
from core.unjudged import Unjudged
from schemas.codec import rfc3339
from schemas.messages import WINDOW_MS, ActionStep, AlertTransition, Detection
from streams.backtest_windows import DeadLine

WEEK_MS: Final = 7 * 86_400_000
LEAST_SPAN_MS: Final = 3_600_000
"""A log shorter than an hour gives no rate of pages."""
_DEAD_KEPT: Final = 100


@dataclass(frozen=True)
class Fitted:
    """An app's own cells (their names), and the start (ms) of the first window that was scored with them."""

    app: str
    environment: str
    window: int
    cells: tuple[str, ...]


class Places:
    """Which lines (or events) of the log each window brought, counted from 0."""

    def __init__(self) -> None:
        self._starts, self._first, self._last = array("q"), array("q"), array("q")

    def add(self, start: int, first: int, last: int) -> None:
        """Windows come in order."""
        self._starts.append(start)
        self._first.append(first)
        self._last.append(last)

    def read_by(self, window: int) -> int:
        """The last line that had been read when `window` (its start, ms) was judged; -1: none.

        >>> places = Places()
        >>> places.add(5_000, 0, 9)
        >>> places.add(20_000, 10, 14)
        >>> places.read_by(15_000), places.read_by(20_000), places.begun_at(10_000)
        (9, 14, 10)
        """
        at = bisect_right(self._starts, window) - 1
        return self._last[at] if at >= 0 else -1

    def begun_at(self, onset: int) -> int:
        """The first line of the first window with lines that starts at `onset` (ms) or later."""
        at = bisect_left(self._starts, onset)
        return self._first[at] if at < len(self._starts) else self._last[-1] if self._last else -1


@dataclass(frozen=True)
class FoundAlarm:
    """A detection with its places in the log; `name` is the metric's stated name."""

    detection: Detection
    name: str
    event_index: int
    onset_index: int
    paged: bool

    def json(self) -> dict[str, Any]:
        """The alarm as plain values. `effect` is the change of the rate, `interval` its 95 % interval given the onset."""
        d, effect = self.detection, self.detection.effect
        return {
            "app": d.app,
            "environment": d.environment,
            "metric": self.name,
            "stream": d.metric,
            "slice": d.slice,
            "opened_at": rfc3339(d.window + WINDOW_MS),
            "onset_at": rfc3339(d.onset),
            "event_index": self.event_index,
            "onset_index": self.onset_index,
            "effect": round(effect.after - effect.before, 9),
            "interval": [round(effect.low - effect.before, 9), round(effect.high - effect.before, 9)],
            "before": effect.before,
            "after": effect.after,
            "evidence": d.statistic,
            "threshold": d.threshold,
            "paged": self.paged,
            "contributions": [
                {"name": c.name, "share": c.share, "bin": c.bin, "before": c.before, "after": c.after} for c in d.contributions
            ],
        }


@dataclass
class BacktestReport:
    """What a log would have led to."""

    lines: int = 0
    scored: int = 0
    acts: int = 0
    dead: int = 0
    repeated: int = 0
    """Lines whose id came before; they count once."""
    dead_lines: list[DeadLine] = field(default_factory=list)
    """The first of them."""
    windows: int = 0
    first_time: int | None = None
    last_time: int | None = None
    versions: Counter[tuple[str, str, str]] = field(default_factory=Counter)
    """Interactions by (app, environment, version)."""
    feedback: dict[tuple[str, str], Counter[str]] = field(default_factory=dict)
    """By (app, environment), names of the acts that say up or down."""
    unwatched_feedback: Counter[tuple[str, str, str]] = field(default_factory=Counter)
    """By (app, environment, name), acts that no detector takes."""
    detections: list[Detection] = field(default_factory=list)
    alerts: list[AlertTransition] = field(default_factory=list)
    actions: list[ActionStep] = field(default_factory=list)
    fitted: list[Fitted] = field(default_factory=list)
    """Apps that got topic cells of their own on the way."""
    unjudged: list[Unjudged] = field(default_factory=list)
    """What was not judged, and why."""
    places: Places = field(default_factory=Places)

    def reject(self, dead: DeadLine) -> None:
        self.dead += 1
        if len(self.dead_lines) < _DEAD_KEPT:
            self.dead_lines.append(dead)

    def stated(self, app: str, environment: str, metric: str) -> str:
        """The reported name of an app's metric."""
        return stated_name(metric, self.feedback.get((app, environment), ()))

    def alarms(self) -> list[FoundAlarm]:
        """All detections, in order."""
        paged = {(a.app, a.environment, a.metric, a.slice, a.opened_window) for a in self.alerts if a.paged}
        return [
            FoundAlarm(
                detection=d,
                name=self.stated(d.app, d.environment, d.metric),
                event_index=self.places.read_by(d.window),
                onset_index=self.places.begun_at(d.onset),
                paged=(d.app, d.environment, d.metric, d.slice, d.window) in paged,
            )
            for d in self.detections
        ]

    @property
    def pages(self) -> int:
        return sum(alert.paged for alert in self.alerts)

    def pages_per_week(self) -> float | None:
        """Pages in a week of the log's own time; None where it is too short to say."""
        if self.first_time is None or self.last_time is None or self.last_time - self.first_time < LEAST_SPAN_MS:
            return None if self.pages else 0.0
        return round(self.pages * WEEK_MS / (self.last_time - self.first_time), 4)


@dataclass(frozen=True)
class Change:
    """A change that is known to be in the log: from line `event_index` (from 0) on, in a metric."""

    event_index: int
    metric: str


def judged_by(truth: Iterable[Change], alarms: Iterable[FoundAlarm], lines: int) -> dict[str, Any]:
    """Each change's delay in lines, what was missed, and the alarms that no change explains.

    An alarm belongs to the latest change of its metric at or before it; the first one gives the delay. One that belongs to
    none is false: `before_any_change` of them came while nothing at all had changed yet (the rest may be side effects).
    """
    changes = sorted(truth, key=lambda change: change.event_index)
    found: dict[int, FoundAlarm] = {}
    false, early = 0, 0
    for alarm in alarms:
        own = [
            at
            for at, change in enumerate(changes)
            if change.event_index <= alarm.event_index and is_named(change.metric, alarm.detection.metric, alarm.name)
        ]
        if own:
            found.setdefault(own[-1], alarm)
            continue
        false += 1
        early += not any(change.event_index <= alarm.event_index for change in changes)
    out = [_outcome(change, found.get(at)) for at, change in enumerate(changes)]
    return {
        "changes": out,
        "missed": sum(change["missed"] for change in out),
        "false_alarms": false,
        "before_any_change": early,
        "false_alarms_per_million_events": round(1e6 * false / lines, 4) if lines else 0.0,
    }


def _outcome(change: Change, alarm: FoundAlarm | None) -> Mapping[str, Any]:
    return {
        "event_index": change.event_index,
        "metric": change.metric,
        "missed": alarm is None,
        "delay": None if alarm is None else alarm.event_index - change.event_index,
        "alarm_index": None if alarm is None else alarm.event_index,
        "slice": None if alarm is None else alarm.detection.slice,
    }
