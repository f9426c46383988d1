"""The client's own time: a column for charts and for the hour of the week, never a clock; here it is read and written one way."""

from datetime import UTC, datetime, timedelta
from math import isfinite
from typing import Final

from schemas.codec import InvalidMessage, rfc3339

LATEST_MS: Final = 10_413_791_999_999
"""2299-12-31T23:59:59.999Z, the last millisecond that the store's columns can hold."""
_MILLISECONDS_FROM: Final = 100_000_000_000
"""Numbers from here on are milliseconds since 1970, smaller ones seconds."""
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MILLISECOND: Final = timedelta(milliseconds=1)


def _wrong() -> InvalidMessage:
    return InvalidMessage("invalid", "time must be RFC 3339, or seconds or milliseconds since 1970, up to the year 2299", "time")


def time_ms(value: str | float) -> int:
    """Milliseconds since 1970 of a `time` in any form that a line may have; one without an offset is UTC.

    Raises InvalidMessage.

    >>> time_ms("2023-11-14T22:13:20.123Z") == time_ms(1_700_000_000.123) == time_ms(1_700_000_000_123)
    True
    """
    if isinstance(value, str):
        try:
            moment = datetime.fromisoformat(value.strip())
            moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
            ms = (moment - _EPOCH) // _MILLISECOND
        except (ValueError, OverflowError):
            raise _wrong() from None
    else:
        if not isfinite(value):
            raise _wrong()
        ms = round(value if value >= _MILLISECONDS_FROM else value * 1000)
    if not 0 <= ms <= LATEST_MS:
        raise _wrong()
    return ms


def canonical_time(value: str) -> str:
    """RFC 3339 in UTC with milliseconds. Raises InvalidMessage.

    >>> canonical_time("2023-11-14T23:13:20+01:00")
    '2023-11-14T22:13:20.000Z'
    """
    ms = time_ms(value)
    if len(value) == 24 and value[10] == "T" and value[19] == "." and value[23] == "Z":
        return value
    return rfc3339(ms)
