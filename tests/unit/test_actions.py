"""What a worker knows of an action from its steps, and that the policy knows the same."""

from typing import get_args

import pytest

from core.actions import Actions, next_step
from core.alerting import Board
from core.incident import Moment
from core.policy import Action, Policy
from schemas.messages import ActionKind, ActionState, ActionStep, ActionTarget, Rules

KINDS: tuple[ActionKind, ...] = get_args(ActionKind)


def requested(kind: ActionKind) -> ActionStep:
    target = ActionTarget(app="desk", environment="production", version="v2")
    return ActionStep(
        id="a", shard=0, sequence=1, incident="i", kind=kind, target=target, mode="auto", state="requested", attempt=1,
        window=0, ttl_s=60, reason="refusals rose",
    )  # fmt: skip


def worker_knows(*steps: ActionStep) -> ActionState:
    actions = Actions()
    for step in steps:
        actions.take(step, 0)
    known = actions.get("a")
    assert known is not None
    return known.step.state


def policy_knows(ended: ActionStep, *starts: ActionStep) -> ActionState:
    """The policy ends the action, and then reads what the worker had written meanwhile."""
    policy = Policy()
    policy.actions["a"] = Action(ended, "rule", 0, 0)
    for start in starts:
        policy.step(start, Board(), Moment(0, 0, "config", Rules(), "rules", False))
    return policy.actions["a"].state


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("end", ["superseded", "expired", "rejected"])
def test_a_start_and_an_end_that_cross_leave_worker_and_policy_of_one_mind(kind: ActionKind, end: ActionState) -> None:
    first = requested(kind)
    ended = next_step(first, end, "", "the kill switch", actor="kai")
    one = next_step(first, "started", "step", "", actor="worker")
    two = next_step(one, "started", "step", "", actor="worker")
    starts = (one,) if kind == "canary" else (one, two)
    agreed = policy_knows(ended, *starts)
    for place in range(len(starts) + 1):
        assert worker_knows(first, *starts[:place], ended, *starts[place:]) == agreed


def test_an_action_that_is_ended_after_its_start_has_ended() -> None:
    first = requested("retrain")
    started = next_step(first, "started", "dataset", "", actor="worker")
    ended = next_step(started, "superseded", "", "another champion", actor="worker")
    assert worker_knows(first, started, ended, started) == "superseded"
