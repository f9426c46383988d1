"""Window rows: the final counts of each 5-second window, and of each minute once a window of a later minute closes."""

from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import Final

import msgspec

from core.groups import merge_groups
from core.metrics import METRICS, split_metric_key
from core.packing import pack, unpack
from core.summary import MAX_NAMES, bounded
from schemas.messages import Group, WindowRow

MINUTE_MS: Final = 60_000
COMPACT_AT: Final = 4_096


def rows_of(window: int, resolution: int, groups: Iterable[Group]) -> list[WindowRow]:
    """One row per group and metric; `metric` is the full identity, `name@version`; `n` counts interactions, or acts for a
    metric of feedback. A row names at most 32 categories, so that no client's names make it too large to write.

    >>> rows_of(0, 5, [Group(app="a", environment="e", version="v", n=3, bins={"refusal@1": [(0, 2), (1, 1)]})])[0].counts
    [2, 1]
    """
    rows = []
    for group in groups:
        for metric, pairs in group.bins.items():
            row = _row(window, resolution, group, metric)
            row.bins, row.counts = [bin_ for bin_, _ in pairs], [count for _, count in pairs]
            rows.append(row)
        for metric, named in group.names.items():
            row = _row(window, resolution, group, metric)
            kept = bounded(dict(named)) if len(named) > MAX_NAMES else named
            row.names, row.counts = [name for name, _ in kept], [count for _, count in kept]
            rows.append(row)
    return rows


@lru_cache(1_024)
def _counts_acts(metric: str) -> bool:
    known = METRICS.get(split_metric_key(metric)[0])
    return known is not None and known.of == "feedback"


def _row(window: int, resolution: int, group: Group, metric: str) -> WindowRow:
    return WindowRow(
        app=group.app,
        environment=group.environment,
        version=group.version,
        metric=metric,
        resolution=resolution,
        window=window,
        n=group.acts if _counts_acts(metric) else group.n,
    )


class OpenMinute:
    """The groups of the minute that is not over."""

    def __init__(self, minute: int = 0, groups: Sequence[Group] = ()) -> None:
        self.minute = minute
        self._groups = list(groups)

    def advance(self, window: int) -> list[WindowRow]:
        """Rows of the open minute if `window` belongs to a later one; call it before `add`."""
        minute = window - window % MINUTE_MS
        if minute <= self.minute:
            return []
        rows = rows_of(self.minute, MINUTE_MS // 1000, merge_groups(self._groups))
        self.minute, self._groups = minute, []
        return rows

    def add(self, groups: Iterable[Group]) -> None:
        self._groups.extend(groups)
        if len(self._groups) > COMPACT_AT:
            self._groups = list(merge_groups(self._groups))

    def dump(self) -> msgspec.Raw:
        return pack((self.minute, merge_groups(self._groups)))

    @classmethod
    def load(cls, data: msgspec.Raw) -> "OpenMinute":
        minute, groups = unpack(data, tuple[int, list[Group]])
        return cls(minute, groups)
