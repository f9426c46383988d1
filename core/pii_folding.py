"""Text as redaction reads it: digits of any script as ASCII, wide forms narrow, escapes blank, what is not
visible left out; with positions.

So that `4１11…`, a number with no-break spaces and a value with zero-width characters inside are found where they stand.
"""

import re
import sys
import unicodedata
from typing import Final, NamedTuple

_INVISIBLE: Final = frozenset(
    chr(c)
    for first, last in (
        (0xAD, 0xAD), (0x34F, 0x34F), (0x61C, 0x61C), (0x180B, 0x180E), (0x200B, 0x200F), (0x202A, 0x202E), (0x2060, 0x206F),
        (0x20E3, 0x20E3), (0xFE00, 0xFE0F), (0xFEFF, 0xFEFF), (0xE0000, 0xE007F),
    )
    for c in range(first, last + 1)
)  # fmt: skip
_SPACES: Final = "\u00a0\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a\u202f\u205f\u3000"
_DASHES: Final = "\u2010\u2011\u2012\u2013\u2212\ufe58\ufe63"
_QUOTES: Final = "\u201c\u201d\u201e"
_DIGITS: Final = {chr(c): str(unicodedata.decimal(chr(c))) for c in range(128, sys.maxunicode) if chr(c).isdecimal()}
_WIDE: Final = {chr(c): chr(c - 0xFEE0) for c in range(0xFF01, 0xFF5F)}
_NARROW: Final = _DIGITS | _WIDE | dict.fromkeys(_SPACES, " ") | dict.fromkeys(_DASHES, "-") | dict.fromkeys(_QUOTES, '"')
_TABLE: Final = str.maketrans(_NARROW | dict.fromkeys(_INVISIBLE))


_ESCAPED: Final = re.compile(r"\\[nrt]")
"""A line break or tab as source and JSON write it, whose letter would touch what follows."""


class Folded(NamedTuple):
    """`positions` are those of the characters in the original; None where they are their own."""

    text: str
    positions: list[int] | None


def fold(text: str) -> Folded:
    """The text as rules should read it.

    >>> fold("no\\u00a0\\uff11\\u200b\\u0662")
    Folded(text='no 12', positions=[0, 1, 2, 3, 5])
    """
    folded = _ESCAPED.sub("  ", text.translate(_TABLE))
    if len(folded) == len(text):
        return Folded(folded, None)
    return Folded(folded, [at for at, character in enumerate(text) if character not in _INVISIBLE])


def _any(characters: str) -> str:
    return "(?:" + "|".join(character.encode().decode("latin-1") for character in characters) + ")"


_WIDE_WORD: Final = "".join(wide for wide, narrow in _WIDE.items() if narrow.isalnum() or narrow in "@.-+")
HINT: Final = "|".join((
    _any("".join(_DIGITS)),
    _any(_WIDE_WORD),
    rf"[0-9A-Za-z@.:/+_-]{_any(''.join(sorted(_INVISIBLE)))}+[0-9A-Za-z@.:/+_-]",
    rf"[0-9)]{_any(_SPACES + _DASHES)}[(0-9]",
    rf"[:=]\s*{_any(_QUOTES)}",
    r"\\[nrt][0-9A-Za-z(+]",
)).encode("latin-1")  # fmt: skip
"""RE2 pattern over bytes of UTF-8: only where it hits can folding change what rules find."""
