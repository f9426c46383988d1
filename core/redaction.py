"""Structured personal data and secrets in text: found in linear time, checked, replaced by placeholders.

One `re2.Set` says which rules may hit; only those locate spans. Texts are read as UTF-8 bytes, since every rule is about
ASCII; a text without a hit (nearly all) costs one pass.
"""

from collections.abc import Iterator, Sequence
from typing import Final, NamedTuple

import re2

from core.pii_rules import RULES, Rule

MARGIN: Final = 1_024
"""Bytes read past the cap, so that what straddles it is recognised."""
_LONGEST_RETRY: Final = 256


class Span(NamedTuple):
    """A placeholder in redacted text: the rule's name and [start, end) in characters."""

    rule: str
    start: int
    end: int


class Redacted(NamedTuple):
    """Redacted text, where its placeholders stand, and whether the cap cut it."""

    text: str
    spans: tuple[Span, ...] = ()
    truncated: bool = False


EMPTY: Final = Redacted("")


def _options() -> re2.Options:
    options = re2.Options()
    options.encoding = re2.Options.Encoding.LATIN1
    options.log_errors = False
    options.max_mem = 64 << 20
    return options


class Redactor:
    """Applies rules to texts; `max_bytes` caps each text at a character border."""

    def __init__(self, max_bytes: int, rules: Sequence[Rule] = RULES) -> None:
        self.max_bytes = max_bytes
        self._rules = tuple(rules)
        self._patterns = [re2.compile(rule.pattern.encode(), _options()) for rule in rules]
        self._set = re2.Set.SearchSet(_options())
        for rule in rules:
            self._set.Add(rule.pattern.encode())
        self._set.Compile()

    def redact(self, text: str, room: int | None = None) -> Redacted:
        """The text without what the rules find; `room` bytes where the cap is shared with texts before it."""
        if not text:
            return EMPTY
        cap = self.max_bytes if room is None else room
        if cap <= 0:
            return Redacted("", (), True)
        data = text[: cap + MARGIN].encode()
        truncated = len(data) > cap
        if truncated:
            data = _cut(data, cap + MARGIN)
        hits = self._set.Match(data)
        if not hits:
            return Redacted(_cut(data, cap).decode(), (), True) if truncated else Redacted(text)
        found = _merged(span for hit in hits for span in self._find(data, hit) if span[0] < cap)
        if not found:
            return Redacted(_cut(data, cap).decode(), (), True) if truncated else Redacted(text)
        return _replaced(data, found, cap, truncated)

    def _find(self, data: bytes, number: int) -> Iterator[tuple[int, int, Rule]]:
        """Byte spans of one rule.

        After a candidate that fails its check the search goes on behind its first word; behind all of it when it is long,
        so that the time stays linear.
        """
        rule, pattern = self._rules[number], self._patterns[number]
        position = 0
        while position < len(data):
            match = pattern.search(data, position)
            if match is None:
                return
            group = match.lastindex or 0
            start, end = match.span(group)
            checked = rule.check(data, start, end) if rule.check else end
            if checked:
                yield start, checked, rule
                position = max(checked, position + 1)
            elif match.end() - match.start() > _LONGEST_RETRY:
                position = match.end()
            else:
                position = _next_word(data, match.start(), match.end())


def _next_word(data: bytes, start: int, end: int) -> int:
    """Where the next word may begin in [start + 1, end]."""
    position = start
    while position < end and chr(data[position]).isalnum():
        position += 1
    return max(position, start + 1)


def _cut(data: bytes, size: int) -> bytes:
    """At most `size` bytes, cut at a character border."""
    if len(data) <= size:
        return data
    while size > 0 and data[size] & 0xC0 == 0x80:
        size -= 1
    return data[:size]


def _merged(spans: Iterator[tuple[int, int, Rule]]) -> list[tuple[int, int, Rule]]:
    """Spans in order; what overlaps becomes one span under the rule that begins first (the longest of those)."""
    result: list[tuple[int, int, Rule]] = []
    for start, end, rule in sorted(spans, key=lambda span: (span[0], -span[1], span[2].name)):
        if result and start < result[-1][1]:
            first, last, owner = result[-1]
            result[-1] = (first, max(last, end), owner)
        else:
            result.append((start, end, rule))
    return result


def _replaced(data: bytes, found: list[tuple[int, int, Rule]], cap: int, truncated: bool) -> Redacted:
    pieces: list[str] = []
    spans: list[Span] = []
    length = position = 0
    for start, end, rule in found:
        before = data[position:start].decode()
        pieces += (before, rule.placeholder)
        length += len(before)
        spans.append(Span(rule.name, length, length + len(rule.placeholder)))
        length += len(rule.placeholder)
        position = end
    if position < cap:
        pieces.append((_cut(data, cap) if truncated else data)[position:].decode())
    return Redacted("".join(pieces), tuple(spans), truncated)
