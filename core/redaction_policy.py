"""What becomes of a finding, per app, environment and kind: a mask, a keyed hash that joins, or the whole text dropped."""

import hashlib
import hmac
from collections.abc import Mapping, Sequence
from typing import Final

from core.pii_checks import Rule
from core.pii_folding import fold
from core.pii_rules import KINDS, RULES
from schemas.messages import RedactionRule

DROPPED: Final = "[DROPPED]"
"""Stands for a whole text. No rule finds anything in it."""
_LETTERS: Final = str.maketrans("0123456789abcdef", "abcdefghijklmnop")
_CASELESS: Final = frozenset(("email", "iban", "national_id", "mac", "ip"))
_UNSEPARATED: Final = frozenset(("phone", "card", "iban", "ssn", "national_id", "mac"))


_MASKS: Final = tuple(sorted({rule.placeholder for rule in RULES}))
_MAX_APPS: Final = 1_024


def placeholders_in(text: str) -> set[str]:
    """The masks whose findings a redacted text had, also where a hash or `[DROPPED]` stands in their place.

    >>> sorted(placeholders_in("[EMAIL:aabbccddeeffgghh] wrote to [EMAIL] about [CARD]"))
    ['[CARD]', '[EMAIL]']
    """
    found = {mask for mask in _MASKS if mask in text or f"{mask[:-1]}:" in text} if "[" in text else set()
    return found | {DROPPED} if DROPPED in text else found


def check_redaction(rules: Sequence[RedactionRule]) -> None:
    """Raises ValueError for a kind that does not exist, which would silently be masked, and for a hash that names no key."""
    unknown = sorted({rule.kind for rule in rules if rule.kind is not None and rule.kind not in KINDS})
    if unknown:
        raise ValueError(f"redaction has no kind {', '.join(unknown)}; the kinds are {', '.join(KINDS)}")
    if any(rule.action == "hash" and not rule.key for rule in rules):
        raise ValueError("a redaction rule hashes without the id of a key")


class Treatment:
    """The actions of one app: kind → key of its hash, or None for drop; a kind that is missing is masked."""

    def __init__(self, app: str, actions: Mapping[str, bytes | None]) -> None:
        self._app = app
        self._actions = actions

    def drops(self, kind: str) -> bool:
        """Whether a text that holds this kind is not kept at all."""
        return kind in self._actions and self._actions[kind] is None

    def placeholder(self, rule: Rule, value: str) -> str:
        """The mask `[EMAIL]`, or `[EMAIL:<16 letters>]`, equal for equal values of one app and key.

        The letters are the first 64 bits of HMAC-SHA256 (RFC 2104), written a to p so that no rule takes them for a number.
        Case, separators and forms of characters do not count where they do not change whose value it is.
        """
        key = self._actions.get(rule.kind)
        if not key:
            return rule.placeholder
        message = "\0".join((self._app, rule.kind, canonical(rule.kind, value))).encode()
        token = hmac.digest(key, message, hashlib.sha256).hex()[:16].translate(_LETTERS)
        return f"{rule.placeholder[:-1]}:{token}]"


def canonical(kind: str, value: str) -> str:
    """The value as it is hashed.

    >>> canonical("phone", "+44 20 7946-0018"), canonical("email", "A@B.example")
    ('442079460018', 'a@b.example')
    """
    value = fold(value).text.replace("%40", "@")
    if kind in _CASELESS:
        value = value.lower()
    return "".join(filter(str.isalnum, value)) if kind in _UNSEPARATED else value


class Policy:
    """The rules of a config. The first rule that fits app, environment and kind counts; without one it is a mask."""

    def __init__(self, rules: Sequence[RedactionRule], keys: Mapping[str, bytes]) -> None:
        """`keys`: key id → secret. A hash whose key is missing (or empty) is a mask, and `missing_keys` names it."""
        self._rules = tuple(rules)
        self._keys = {name: key for name, key in keys.items() if key}
        self.missing_keys = frozenset(rule.key or "" for rule in rules if rule.action == "hash" and rule.key not in self._keys)
        self._treatments: dict[tuple[str | None, str], Treatment | None] = {}

    def of(self, app: str | None, environment: str) -> Treatment | None:
        """The treatment of an app's findings; None where all are masked.

        An app that is not known gets no hash, and drops what is dropped for any app.
        """
        if not self._rules:
            return None
        where = (app, environment)
        if where not in self._treatments:
            if len(self._treatments) >= _MAX_APPS:
                self._treatments.clear()
            self._treatments[where] = self._resolved(app, environment) if app else self._strictest()
        return self._treatments[where]

    def _resolved(self, app: str, environment: str) -> Treatment | None:
        fitting = [rule for rule in self._rules if rule.app in (None, app) and rule.environment in (None, environment)]
        actions: dict[str, bytes | None] = {}
        for kind in KINDS:
            rule = next((rule for rule in fitting if rule.kind in (None, kind)), None)
            if rule is not None and rule.action == "drop":
                actions[kind] = None
            elif rule is not None and rule.action == "hash" and rule.key in self._keys:
                actions[kind] = self._keys[rule.key]
        return Treatment(app, actions) if actions else None

    def _strictest(self) -> Treatment | None:
        dropped = [kind for kind in KINDS if any(rule.action == "drop" and rule.kind in (None, kind) for rule in self._rules)]
        return Treatment("", dict.fromkeys(dropped)) if dropped else None
