"""The life of an action as its steps tell it: what a worker that reads them from the beginning knows, and the step that comes next.

Phases by kind (state/phase, who writes it):
  retrain   started/dataset, started/submitting, started/submitted, started/tuned, started/registered, started/gate,
            then succeeded/candidate or failed/<phase> (fine-tune worker)
  evaluate  started/gate, then succeeded/candidate or failed/gate (fine-tune worker)
  canary    started/step (deploy worker), started/advance (controller) and started/step in turn, then started/promote
            (controller) and succeeded/promoted (deploy worker); or started/abort (controller) and failed/aborted
            (deploy worker)
  rollback  started/routed, then succeeded/verified or unverified/unverified (deploy worker)
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

import msgspec

from schemas.messages import ActionState, ActionStep, Scalar

RUNNABLE: Final[frozenset[ActionState]] = frozenset({"requested"})
"""States in which a worker may start an action; what is suggested or waits for a person may not."""
ENDED: Final[frozenset[ActionState]] = frozenset({"succeeded", "failed", "rejected", "superseded", "expired", "no_target"})
"""States that nothing follows. `unverified` is not among them: a gateway may still confirm."""


@dataclass(frozen=True)
class Known:
    """An action as read so far. Times are append times, ms."""

    step: ActionStep
    first: int
    last: int

    @property
    def expires(self) -> int:
        """From this time on it must not be started."""
        return self.first + self.step.ttl_s * 1000


class Actions:
    """All actions by id. Steps are taken in the order of the log; a step that an ended action does not allow is passed over.

    A worker's start and the controller's word that it must not start may cross. The policy then counts a rollback, retrain or
    evaluation as started (but not one that a person rejected) and a canary as ended, and so does this, in whichever order
    they came.
    """

    def __init__(self) -> None:
        self._known: dict[str, Known] = {}

    def take(self, step: ActionStep, append_time: int) -> None:
        """Take the next step of the log."""
        known = self._known.get(step.id)
        if known is None:
            self._known[step.id] = Known(step, append_time, append_time)
        elif _follows(step, known.step):
            self._known[step.id] = Known(step, known.first, append_time)

    def get(self, id_: str) -> Known | None:
        return self._known.get(id_)

    def open(self, kinds: Iterable[str]) -> list[Known]:
        """Actions of these kinds that may start or are under way, oldest first."""
        wanted = frozenset(kinds)
        chosen = [
            known
            for known in self._known.values()
            if known.step.kind in wanted and known.step.state in RUNNABLE | {"started", "unverified"}
        ]
        return sorted(chosen, key=lambda known: (known.first, known.step.id))

    def ended(self, kinds: Iterable[str]) -> list[Known]:
        """Actions of these kinds that nothing follows any more, oldest first."""
        wanted = frozenset(kinds)
        chosen = [known for known in self._known.values() if known.step.kind in wanted and known.step.state in ENDED]
        return sorted(chosen, key=lambda known: (known.first, known.step.id))


def _follows(step: ActionStep, last: ActionStep) -> bool:
    if last.state in ENDED:
        return _outruns(step, last) and step.sequence >= last.sequence
    if step.state == "rejected":
        return True
    return step.sequence >= last.sequence and not (_outruns(last, step) and step.sequence == last.sequence)


def _outruns(start: ActionStep, end: ActionStep) -> bool:
    """Whether a start holds against an end that was written without knowing of it."""
    return start.state == "started" and end.state in ("superseded", "expired") and start.kind != "canary"


def next_step(
    step: ActionStep,
    state: ActionState,
    phase: str,
    reason: str,
    *,
    actor: str,
    data: Mapping[str, Scalar] | None = None,
    evidence: Iterable[str] = (),
) -> ActionStep:
    """The step after `step`: the facts so far and those that are new.

    >>> from schemas.messages import ActionTarget
    >>> asked = ActionStep(id="a", shard=0, sequence=1, incident="i", kind="retrain", mode="auto", state="requested",
    ...     target=ActionTarget(app="desk", environment="production"), attempt=1, window=0, ttl_s=60, reason="")
    >>> step = next_step(asked, "started", "dataset", "140 rows", actor="fine-tune worker", data={"rows": 140})
    >>> step.sequence, step.state, step.data
    (2, 'started', {'rows': 140})
    """
    return msgspec.structs.replace(
        step,
        state=state,
        sequence=step.sequence + 1,
        phase=phase,
        reason=reason,
        actor=actor,
        data=step.data | dict(data or {}),
        evidence=[*step.evidence, *evidence],
    )
