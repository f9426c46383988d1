"""The alert state machine: pending -> firing -> acknowledged -> resolved, or inhibited, or silenced; timers count window ends.

An incident is identified by hash(app, rule, group, window in which it first fired); what fires again within its rule's
cooldown is the same incident, opened again.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Final

import msgspec

from core.incident import ACTIVE, Alert, Matcher, Moment, Silence, covers, describe, distance, incident_id
from core.metrics import WHOLE_APP
from schemas import codec
from schemas.messages import WINDOW_MS, AlertState, AlertTransition, Command, Detection, PolicyRule

SAME_ONSET_MS: Final = 60_000
DEFAULT_SILENCE_S: Final = 4 * 3_600


class BoardState(msgspec.Struct):
    """What an alert board remembers."""

    open: list[Alert] = []
    recent: list[Alert] = []
    silences: list[Silence] = []


# --- the stages -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Outcome:
    """What the stages make of an alert that would fire: its state, whether it pages, and why."""

    state: AlertState = "firing"
    page: bool = True
    reasons: tuple[str, ...] = ()
    later: bool = False
    """The page is owed, not spared: it comes if the alert still fires when what holds it back is over."""

    def because(self, reason: str, *, state: AlertState | None = None, later: bool = False) -> "Outcome":
        """Without a page, for this reason."""
        later = later and (self.page or self.later)
        return replace(self, state=state or self.state, page=False, reasons=(*self.reasons, reason), later=later)


def group(outcome: Outcome, alert: Alert, board: "Board", moment: Moment) -> Outcome:  # noqa: ARG001 - stages share one form
    """Slices that began to move together are one page."""
    for other in board.of_app(alert.app, alert.environment):
        same = other.rule.id == alert.rule.id and other is not alert
        if same and other.paged_window is not None and abs(other.onset - alert.onset) <= SAME_ONSET_MS:
            return outcome.because(f"grouped with {other.id}: {other.slice} began to move at the same time")
    return outcome


def inhibit(outcome: Outcome, alert: Alert, board: "Board", moment: Moment) -> Outcome:  # noqa: ARG001
    """An alert that a known cause explains is not one of its own."""
    cause = board.explaining(alert)
    if cause is None:
        return outcome
    where = "" if cause.slice == WHOLE_APP else f" on {cause.slice}"
    return outcome.because(f"explained by {cause.metric}{where} ({cause.id})", state="inhibited")


def silence(outcome: Outcome, alert: Alert, board: "Board", moment: Moment) -> Outcome:
    """Somebody asked for quiet."""
    for quiet in board.silences:
        if outcome.state == "firing" and quiet.until > moment.end and quiet.matcher.covers(alert):
            return outcome.because(f"silenced by {quiet.actor} until {codec.rfc3339(quiet.until)}", state="silenced")
    return outcome


def dedup(outcome: Outcome, alert: Alert, board: "Board", moment: Moment) -> Outcome:  # noqa: ARG001
    """One incident pages once per cooldown; what fires again and still does when that is over pages then."""
    paged = alert.paged_window
    if paged is None or alert.state == "acknowledged" or moment.window - paged >= alert.rule.cooldown_s * 1000:
        return outcome
    return outcome.because(f"this incident paged at {codec.rfc3339(paged + WINDOW_MS)}", later=True)


def catch_up(outcome: Outcome, alert: Alert, board: "Board", moment: Moment) -> Outcome:  # noqa: ARG001
    """What happened while Bellbuoy was behind is not paged; what still fires at its end is."""
    return outcome.because("catching up", later=True) if moment.catching_up else outcome


Stage = Callable[[Outcome, Alert, "Board", Moment], Outcome]
STAGES: Final[tuple[Stage, ...]] = (group, inhibit, silence, dedup, catch_up)


# --- the board ------------------------------------------------------------------------------------------------------


class Board:
    """All alerts of a shard that are not resolved, those that may open again, and the silences."""

    def __init__(self, state: BoardState | None = None) -> None:
        state = state or BoardState()
        self.open: dict[str, Alert] = {}
        self._of_app: dict[tuple[str, str], dict[str, Alert]] = {}
        for alert in state.open:
            self._open(alert)
        self.recent: dict[tuple[str, str, str, str], Alert] = {_place(alert): alert for alert in state.recent}
        self.silences = list(state.silences)

    def state(self) -> BoardState:
        return BoardState(list(self.open.values()), list(self.recent.values()), self.silences)

    @property
    def quiet(self) -> bool:
        """Whether no timer runs."""
        return not (self.open or self.recent or self.silences)

    def _open(self, alert: Alert) -> Alert:
        self.open[alert.id] = alert
        self._of_app.setdefault((alert.app, alert.environment), {})[alert.id] = alert
        return alert

    def of_app(self, app: str, environment: str) -> list[Alert]:
        """Open alerts of an app, oldest first."""
        return list(self._of_app.get((app, environment), {}).values())

    def explaining(self, alert: Alert) -> Alert | None:
        """The active alert of the same app that explains this one best: the nearest (see `distance`); among equals the one
        that the rule's `inhibited_by` names first, and of these the oldest."""
        by = alert.rule.inhibited_by
        active = [a for a in self.of_app(alert.app, alert.environment) if a is not alert and a.metric in by and a.state in ACTIVE]
        return min(active, key=lambda a: (distance(a, alert), by.index(a.metric), a.opened_window, a.id), default=None)

    def _explained_at_once(self, alert: Alert) -> bool:
        """Whether nothing better can come: an alert with time left waits for the cause on its own slice."""
        cause = self.explaining(alert)
        return cause is not None and cause.slice == alert.slice

    def detected(self, detection: Detection, moment: Moment) -> list[AlertTransition]:
        """Open (or open again) an alert for every rule on the detection's metric; those without pending time are judged
        by `advance` in the same window."""
        out = []
        for rule in sorted(moment.rules.rules, key=lambda rule: rule.id):
            if rule.metric == detection.metric:
                alert = self.raise_(
                    rule, detection.app, detection.environment, detection.slice, detection.onset, describe(detection), moment
                )
                alert.statistic, alert.threshold = detection.statistic, detection.threshold
                alert.effect, alert.contributions = detection.effect, detection.contributions
                if alert.state is None and rule.pending_s:
                    out.append(self._move(alert, "pending", moment, f"{alert.cause}; firing if it holds for {rule.pending_s} s"))
        return out

    def raise_(self, rule: PolicyRule, app: str, environment: str, slice_: str, onset: int, cause: str, moment: Moment) -> Alert:
        """The open alert of a rule and slice: as it is, opened again within the cooldown, or new (state None)."""
        for alert in self.of_app(app, environment):
            if (alert.rule.id, alert.slice) == (rule.id, slice_):
                return alert
        known = self.recent.pop((app, environment, rule.id, slice_), None)
        if known is not None and moment.window - (known.resolved_window or 0) <= known.rule.cooldown_s * 1000:
            known.rule, known.since, known.onset = rule, moment.window, onset
            known.cause = f"{cause} (again within the cooldown)"
            known.state, known.judged, known.note, known.owed = None, False, "", False
            known.fired_window = None
            return self._open(known)
        id_ = incident_id(app, environment, rule.id, slice_, moment.window)
        return self._open(Alert(id_, app, environment, rule, slice_, moment.window, moment.window, onset, cause))

    def resolve(self, alert: Alert, moment: Moment, reason: str, actor: str = "controller") -> AlertTransition:
        del self.open[alert.id]
        place = (alert.app, alert.environment)
        del self._of_app[place][alert.id]
        if not self._of_app[place]:
            del self._of_app[place]
        alert.resolved_window = moment.window
        self.recent[_place(alert)] = alert
        return self._move(alert, "resolved", moment, reason, actor=actor)

    def released(
        self, app: str, environment: str, metric: str, slice_: str, moment: Moment, reason: str
    ) -> list[AlertTransition]:
        """A stream is back to normal: its alerts are over."""
        return [self.resolve(alert, moment, reason) for alert in self.matching(app, environment, metric) if alert.slice == slice_]

    def matching(self, app: str | None, environment: str | None, metric: str | None) -> list[Alert]:
        """Open alerts of an app, environment and metric (None: any), in a fixed order."""
        among = self.open.values() if app is None or environment is None else self.of_app(app, environment)
        return [
            alert
            for alert in sorted(among, key=_order)
            if covers(alert.app, app) and covers(alert.environment, environment) and covers(alert.metric, metric)
        ]

    def command(self, command: Command, moment: Moment) -> list[AlertTransition]:
        """Acknowledge, silence or unsilence: one alert by its id, or all that `Matcher.of` covers."""
        meant = Matcher.of(command)
        chosen = [alert for alert in self.matching(meant.app, meant.environment, meant.metric) if meant.covers(alert)]
        said = f"{command.actor}: {command.reason}" if command.reason else command.actor
        match command.kind:
            case "acknowledge":
                chosen = [alert for alert in chosen if alert.state is not None]
                for alert in chosen:
                    alert.acknowledged_window = moment.window
                return [
                    self._move(alert, "acknowledged", moment, f"acknowledged by {said}", actor=command.actor)
                    for alert in chosen
                    if alert.state != "acknowledged"
                ]
            case "silence":
                until = moment.end + int(float(command.arguments.get("seconds", DEFAULT_SILENCE_S)) * 1000)
                self.silences.append(Silence(until, command.actor, *msgspec.structs.astuple(meant)))
                return [
                    self._move(alert, "silenced", moment, f"silenced by {said}", actor=command.actor)
                    for alert in chosen
                    if alert.state == "firing"
                ]
            case "unsilence":
                self.silences = [quiet for quiet in self.silences if not _means(quiet.matcher, meant)]
                return []
            case _:
                return []

    def advance(self, moment: Moment) -> list[AlertTransition]:
        """Let the timers run to the end of this window and judge what is not settled, by rule id."""
        if self.quiet:
            return []
        out = []
        unsettled = [a for a in self.open.values() if (a.state != "firing" or a.owed) and not _left_alone(a, moment)]
        for alert in sorted(unsettled, key=_order):
            transition = self._judge(alert, moment)
            if transition is not None:
                out.append(transition)
        self.silences = [quiet for quiet in self.silences if quiet.until > moment.end]
        for place, alert in list(self.recent.items()):
            if moment.window - (alert.resolved_window or 0) > alert.rule.cooldown_s * 1000:
                del self.recent[place]
        return out

    def _judge(self, alert: Alert, moment: Moment) -> AlertTransition | None:
        ripe = moment.end - (alert.since + WINDOW_MS) >= alert.rule.pending_s * 1000
        match alert.state:
            case "firing" if moment.catching_up:
                return None
            case "pending" if not ripe and not self._explained_at_once(alert):
                return None
            case "inhibited" if self.explaining(alert) is None and alert.rule.pending_s:
                alert.since = moment.window
                return self._move(alert, "pending", moment, "what explained it is over; firing if it holds")
            case _:
                pass
        outcome = Outcome()
        for stage in STAGES:
            outcome = stage(outcome, alert, self, moment)
        if alert.state == outcome.state != "firing":
            return None
        cause = alert.cause
        if alert.state == "acknowledged":
            if not outcome.page:
                return None
            cause = f"{cause}; still firing {_hours(alert.rule.remind_s)} after it was acknowledged"
        elif alert.state == "firing":
            alert.owed = outcome.later
            if not outcome.page and outcome.state == "firing":
                return None
            cause = f"{cause}; still firing at the end of the {'catch-up' if alert.paged_window is None else 'cooldown'}"
        if outcome.state == "firing":
            alert.owed = outcome.later
            if alert.state not in ("firing", "acknowledged"):
                alert.fired_window, alert.caught_up = moment.window, moment.catching_up
        elif outcome.state == "silenced":
            alert.fired_window, alert.caught_up = moment.window, moment.catching_up
        return self._move(alert, outcome.state, moment, "; ".join((cause, *outcome.reasons)), paged=outcome.page)

    def _move(
        self, alert: Alert, state: AlertState, moment: Moment, reason: str, *, paged: bool = False, actor: str = "controller"
    ) -> AlertTransition:
        previous = "resolved" if alert.state is None and alert.sequence else alert.state
        alert.state = state
        alert.sequence += 1
        if paged:
            alert.paged_window = moment.window
        return AlertTransition(
            id=alert.id,
            shard=moment.shard,
            sequence=alert.sequence,
            app=alert.app,
            environment=alert.environment,
            rule=alert.rule.id,
            metric=alert.metric,
            slice=alert.slice,
            state=state,
            previous=previous,
            window=moment.window,
            opened_window=alert.opened_window,
            onset=alert.onset,
            reason=reason,
            statistic=alert.statistic,
            threshold=alert.threshold,
            effect=alert.effect,
            contributions=alert.contributions,
            paged=paged,
            config=moment.config,
            rules=moment.rules_digest,
            actor=actor,
        )


def _left_alone(alert: Alert, moment: Moment) -> bool:
    """Whether somebody looks after it, and its rule does not want them reminded yet."""
    if alert.state != "acknowledged":
        return False
    since, after = alert.acknowledged_window, alert.rule.remind_s * 1000
    return since is None or not after or moment.window - since < after


def _means(matcher: Matcher, meant: Matcher) -> bool:
    """Whether a silence is the one that is to end; one of an alert by its id alone, whatever else it says."""
    return matcher.alert == meant.alert if meant.alert is not None else matcher == meant


def _hours(seconds: int) -> str:
    """
    >>> _hours(86_400), _hours(5_400)
    ('24 h', '1.5 h')
    """
    return f"{seconds / 3_600:g} h"


def _place(alert: Alert) -> tuple[str, str, str, str]:
    return (alert.app, alert.environment, alert.rule.id, alert.slice)


def _order(alert: Alert) -> tuple[str, str, str, str]:
    return (alert.rule.id, alert.app, alert.environment, alert.slice)
