"""Alerts about Bellbuoy itself: missing records, contradicting headers, too many apps, rollbacks that nobody confirms."""

from collections.abc import Sequence
from typing import Final

from core.actions import ENDED
from core.alerting import Board
from core.incident import Moment
from core.windows import Problem, ProblemKind
from schemas.messages import ActionStep, AlertTransition, Command, PolicyRule

APP: Final = "bellbuoy"
ENVIRONMENT: Final = "operations"
MISSING: Final = PolicyRule(id="ledger.missing", metric="ledger.missing")
OVERFLOW: Final = PolicyRule(id="apps.overflow", metric="apps.overflow")
UNVERIFIED: Final = PolicyRule(id="rollback.unverified", metric="rollback.unverified")
MAX_CAUSE: Final = 1_000
ALARMS: Final[dict[ProblemKind, PolicyRule]] = {
    "unequal_repetition": PolicyRule(id="blocks.unequal", metric="blocks.unequal"),
    "recreated": PolicyRule(id="topic.recreated", metric="topic.recreated"),
}
QUIET_MS: Final = 3_600_000
"""An alert about headers is over when nothing came for an hour."""


class Operations:
    """Raises them on the alert board, where they are paged, silenced and acknowledged like any other."""

    def __init__(self, shard: int, overflow_clock: int | None = None) -> None:
        self._slice = f"shard={shard}"
        self.overflow_clock = overflow_clock
        """Clock of the last window with more apps than there is room for."""

    def ledger_missing(self, command: Command, board: Board, moment: Moment) -> list[AlertTransition]:
        """Records that stored headers call scored and the store does not hold (arguments `topic`, `partition`, `start`,
        `end`); argument `missing` 0 says that they were found."""
        arguments = command.arguments
        place = f"{arguments.get('topic')}/{arguments.get('partition')}"
        if arguments.get("missing") == 0:
            found = [a for a in board.matching(APP, ENVIRONMENT, MISSING.metric) if a.slice == place]
            return [board.resolve(alert, moment, "nothing is missing any more", command.actor) for alert in found]
        cause = (
            f"records of {place} from offset {arguments.get('start')} to before {arguments.get('end')} are missing in the store"
        )
        board.raise_(MISSING, APP, ENVIRONMENT, place, moment.window, cause, moment)
        return []

    def rollback(self, step: ActionStep, board: Board, moment: Moment) -> list[AlertTransition]:
        """A rollback that gateways have not confirmed in time pages, with their names as its step gives them; a later
        confirmation, or another end, resolves it."""
        if step.kind != "rollback":
            return []
        slice_ = f"action={step.id}"
        if step.state == "unverified":
            target = step.target
            cause = f"the rollback of {target.app} ({target.environment}) from {target.version} is not verified: {step.reason}"
            waiting = str(step.data.get("waiting", ""))
            if waiting and waiting not in cause:
                cause = f"{cause}; waiting for {waiting}"
            board.raise_(UNVERIFIED, APP, ENVIRONMENT, slice_, moment.window, cause[:MAX_CAUSE], moment)
            return []
        over = [a for a in board.matching(APP, ENVIRONMENT, UNVERIFIED.metric) if a.slice == slice_ and step.state in ENDED]
        return [board.resolve(alert, moment, f"{step.state}: {step.reason}"[:MAX_CAUSE], step.actor) for alert in over]

    def problems(self, problems: Sequence[Problem], board: Board, moment: Moment) -> list[AlertTransition]:
        """Raise alarms for problems of headers, and end those that are an hour old."""
        for problem in problems:
            if problem.kind in ALARMS:
                where = f"{problem.topic}/{problem.partition}"
                cause = f"{where}, window {problem.window}: {problem.detail}"
                alert = board.raise_(ALARMS[problem.kind], APP, ENVIRONMENT, where, problem.window, cause, moment)
                alert.since = moment.window
        if not board.open:
            return []
        old = [
            alert
            for rule in ALARMS.values()
            for alert in board.matching(APP, ENVIRONMENT, rule.metric)
            if moment.window - alert.since > QUIET_MS
        ]
        return [board.resolve(alert, moment, "none for an hour") for alert in old]

    def overflow(self, clock: int, most: int, board: Board, moment: Moment) -> None:
        """An app came for which there is no room."""
        self.overflow_clock = clock
        cause = f"more than {most} apps: further ones are summed into `other` and not judged"
        board.raise_(OVERFLOW, APP, ENVIRONMENT, self._slice, moment.window, cause, moment)

    def sweep(self, clock: int, windows: int, board: Board, moment: Moment) -> list[AlertTransition]:
        """End the overflow alert when no app was turned away since the last sweep."""
        if self.overflow_clock is None or clock - self.overflow_clock < windows:
            return []
        self.overflow_clock = None
        return [board.resolve(a, moment, "there is room again") for a in board.matching(APP, ENVIRONMENT, OVERFLOW.metric)]
