"""From alerts, commands and past steps to actions, each with its reason, and with a reason where there is none.

An action is identified by hash(incident, kind, target, attempt): one cause acts once. The attempt rises only after an
action was superseded, or expired without a start.
"""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Final

import msgspec

from core.actions import next_step
from core.alerting import Board
from core.detection.history import BEFORE_MS, Busiest
from core.detection.slices import slice_version
from core.identity import OTHER
from core.incident import Alert, Moment, covers, digest_of
from core.rules import mode_of
from schemas.codec import rfc3339
from schemas.messages import (
    WINDOW_MS,
    ActionKind,
    ActionState,
    ActionStep,
    ActionTarget,
    Command,
    Mode,
    Precondition,
    Scalar,
)

FIRST_STATE: Final[dict[Mode, ActionState]] = {"suggest": "suggested", "approve": "waiting", "auto": "requested"}
UNSTARTED: Final[frozenset[ActionState]] = frozenset({"suggested", "waiting", "requested"})
RUNNING: Final[frozenset[ActionState]] = frozenset({"waiting", "requested", "started"})
FINAL: Final[frozenset[ActionState]] = frozenset({"succeeded", "failed", "rejected", "no_target"})
OVER: Final[frozenset[ActionState]] = FINAL | {"unverified", "superseded", "expired"}
KEPT_MS: Final = 7 * 86_400_000
"""How long an action that is over is remembered."""

MAX_ATTEMPTS: Final = 5
"""So often is an action asked for that workers find superseded."""
ABORTED_MS: Final = 60_000
"""What a candidate answers so soon after its canary was aborted needs no rollback: those are the last of its requests."""

BusiestBefore = Callable[[str, str, int, Sequence[str]], Busiest]
"""(app, environment, onset, excluded versions) → the version with most records in the 10 minutes before the onset."""


class Action(msgspec.Struct):
    """An action as its last step left it; `window` is that of its first step."""

    step: ActionStep
    rule: str
    window: int
    last_window: int
    begun: bool = False
    """A worker started it at some time."""

    @property
    def state(self) -> ActionState:
        return self.step.state

    def expires(self) -> int:
        return self.window + WINDOW_MS + self.step.ttl_s * 1000


class Hold(msgspec.Struct):
    """A person rolled an app back: no action of ours changes that."""

    app: str
    environment: str | None
    actor: str


class RouteEpoch(msgspec.Struct):
    """The newest epoch of an app's route table that a writer of it spoke of."""

    app: str
    environment: str
    epoch: int


class Champions(msgspec.Struct):
    """The versions that were an app's champion, as the writers of its route said, the present one last."""

    app: str
    environment: str
    versions: list[str] = []


CHAMPIONS_KEPT: Final = 20


class PolicyState(msgspec.Struct):
    actions: list[Action] = []
    holds: list[Hold] = []
    kill_switch: bool = False
    """Set by command; the rules have a switch of their own."""
    epochs: list[RouteEpoch] = []
    champions: list[Champions] = []


def action_id(incident: str, kind: ActionKind, target: ActionTarget, attempt: int) -> str:
    """hash(incident, kind, target, attempt). The target of a rollback is the bad version, whatever it goes back to."""
    return digest_of((incident, kind, target.app, target.environment, target.version or "", str(attempt)))


def whole(value: Scalar | None) -> int | None:
    """A step's or command's number, where it is a whole one."""
    return value if type(value) is int and value >= 0 else None


class Policy:
    """Every action of a shard that is not long over, the human holds, the kill switch."""

    def __init__(self, state: PolicyState | None = None) -> None:
        state = state or PolicyState()
        self.actions = {action.step.id: action for action in state.actions}
        self.holds = list(state.holds)
        self.kill_switch = state.kill_switch
        self.epochs = {(known.app, known.environment): known.epoch for known in state.epochs}
        self._champions = {(known.app, known.environment): list(known.versions) for known in state.champions}

    def state(self) -> PolicyState:
        epochs = [RouteEpoch(app, environment, epoch) for (app, environment), epoch in sorted(self.epochs.items())]
        champions = [Champions(app, environment, list(v)) for (app, environment), v in sorted(self._champions.items())]
        return PolicyState(list(self.actions.values()), self.holds, self.kill_switch, epochs, champions)

    # --- what others say ----------------------------------------------------------------------------------------

    def step(self, step: ActionStep, board: Board, moment: Moment) -> bool:
        """Take a step that a worker or a person wrote; whether it counts. The fold's own steps are no input
        (`core.shard.is_own`)."""
        action = self.actions.get(step.id)
        if action is None or step == action.step or action.state in FINAL or step.sequence < action.step.sequence:
            return False
        self._learn_epoch(step.target.app, step.target.environment, step.data.get("epoch"))
        if step.kind == "canary" and action.state in ("superseded", "expired"):
            action.begun |= step.state == "started"  # the worker sees that it is over, and takes the candidate back
            return False
        action.step = step
        action.last_window = moment.window
        action.begun |= step.state == "started"
        if step.kind == "canary" and step.state == "succeeded":
            self._learn_champion(step.target.app, step.target.environment, step.target.version)
        elif step.kind == "rollback" and step.phase == "routed":
            self._learn_champion(step.target.app, step.target.environment, step.data.get("champion"))
        if step.state == "superseded" and step.incident in board.open:
            board.open[step.incident].judged = False
        return True

    def _learn_epoch(self, app: str, environment: str, epoch: Scalar | None) -> None:
        known = whole(epoch)
        if known is not None:
            self.epochs[app, environment] = max(known, self.epochs.get((app, environment), 0))

    def _learn_champion(self, app: str, environment: str, version: Scalar | None) -> None:
        if isinstance(version, str) and version:
            known = self._champions.setdefault((app, environment), [])
            if known[-1:] != [version]:
                known.append(version)
                del known[:-CHAMPIONS_KEPT]

    def _champion_before(self, app: str, environment: str, bad: Collection[str]) -> str | None:
        """The last champion that is neither bad nor has been rolled back itself; None where none is known."""
        off = {a.step.target.version for a in self.of_app(app, environment, "rollback") if a.begun}
        return next((v for v in reversed(self._champions.get((app, environment), [])) if v not in bad and v not in off), None)

    def command(self, command: Command, moment: Moment) -> list[ActionStep]:
        """Approve, reject, roll back (and release the hold with argument `hold` false), kill switch (argument `on`)."""
        said = f"{command.actor}: {command.reason}" if command.reason else command.actor
        if command.kind in ("roll_back", "deploy_marker") and command.app and command.environment:
            self._learn_epoch(command.app, command.environment, command.arguments.get("epoch"))
            if "epoch" in command.arguments:
                chosen_version = "to_version" if command.kind == "roll_back" else "version"
                self._learn_champion(command.app, command.environment, command.arguments.get(chosen_version))
        match command.kind:
            case "approve":
                blocked = self.kill_switch or moment.rules.kill_switch
                chosen = [a for a in self._named(command) if a.state == "waiting" and not blocked and moment.end < a.expires()]
                return [self.go_on(a, "requested", moment, f"approved by {said}", command.actor) for a in chosen]
            case "reject":
                chosen = [a for a in self._named(command) if a.state in UNSTARTED]
                return [self.go_on(a, "rejected", moment, f"rejected by {said}", command.actor) for a in chosen]
            case "roll_back":
                return self._roll_back(command, moment, said)
            case "kill_switch":
                self.kill_switch = bool(command.arguments.get("on", True))
                chosen = self._unstarted() if self.kill_switch else []
                return [self.go_on(a, "superseded", moment, f"kill switch by {said}", command.actor) for a in chosen]
            case _:
                return []

    def _named(self, command: Command) -> list[Action]:
        action = self.actions.get(command.action or "")
        return [action] if action is not None else []

    def _unstarted(self) -> list[Action]:
        return sorted((a for a in self.actions.values() if a.state in UNSTARTED), key=lambda action: action.step.id)

    def _roll_back(self, command: Command, moment: Moment, said: str) -> list[ActionStep]:
        app, environment = command.app or "", command.environment
        self.holds = [hold for hold in self.holds if (hold.app, hold.environment) != (app, environment)]
        if not command.arguments.get("hold", True):
            return []
        self.holds.append(Hold(app, environment, command.actor))
        return [
            self.go_on(action, "superseded", moment, f"rolled back by {said}", command.actor)
            for action in self._unstarted()
            if action.step.kind in ("rollback", "canary")
            and action.step.target.app == app
            and covers(action.step.target.environment, environment)
        ]

    # --- what follows -------------------------------------------------------------------------------------------

    def advance(self, board: Board, moment: Moment, busiest_before: BusiestBefore) -> list[ActionStep]:
        """Expire what nobody started, then judge the firing alerts by rule id. An alert's `note` says why nothing follows."""
        out = []
        for action in self._unstarted():
            if moment.end >= action.expires():
                out.append(self.go_on(action, "expired", moment, f"not started within {action.step.ttl_s} s", "controller"))
        self._forget(board, moment)
        if moment.catching_up:
            return out
        # What was acknowledged while it was pending or explained has not fired.
        fired = [a for a in board.open.values() if a.state in ("firing", "acknowledged") and a.fired_window is not None]
        unjudged = [a for a in fired if a.rule.action and not a.judged]
        for alert in sorted(unjudged, key=lambda a: (a.rule.id, a.app, a.environment, a.slice)):
            assert alert.rule.action is not None
            step = self._judge(alert, alert.rule.action, board, moment, busiest_before)
            if step is not None:
                out.append(step)
        return out

    def _forget(self, board: Board, moment: Moment) -> None:
        for id_, action in list(self.actions.items()):
            if action.state in OVER and action.step.incident not in board.open and moment.window - action.last_window > KEPT_MS:
                del self.actions[id_]

    def _judge(
        self, alert: Alert, kind: ActionKind, board: Board, moment: Moment, busiest_before: BusiestBefore
    ) -> ActionStep | None:
        target = ActionTarget(app=alert.app, environment=alert.environment, version=slice_version(alert.slice))
        final = self._why_never(alert, kind, target, moment)
        if final is not None:
            alert.judged, alert.note = True, final
            return None
        later = self._why_not_now(alert, kind, moment)
        if later is not None:
            alert.note = later
            return None
        alert.judged, alert.note = True, ""
        evidence = [alert.cause, f"alert {alert.id}"]
        first = FIRST_STATE[mode_of(alert.rule, moment.rules, alert.app, alert.environment)]
        if kind == "retrain":
            return self._ask(alert, kind, target, first, alert.cause, evidence, moment)
        bad = {version for a in board.matching(alert.app, alert.environment, alert.metric) if (version := slice_version(a.slice))}
        bad |= self._unproven(alert.app, alert.environment, alert.onset - BEFORE_MS)
        target.to_version = self._champion_before(alert.app, alert.environment, bad)
        if target.to_version is not None:
            evidence.append(f"{target.to_version} was the champion before")
            return self._ask(alert, kind, target, first, alert.cause, evidence, moment)
        busiest = busiest_before(alert.app, alert.environment, alert.onset, sorted(bad))
        target.to_version, when = busiest.version, _time_before(busiest, alert.onset)
        if target.to_version is None:
            reason = f"no target: {when} no other version had a record"
            return self._ask(alert, kind, target, "no_target", reason, evidence, moment)
        evidence.append(f"{target.to_version} had most records {when}")
        return self._ask(alert, kind, target, first, alert.cause, evidence, moment)

    def _unproven(self, app: str, environment: str, since: int) -> set[str]:
        """Candidates whose canary went on since then and has not succeeded: nobody goes back to them."""
        canaries = [a for a in self.of_app(app, environment, "canary") if a.begun and a.state != "succeeded"]
        recent = [a.step.target.version for a in canaries if a.state not in OVER or a.last_window >= since]
        return {version for version in recent if version is not None}

    def of_app(self, app: str, environment: str, kind: ActionKind) -> list[Action]:
        """The actions of a kind for an app, by id."""
        chosen = [a for a in self.actions.values() if a.step.kind == kind and a.step.target.app == app]
        return sorted((a for a in chosen if a.step.target.environment == environment), key=lambda action: action.step.id)

    def attempts(self, incident: str, kind: ActionKind, version: str | None) -> list[Action]:
        """What an incident has asked for already."""
        same = (incident, kind, version)
        return [a for a in self.actions.values() if (a.step.incident, a.step.kind, a.step.target.version) == same]

    def _why_never(self, alert: Alert, kind: ActionKind, target: ActionTarget, moment: Moment) -> str | None:
        ttl_ms = alert.rule.ttl_s * 1000
        if kind == "rollback" and target.version is None:
            return "no action: it is on no version of its own"
        if kind == "rollback" and target.version == OTHER:
            return "no action: it is on versions that are counted together"
        if kind == "rollback" and not alert.upward:
            return "no action: the rate fell"
        attempts = self.attempts(alert.id, kind, target.version)
        if any(a.begun or a.state not in ("superseded", "expired") for a in attempts):
            return "no action: this incident has had its action"
        if len(attempts) >= MAX_ATTEMPTS:
            return f"no action: superseded {len(attempts)} times, the last time because {attempts[-1].step.reason}"
        for canary in self.of_app(alert.app, alert.environment, "canary") if kind == "rollback" else ():
            over = canary.state == "failed" or canary.step.phase == "abort"
            if canary.step.target.version == target.version and over and canary.last_window >= alert.onset - ABORTED_MS:
                return f"no action: its canary {canary.step.id} has been aborted"
        if alert.caught_up and moment.end - alert.onset > ttl_ms:
            return f"no action: stale, it began at {rfc3339(alert.onset)}"
        if alert.fired_window is not None and moment.window - alert.fired_window > ttl_ms:
            return "no action: stale, what stood against it lasted longer than its time to live"
        return None

    def _why_not_now(self, alert: Alert, kind: ActionKind, moment: Moment) -> str | None:
        forbidden = self.killed(moment) or (self.held(alert.app, alert.environment) if kind == "rollback" else None)
        if forbidden is not None:
            return f"no action: {forbidden}"
        for action in self.actions.values():
            target = action.step.target
            if (action.step.kind, target.app, target.environment) != (kind, alert.app, alert.environment):
                continue
            if action.state in RUNNING:
                return f"no action: {action.step.id} is under way"
            other = action.step.incident != alert.id and action.state != "no_target"
            if other and moment.window - action.window < alert.rule.cooldown_s * 1000:
                return f"no action: {action.step.id} was asked for within the cooldown of {alert.rule.cooldown_s} s"
        return None

    def killed(self, moment: Moment) -> str | None:
        """Why nothing may begin at all."""
        return "the kill switch is on" if self.kill_switch or moment.rules.kill_switch else None

    def held(self, app: str, environment: str) -> str | None:
        """Why nobody but a person changes an app's route."""
        for hold in self.holds:
            if hold.app == app and covers(environment, hold.environment):
                return f"{hold.actor} rolled this app back, and a person's decision stands"
        return None

    def _ask(
        self,
        alert: Alert,
        kind: ActionKind,
        target: ActionTarget,
        state: ActionState,
        reason: str,
        evidence: Iterable[str],
        moment: Moment,
    ) -> ActionStep:
        epoch = self.epochs.get((alert.app, alert.environment)) if kind == "rollback" else None
        attempt = 1 + max((a.step.attempt for a in self.attempts(alert.id, kind, target.version)), default=0)
        step = ActionStep(
            id=action_id(alert.id, kind, target, attempt),
            shard=moment.shard,
            sequence=1,
            incident=alert.id,
            kind=kind,
            target=target,
            mode=mode_of(alert.rule, moment.rules, alert.app, alert.environment),
            state=state,
            attempt=attempt,
            window=moment.window,
            ttl_s=alert.rule.ttl_s,
            reason=reason,
            precondition=Precondition(route_epoch=epoch, version=target.version),
            evidence=list(evidence),
            config=moment.config,
            rules=moment.rules_digest,
        )
        self.actions[step.id] = Action(step, alert.rule.id, moment.window, moment.window)
        return step

    def go_on(
        self,
        action: Action,
        state: ActionState,
        moment: Moment,
        reason: str,
        actor: str,
        *,
        phase: str | None = None,
        data: Mapping[str, Scalar] | None = None,
        evidence: Iterable[str] = (),
    ) -> ActionStep:
        """The fold's own next step of an action."""
        last = action.step
        following = next_step(
            last, state, last.phase if phase is None else phase, reason, actor=actor, data=data, evidence=evidence
        )
        step = msgspec.structs.replace(following, window=moment.window, config=moment.config, rules=moment.rules_digest)
        action.step, action.last_window = step, moment.window
        return step


def _time_before(busiest: Busiest, onset: int) -> str:
    """The time that a target was looked for in, in words."""
    if (busiest.start, busiest.end) == (onset - BEFORE_MS, onset):
        return f"in the 10 minutes before {rfc3339(onset)}"
    remembered = f"from {rfc3339(busiest.start)} to {rfc3339(busiest.end)}"
    return f"{remembered} (all that is remembered, not the 10 minutes before {rfc3339(onset)})"
