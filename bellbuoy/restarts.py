"""Decides when a process that ended is started again, and when the processor must go carefully."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from adapters.patience import EXIT_FENCED

FENCED_DELAY_S: Final = 30.0
FIRST_DELAY_S: Final = 0.2
LONGEST_DELAY_S: Final = 10.0
STEADY_AFTER_S: Final = 30.0
"""A process that lived so long starts again at once, and its earlier deaths are forgotten."""
DEATHS_AT_ONE_OFFSET: Final = 3

Offsets = Mapping[tuple[str, int], int]
"""Committed offsets by (topic, partition)."""


@dataclass
class Restarts:
    """The history of one process's ends."""

    quick_deaths: int = 0
    total: int = 0
    _at: dict[tuple[str, int], tuple[int, int]] = field(default_factory=dict)

    def delay(self, code: int, lived_s: float) -> float:
        """Seconds to wait before the next start. Doubles with every quick death; a fenced controller waits 30 s."""
        self.total += 1
        if code == EXIT_FENCED:
            return FENCED_DELAY_S
        if lived_s >= STEADY_AFTER_S:
            self.quick_deaths = 0
        delay = 0.0 if self.quick_deaths == 0 else min(LONGEST_DELAY_S, FIRST_DELAY_S * 2.0 ** (self.quick_deaths - 1))
        self.quick_deaths += 1
        return delay

    def must_be_careful(self, committed: Offsets | None) -> bool:
        """Count a death at these offsets: True at the third at which one partition stands where it stood.

        None (the broker does not tell) counts nothing: the death may be the broker's doing.
        """
        if committed is None:
            return False
        for place, offset in committed.items():
            before, deaths = self._at.get(place, (offset, 0))
            self._at[place] = (offset, deaths + 1 if before == offset else 1)
        if any(deaths >= DEATHS_AT_ONE_OFFSET for _, deaths in self._at.values()):
            self._at.clear()
            return True
        return False
