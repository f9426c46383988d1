"""The in-memory twin of llm.actions as a worker sees it: one log, the last worker of a role fences those before it."""

from collections.abc import Callable, Sequence

from adapters.shard_log import Fenced
from schemas.messages import ActionStep


class MemoryActions:
    """The log itself. `clock_ms` stamps what is appended."""

    def __init__(self, clock_ms: Callable[[], int]) -> None:
        self.steps: list[tuple[ActionStep, int]] = []
        self.clock_ms = clock_ms
        self.owners: dict[str, int] = {}

    def put(self, *steps: ActionStep) -> None:
        """Append as controller and people do."""
        self.steps += [(step, self.clock_ms()) for step in steps]

    def of(self, id_: str) -> list[ActionStep]:
        """An action's steps in order."""
        return [step for step, _ in self.steps if step.id == id_]


class MemoryActionLog:
    """`adapters.action_log.ActionLog` on `MemoryActions`."""

    def __init__(self, actions: MemoryActions, role: str) -> None:
        self._actions, self.role = actions, role
        self._term = self._position = 0

    def fence(self) -> None:
        self._term = self._actions.owners[self.role] = self._actions.owners.get(self.role, 0) + 1
        self._position = 0

    def poll(self, timeout: float) -> list[tuple[ActionStep, int]]:  # noqa: ARG002  # the log never waits
        return self.read_to_end()

    def read_to_end(self) -> list[tuple[ActionStep, int]]:
        steps = self._actions.steps[self._position :]
        self._position += len(steps)
        return steps

    def append(self, steps: Sequence[ActionStep]) -> None:
        if self._actions.owners[self.role] != self._term:
            raise Fenced(f"another {self.role} worker has taken over")
        self._actions.put(*steps)

    def close(self) -> None:
        """There is nothing to close."""
