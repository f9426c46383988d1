"""Documents with invented personal data and secrets, and look-alikes, written by hand: how well is redaction doing?

The parts were written one after the other from the definitions of the kinds, each before anything was measured on it. The
rules were written on `seen`; on each later part they were measured once, and the faults that it showed were repaired then:

    part    values  found at first  false at first  of which the document was wrong
    unseen     181             178               1  1
    later      126             118               1  3
    fresh       77              74               2  0
    blind      513             450              28  2
    second     326             316               4  1
    third      366             360               2  3
    fourth      74              71               1  1  (of phone and ssn alone)
    fifth      307             293               4  1  (most of phone and ssn)

From `blind` on a part is large (the fourth and the fifth in phone and ssn), has as many look-alikes as values of every kind,
and was committed before it was measured; its check digits were computed apart from the rules. One label of `fifth` was
changed after it was measured: a SIP address counts as of an e-mail address's form. `seen` has since been told that settings with a password are a connection.

A line is one document: `+` holds the values between « and » (of the section's kind, or of the kind before |), `-` holds none
of that kind. Every check digit is right by construction. `¦` is where a key is joined when it is read, so that no scanner of
repositories takes it for a real one; `\\n` is a line break, behind another backslash the two characters.
"""

import re
from pathlib import Path
from typing import Final, NamedTuple

PARTS: Final = ("seen", "unseen", "later", "fresh", "blind", "second", "third", "fourth", "fifth")
_VALUE: Final = re.compile(r"«(?:([a-z_]+)\|)?(.*?)»", re.DOTALL)
_ESCAPE: Final = re.compile(r"\\(\\n|n|r)")


class Value(NamedTuple):
    """A value of a kind at [start, end) of its document's text."""

    kind: str
    start: int
    end: int


class Document(NamedTuple):
    """`kind` is what the document is about; a look-alike has no values."""

    kind: str
    text: str
    values: tuple[Value, ...]


def documents(part: str) -> list[Document]:
    """The documents of one of PARTS, in order."""
    kind, found = "", []
    for line in (Path(__file__).parent / f"{part}.txt").read_text().splitlines():
        if line.startswith("# "):
            kind = line[2:]
        else:
            found.append(_document(kind, _ESCAPE.sub(_unescaped, line[2:].replace("¦", ""))))
    return found


def _unescaped(match: re.Match[str]) -> str:
    return {"n": "\n", "r": "\r"}.get(match[1], match[1])


def _document(kind: str, marked: str) -> Document:
    text, values, position = "", [], 0
    for match in _VALUE.finditer(marked):
        text += marked[position : match.start()]
        values.append(Value(match[1] or kind, len(text), len(text) + len(match[2])))
        text += match[2]
        position = match.end()
    return Document(kind, text + marked[position:], tuple(values))
