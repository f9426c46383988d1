"""What comes next for a rollback or a canary: from its steps, the present route table and the gateways' reports."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final

from core.actions import Known, next_step
from core.routing import Refused, with_candidate, with_champion, without_candidate
from core.verification import UNVERIFIED_AFTER_MS, Heard, Question, verify
from schemas.messages import WEIGHT_ONE, ActionState, ActionStep, CallConfiguration, RouteTable, Scalar

KINDS: Final = ("rollback", "canary")
"""In the order in which they are carried out."""
ACTOR: Final = "deploy worker"

Configuration = Callable[[str, str, str], CallConfiguration]
"""(app, environment, version) → what the registry holds. Raises UnknownVersion, RegistryAway."""


class UnknownVersion(LookupError):
    """The registry has no such version of the app."""


class RegistryAway(RuntimeError):
    """The registry does not answer: worth trying again."""


@dataclass(frozen=True)
class Change:
    """Write this table, and the step with it, in one transaction; without a step where the action has ended."""

    table: RouteTable
    step: ActionStep | None
    reason: str


@dataclass(frozen=True)
class Write:
    """Write this step."""

    step: ActionStep

    @property
    def reason(self) -> str:
        return self.step.reason


@dataclass(frozen=True)
class Wait:
    """Look again when something has come, or later."""

    reason: str


Decision = Change | Write | Wait


@dataclass(frozen=True)
class Present:
    """What is known besides the action. `now`: the broker's time, ms; `committed`: the append time of the present table."""

    table: RouteTable | None
    now: int
    fleet: Iterable[Heard] = ()
    committed: int | None = None
    champion_since: int | None = None
    """Since when the action's version has been the present champion: core.verification.Routes."""


def reconcile(known: Known, present: Present, configuration: Configuration) -> Decision:
    """The next thing to do for an action. Doing it and asking again comes to an end; what has been done is not done twice."""
    if known.step.kind == "rollback":
        return _rollback(known, present, configuration)
    if known.step.kind == "canary":
        return _canary(known, present, configuration)
    return Wait(f"{known.step.kind} is not the deploy worker's")


def leftover(known: Known, table: RouteTable | None) -> Change | None:
    """A canary that ended by another hand (a kill switch, a person) while its candidate still answers: take it back."""
    step = known.step
    if step.kind != "canary" or table is None or table.candidate is None or table.action != step.id:
        return None
    reason = f"the canary of {table.candidate} is {step.state}: {step.reason}"
    return Change(without_candidate(table, actor=ACTOR, reason=reason, action=step.id), None, reason)


# --- rollback -------------------------------------------------------------------------------------------------------


def _rollback(known: Known, present: Present, configuration: Configuration) -> Decision:
    step, table = known.step, present.table
    bad = step.target.version
    if step.state != "requested":
        return _verification(known, present)
    if present.now >= known.expires:
        return _end(step, "superseded", f"too late: it was to start within {step.ttl_s} s")
    if table is None:
        return _end(step, "failed", f"{step.target.app} has no route: nothing here can switch its version")
    if table.action == step.id:
        return Wait("the route has been changed, the step is on its way")
    if table.hold is not None:
        return _end(step, "superseded", f"{table.hold} rolled {table.app} back, and a person's decision stands")
    if bad is None or bad not in (table.champion, table.candidate):
        return _end(step, "superseded", f"{bad} does not answer any more: at epoch {table.epoch} it is {table.champion}")
    wanted = step.precondition.route_epoch
    if wanted not in (None, table.epoch) and bad != table.candidate:
        return _end(step, "superseded", f"asked for at epoch {wanted}, and the route is at epoch {table.epoch}")
    try:
        changed = _rolled_back(step, table, bad, configuration)
    except RegistryAway as error:
        return Wait(f"waiting for the registry: {error}")
    except (Refused, UnknownVersion) as error:
        return _end(step, "failed", str(error))
    data: dict[str, Scalar] = {"epoch": changed.epoch, "champion": changed.champion, "from_champion": table.champion}
    if table.candidate is not None:
        data["from_candidate"] = table.candidate
    if present.champion_since is not None:
        data["champion_since"] = present.champion_since
    reason = f"epoch {changed.epoch}: {changed.champion} answers in place of {bad}"
    return Change(changed, next_step(step, "started", "routed", reason, actor=ACTOR, data=data), reason)


def _rolled_back(step: ActionStep, table: RouteTable, bad: str, configuration: Configuration) -> RouteTable:
    reason = step.reason
    if bad == table.candidate:
        return without_candidate(table, actor=ACTOR, reason=reason, action=step.id, bad=[bad])
    to = step.target.to_version or table.previous
    if to is None or to == bad:
        raise Refused(f"there is no version to go back to from {bad}")
    if to in table.bad:
        raise Refused(f"{to} was rolled back itself")
    held = table.versions.get(to) or configuration(table.app, table.environment, to)
    return with_champion(table, to, held, actor=ACTOR, reason=reason, action=step.id, bad=[bad])


def question(step: ActionStep, committed: int) -> Question | None:
    """What a rollback that was routed is verified by; None for data that does not say it."""
    epoch, since = step.data.get("epoch"), step.data.get("champion_since")
    if type(epoch) is not int or step.target.version is None:
        return None
    return Question(
        app=step.target.app,
        environment=step.target.environment,
        epoch=epoch,
        bad=frozenset({step.target.version}),
        committed=committed,
        champion_since=since if type(since) is int else None,
    )


def _verification(known: Known, present: Present) -> Decision:
    step, table = known.step, present.table
    asked = question(step, present.committed or known.first)
    if asked is None:
        return _end(step, "failed", "its step does not say which epoch it wrote")
    answering = (table.champion, table.candidate) if table is not None and table.epoch > asked.epoch else ()
    if table is not None and step.target.version in answering:
        reason = f"{table.actor} let {step.target.version} answer again at epoch {table.epoch}"
        return _end(step, "superseded", reason)
    verdict = verify(asked, present.fleet, present.now)
    data: dict[str, Scalar] = {"gateways": len(verdict.confirmed), "running": verdict.running}
    if verdict.outcome == "verified":
        seconds = max(0, present.now - asked.committed) / 1000
        return Write(
            next_step(step, "succeeded", "verified", verdict.reason, actor=ACTOR, data=data | {"seconds": seconds, "waiting": ""})
        )
    if step.state == "started" and present.now - asked.committed >= UNVERIFIED_AFTER_MS:
        data["waiting"] = ", ".join(verdict.waiting)[:2_000]
        return Write(next_step(step, "unverified", "unverified", verdict.reason, actor=ACTOR, data=data))
    return Wait(verdict.reason)


# --- canary ---------------------------------------------------------------------------------------------------------


def _canary(known: Known, present: Present, configuration: Configuration) -> Decision:
    step, table = known.step, present.table
    version = step.target.version
    if table is None or version is None:
        return _end(step, "failed", f"{step.target.app} has no route yet: its first version is released by a person")
    if step.state == "requested":
        return _begin(known, present, table, version, configuration)
    if table.candidate != version or table.action != step.id:
        where = f"at epoch {table.epoch} {version} is not this canary's candidate any more ({table.actor}: {table.reason})"
        return _end(step, "failed" if version in table.bad else "superseded", where, "aborted")
    match step.phase:
        case "advance" | "promote" if version not in table.versions:
            return _abort(step, table, f"the route of {table.app} does not know the configuration of {version}")
        case "advance":
            return _step(step, table, version, table.versions[version])
        case "promote":
            return _promote(step, table, version)
        case "abort":
            return _abort(step, table, step.reason, bad=[version])
        case _:
            return Wait(f"{version} answers {table.weight / 100:g} % of the units")


def _begin(known: Known, present: Present, table: RouteTable, version: str, configuration: Configuration) -> Decision:
    step = known.step
    if present.now >= known.expires:
        return _end(step, "superseded", f"too late: it was to start within {step.ttl_s} s")
    if table.action == step.id:
        return Wait("the route has been changed, the step is on its way")
    if table.hold is not None:
        return _end(step, "superseded", f"{table.hold} rolled {table.app} back, and a person's decision stands")
    if step.precondition.route_epoch not in (None, table.epoch):
        asked = step.precondition.route_epoch
        return _end(step, "superseded", f"asked for at epoch {asked}, and the route is at epoch {table.epoch}")
    if step.precondition.version not in (None, table.champion):
        reason = f"it was judged against {step.precondition.version}, and now {table.champion} answers"
        return _end(step, "superseded", reason)
    if table.candidate is not None:
        return Wait(f"{table.candidate} is being tried; one candidate at a time")
    try:
        chosen = configuration(table.app, table.environment, version)
    except RegistryAway as error:
        return Wait(f"waiting for the registry: {error}")
    except UnknownVersion as error:
        return _end(step, "failed", str(error))
    return _step(step, table, version, chosen)


def _step(step: ActionStep, table: RouteTable, version: str, configuration: CallConfiguration) -> Decision:
    weight, number = step.data.get("weight"), step.data.get("step", 0)
    if type(weight) is not int or type(number) is not int or not 0 < weight <= WEIGHT_ONE:
        return _end(step, "failed", f"the action does not say which weight in (0, {WEIGHT_ONE}] the candidate gets")
    reason = f"step {number}: {version} answers {weight / 100:g} % of the units"
    try:
        changed = with_candidate(
            table, version, configuration, weight, experiment=step.id, actor=ACTOR, reason=reason, action=step.id
        )
    except Refused as error:
        return _end(step, "failed", str(error))
    data: dict[str, Scalar] = {"epoch": changed.epoch, "step": number, "weight": weight}
    return Change(changed, next_step(step, "started", "step", reason, actor=ACTOR, data=data), reason)


def _promote(step: ActionStep, table: RouteTable, version: str) -> Decision:
    released_by = step.data.get("ungated_by")
    if step.data.get("gate") != "passed" and not (isinstance(released_by, str) and released_by):
        return _abort(step, table, f"{version} is not promoted: it did not come through the gate, and nobody released it without")
    changed = with_champion(table, version, actor=ACTOR, reason=step.reason, action=step.id)
    reason = f"epoch {changed.epoch}: {version} answers everything"
    data: dict[str, Scalar] = {"epoch": changed.epoch, "champion": version, "previous": table.champion}
    return Change(changed, next_step(step, "succeeded", "promoted", reason, actor=ACTOR, data=data), reason)


def _abort(step: ActionStep, table: RouteTable, reason: str, bad: Iterable[str] = ()) -> Decision:
    changed = without_candidate(table, actor=ACTOR, reason=reason, action=step.id, bad=bad)
    data: dict[str, Scalar] = {"epoch": changed.epoch}
    return Change(changed, next_step(step, "failed", "aborted", reason, actor=ACTOR, data=data), reason)


def _end(step: ActionStep, state: ActionState, reason: str, phase: str = "") -> Decision:
    return Write(next_step(step, state, phase or step.phase or "refused", reason, actor=ACTOR))
