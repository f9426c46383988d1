"""The fold: closed windows and control records in; window rows, detections, alerts and actions out.

Pure: the same windows, control records and cuts give the same output, whatever the batches, and a restored fold goes on
as if it had never stopped. Order within a window: control records by (topic, partition, offset), then detectors by app
and metric, then alerts and policy by rule id.
"""

import heapq
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import Final, Protocol

import msgspec

from core.alerting import Board, BoardState
from core.cells import CellNames, names_by_app
from core.detection import state as monitor_state
from core.detection.application import SILENT_WINDOWS, AppMonitor
from core.detection.explain import six_digits
from core.detection.history import Busiest
from core.detection.slices import Alarm, Released
from core.evidence import add_reference
from core.groups import merge_groups
from core.identity import OTHER
from core.incident import Moment, digest_of
from core.operations import Operations
from core.packing import pack, unpack
from core.policy import Policy, PolicyState
from core.rollout import Rollout, RolloutState
from core.rollup import Rollup, rows_of
from core.unjudged import Unjudged, unjudged
from core.windows import ClosedWindow
from schemas import codec
from schemas.messages import (
    WINDOW_MS,
    ActionStep,
    Activation,
    AlertTransition,
    Command,
    Config,
    Contribution,
    Cut,
    Detection,
    Group,
    Poison,
    StateSection,
    WindowRow,
)

MAX_APPS: Final = 1_000
SWEEP_WINDOWS: Final = 720
"""Once per hour of monitored time, what was silent for 7 days leaves."""
AppKey = tuple[str, str]
OTHER_APP: Final[AppKey] = (OTHER, OTHER)
"""Counted and stored, never judged: its mixture changes all the time."""


class Configs(Protocol):
    """Which config holds for a window: `core.configs.ConfigLog`, kept up to date by the caller."""

    def config_for(self, window: int) -> str:
        """Digest of the config that holds for the window."""
        ...

    def config(self, digest_: str) -> Config: ...


@dataclass(frozen=True)
class ControlRecord:
    """A record of llm.commands, llm.actions or llm.config below a cut. Messages of llm.config are passed over: they count
    by their append time, through `Configs`."""

    topic: str
    partition: int
    offset: int
    timestamp: int
    message: Command | ActionStep | Config | Activation | Poison


@dataclass
class FoldOutput:
    """What one transaction writes; each list in the order of windows."""

    rows: list[WindowRow] = field(default_factory=list)
    detections: list[Detection] = field(default_factory=list)
    alerts: list[AlertTransition] = field(default_factory=list)
    actions: list[ActionStep] = field(default_factory=list)


class _Clock(msgspec.Struct):
    window: int | None
    clock: int
    overflow: int | None


class Fold:
    """One shard's state. `cell_names` are the embedding's names of topic cells, for explanations."""

    def __init__(self, shard: int, configs: Configs, *, cell_names: Sequence[str] = ()) -> None:
        self.shard = shard
        self.window: int | None = None
        """The last window folded."""
        self._configs = configs
        self._cells = CellNames(cell_names)
        self._own_cells: dict[AppKey, CellNames] = {}
        self._clock = 0
        self._apps: dict[AppKey, AppMonitor] = {}
        self._due: list[tuple[int, AppKey]] = []
        self._scheduled: dict[AppKey, int] = {}
        self._rollup = Rollup()
        self._board = Board()
        self._policy = Policy()
        self._rollout = Rollout(self._policy)
        self._operations = Operations(shard)
        self._changed: set[AppKey] = set()
        self._gone: set[AppKey] = set()
        self._moment: Moment | None = None
        self._admitted: frozenset[AppKey] = frozenset()

    @property
    def open_alerts(self) -> int:
        """Alerts that are not resolved."""
        return len(self._board.open)

    def unjudged(self) -> list[Unjudged]:
        """What no detector judges as of the last window folded."""
        return unjudged(self._apps)

    def fold(self, windows: Sequence[ClosedWindow], control: Sequence[ControlRecord], cut: Cut) -> FoldOutput:
        """Fold the windows of one cut; its control records count in the first of them.

        Raises ValueError where control records have no window to count in, or windows are out of order.
        """
        if control and not windows:
            raise ValueError("a cut without windows has no control records")
        out = FoldOutput()
        pending = sorted(control, key=lambda record: (record.topic, record.partition, record.offset))
        for window in windows:
            if self.window is not None and window.window <= self.window:
                raise ValueError(f"window {window.window} after {self.window}")
            self._fold_window(window, pending, cut, out)
            pending = []
        return out

    # --- one window -----------------------------------------------------------------------------------------------

    def _fold_window(self, closed: ClosedWindow, control: Sequence[ControlRecord], cut: Cut, out: FoldOutput) -> None:
        window = self.window = closed.window
        self._clock += 1
        moment = self._moment_of(window, cut)
        alerts_before = len(out.alerts)
        for record in control:
            self._apply(record.message, moment, out)
        out.rows += self._rollup.advance(window)
        if closed.groups:
            self._fold_groups(window, closed.groups, moment, out)
        self._end_old_steps(window, moment, out)
        if self._clock % SWEEP_WINDOWS == 0:
            self._sweep(window, moment, out)
        out.alerts += self._operations.problems(closed.problems, self._board, moment)
        out.alerts += self._board.advance(moment)
        if self._policy.actions or self._board.open:
            out.actions += self._policy.advance(self._board, moment, self._busiest_before)
            self._say_why_not(out.alerts[alerts_before:])
        self._rollout.observe(closed.cohorts)
        out.actions += self._rollout.advance(moment)

    def _moment_of(self, window: int, cut: Cut) -> Moment:
        digest = self._configs.config_for(window)
        catching_up = cut.catch_up_until is not None and window < cut.catch_up_until
        if self._moment is None or self._moment.config != digest:
            config = self._configs.config(digest)
            self._admitted = frozenset(config.admitted)
            self._own_cells = names_by_app(config.cells, self._cells.fixed)
            self._moment = Moment(self.shard, window, digest, config.rules, codec.digest(config.rules), catching_up)
        last = self._moment
        self._moment = Moment(self.shard, window, digest, last.rules, last.rules_digest, catching_up)
        return self._moment

    def _apply(self, message: object, moment: Moment, out: FoldOutput) -> None:
        match message:
            case Command(kind="rebaseline"):
                self._rebaseline(message, moment, out)
            case Command(kind="ledger_missing"):
                out.alerts += self._operations.ledger_missing(message, self._board, moment)
            case Command():
                out.alerts += self._board.command(message, moment)
                out.actions += self._policy.command(message, moment)
                self._rollout.command(message, moment)
            case ActionStep():
                if self._policy.step(message, self._board, moment):
                    self._rollout.step(message, moment)
                    out.alerts += self._operations.rollback(message, self._board, moment)
            case _:
                pass

    def _rebaseline(self, command: Command, moment: Moment, out: FoldOutput) -> None:
        app, environment, metric = command.app, command.environment, command.arguments.get("metric")
        alert = self._board.open.get(command.alert or "")
        if command.alert is not None and alert is None:
            return
        if alert is not None:
            app, environment, metric = alert.app, alert.environment, alert.metric
        for key in sorted(self._apps):
            if app in (None, key[0]) and environment in (None, key[1]):
                released = self._apps[key].rebaseline(None if metric is None else str(metric), moment.window)
                self._release(key, released, moment, out)
                self._changed.add(key)
                self._schedule(key)
        if alert is not None and alert.id in self._board.open:
            out.alerts.append(self._board.resolve(alert, moment, f"closed by {command.actor}: {command.reason}", command.actor))

    def _fold_groups(self, window: int, groups: Sequence[Group], moment: Moment, out: FoldOutput) -> None:
        bounded: list[Group] = []
        touched: list[tuple[AppKey, Sequence[Group]]] = []
        surplus: list[Group] = []
        turned_away = False
        for key, of_app in groupby(groups, key=lambda group: (group.app, group.environment)):
            monitor = self._apps.get(key)
            if monitor is None and key != OTHER_APP and (len(self._apps) < MAX_APPS or key in self._admitted):
                monitor = self._apps[key] = AppMonitor(*key)
            if monitor is None:
                surplus += [msgspec.structs.replace(g, app=OTHER, environment=OTHER, version=OTHER) for g in of_app]
                turned_away |= key != OTHER_APP
                continue
            admitted = monitor.admit(tuple(of_app), self._clock)
            bounded += admitted
            touched.append((key, admitted))
        bounded += merge_groups(surplus)
        if turned_away:
            self._operations.overflow(self._clock, MAX_APPS, self._board, moment)
        out.rows += rows_of(window, WINDOW_MS // 1000, bounded)
        self._rollup.add(bounded)
        for key, of_app_groups in touched:
            monitor = self._apps[key]
            judged = monitor.observe(window, self._clock, of_app_groups, moment.rules, self._cells_of(key))
            self._take(key, judged.alarms, judged.released, moment, out)

    def _end_old_steps(self, window: int, moment: Moment, out: FoldOutput) -> None:
        while self._due and self._due[0][0] <= self._clock:
            due, key = heapq.heappop(self._due)
            if self._scheduled.get(key) == due:
                del self._scheduled[key]
            monitor = self._apps.get(key)
            if monitor is not None and monitor.due == due:
                judged = monitor.close_steps(window, self._clock, moment.rules, self._cells_of(key))
                self._take(key, judged.alarms, judged.released, moment, out)

    def _cells_of(self, key: AppKey) -> CellNames:
        return self._own_cells.get(key, self._cells)

    def _take(self, key: AppKey, alarms: Sequence[Alarm], released: Sequence[Released], moment: Moment, out: FoldOutput) -> None:
        self._changed.add(key)
        self._schedule(key)
        self._release(key, released, moment, out)
        for alarm in sorted(alarms, key=lambda alarm: (alarm.metric, alarm.slice)):
            detection = self._detection(key, alarm, moment)
            out.detections.append(detection)
            out.alerts += self._board.detected(detection, moment)

    def _schedule(self, key: AppKey) -> None:
        """See to it that the app is looked at when something is due without traffic."""
        due = self._apps[key].due
        if due is not None and self._scheduled.get(key) != due:
            self._scheduled[key] = due
            heapq.heappush(self._due, (due, key))

    def _release(self, key: AppKey, released: Sequence[Released], moment: Moment, out: FoldOutput) -> None:
        for one in sorted(released, key=lambda one: (one.metric, one.slice)):
            out.alerts += self._board.released(*key, one.metric, one.slice, moment, one.reason)

    def _detection(self, key: AppKey, alarm: Alarm, moment: Moment) -> Detection:
        return Detection(
            id=digest_of((*key, alarm.key, alarm.slice, str(moment.window))),
            shard=self.shard,
            app=key[0],
            environment=key[1],
            metric=alarm.metric,
            slice=alarm.slice,
            window=moment.window,
            onset=alarm.explanation.onset,
            statistic=six_digits(alarm.statistic),
            threshold=six_digits(alarm.threshold),
            effect=alarm.explanation.effect,
            contributions=self._referred(key, alarm),
            config=moment.config,
        )

    def _referred(self, key: AppKey, alarm: Alarm) -> list[Contribution]:
        """The alarm's contributions with the reference's own counts of each bin."""
        reference = self._apps[key].references.get(alarm.key)
        for contribution in alarm.explanation.contributions:
            metric, _, first = contribution.bin.rpartition(":")
            if reference is not None and contribution.counts is not None:
                counted = reference.grown if contribution.counts.grown else reference.counts
                add_reference(contribution.counts, metric, int(first), counted.get(metric, {}))
        return alarm.explanation.contributions

    def _sweep(self, window: int, moment: Moment, out: FoldOutput) -> None:
        for key in sorted(self._apps):
            monitor = self._apps[key]
            if self._clock - monitor.last_seen >= SILENT_WINDOWS:
                for alert in self._board.matching(*key, None):
                    out.alerts.append(self._board.resolve(alert, moment, "the app was silent for 7 days"))
                del self._apps[key]
                self._changed.discard(key)
                self._gone.add(key)
                continue
            silent = monitor.silent(self._clock)
            if silent:
                self._release(key, monitor.leave(window, silent), moment, out)
                self._changed.add(key)
                self._schedule(key)
        out.alerts += self._operations.sweep(self._clock, SWEEP_WINDOWS, self._board, moment)

    def _busiest_before(self, app: str, environment: str, onset: int, excluded: Sequence[str]) -> Busiest:
        monitor = self._apps.get((app, environment))
        return Busiest(None, onset, onset) if monitor is None else monitor.history.busiest_before(onset, excluded)

    def _say_why_not(self, transitions: Sequence[AlertTransition]) -> None:
        for transition in transitions:
            alert = self._board.open.get(transition.id)
            if alert is not None and alert.note and transition.state == "firing":
                transition.reason = f"{transition.reason}; {alert.note}"

    # --- state ----------------------------------------------------------------------------------------------------

    def sections(self, *, changed_only: bool = False) -> list[StateSection]:
        """The state as of the last window folded; with `changed_only` the sections that changed since the last call. A
        section whose data is `null` is gone."""
        keys = sorted(self._changed if changed_only else self._apps)
        data = {
            "clock": msgspec.Raw(msgspec.json.encode(_Clock(self.window, self._clock, self._operations.overflow_clock))),
            **self._rollup.sections(changed_only=changed_only),
            "alerts": pack(self._board.state()),
            "policy": pack(self._policy.state()),
            "rollout": pack(self._rollout.state()),
            **{_section(key): monitor_state.dump(self._apps[key]) for key in keys},
            **{_section(key): msgspec.Raw(b"null") for key in sorted(self._gone - self._apps.keys())},
        }
        self._changed, self._gone = set(), set()
        return [StateSection(shard=self.shard, section=name, window=self.window or 0, data=raw) for name, raw in data.items()]

    @classmethod
    def restore(cls, shard: int, configs: Configs, sections: Iterable[StateSection], *, cell_names: Sequence[str] = ()) -> "Fold":
        """A fold that goes on as the one that wrote `sections` (the newest of each name; those of others are passed over)."""
        fold = cls(shard, configs, cell_names=cell_names)
        rollout: RolloutState | None = None
        for section in sections:
            match section.section.partition("/")[0]:
                case "clock":
                    clock = msgspec.json.decode(section.data, type=_Clock)
                    fold._clock, fold._operations.overflow_clock = clock.clock, clock.overflow
                    fold.window = clock.window
                case "minute" | "periods":
                    fold._rollup.load(section.section, section.data)
                case "alerts":
                    fold._board = Board(unpack(section.data, BoardState))
                case "policy":
                    fold._policy = Policy(unpack(section.data, PolicyState))
                case "rollout":
                    rollout = unpack(section.data, RolloutState)
                case "app" if bytes(section.data) != b"null":
                    monitor = monitor_state.load(section.data)
                    fold._apps[monitor.app, monitor.environment] = monitor
                case _:
                    pass
        fold._rollout = Rollout(fold._policy, rollout)
        for key in fold._apps:
            fold._schedule(key)
        return fold


def _section(key: AppKey) -> str:
    return f"app/{digest_of(key)}"
