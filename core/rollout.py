"""From candidate to champion: which canaries are asked for, and what each one's evidence leads to, step by step.

The worker answers every step of ours; until it has, nothing is written. The worse outcome comes first: a rollback of either
version, harm, then the deadline; what stands in the way of going on (a kill switch, a rollback that waits for a person) never
stands in the way of taking a candidate back.
"""

from collections.abc import Sequence
from typing import Final

import msgspec

from core.attribution import DEFAULT_ENVIRONMENT
from core.canary import ROWS
from core.canary_run import Canary
from core.detection.explain import six_digits
from core.incident import Moment, covers, digest_of
from core.policy import FIRST_STATE, OVER, RUNNING, Action, Policy, action_id, whole
from core.rules import app_policy
from schemas.limits import MAX_NAME
from schemas.messages import (
    ActionKind,
    ActionState,
    ActionStep,
    ActionTarget,
    Cohort,
    Command,
    Mode,
    Precondition,
    Scalar,
)

RELEASE_TTL_S: Final = 3_600
"""How long what a person released may wait for its worker."""
RELEASE_RULE: Final = "release"
MAX_REASON: Final = 2_000


class Wish(msgspec.Struct):
    """An action that follows from a command or from another action; it is asked for when nothing is caught up with."""

    kind: ActionKind
    target: ActionTarget
    incident: str
    rule: str
    mode: Mode
    ttl_s: int
    reason: str
    window: int
    actor: str = "controller"
    champion: str | None = None
    data: dict[str, Scalar] = {}
    evidence: list[str] = []


class RolloutState(msgspec.Struct):
    wishes: list[Wish] = []
    canaries: list[Canary] = []


class Rollout:
    """What is to be asked for, and the canaries under way; their actions are the policy's."""

    def __init__(self, policy: Policy, state: RolloutState | None = None) -> None:
        state = state or RolloutState()
        self._policy = policy
        self._wishes = list(state.wishes)
        self._canaries = {canary.id: canary for canary in state.canaries}

    def state(self) -> RolloutState:
        return RolloutState(self._wishes, [canary for _, canary in sorted(self._canaries.items())])

    # --- what others say ----------------------------------------------------------------------------------------

    def command(self, command: Command, moment: Moment) -> None:
        """A person releases a version through gate and canary (arguments `version`, `gate`: false goes to the canary at once),
        or has changed the route: then a canary on it is over."""
        if command.kind == "release":
            self._wishes.append(_released(command, moment))
        elif (by := _changed_by(command)) is not None:
            for canary in self._canaries.values():
                if canary.app == command.app and covers(canary.environment, command.environment):
                    canary.stopped = by

    def step(self, step: ActionStep, moment: Moment) -> None:
        """Take a worker's step that counts for the policy."""
        if step.kind in ("retrain", "evaluate") and step.state == "succeeded":
            version = _name(step.data.get("version"))
            if version is not None:
                self._wishes.append(_passed(step, version, self._policy.actions[step.id].rule, moment))
        elif step.kind == "canary" and step.state in OVER:
            self._canaries.pop(step.id, None)
        elif step.kind == "canary" and step.state == "started" and step.phase == "step":
            self._continue(step, moment)

    def _continue(self, step: ActionStep, moment: Moment) -> None:
        epoch, weight, number = (whole(step.data.get(name)) for name in ("epoch", "weight", "step"))
        candidate, target = step.target.version, step.target
        if epoch is None or weight is None or number is None or candidate is None:
            return
        canary = self._canaries.get(step.id)
        if canary is None:
            rules = app_policy(moment.rules, target.app, target.environment).canary or moment.rules.canary
            canary = self._canaries[step.id] = Canary(
                id=step.id,
                app=target.app,
                environment=target.environment,
                candidate=candidate,
                champion=step.precondition.version or _name(step.data.get("champion")),
                rules=rules,
                began=moment.window,
                first_epoch=epoch,
            )
        elif epoch <= canary.weights[-1][0]:
            return
        canary.begin_step(number, epoch, weight, moment.window)

    # --- what follows -------------------------------------------------------------------------------------------

    def observe(self, cohorts: Sequence[Cohort]) -> None:
        """Take one window's cohorts."""
        for _, canary in sorted(self._canaries.items()):
            canary.take([c for c in cohorts if (c.app, c.environment) == (canary.app, canary.environment)])

    def advance(self, moment: Moment) -> list[ActionStep]:
        """Ask for what was wished, in its order, then decide about the canaries under way, by id."""
        if moment.catching_up:
            return []
        out = [self._ask(wish, moment) for wish in self._wishes]
        self._wishes = []
        for id_, canary in sorted(self._canaries.items()):
            action = self._policy.actions.get(id_)
            if action is None or action.state != "started":
                del self._canaries[id_]
            elif action.step.phase == "step":
                step = self._decide(canary, action, moment)
                if step is not None:
                    out.append(step)
        return out

    def _ask(self, wish: Wish, moment: Moment) -> ActionStep:
        against = self._why_not(wish, moment)
        state: ActionState = "superseded" if against else FIRST_STATE[wish.mode]
        earlier = self._policy.attempts(wish.incident, wish.kind, wish.target.version)
        attempt = 1 + max((a.step.attempt for a in earlier), default=0)
        data = dict(wish.data)
        if wish.kind == "canary":
            rules = app_policy(moment.rules, wish.target.app, wish.target.environment).canary or moment.rules.canary
            data |= {"weight": rules.weights[0], "step": 0}
        step = ActionStep(
            id=action_id(wish.incident, wish.kind, wish.target, attempt),
            shard=moment.shard,
            sequence=1,
            incident=wish.incident,
            kind=wish.kind,
            target=wish.target,
            mode=wish.mode,
            state=state,
            attempt=attempt,
            window=moment.window,
            ttl_s=wish.ttl_s,
            reason=f"no {wish.kind}: {against}" if against else wish.reason,
            actor=wish.actor,
            precondition=Precondition(version=wish.champion),
            evidence=wish.evidence,
            data=data,
            config=moment.config,
            rules=moment.rules_digest,
        )
        self._policy.actions[step.id] = Action(step, wish.rule, moment.window, moment.window)
        return step

    def _why_not(self, wish: Wish, moment: Moment) -> str | None:
        target = wish.target
        forbidden = self._policy.killed(moment) or self._policy.held(target.app, target.environment)
        if forbidden is not None:
            return forbidden
        if moment.window - wish.window > wish.ttl_s * 1000:
            return "stale, what stood against it lasted longer than its time to live"
        for action in self._policy.of_app(target.app, target.environment, "canary"):
            if action.state in RUNNING:
                return f"{action.step.id} is under way, and there is one candidate at a time"
        return None

    def _decide(self, canary: Canary, action: Action, moment: Moment) -> ActionStep | None:
        if canary.stopped:
            return self._abort(canary, action, moment, canary.stopped)
        rollbacks = self._rollbacks(canary)
        gone = [a for a in rollbacks if a.state in ("succeeded", "unverified")]
        if gone:
            return self._abort(canary, action, moment, f"{gone[0].step.target.version} was rolled back by {gone[0].step.id}")
        if any(a.state in ("requested", "started") for a in rollbacks):
            return None  # that takes the candidate back, or changes what it is compared with
        trial = canary.trial()
        harmful = trial.harmful()
        if harmful:
            value, limit = six_digits(trial.harm(harmful[0])), six_digits(trial.harm_limit)
            reason = f"harm: {trial.figures(harmful[0])}; e-value {value:g}, limit {limit:g}"
            return self._abort(canary, action, moment, reason, {"harm": harmful[0], "e_value": value})
        asked = [a for a in rollbacks if a.state in ("suggested", "waiting")]
        waits = self._policy.killed(moment) or (f"a person is asked to roll back by {asked[0].step.id}" if asked else None)
        if waits is None and canary.is_step_over(moment.window):
            if not canary.is_last_step:
                return self._next_step(canary, action, moment)
            if not trial.unproven():
                return self._promote(canary, action, moment)
        if moment.end - canary.began >= canary.rules.max_s * 1000:
            missing = "; ".join(trial.figures(name) for name in trial.unproven())
            reason = (
                f"no evidence by the deadline: {missing}"
                if missing
                else f"not gone on with by the deadline: {waits or 'too few answers'}"
            )
            return self._abort(canary, action, moment, reason)
        return None

    def _rollbacks(self, canary: Canary) -> list[Action]:
        """Of the candidate or the champion, since the canary began."""
        own = {canary.candidate, canary.champion} - {None}
        among = self._policy.of_app(canary.app, canary.environment, "rollback")
        return [a for a in among if a.step.target.version in own and (a.state not in OVER or a.last_window >= canary.began)]

    def _next_step(self, canary: Canary, action: Action, moment: Moment) -> ActionStep:
        number = canary.step + 1
        weight = canary.rules.weights[number]
        seconds = (moment.window - canary.step_began) // 1000
        reason = f"no harm shown in {seconds} s and {canary.step_units} answers of the candidate at step {canary.step}"
        data: dict[str, Scalar] = {"step": number, "weight": weight}
        return self._go_on(canary, action, moment, "advance", reason, data, [])

    def _promote(self, canary: Canary, action: Action, moment: Moment) -> ActionStep:
        rules = canary.rules
        reason = (
            f"{canary.candidate} is not worse than {canary.champion or 'the champion'} on {', '.join(ROWS)}: odds ratio below "
            f"{rules.margin:g}, or at most {100 * rules.tolerable:g} % of failures, each at level {rules.alpha:g}"
        )
        return self._go_on(canary, action, moment, "promote", reason, {}, self._evidence(canary))

    def _abort(
        self, canary: Canary, action: Action, moment: Moment, reason: str, data: dict[str, Scalar] | None = None
    ) -> ActionStep:
        return self._go_on(canary, action, moment, "abort", reason, data or {}, self._evidence(canary))

    def _evidence(self, canary: Canary) -> list[str]:
        return [canary.trial().figures(name) for name in ROWS]

    def _go_on(
        self,
        canary: Canary,
        action: Action,
        moment: Moment,
        phase: str,
        reason: str,
        data: dict[str, Scalar],
        evidence: Sequence[str],
    ) -> ActionStep:
        warning = canary.trial().uneven()
        said = f"{reason}; {warning}" if warning else reason
        return self._policy.go_on(
            action, "started", moment, said[:MAX_REASON], "controller", phase=phase, data=data, evidence=evidence
        )


def _passed(step: ActionStep, version: str, rule: str, moment: Moment) -> Wish:
    """The canary of a version that a worker's gate let through."""
    return Wish(
        kind="canary",
        target=ActionTarget(app=step.target.app, environment=step.target.environment, version=version),
        incident=step.incident,
        rule=rule,
        mode=step.mode,
        ttl_s=step.ttl_s,
        reason=f"{version} passed the gate: {step.reason}"[:MAX_REASON],
        window=moment.window,
        champion=_name(step.data.get("champion")),
        data={"gate": "passed", "parent": step.id},
        evidence=[step.reason[:MAX_REASON], f"action {step.id}"],
    )


def _released(command: Command, moment: Moment) -> Wish:
    """The evaluation of a version that a person wants, or its canary without one."""
    version = str(command.arguments.get("version"))
    gated = bool(command.arguments.get("gate", True))
    said = f"{command.actor}: {command.reason}" if command.reason else command.actor
    return Wish(
        kind="evaluate" if gated else "canary",
        target=ActionTarget(app=command.app or "", environment=command.environment or DEFAULT_ENVIRONMENT, version=version),
        incident=digest_of((RELEASE_RULE, command.id)),
        rule=RELEASE_RULE,
        mode="auto",
        ttl_s=RELEASE_TTL_S,
        reason=f"{version} released by {said}" if gated else f"{version} released without the gate by {said}",
        window=moment.window,
        actor=command.actor,
        data={} if gated else {"ungated_by": command.actor},
        evidence=[f"command {command.id}"],
    )


def _name(value: Scalar | None) -> str | None:
    return value if isinstance(value, str) and 0 < len(value) <= MAX_NAME else None


def _changed_by(command: Command) -> str | None:
    """What a person did to an app's route that ends a canary; a deploy marker without an epoch has changed none."""
    if command.kind == "roll_back" and command.arguments.get("hold", True):
        return f"{command.actor} rolled this app back"
    if command.kind == "deploy_marker" and whole(command.arguments.get("epoch")) is not None:
        return f"{command.actor} released {command.arguments.get('version', 'another version')}"
    return None
