"""The data by which references grow: counts of judged steps that lie well before the present, with no onset suspected.

Two buckets of a bank follow each other. When the younger one is an hour old and has half a reference's events, the older
one is given to the references of those streams in which nothing speaks for a change that began before the younger one; of
the others it is dropped. So what is learned is at least a bucket old, and what an alarm was about is never learned.
"""

import math
from collections.abc import Iterable, Mapping
from typing import Final

import numpy as np

from core.detection.reference import Ints
from core.detection.sr import Layout, SrState
from schemas.messages import WINDOW_MS

LEAST_WINDOWS: Final = 3_600_000 // WINDOW_MS
SIZE_SHARE: Final = 2
"""A bucket has 1/2 of the events of a first reference."""
SUSPECTED: Final = 1_000.0
"""Evidence since an onset, per arm of the stream, from which a change is suspected."""


class Growth:
    """The buckets of one bank: counts by column of its layout. `since` is the number of the younger one's first window."""

    def __init__(self, width: int, clock: int, since: int) -> None:
        self.older: Ints = np.zeros(width, dtype=np.int64)
        self.younger: Ints = np.zeros(width, dtype=np.int64)
        self.events, self.clock, self.since = 0, clock, since

    def due(self, clock: int, reference_events: int) -> bool:
        return clock - self.clock >= LEAST_WINDOWS and self.events * SIZE_SHARE >= reference_events

    def turn(self, clock: int, since: int) -> Ints:
        """The older bucket, once the younger one has taken its place."""
        older, self.older = self.older, self.younger
        self.younger = np.zeros_like(older)
        self.events, self.clock, self.since = 0, clock, since
        return older

    def lay_out(self, old: Mapping[str, int], new: Mapping[str, int], width: int) -> None:
        """Move the counts to the columns of a new layout."""
        ends = dict(zip(sorted(old.values()), [*sorted(old.values())[1:], len(self.older)], strict=True))
        for name in ("older", "younger"):
            before, now = getattr(self, name), np.zeros(width, dtype=np.int64)
            for key, begin in old.items():
                if key in new:
                    now[new[key] : new[key] + ends[begin] - begin] = before[begin : ends[begin]]
            setattr(self, name, now)

    def drop(self, columns: slice) -> None:
        """Forget the counts of a metric."""
        self.older[columns] = 0
        self.younger[columns] = 0


def suspected(layout: Layout, states: Iterable[SrState], position: int, since: int) -> bool:
    """Whether a slice's stream has evidence for a change that began before window number `since`."""
    segment = layout.segment(position)
    limit = math.log(SUSPECTED * (segment.stop - segment.start))
    return any(((state.rise[:, segment] >= limit) & (state.onset[:, segment] < since)).any() for state in states)
