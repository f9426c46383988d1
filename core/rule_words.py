"""Words that a file of rules measures with: durations (15m), budgets (1 per 30d), and names that nothing has."""

import difflib
import math
import re
from collections.abc import Iterable
from typing import Final

_SHOWN: Final = 60
_SECONDS: Final = {"d": 86_400, "h": 3_600, "m": 60, "s": 1}
DURATION: Final = r"([0-9]{1,6}[smhd])+"
_BUDGET: Final = re.compile(rf"([0-9]{{1,6}})\s+per\s+({DURATION}|[0-9]{{1,18}}(\.[0-9]{{0,40}})?([eE][-+]?[0-9]{{1,3}})?d)")


class Wrong(ValueError):
    """A value that its kind cannot take: what is wrong, and what would be right."""

    def __init__(self, wrong: str, right: str) -> None:
        super().__init__(f"{wrong}; {right}")
        self.wrong, self.right = wrong, right


def shown(text: str) -> str:
    """Text of a file for a message: short.

    >>> shown("a" * 100) == "a" * 60 + "…"
    True
    """
    return text if len(text) <= _SHOWN else text[:_SHOWN] + "…"


def nearest(name: str, known: Iterable[str], what: str) -> str:
    """What would be right instead of a name that nothing has.

    >>> nearest("refusl", ["refusal", "error"], "metrics")
    'did you mean `refusal`?'
    >>> nearest("zzz", ["refusal", "error"], "metrics")
    'the metrics are error, refusal'
    """
    names = sorted(known)
    close = difflib.get_close_matches(name[:_SHOWN], names, n=1)
    return f"did you mean `{close[0]}`?" if close else f"the {what} are {', '.join(names)}"


def seconds_of(text: str) -> int:
    """Seconds of a duration in words. Raises Wrong.

    >>> seconds_of("15m"), seconds_of("1d12h"), seconds_of("0s")
    (900, 129600, 0)
    """
    if not re.fullmatch(DURATION, text):
        right = (
            f"write {text}s, or in other units (30s, 15m, 2h, 30d)"
            if text.isascii() and text.isdigit()
            else "write 30s, 15m, 2h, 30d or 1h30m"
        )
        raise Wrong(f"`{shown(text)}` is no duration", right)
    return sum(int(number) * _SECONDS[unit] for number, unit in re.findall(r"([0-9]+)([smhd])", text))


def duration_of(seconds: int) -> str:
    """A duration in words.

    >>> duration_of(900), duration_of(129_600), duration_of(0), duration_of(3_661)
    ('15m', '1d12h', '0s', '1h1m1s')
    """
    words = ""
    for unit, size in _SECONDS.items():
        count, seconds = divmod(seconds, size)
        words += f"{count}{unit}" if count else ""
    return words or "0s"


def budget_of(text: str) -> tuple[int, float]:
    """(false pages, days) of a budget in words. Raises Wrong.

    >>> budget_of("1 per 30d"), budget_of("2 per 12h")
    ((1, 30.0), (2, 0.5))
    """
    found = _BUDGET.fullmatch(text)
    if found is None:
        raise Wrong(f"`{shown(text)}` is no budget", "write how many false pages are bearable in which time: 1 per 30d")
    pages, time = int(found[1]), found[2]
    days = seconds_of(time) / 86_400 if re.fullmatch(DURATION, time) else float(time[:-1])
    if pages < 1 or not 0.0 < days < math.inf:
        raise Wrong(
            f"`{shown(text)}` leaves no false page",
            "no detector keeps that promise: write at least 1, in a time longer than nothing",
        )
    return pages, days


def budget_words(pages: int, days: float) -> str:
    """Inverse of `budget_of`.

    >>> budget_words(1, 30.0), budget_words(2, 0.5), budget_words(1, 1 / 7)
    ('1 per 30d', '2 per 12h', '1 per 0.14285714285714285d')
    """
    seconds = round(days * 86_400)
    return (
        f"{pages} per {duration_of(seconds)}"
        if seconds and seconds / 86_400 == days and seconds < 1e6 * 86_400
        else f"{pages} per {days!r}d"
    )
