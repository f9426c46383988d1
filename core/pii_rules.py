"""The rules of redaction: what personal data and secrets look like, and the check that tells them from look-alikes.

Patterns are RE2 (no look-around, linear time) over bytes; `check` sees the neighbourhood and the digits. The last group
that matched, else the whole match, is what is replaced.
"""

from collections.abc import Callable
from dataclasses import dataclass
from ipaddress import AddressValueError, IPv6Address
from typing import Final

import re2

Check = Callable[[bytes, int, int], int | None]
"""(text, start, end of the candidate) → end of what is to be replaced, or None."""

_CONTEXT: Final = 40


@dataclass(frozen=True)
class Rule:
    """One kind of finding. `name` is the reason that scores give, `placeholder` what stands in its place."""

    name: str
    placeholder: str
    pattern: str
    check: Check | None = None


def _alone(data: bytes, start: int, end: int, joins: bytes = b"") -> bool:
    """Whether [start, end) is no part of a longer word, number or dotted name."""
    before, after = data[start - 1 : start], data[end : end + 1]
    if before and (before.isalnum() or before in joins or before == b"_"):
        return False
    return not (after and (after.isalnum() or after == b"_" or (after in joins and data[end + 1 : end + 2].isalnum())))


def _context(pattern: str) -> re2._Regexp:
    options = re2.Options()
    options.encoding = re2.Options.Encoding.LATIN1
    options.case_sensitive = False
    return re2.compile(pattern.encode(), options)


def _after(data: bytes, start: int, context: re2._Regexp) -> bool:
    """Whether the context is found shortly before `start`."""
    return context.search(data[max(0, start - _CONTEXT) : start]) is not None


def _digits(data: bytes, start: int, end: int) -> bytes:
    return bytes(c for c in data[start:end] if 48 <= c <= 57)


def luhn(digits: bytes) -> bool:
    """ISO/IEC 7812-1 check digit.

    >>> luhn(b"4111111111111111"), luhn(b"4111111111111112")
    (True, False)
    """
    total = 0
    for place, digit in enumerate(reversed(digits)):
        value = digit - 48
        if place % 2:
            value = value * 2 - 9 * (value > 4)
        total += value
    return total % 10 == 0


_CARD_WORDS: Final = _context(r"card|\bvisa|\bamex|credit|debit|\bpan\b")


def _card(data: bytes, start: int, end: int) -> int | None:
    digits = _digits(data, start, end)
    issuer = digits[0] - 48 in (3, 4, 5, 6) or 2221 <= int(digits[:4]) <= 2720
    if not issuer or not 13 <= len(digits) <= 19 or len(set(digits)) == 1 or not _alone(data, start, end, b"-."):
        return None
    grouped = len(digits) < end - start
    return end if luhn(digits) or (grouped and _after(data, start, _CARD_WORDS)) else None


# Lengths of the registry of ISO 13616.
_IBAN_LENGTHS: Final = {
    "AD": 24, "AE": 23, "AL": 28, "AT": 20, "AZ": 28, "BA": 20, "BE": 16, "BG": 22, "BH": 22, "BR": 29, "CH": 21, "CR": 22,
    "CY": 28, "CZ": 24, "DE": 22, "DK": 18, "DO": 28, "EE": 20, "EG": 29, "ES": 24, "FI": 18, "FO": 18, "FR": 27, "GB": 22,
    "GE": 22, "GI": 23, "GL": 18, "GR": 27, "GT": 28, "HR": 21, "HU": 28, "IE": 22, "IL": 23, "IQ": 23, "IS": 26, "IT": 27,
    "JO": 30, "KW": 30, "KZ": 20, "LB": 28, "LI": 21, "LT": 20, "LU": 20, "LV": 21, "MC": 27, "MD": 24, "ME": 22, "MK": 19,
    "MR": 27, "MT": 31, "MU": 30, "NL": 18, "NO": 15, "PK": 24, "PL": 28, "PS": 29, "PT": 25, "QA": 29, "RO": 24, "RS": 22,
    "SA": 24, "SE": 24, "SI": 19, "SK": 24, "SM": 27, "TN": 24, "TR": 26, "UA": 29, "VA": 22, "XK": 20,
}  # fmt: skip


def _iban(data: bytes, start: int, end: int) -> int | None:
    """The account number of its country's length with a remainder of 1 mod 97."""
    length = _IBAN_LENGTHS.get(data[start : start + 2].decode().upper(), 0)
    characters = ""
    position = start
    while position < end and len(characters) < length:
        if data[position : position + 1].isalnum():
            characters += chr(data[position]).upper()
        position += 1
    if not length or len(characters) < length or not _alone(data, start, position):
        return None
    number = "".join(str(int(c, 36)) for c in characters[4:] + characters[:4])
    return position if int(number) % 97 == 1 else None


_SSN_WORDS: Final = _context(r"ssn|social sec|security n|taxpayer|\bitin\b")
_NO_SSN_WORDS: Final = _context(r"\b(?:order|invoice|part|sku|tracking|model|serial|case|ticket)\b[^0-9\n]*$")


def _ssn(data: bytes, start: int, end: int) -> int | None:
    digits = _digits(data, start, end)
    area, group, serial = digits[:3], digits[3:5], digits[5:]
    if not _alone(data, start, end, b"-/."):
        return None
    if _after(data, start, _SSN_WORDS):
        return end
    issued = area not in (b"000", b"666") and area < b"900" and group != b"00" and serial != b"0000"
    dashed = data[start + 3 : start + 4] == b"-" and data[end - 5 : end - 4] == b"-"
    return end if issued and dashed and not _after(data, start, _NO_SSN_WORDS) else None


_PHONE_WORDS: Final = _context(
    r"(?:\b|_)(?:(?:tele)?(?:phone|fon)|tel|call|mobile|cell|fax|whatsapp|sms|text|contact|reach|dial|ring|handy|m\xc3\xb3vil|number is"
    r"|t[e\xc3\xa9]+l[e\xc3\xa9]+phone)(?:_?(?:number|no|nr))?\b[^0-9\n]{0,24}$"
)


def _phone(data: bytes, start: int, end: int) -> int | None:
    """An international number, a separated North American one, or any number that is called a phone's."""
    text = data[start:end]
    digits = _digits(data, start, end)
    if not _alone(data, start, end, b".-/:") or len(set(digits)) < 3:
        return None
    if text.startswith((b"+", b"00")):
        return end if 8 <= len(digits) <= 15 and (text.startswith(b"+") or _after(data, start, _PHONE_WORDS)) else None
    national = digits[1:] if len(digits) == 11 and digits.startswith(b"1") else digits
    american = len(national) == 10 and national[0] > 49 and national[3] > 49
    grouped = american and text[-5:-4] in (b"-", b".", b" ") and text[-9:-8] in (b"-", b".", b" ", b")")
    if grouped and (text.endswith(national[6:]) and (b"-" in text or b"(" in text or b"." in text)):
        return end
    return end if 7 <= len(digits) <= 15 and _after(data, start, _PHONE_WORDS) else None


_VERSION_WORDS: Final = _context(r"(?:\b(?:version|release|section|chapter|build|v|ver)|[=><~]=)[^0-9\n]{0,12}$")
_ADDRESS_WORDS: Final = _context(r"\bips?\b|ipv4|_ip\b|\bip_|host|addr|server|\bping|://|@")


def _ipv4(data: bytes, start: int, end: int) -> int | None:
    """A dotted quad that is no version number, mask, loopback or unspecified address."""
    octets = [int(part) for part in data[start:end].split(b".")]
    if (
        not _alone(data, start, end, b".-")
        or octets[0] in (0, 255)
        or octets[:2] == [127, 0]
        or data[start - 1 : start] in (b"v", b"V")
    ):
        return None
    if _after(data, start, _ADDRESS_WORDS):
        return end
    return None if _after(data, start, _VERSION_WORDS) or max(octets) < 10 else end


def _ipv6(data: bytes, start: int, end: int) -> int | None:
    """At least four groups, so that clock times, scope operators and MAC addresses stay."""
    text = data[start:end].decode()
    if not _alone(data, start, end, b":.-") or sum(bool(group) for group in text.split(":")) < 4:
        return None
    try:
        IPv6Address(text)
    except AddressValueError:
        return None
    return end


_PLACEHOLDER_VALUES: Final = (b"none", b"null", b"true", b"false", b"your", b"<", b"${", b"{{", b"xxx", b"***", b"example", b"[")


def _password(data: bytes, start: int, end: int) -> int | None:
    """A value that looks chosen: quoted, or with digits or symbols among its letters; no variable, call or placeholder."""
    value = data[start:end]
    if value.lower().startswith(_PLACEHOLDER_VALUES) or len(set(value)) < 4:
        return None
    mixed = any(48 <= c <= 57 for c in value) + any(chr(c) in "!@#$%^&*?+=~" for c in value) + (value.lower() != value)
    quoted = data[start - 1 : start] in (b'"', b"'")
    return end if mixed >= (1 if quoted else 2) and (quoted or any(48 <= c <= 57 for c in value)) else None


def _private_key(data: bytes, start: int, end: int) -> int:
    """To the end marker of the same key; a key that is cut off ends where its characters end."""
    marker = data.find(b"-----END", start, end)
    closing = data.find(b"-----", marker + 8, end) if marker >= 0 else -1
    return closing + 5 if closing >= 0 else end


def _token(data: bytes, start: int, end: int) -> int | None:
    """A key: begins where no word goes on, and is not one character repeated."""
    before = data[start - 1 : start]
    return end if not (before.isalnum() or before in (b"_", b"-")) and len(set(data[start:end])) >= 8 else None


_SENSITIVE_NAME: Final = (
    r"(?:passw(?:or)?d|passwd|passphrase|pwd|[_-]pass|dbpass|\bpass|secret|api[_-]?key|access[_-]?key|auth[_-]?key"
    r"|(?:access|auth|api|refresh|bearer|session)[_-]?token)"
)
_KEYS: Final = "|".join((
    r"sk-[A-Za-z0-9_-]{20,}",                                     # OpenAI, Anthropic, and those that copy the prefix
    r"(?:sk|rk|pk)_(?:live|test)_[A-Za-z0-9]{10,}", r"whsec_[A-Za-z0-9+/]{24,}",   # Stripe
    r"(?:AKIA|ASIA|AROA|AIDA)[A-Z0-9]{16}",                       # Amazon
    r"gh[oprsu]_[A-Za-z0-9]{30,}", r"github_pat_[A-Za-z0-9_]{22,}", r"glpat-[A-Za-z0-9_-]{20,}",
    r"xox[abeoprs]-[A-Za-z0-9-]{10,}", r"xapp-[A-Za-z0-9-]{20,}",  # Slack
    r"AIza[A-Za-z0-9_-]{35}", r"ya29\.[A-Za-z0-9_-]{20,}", r"GOCSPX-[A-Za-z0-9_-]{20,}",   # Google
    r"hf_[A-Za-z0-9]{30,}", r"npm_[A-Za-z0-9]{30,}", r"pypi-[A-Za-z0-9_-]{40,}",
    r"SG\.[A-Za-z0-9_-]{16,}\.[A-Za-z0-9_-]{16,}", r"(?:SK|AC)[0-9a-f]{32}",       # SendGrid, Twilio
    r"dapi[0-9a-f]{32}", r"do[opr]_v1_[0-9a-f]{40,}", r"shp(?:at|ca|pa|ss)_[0-9a-fA-F]{32}",
    r"gsk_[A-Za-z0-9]{40,}", r"xai-[A-Za-z0-9]{40,}", r"r8_[A-Za-z0-9]{30,}", r"pplx-[A-Za-z0-9]{40,}",
    r"[0-9]{8,10}:AA[A-Za-z0-9_-]{33}", r"lin_api_[A-Za-z0-9]{30,}", r"ntn_[A-Za-z0-9]{40,}",
))  # fmt: skip
_LETTER: Final = r"[\xc3-\xd1][\x80-\xbf]"
"""A Latin, Greek or Cyrillic letter beyond ASCII, as UTF-8: real names, and look-alikes of ASCII letters."""
_OCTET: Final = r"(?:25[0-5]|2[0-4][0-9]|1?[0-9]?[0-9])"

RULES: Final = (
    Rule("private_key", "[PRIVATE_KEY]",
         r"-----BEGIN [A-Z0-9 ]*PRIVATE KEY(?: BLOCK)?-----[A-Za-z0-9+/=\s\\:,.()-]*", _private_key),
    Rule("jwt", "[JWT]", r"\beyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{8,}(?:\.[A-Za-z0-9_-]*)?"),
    Rule("api_key", "[API_KEY]", rf"\b(?:{_KEYS})", _token),
    Rule("bearer", "[API_KEY]", r"(?i)\b(?:bearer|basic)\s+([A-Za-z0-9._~+/-]{20,}=*)", _token),
    Rule("storage_key", "[API_KEY]", r"(?i)\b(?:AccountKey|SharedAccessKey|sig)=([A-Za-z0-9+/%]{32,}=*)"),
    Rule("connection_string", "[CONNECTION_STRING]",
         r"\b[A-Za-z][A-Za-z0-9+.-]*://[^\s\"'<>/@:]*:[^\s\"'<>/@]+@[^\s\"'<>]+"),
    Rule("password", "[PASSWORD]",
         rf"(?i){_SENSITIVE_NAME}[\"']?\s*(?::=|=>|[:=]|\bis\b)\s*(?:\"([^\"\n]{{6,}})\"|'([^'\n]{{6,}})'|([^\s\"',;(){{}}<>\[\]]{{6,}}))",
         _password),
    Rule("password", "[PASSWORD]", r"(?i)\bidentified\s+by\s+[\"']([^\"'\n]{4,})[\"']"),
    Rule("email", "[EMAIL]",
         rf"(?:[A-Za-z0-9!#$'+^_`~.-]|{_LETTER})*(?:[A-Za-z0-9_+-]|{_LETTER})(?:@|%40)"
         rf"(?:(?:[A-Za-z0-9-]|{_LETTER})+\.)+(?:[A-Za-z]|{_LETTER}){{2,}}"),
    Rule("iban", "[IBAN]", r"(?i)\b[A-Z]{2}[0-9]{2}(?:[ -]?[A-Z0-9]){11,30}", _iban),
    Rule("card", "[CARD]",
         r"\b(?:[0-9]{13,19}|[0-9]{4}(?:[ .-][0-9]{4}){2}[ .-][0-9]{1,7}|[0-9]{4}[ -][0-9]{6}[ -][0-9]{4,5})\b", _card),
    Rule("ssn", "[SSN]", r"\b[0-9]{3}[- ]?[0-9]{2}[- ]?[0-9]{4}\b", _ssn),
    Rule("phone", "[PHONE]",
         r"(?:\+|\b00)[0-9]{1,3}[ .-]?(?:\([0-9]{1,4}\)[ .-]?)?[0-9]{1,4}(?:[ .-]?[0-9]{2,4}){1,4}\b"
         r"|(?:\b1[ .-]?)?\([0-9]{3}\) ?[0-9]{3}[ .-]?[0-9]{4}\b|\b(?:1[ .-])?[0-9]{3}[ .-][0-9]{3}[ .-][0-9]{4}\b"
         r"|\b0?[0-9]{2,5}[ ./-]?[0-9]{3,8}(?:[ -]?[0-9]{2,4}){0,3}\b", _phone),
    Rule("ip_address", "[IP]", rf"\b(?:{_OCTET}\.){{3}}{_OCTET}\b", _ipv4),
    Rule("ip_address", "[IP]", r"\b[0-9A-Fa-f]{1,4}(?::[0-9A-Fa-f]{0,4}){3,7}", _ipv6),
)  # fmt: skip

_SECRET_NAME: Final = re2.compile(rf"(?i)(?:{_SENSITIVE_NAME}|authorization|private[_-]?key|\btoken)$")


def is_secret_name(name: str) -> bool:
    """Whether a field of this name holds a secret, whatever its value looks like.

    >>> is_secret_name("db.password"), is_secret_name("max_tokens")
    (True, False)
    """
    return _SECRET_NAME.search(name) is not None
