"""What a rule of redaction is, and how its checks look at the neighbourhood of a candidate, in bytes of UTF-8."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import re2

Check = Callable[[bytes, int, int], int | None]
"""(text, start, end of the candidate) → end of what is to be replaced, or None."""

_CONTEXT: Final = 40
_TABLE: Final = 2_048
_SEPARATORS: Final = (b",", b";", b"|", b"\t")
_PLACEHOLDER: Final = re.compile(rb"(?:\[|^)[A-Z_]+(?::[a-p]{16})?\]")


@dataclass(frozen=True)
class Rule:
    """How one form of a kind looks. `name` is the reason that scores give, `placeholder` what stands in its place.

    The pattern is RE2 (no look-around, linear time) over bytes; the last group that matched, else the whole match, is what
    is replaced. `check` sees the neighbourhood and tells a finding from a look-alike.
    """

    name: str
    kind: str
    placeholder: str
    pattern: str
    check: Check | None = None
    context: re2._Regexp | None = None
    """Words without which no check of this rule passes: a text that has none of them is not searched."""
    sign: str | None = None
    """A pattern with fewer states that hits wherever `pattern` does: what the set of all rules reads instead."""


def words(pattern: str) -> re2._Regexp:
    """Context words, in any case."""
    options = re2.Options()
    options.encoding = re2.Options.Encoding.LATIN1
    options.case_sensitive = False
    return re2.compile(pattern.encode(), options)


COUNTED: Final = words(
    r"^ (?:users|rows|times|people|messages|requests|downloads|calls|minutes|seconds|ms|tokens|records|customers|units|bytes|parameters|subscribers|views"
    r"|dollars|euros?|eur|usd|percent|million)\b"
)
"""A number of things."""


def any_of(*texts: str) -> str:
    """A pattern over bytes of UTF-8 for any of the words.

    >>> any_of("né", "nr")
    '(?:n\\\\xc3\\\\xa9|nr)'
    """
    return (
        "(?:"
        + "|".join("".join(c if c.isascii() else "".join(f"\\x{b:02x}" for b in c.encode()) for c in text) for text in texts)
        + ")"
    )


def after(data: bytes, start: int, context: re2._Regexp, reach: int = _CONTEXT) -> bool:
    """Whether the context is found in `reach` bytes before `start`; what redaction put there says nothing about what follows."""
    near = data[max(0, start - reach) : start]
    if b"]" in near:
        near = _PLACEHOLDER.sub(b"  ", near)
    return context.search(near) is not None


def called(data: bytes, start: int, name: re2._Regexp, other: re2._Regexp, reach: int = _CONTEXT) -> bool:
    """Whether the name stands in `reach` bytes before `start`, with no other name between it and the number.

    >>> ssn, part = words("ssn"), words("part")
    >>> called(b"part I: SSN 1", 12, ssn, part), called(b"SSN of part 1", 12, ssn, part)
    (True, False)
    """
    near = data[max(0, start - reach) : start]
    if b"]" in near:
        near = _PLACEHOLDER.sub(b"  ", near)
    ends = [match.end() for match in name.finditer(near)]
    return bool(ends) and other.search(near[ends[-1] :]) is None


def column(data: bytes, start: int) -> bytes:
    """The name of the column that a value of a table stands in: the cell above it in the first line, where lines are separated values.

    >>> column(b"name,phone\\nBo,5550134", 14)
    b'phone'
    """
    near = data[max(0, start - _TABLE) : start]
    row = near.rfind(b"\n") + 1
    first = near.rfind(b"\n\n", 0, row) + 2 if b"\n\n" in near[:row] else 0
    header = near[first : near.find(b"\n", first)] if row > first else b""
    for separator in _SEPARATORS:
        cells, place = header.split(separator), near.count(separator, row)
        if len(cells) > 1 and place < len(cells) and (place or separator in data[start : start + _CONTEXT].partition(b"\n")[0]):
            return cells[place]
    return b""


def alone(data: bytes, start: int, end: int, joins: bytes = b"") -> bool:
    """Whether [start, end) is no part of a longer word or number, or of one that goes on behind a byte of `joins`."""
    before, behind = data[start - 1 : start], data[end : end + 1]
    if before and (before.isalnum() or before in joins or before == b"_"):
        return False
    return not (behind and (behind.isalnum() or behind == b"_" or (behind in joins and data[end + 1 : end + 2].isalnum())))


def digits_of(data: bytes, start: int, end: int) -> str:
    """The digits of a candidate without its separators."""
    return "".join(chr(c) for c in data[start:end] if 48 <= c <= 57)


def letters_of(data: bytes, start: int, end: int) -> str:
    """The letters and digits of an ASCII candidate in upper case."""
    return "".join(chr(c) for c in data[start:end] if chr(c).isalnum()).upper()
