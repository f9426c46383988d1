"""How many records each version of an app had lately, for the choice of a rollback's target."""

from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from core.identity import OTHER
from schemas.messages import Group

HISTORY_MS: Final = 30 * 60_000
"""How far back records are kept."""
BEFORE_MS: Final = 10 * 60_000
Records = tuple[int, dict[str, int]]
"""(window, records by version)."""


@dataclass(frozen=True)
class Busiest:
    """The version with most records in [start, end), ms; None where there were none."""

    version: str | None
    start: int
    end: int


class History:
    """Records per window and version of the last half hour of an app."""

    def __init__(self, windows: Iterable[Records] = ()) -> None:
        self.windows = deque(windows)

    def add(self, window: int, groups: Sequence[Group]) -> None:
        """Count a window's groups."""
        self.windows.append((window, {group.version: group.n for group in groups if group.n}))
        while self.windows[0][0] < window - HISTORY_MS:
            self.windows.popleft()

    def busiest_before(self, onset: int, excluded: Iterable[str]) -> Busiest:
        """The version with most records in the 10 minutes before `onset` (or in what is remembered of them, else in the oldest
        10 minutes that are remembered), ties by name; none where no other version had any."""
        start, end = onset - BEFORE_MS, onset
        if self.windows and start < self.windows[-1][0] - HISTORY_MS:
            oldest = self.windows[0][0]
            end = onset if onset > oldest else oldest + BEFORE_MS
            start = max(end - BEFORE_MS, oldest)
        totals: dict[str, int] = {}
        for window, records in self.windows:
            if start <= window < end:
                for version, n in records.items():
                    totals[version] = totals.get(version, 0) + n
        for version in (*excluded, OTHER):
            totals.pop(version, None)
        return Busiest(min(totals, key=lambda version: (-totals[version], version), default=None), start, end)
