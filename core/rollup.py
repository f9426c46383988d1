"""Window rows: the final counts of each 5-second window, and of each minute, hour and day (UTC) once a window of a later one closes."""

from collections.abc import Iterable, Sequence
from functools import lru_cache
from itertools import groupby
from typing import Final

import msgspec

from core.groups import merge_groups
from core.incident import digest_of
from core.metrics import METRICS, split_metric_key
from core.packing import pack, unpack
from core.summary import MAX_NAMES, bounded
from schemas.messages import Group, WindowRow

MINUTE_MS: Final = 60_000
HOUR_MS: Final = 3_600_000
DAY_MS: Final = 86_400_000
MINUTE_SECTION: Final = "minute"
PERIODS_SECTION: Final = "periods/"
AppKey = tuple[str, str]
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


class _Period(msgspec.Struct):
    """What an hour or a day that is not over has counted for one app; `start` in ms."""

    start: int = 0
    groups: list[Group] = []


class _Periods(msgspec.Struct):
    """One app's open hour and open day."""

    app: str
    environment: str
    hour: _Period
    day: _Period


class Rollup:
    """The minute, hours and days that are not over. A minute's sums go into the hour when it closes, an hour's into the day, so
    that sums over all resolutions are equal. Hours and days are kept by app, so that a state section stays small."""

    def __init__(self) -> None:
        self.minute = 0
        self._groups: list[Group] = []
        self._periods: dict[AppKey, _Periods] = {}
        self._changed: set[AppKey] = set()
        self._gone: set[AppKey] = set()

    def advance(self, window: int) -> list[WindowRow]:
        """Rows of the minute, hours and days that are over if `window` belongs to a later one; call it before `add`."""
        minute = _start(window, MINUTE_MS)
        if minute <= self.minute:
            return []
        closed = merge_groups(self._groups)
        rows = rows_of(self.minute, MINUTE_MS // 1000, closed)
        before = self.minute
        self._add_minute(before, closed)
        self.minute, self._groups = minute, []
        if _start(minute, HOUR_MS) > _start(before, HOUR_MS):
            rows += self._close(minute)
        return rows

    def add(self, groups: Iterable[Group]) -> None:
        self._groups.extend(groups)
        if len(self._groups) > COMPACT_AT:
            self._groups = list(merge_groups(self._groups))

    def _add_minute(self, minute: int, groups: Sequence[Group]) -> None:
        for key, of_app in groupby(groups, key=lambda group: (group.app, group.environment)):
            periods = self._periods.get(key)
            if periods is None:
                periods = self._periods[key] = _Periods(*key, _Period(), _Period())
            periods.hour = _Period(_start(minute, HOUR_MS), _sum(periods.hour.groups, of_app))
            self._changed.add(key)
            self._gone.discard(key)

    def _close(self, now: int) -> list[WindowRow]:
        """Rows of every hour and day that is over at `now`, hours first, by app."""
        rows, days = list[WindowRow](), list[WindowRow]()
        for key, periods in sorted(self._periods.items()):
            hour, day = periods.hour, periods.day
            if hour.groups and hour.start < _start(now, HOUR_MS):
                rows += rows_of(hour.start, HOUR_MS // 1000, hour.groups)
                day = periods.day = _Period(_start(hour.start, DAY_MS), _sum(day.groups, hour.groups))
                periods.hour = _Period()
                self._changed.add(key)
            if day.groups and day.start < _start(now, DAY_MS):
                days += rows_of(day.start, DAY_MS // 1000, day.groups)
                del self._periods[key]
                self._changed.discard(key)
                self._gone.add(key)
        return rows + days

    def sections(self, *, changed_only: bool) -> dict[str, msgspec.Raw]:
        """The state by section; with `changed_only` what changed since the last call. Data `null`: the section is gone."""
        keys = sorted(self._changed if changed_only else self._periods)
        told = {
            MINUTE_SECTION: pack((self.minute, merge_groups(self._groups))),
            **{_section(key): pack(self._periods[key]) for key in keys},
            **{_section(key): msgspec.Raw(b"null") for key in sorted(self._gone)},
        }
        self._changed, self._gone = set(), set()
        return told

    def load(self, section: str, data: msgspec.Raw) -> None:
        """Take a section that an earlier one wrote. A state without hours and days counts them from here on."""
        if section == MINUTE_SECTION:
            self.minute, self._groups = unpack(data, tuple[int, list[Group]])
        elif section.startswith(PERIODS_SECTION) and bytes(data) != b"null":
            periods = unpack(data, _Periods)
            self._periods[periods.app, periods.environment] = periods


def _start(time: int, length: int) -> int:
    return time - time % length


def _sum(groups: Iterable[Group], more: Iterable[Group]) -> list[Group]:
    """Their sums, with what rows are made of only and with as many names as a row has: an hour or a day of ever other names
    stays bounded."""
    return [
        Group(
            app=group.app,
            environment=group.environment,
            version=group.version,
            n=group.n,
            acts=group.acts,
            bins=group.bins,
            names={metric: bounded(dict(named)) for metric, named in group.names.items()},
        )
        for group in merge_groups([*groups, *more])
    ]


def _section(key: AppKey) -> str:
    return f"{PERIODS_SECTION}{digest_of(key)}"
