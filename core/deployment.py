"""What the deploy worker does next for an action: pure, so that any worker that reads the same log comes to the same step.

A change of the route and its step are written together, and what has been done already shows in the table: so a step may be
tried again by whoever comes next.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from core.actions import Known, next_step
from core.routing import Refused, with_candidate, with_champion, without_candidate
from core.verification import Reports, verify
from schemas.messages import ActionState, ActionStep, CallConfiguration, RouteTable, Scalar

ACTOR: Final = "deploy worker"
KINDS: Final = ("rollback", "canary")

Configuration = Callable[[str], CallConfiguration | None]
"""A registry version's configuration; None: there is no such version."""


@dataclass(frozen=True)
class Change:
    """A new table, and the step that says so, in one transaction."""

    table: RouteTable
    step: ActionStep


@dataclass(frozen=True)
class Say:
    """A step without a change of the route."""

    step: ActionStep


@dataclass(frozen=True)
class Wait:
    """Nothing to do yet."""

    reason: str


Next = Change | Say | Wait


def reconcile(known: Known, table: RouteTable | None, reports: Reports, configuration: Configuration, *, now: int) -> Next:
    """What comes next for a rollback or a canary, given the present table. `now` is the broker's time, ms."""
    step = known.step
    if step.state == "requested":
        refused = _why_not(known, table, now)
        if refused is not None:
            state, reason = refused
            return Say(next_step(step, state, step.phase, reason, actor=ACTOR))
    if table is None:
        return Say(next_step(step, "failed", step.phase, "the app has no route any more", actor=ACTOR))
    if step.kind == "rollback":
        return _roll_back(known, table, reports, configuration, now=now)
    return _canary(step, table, configuration)


def _why_not(known: Known, table: RouteTable | None, now: int) -> tuple[ActionState, str] | None:
    """Why an action that is asked for must not start, and what becomes of it."""
    step, before = known.step, known.step.precondition
    if now >= known.expires:
        return "superseded", f"stale: it was asked for more than {step.ttl_s} s ago"
    if table is None:
        return "failed", "the app has no route here: it is not behind the gateway, so it must be changed where it is deployed"
    if table.hold is not None:
        return "superseded", f"{table.hold} rolled this app back, and a person's decision stands"
    if before.route_epoch is not None and before.route_epoch != table.epoch:
        return "superseded", f"the route has gone from epoch {before.route_epoch} to {table.epoch} since it was asked for"
    if step.kind == "canary" and before.version is not None and before.version != table.champion:
        return "superseded", f"the champion is {table.champion}, not {before.version}"
    return None


# --- rollback ---------------------------------------------------------------------------------------------------------


def _roll_back(known: Known, table: RouteTable, reports: Reports, configuration: Configuration, *, now: int) -> Next:
    step, target = known.step, known.step.target
    bad = target.version or ""
    routed = bad in (table.champion, table.candidate)
    if step.state != "requested":
        return _verified(known, table, reports, now=now)
    if not routed:
        reason = f"{bad} is not routed any more (epoch {table.epoch}, {table.reason or table.actor})"
        return Say(next_step(step, "started", "routed", reason, actor=ACTOR, data={"epoch": table.epoch}))
    if bad == table.candidate:
        reason = f"{bad} is no candidate any more; {table.champion} answers everything"
        changed = without_candidate(table, actor=ACTOR, reason=reason, action=step.id, bad=[bad])
    else:
        to = target.to_version or table.previous
        if to is None or to == bad:
            return Say(next_step(step, "failed", step.phase, "there is no version to go back to", actor=ACTOR))
        known_to = table.versions.get(to) or configuration(to)
        if known_to is None:
            return Say(next_step(step, "failed", step.phase, f"the configuration of {to} is not known", actor=ACTOR))
        reason = f"{to} answers everything, {bad} nothing"
        changed = with_champion(table, to, known_to, actor=ACTOR, reason=reason, action=step.id, bad=[bad])
    data: dict[str, Scalar] = {"epoch": changed.epoch, "champion": changed.champion}
    return Change(changed, next_step(step, "started", "routed", reason, actor=ACTOR, data=data))


def _verified(known: Known, table: RouteTable, reports: Reports, *, now: int) -> Next:
    step, bad = known.step, known.step.target.version or ""
    epoch, changed = int(step.data.get("epoch", 0)), int(step.data.get("routed_at", known.last))
    if table.epoch > epoch and bad in (table.champion, table.candidate):
        reason = f"{table.actor} released {bad} again (epoch {table.epoch}): {table.reason}"
        return Say(next_step(step, "superseded", step.phase, reason, actor=ACTOR))
    verdict = verify(reports, step.target.app, step.target.environment, epoch, [bad], changed=changed, now=now)
    data: dict[str, Scalar] = {"seconds": (now - changed) / 1000, "running": verdict.running, "routed_at": changed}
    if verdict.outcome == "verified":
        return Say(next_step(step, "succeeded", "verified", verdict.reason, actor=ACTOR, data=data))
    waiting = ", ".join(sorted(verdict.waiting))
    if verdict.outcome == "unverified" and step.data.get("waiting") != waiting:
        return Say(next_step(step, "unverified", "unverified", verdict.reason, actor=ACTOR, data=data | {"waiting": waiting}))
    return Wait(verdict.reason)


# --- canary -----------------------------------------------------------------------------------------------------------


def _canary(step: ActionStep, table: RouteTable, configuration: Configuration) -> Next:
    version = step.target.version or ""
    weight, number = int(step.data.get("weight", 0)), int(step.data.get("step", 0))
    if step.state == "requested":
        if table.candidate not in (None, version):
            return Wait(f"{table.candidate} is being tried")
        known = table.versions.get(version) or configuration(version)
        if known is None:
            return Say(next_step(step, "failed", step.phase, f"the configuration of {version} is not known", actor=ACTOR))
        return _weighed(step, table, version, known, weight, number)
    if table.champion == version and table.action == step.id:
        return Wait("promoted")
    if table.candidate != version:
        reason = f"{version} is no candidate any more: {table.actor}, {table.reason}"
        return Say(next_step(step, "superseded", step.phase, reason, actor=ACTOR))
    match step.phase:
        case "advance":
            return _weighed(step, table, version, table.versions[version], weight, number)
        case "promote":
            return _promoted(step, table, version)
        case "abort":
            changed = without_candidate(table, actor=ACTOR, reason=step.reason, action=step.id, bad=[version])
            said = f"{table.champion} answers everything again: {step.reason}"
            return Change(
                changed, next_step(step, "failed", "aborted", said, actor=ACTOR, data={"epoch": changed.epoch, "weight": 0})
            )
        case _:
            return Wait("the controller judges")


def _weighed(
    step: ActionStep, table: RouteTable, version: str, configuration: CallConfiguration, weight: int, number: int
) -> Next:
    reason = f"{version} answers {weight / 100:g} % of the units, {table.champion} the rest"
    try:
        changed = with_candidate(
            table, version, configuration, weight, experiment=step.id, actor=ACTOR, reason=reason, action=step.id
        )
    except Refused as error:
        return Say(next_step(step, "failed", step.phase, str(error), actor=ACTOR))
    data: dict[str, Scalar] = {"epoch": changed.epoch, "step": number, "weight": weight}
    return Change(changed, next_step(step, "started", "step", reason, actor=ACTOR, data=data))


def _promoted(step: ActionStep, table: RouteTable, version: str) -> Next:
    if step.data.get("gate") != "passed" and not step.data.get("ungated_by"):
        changed = without_candidate(table, actor=ACTOR, reason="no gate was passed", action=step.id)
        said = "a promotion needs a gate that was passed, or a person who released it without"
        return Change(changed, next_step(step, "failed", step.phase, said, actor=ACTOR, data={"epoch": changed.epoch}))
    reason = f"{version} answers everything; {table.champion} is kept as the one before"
    changed = with_champion(table, version, actor=ACTOR, reason=reason, action=step.id)
    data: dict[str, Scalar] = {"epoch": changed.epoch, "champion": version, "previous": table.champion}
    return Change(changed, next_step(step, "succeeded", "promoted", reason, actor=ACTOR, data=data))
