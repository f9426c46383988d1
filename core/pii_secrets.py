"""Keys, tokens, passwords and addresses that carry one: what opens something."""

import re
from typing import Final

from core.pii_checks import Rule, words

_STAND_IN: Final = words(
    r"^(?:none|null|true|false|your|<|\$\{|\$\(|\{\{|\[|%\(|process\.|os\.|self\.)|\.\.\.|\*\*\*|xxx|://|`|^~?\.{0,2}/[^ ]*/|^\$[A-Z_]+$"
    r"|^[a-z_][a-z0-9_]*(?:\.[a-z_][a-z0-9_]*)*[\[(]"
)
"""Variables, calls, paths, addresses and what is to be filled in."""
_NAME: Final = words(
    r"secret|token|passw|passphrase|credential|api.?key|value|sensitive|example|sample|dummy|placeholder|change.?me|redacted|^my[_-]|pass$"
)
_DOTTED: Final = words(r"^[a-z_][a-z0-9_]*(?:\.[a-z_][a-z0-9_]*)+$")


_MOST_READ: Final = 256
"""Bytes of a value that its pattern reads …"""
_REST: Final = {b'"': re.compile(rb'[^"\n]*'), b"'": re.compile(rb"[^'\n]*"), b"": re.compile(rb"[^\s\"',;(){}<>\[\]]*")}
"""… and what follows them up to the value's end."""


def _password(data: bytes, start: int, end: int) -> int | None:
    """A value that looks chosen: quoted, or with digits or symbols among its letters; no stand-in for one."""
    value = data[start:end]
    lower = value.lower()
    if len(set(value)) < 4 or _STAND_IN.search(value):
        return None
    digit = any(48 <= c <= 57 for c in value)
    symbol = any(chr(c) in "!@#$%^&*?+=~-_" for c in value)
    long = len(value) >= 16 and sum(48 <= c <= 57 for c in value) >= 4 and sum(chr(c).isalpha() for c in value) >= 4
    mixed = digit + symbol + (value[1:] != lower[1:]) + (max(value) > 127) + long
    if mixed < 2 and _NAME.search(value):
        return None
    quote = data[start - 1 : start]
    quote = quote if quote in _REST else b""
    if quote and len(value) < _MOST_READ and data[end : end + 1] != quote:
        return None
    if len(value) == _MOST_READ and (rest := _REST[quote].match(data, end)) is not None:
        end = rest.end()
    if quote:
        return end if mixed >= (2 if b" " in value else 1) else None
    named = data[end : end + 1] in (b"(", b"[") or _DOTTED.search(value)
    return end if digit and mixed + value[:1].isupper() >= 2 and not named else None


def _identified(data: bytes, start: int, end: int) -> int | None:
    """A password in SQL; in prose things are identified by names."""
    statement = b"IDENTIFIED" in data[max(0, start - 20) : start] or any(48 <= c <= 57 for c in data[start:end])
    return _password(data, start, end) if statement else None


def _private_key(data: bytes, start: int, end: int) -> int:
    """To the end marker of the same key; a key that is cut off ends where its characters end."""
    marker = data.find(b"-----END", start, end)
    closing = data.find(b"-----", marker + 8, end) if marker >= 0 else -1
    return closing + 5 if closing >= 0 else end


def _token(data: bytes, start: int, end: int) -> int | None:
    """A key: begins where no word goes on, is not one character repeated, and has a digit or a change of case."""
    before, value = data[start - 1 : start], data[start:end]
    if before.isalnum() or before in (b"_", b"-") or len(set(value)) < 8:
        return None
    random = any(48 <= c <= 57 for c in value[4:]) or (value[4:].lower() != value[4:] and value[4:].upper() != value[4:])
    return end if random else None


def _bearer(data: bytes, start: int, end: int) -> int | None:
    value = data[start:end]
    return end if any(48 <= c <= 57 for c in value) and len(set(value)) >= 8 else None


def _with_password(data: bytes, start: int, end: int) -> int | None:
    """An address with user and password, of which neither is a variable to be filled in."""
    rest = data[start:end].partition(b"://")[2]
    return None if _NO_PASSWORD.search(rest.rpartition(b"@")[0].partition(b":")[2]) else end


_NO_PASSWORD: Final = words(r"^(?:[{<$%\[*]|(?:(?:my)?password|pass|pwd|p|x+|secret|token|tiger)$)|\[")
"""What documentation writes; scott/tiger is Oracle's and everybody's example."""


_SENSITIVE: Final = (
    r"(?:passw(?:or)?d|passwd|passphrase|pwd|[_-]pass|dbpass|\bpass|secret(?:[_-]?(?:key|token|value))?"
    r"|(?:api|access|auth|account|encryption|signing|private|master)[_-]?key"
    r"|(?:access|auth|api|refresh|bearer|session|id|bot|csrf|client)[_-]?token|[A-Z]_token|\btoken|credentials?"
    r"|passwort|kennwort|contrase(?:n|\xc3\xb1)a|mot[ _]de[ _]passe|senha|wachtwoord|has[\xc5][\x82]o|l\xc3\xb6senord"
    r"|\xd0[\x9f\xbf]\xd0\xb0\xd1\x80\xd0\xbe\xd0\xbb\xd1\x8c|\xe5\xaf\x86\xe7\xa0\x81|\xe3\x83\x91\xe3\x82\xb9\xe3\x83\xaf\xe3\x83\xbc\xe3\x83\x89)"
)
_ASSIGNED: Final = (
    r"[\"']?\s*(?::=|=>|[:=]|\xef\xbc\x9a|\b(?:is|ist|es|est|was|lautet|set to)\b:?)\s*"
    r"(?:\"([^\"\n]{6,256})|'([^'\n]{6,256})|([^\s\"',;(){}<>\[\]]{6,256}))"
)
_KEYS: Final = "|".join((
    r"sk-[A-Za-z0-9_-]{20,}",                                     # OpenAI, Anthropic, and those that copy the prefix
    r"(?:sk|rk|pk)_(?:live|test)_[A-Za-z0-9]{10,}", r"whsec_[A-Za-z0-9+/]{24,}",   # Stripe
    r"(?:AKIA|ASIA|AROA|AIDA)[A-Z0-9]{16}",                       # Amazon
    r"gh[oprsu]_[A-Za-z0-9]{30,}", r"github_pat_[A-Za-z0-9_]{22,}", r"glpat-[A-Za-z0-9_-]{20,}",
    r"gl(?:dt|rt|ptt|ft|agent|soat)-[A-Za-z0-9_-]{20,}",
    r"xox[abeoprs]-[A-Za-z0-9-]{10,}", r"xapp-[A-Za-z0-9-]{20,}",  # Slack
    r"hooks\.slack\.com/services/T[A-Z0-9]{6,}/B[A-Z0-9]{6,}/[A-Za-z0-9]{16,}",
    r"AIza[A-Za-z0-9_-]{35}", r"ya29\.[A-Za-z0-9_-]{20,}", r"GOCSPX-[A-Za-z0-9_-]{20,}",   # Google
    r"hf_[A-Za-z0-9]{30,}", r"npm_[A-Za-z0-9]{30,}", r"pypi-[A-Za-z0-9_-]{40,}", r"rubygems_[0-9a-f]{40,}",
    r"SG\.[A-Za-z0-9_-]{16,}\.[A-Za-z0-9_-]{16,}", r"(?:SK|AC)[0-9a-f]{32}", r"key-[0-9a-f]{32}",   # SendGrid, Twilio, Mailgun
    r"dapi[0-9a-f]{32}", r"do[opr]_v1_[0-9a-f]{40,}", r"shp(?:at|ca|pa|ss)_[0-9a-fA-F]{32}",
    r"gsk_[A-Za-z0-9]{40,}", r"xai-[A-Za-z0-9]{40,}", r"r8_[A-Za-z0-9]{30,}", r"pplx-[A-Za-z0-9]{40,}", r"tvly-[A-Za-z0-9-]{20,}",
    r"[0-9]{8,10}:AA[A-Za-z0-9_-]{30,35}", r"lin_api_[A-Za-z0-9]{30,}", r"ntn_[A-Za-z0-9]{40,}", r"secret_[A-Za-z0-9]{40,}",
    r"hv[sb]\.[A-Za-z0-9_-]{24,}", r"dckr_pat_[A-Za-z0-9_-]{20,}", r"sq0(?:atp|csp)-[A-Za-z0-9_-]{22,}", r"EAA[A-Za-z0-9]{60,}",
    r"glsa_[A-Za-z0-9_]{32,}", r"sntrys_[A-Za-z0-9_=+/]{40,}", r"phc_[A-Za-z0-9]{30,}", r"lsv2_(?:pt|sk)_[A-Za-z0-9_]{30,}",
    r"FlyV1 fm[0-9]_[A-Za-z0-9+/=,_-]{40,}", r"PMAK-[0-9a-f]{24}-[0-9a-f]{34}", r"sbp_[0-9a-f]{40}", r"vercel_[A-Za-z0-9]{24,}",
))  # fmt: skip

SECRET_RULES: Final = (
    Rule("private_key", "private_key", "[PRIVATE_KEY]",
         r"-----BEGIN [A-Z0-9 ]*PRIVATE KEY(?: BLOCK)?-----[A-Za-z0-9+/=\s\\:,.()>|-]*", _private_key),
    Rule("private_key", "private_key", "[PRIVATE_KEY]",
         r"PuTTY-User-Key-File-[0-9]:[^\n]*(?:\r?\n[A-Za-z][A-Za-z-]*:[^\n]*|\r?\n[A-Za-z0-9+/=]+)*"),
    Rule("private_key", "private_key", "[PRIVATE_KEY]", r"\bAGE-SECRET-KEY-1[0-9A-Z]{50,}"),
    Rule("jwt", "secret", "[JWT]", r"\beyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{8,}(?:\.[A-Za-z0-9_-]*)?"),
    Rule("api_key", "secret", "[API_KEY]", rf"\b(?:{_KEYS})", _token),
    Rule("bearer", "secret", "[API_KEY]", r"(?i)\b(?:bearer|basic)\s+([A-Za-z0-9._~+/-]{16,}=*)", _bearer),
    Rule("storage_key", "secret", "[API_KEY]", r"(?i)\b(?:AccountKey|SharedAccessKey|sig)=([A-Za-z0-9+/%]{32,}=*)"),
    Rule("connection_string", "connection_string", "[CONNECTION_STRING]",
         r"\b[A-Za-z][A-Za-z0-9+.-]*://[^\s\"'<>/@:]*:[^\s\"'<>/@]+@[^\s\"'<>]+", _with_password),
    Rule("connection_string", "connection_string", "[CONNECTION_STRING]", r"\bjdbc:oracle:[a-z]+:[^\s/\"'@:]+/[^\s\"'@]+@[^\s\"'<>]+"),
    Rule("password", "secret", "[PASSWORD]", rf"(?i){_SENSITIVE}{_ASSIGNED}", _password),
    Rule("password", "secret", "[PASSWORD]", r"(?i)\bidentified\s+by\s+[\"']([^\"'\n]{4,})[\"']", _identified),
)  # fmt: skip

_SECRET_NAME: Final = words(rf"(?:{_SENSITIVE}|authorization|[A-Z]token)$")


def is_secret_name(name: str) -> bool:
    """Whether a field of this name holds a secret, whatever its value looks like.

    >>> is_secret_name("db.password"), is_secret_name("max_tokens")
    (True, False)
    """
    return _SECRET_NAME.search(name.encode("utf-8", "replace")) is not None
