"""What the page shows of the past: all apps over a day, a month or a year, and one app's metrics, at the resolution that fits."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from core.metrics import METRICS, split_metric_key
from core.rollup import DAY_MS

Row = Mapping[str, Any]
Query = Callable[[str, Mapping[str, Any]], Sequence[Row]]

RESOLUTIONS: Final = (86_400, 3_600, 60, 5)
"""Seconds of the window rows that are stored, the coarsest first."""
LEAST_POINTS: Final = 24
RANGES: Final = {"day": DAY_MS, "month": 30 * DAY_MS, "year": 365 * DAY_MS}
MOST_APPS: Final = 100
MOST_SERIES: Final = 2_000


def resolution_for(length_ms: int) -> int:
    """The coarsest resolution (seconds) that still makes a curve of 24 points of a time that long.

    >>> [resolution_for(RANGES[name]) for name in ("day", "month", "year")], resolution_for(3_600_000), resolution_for(60_000)
    ([3600, 86400, 86400], 60, 5)
    """
    return next((r for r in RESOLUTIONS if length_ms // (r * 1000) >= LEAST_POINTS), RESOLUTIONS[-1])


def span(range_: str, now: int) -> tuple[int, int, int]:
    """(since, until, resolution) of a range that ends with the last whole window before `now`: what is under way has no row yet.
    Raises KeyError for a name that is no range.

    >>> span("day", 10 * DAY_MS + 1)
    (777600000, 864000000, 3600)
    """
    length = RANGES[range_]
    resolution = resolution_for(length)
    until = now - now % (resolution * 1000)
    return until - length, until, resolution


def overview(query: Query, range_: str, now: int) -> dict[str, Any]:
    """Interactions of every app over a range, by window."""
    since, until, resolution = span(range_, now)
    found = query("page_overview", {"since": since, "until": until, "resolution": resolution, "apps": MOST_APPS})
    points = (until - since) // (resolution * 1000)
    apps = [
        {
            "app": row["app"],
            "environment": row["environment"],
            "total": int(row["total"]),
            "counts": _filled(row["buckets"], row["counts"], points),
        }
        for row in found
    ]
    return {"since": since, "until": until, "resolution_s": resolution, "apps": apps}


def app_history(query: Query, app: str, environment: str, range_: str, now: int) -> dict[str, Any]:
    """One app over a range: per metric and version the events by window; for a rate how many fired, for the rest the counts by bin."""
    since, until, resolution = span(range_, now)
    found = query(
        "page_app",
        {"app": app, "environment": environment, "since": since, "until": until, "resolution": resolution, "series": MOST_SERIES},
    )
    points = (until - since) // (resolution * 1000)
    return {
        "app": app,
        "environment": environment,
        "since": since,
        "until": until,
        "resolution_s": resolution,
        "series": [_series(row, points) for row in found],
    }


def _series(row: Row, points: int) -> dict[str, Any]:
    told: dict[str, Any] = {
        "metric": row["metric"],
        "version": row["version"],
        "total": int(row["total"]),
        "counts": _filled(row["buckets"], row["counts"], points),
    }
    known = METRICS.get(split_metric_key(row["metric"])[0])
    if known is not None and known.kind == "rate":
        return told | {"fired": _filled(row["buckets"], row["fires"], points)}
    bins, counts = row["distribution"]
    return told | {"distribution": [[int(bin_), int(count)] for bin_, count in zip(bins, counts, strict=True)]}


def _filled(buckets: Sequence[int], counts: Sequence[int], points: int) -> list[int]:
    """
    >>> _filled([2, 0, 9], [5, 7, 1], 4)
    [7, 0, 5, 0]
    """
    filled = [0] * points
    for bucket, count in zip(buckets, counts, strict=True):
        if 0 <= bucket < points:
            filled[bucket] += int(count)
    return filled
