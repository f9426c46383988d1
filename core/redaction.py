"""Structured personal data and secrets in text: found in linear time, checked, and replaced as an app's policy says.

One `re2.Set` says which rules may hit; only those locate spans. Texts are read as UTF-8 bytes, since every rule is about
ASCII; a text without a hit (nearly all) costs one pass. Where characters stand in for ASCII (digits of other scripts, wide
forms, no-break spaces) or hide in a value (zero-width ones), the text is read a second time without them.
"""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Final, NamedTuple, Self

import re2

from core.pii_folding import HINT, fold
from core.pii_rules import RULES, Rule
from core.redaction_policy import DROPPED, Policy, Treatment
from schemas.messages import RedactionRule

MARGIN: Final = 1_024
"""Bytes read past the cap, so that what straddles it is recognised."""
_LONGEST_RETRY: Final = 256
_HINT: Final = 0
_COUNT: Final = 16
_COUNTED: Final = re.compile(r"\{([0-9]+)(?:,([0-9]*))?\}")


class Span(NamedTuple):
    """A placeholder in redacted text: the rule's name and [start, end) in characters."""

    rule: str
    start: int
    end: int


class Found(NamedTuple):
    """What a rule found at [start, end) of the original text, in characters."""

    start: int
    end: int
    rule: Rule


class Redacted(NamedTuple):
    """Redacted text, where its placeholders stand, and whether the cap cut it."""

    text: str
    spans: tuple[Span, ...] = ()
    truncated: bool = False

    @property
    def dropped(self) -> bool:
        """Whether nothing of the text was kept."""
        return self.text == DROPPED and bool(self.spans)


EMPTY: Final = Redacted("")


def _options() -> re2.Options:
    options = re2.Options()
    options.encoding = re2.Options.Encoding.LATIN1
    options.log_errors = False
    options.max_mem = 64 << 20
    return options


class Redactor:
    """Applies rules to texts; `max_bytes` caps each text at a character border.

    `policy` says per app, environment and kind what becomes of a finding; `keys` are the keys of keyed hashes by id.
    """

    def __init__(
        self,
        max_bytes: int,
        rules: Sequence[Rule] = RULES,
        policy: Sequence[RedactionRule] = (),
        keys: Mapping[str, bytes] | None = None,
    ) -> None:
        self.max_bytes = max_bytes
        self._rules = tuple(rules)
        self._order = {id(rule): number for number, rule in enumerate(rules)}
        self._patterns = [re2.compile(rule.pattern.encode(), _options()) for rule in rules]
        self._set = re2.Set.SearchSet(_options())
        for pattern in (HINT, *((rule.sign or _begun(rule.pattern)).encode() for rule in rules)):
            self._set.Add(pattern)
        self._set.Compile()
        self._policy = Policy(policy, keys or {})
        self._treatment: Treatment | None = None

    @property
    def missing_keys(self) -> frozenset[str]:
        """Key ids that the policy names and this machine does not have: what they should hash is masked."""
        return self._policy.missing_keys

    def of(self, app: str | None, environment: str) -> Self:
        """The redactor as the policy wants it for an app; it is this one where nothing but masks is asked for."""
        treatment = self._policy.of(app, environment)
        if treatment is self._treatment:
            return self
        view = type(self).__new__(type(self))
        view.__dict__.update(self.__dict__)
        view._treatment = treatment
        return view

    def redact(self, text: str, room: int | None = None) -> Redacted:
        """The text without what the rules find; `room` bytes where the cap is shared with texts before it.

        Surrogates without a partner become U+FFFD.
        """
        if not text:
            return EMPTY
        cap = self.max_bytes if room is None else room
        if cap <= 0:
            return Redacted("", (), True)
        head = text[: cap + MARGIN]
        try:
            data = head.encode()
        except UnicodeEncodeError:
            text = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
            head = text[: cap + MARGIN]
            data = head.encode()
        truncated = len(data) > cap
        if truncated:
            data = _cut(data, cap + MARGIN)
        hits = self._set.Match(data)
        kept = _cut(data, cap).decode() if truncated else text
        if not hits:
            return Redacted(kept, (), truncated)
        found = [one for one in self._located(data.decode() if truncated else text, data, hits) if one.start < len(kept)]
        if not found:
            return Redacted(kept, (), truncated)
        if self._treatment is not None and any(self._treatment.drops(one.rule.kind) for one in found):
            return Redacted(DROPPED, tuple(Span(one.rule.name, 0, len(DROPPED)) for one in found), truncated)
        return self._replaced(data.decode() if truncated else text, len(kept), found, truncated)

    def find(self, text: str) -> list[Found]:
        """What the rules find, in order and without overlaps; the text is not cut."""
        data = text.encode()
        hits = self._set.Match(data)
        return self._located(text, data, hits) if hits else []

    def named_secret(self, value: str) -> str:
        """What stands in place of a value whose field's name says that it is a secret."""
        rule = next(rule for rule in self._rules if rule.name == "password")
        if self._treatment is None:
            return rule.placeholder
        return DROPPED if self._treatment.drops(rule.kind) else self._treatment.placeholder(rule, value)

    def _located(self, text: str, data: bytes, hits: Iterable[int]) -> list[Found]:
        found = list(self._spans(text, data, hits))
        if _HINT in hits:
            folded, positions = fold(text)
            data = folded.encode()
            for start, end, rule in self._spans(folded, data, self._set.Match(data) or ()):
                if positions is not None:
                    start, end = positions[start], positions[end - 1] + 1
                found.append(Found(start, end, rule))
        return self._merged(found)

    def _spans(self, text: str, data: bytes, hits: Iterable[int]) -> Iterator[Found]:
        """Spans of the rules that hit, in characters."""
        spans = [span for hit in hits if hit != _HINT for span in self._find(data, self._rules[hit - 1], self._patterns[hit - 1])]
        if len(text) == len(data):
            yield from spans
            return
        borders = sorted({border for start, end, _ in spans for border in (start, end)})
        characters, position, length = {}, 0, 0
        for border in borders:
            length += len(data[position:border].decode())
            characters[border] = length
            position = border
        for start, end, rule in spans:
            yield Found(characters[start], characters[end], rule)

    @staticmethod
    def _find(data: bytes, rule: Rule, pattern: re2._Regexp) -> Iterator[Found]:
        """Byte spans of one rule.

        After a candidate that fails its check the search goes on behind its first word; behind all of it when it is long,
        so that the time stays linear.
        """
        if rule.context is not None and rule.context.search(data) is None:
            return
        position = 0
        while position < len(data):
            match = pattern.search(data, position)
            if match is None:
                return
            start, end = match.span(match.lastindex or 0)
            checked = rule.check(data, start, end) if rule.check else end
            if checked:
                start, checked = _whole_characters(data, start, checked)
                yield Found(start, checked, rule)
                position = max(checked, position + 1)
            elif match.end() - match.start() > _LONGEST_RETRY:
                position = match.end()
            else:
                position = _next_word(data, match.start(), match.end())

    def _merged(self, found: list[Found]) -> list[Found]:
        """In order; what overlaps becomes one under the rule that begins first (of those the first of the rules)."""
        result: list[Found] = []
        for one in sorted(found, key=lambda one: (one.start, self._order[id(one.rule)], -one.end)):
            if result and one.start < result[-1].end:
                result[-1] = result[-1]._replace(end=max(result[-1].end, one.end))
            else:
                result.append(one)
        return result

    def _replaced(self, text: str, kept: int, found: list[Found], truncated: bool) -> Redacted:
        pieces: list[str] = []
        spans: list[Span] = []
        length = position = 0
        for start, end, rule in found:
            treatment = self._treatment
            placeholder = rule.placeholder if treatment is None else treatment.placeholder(rule, text[start:end])
            pieces += (text[position:start], placeholder)
            length += start - position
            spans.append(Span(rule.name, length, length + len(placeholder)))
            length += len(placeholder)
            position = end
        pieces.append(text[position:kept])
        return Redacted("".join(pieces), tuple(spans), truncated)


def _begun(pattern: str) -> str:
    """A pattern that hits wherever this one does, and has far fewer states: of long counted repetitions only the beginning is counted.

    >>> _begun("a{2}b{40}c{6,256}")
    'a{2}b{16,}c{6,}'
    """
    return _COUNTED.sub(
        lambda match: f"{{{min(int(match[1]), _COUNT)},}}" if int(match[2] or match[1]) > _COUNT else match[0], pattern
    )


def _whole_characters(data: bytes, start: int, end: int) -> tuple[int, int]:
    """A span of UTF-8 bytes, widened to whole characters: a limit on a value's length may fall inside one."""
    while start > 0 and data[start] & 0xC0 == 0x80:
        start -= 1
    while end < len(data) and data[end] & 0xC0 == 0x80:
        end += 1
    return start, end


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
