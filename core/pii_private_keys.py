"""Private keys: what PEM, PuTTY and age files hold, and bare ones beside their name."""

import re
from typing import Final

from core.pii_checks import Rule, after, alone, words

_BODY: Final = re.compile(rb"[A-Za-z0-9+/=]{8,}")
_MARKER: Final = b"-----"
_MANY: Final = 16
_BREAKS: Final = (b"\n", b"\r", b"\\")
_NAMED: Final = words(
    r"(?:priv(?:ate)?[ _-]?key|signing[ _-]?key|secret[ _-]?key|seed|mnemonic|cl\xc3\xa9 priv\xc3\xa9e|privater? schl\xc3\xbcssel|clave privada|chave privada"
    r"|chiave privata|klucz prywatny|\xd0\xbf\xd1\x80\xd0\xb8\xd0\xb2\xd0\xb0\xd1\x82\xd0\xbd\xd1\x8b\xd0\xb9 \xd0\xba\xd0\xbb\xd1\x8e\xd1\x87"
    r"|\xe7\xa7\x81\xe9\x92\xa5|\xe7\xa7\x98\xe5\xaf\x86\xe9\x8d\xb5)[^\n;]{0,20}$"
)
_NAMED_BEHIND: Final = words(r"^[^\n0-9.;]{0,16}private[ _-]key")
_WIREGUARD: Final = words(r"(?:private[ _-]?key|preshared[ _-]?key|\bpsk)[^\n;]{0,12}$")
_BEHIND: Final = 32
_JWK: Final = re.compile(rb'"kty\\?"')
_JWK_REACH: Final = 2_048


def _pem(data: bytes, start: int, end: int) -> int | None:
    """To the end marker of the same key; a key that is cut off ends where its characters end; markers without a key are none."""
    position = start
    while True:
        head = data.find(_MARKER, position + len(_MARKER), end)
        if head < 0:
            return None
        head += len(_MARKER)
        marker = data.find(_MARKER, head, end)
        runs = _BODY.finditer(data, head, marker if marker >= 0 else end)
        last = max((run.end() for run in runs if _random(run[0]) and (marker >= 0 or _stands_alone(data, run))), default=None)
        if last is not None:
            break
        position = data.find(b"-----BEGIN", head, end)
        if position < 0:
            return None
    closing = data.find(_MARKER, marker + 8, end) if marker >= 0 and data[marker : marker + 8] == b"-----END" else -1
    return closing + len(_MARKER) if closing >= 0 else last


def _random(run: bytes) -> bool:
    """Whether characters are of a key and no word of the text around."""
    return any(not 97 <= c <= 122 for c in run[1:])


def _stands_alone(data: bytes, run: re.Match[bytes]) -> bool:
    """Whether characters without an end marker are no prose: many with a digit among them, or a whole line."""
    if len(run[0]) >= _MANY and any(48 <= c <= 57 for c in run[0]):
        return True
    return data[run.start() - 1 : run.start()] in _BREAKS and data[run.end() : run.end() + 1] in (*_BREAKS, b"")


def _named(data: bytes, start: int, end: int) -> int | None:
    """64 hexadecimal digits, which are a hash as well unless somebody calls them a private key."""
    if not alone(data, start, end) or len(set(data[start:end].lower())) < 8:
        return None
    return end if after(data, start, _NAMED) or _NAMED_BEHIND.search(data[end : end + _BEHIND]) else None


def _wireguard(data: bytes, start: int, end: int) -> int | None:
    return end if alone(data, start, end, b"/+") and after(data, start, _WIREGUARD) else None


def _jwk(data: bytes, start: int, end: int) -> int | None:
    return end if _JWK.search(data, max(0, start - _JWK_REACH), end + _JWK_REACH) else None


PRIVATE_KEY_RULES: Final = (
    Rule("private_key", "private_key", "[PRIVATE_KEY]",
         r"-----BEGIN [A-Z0-9 ]*PRIVATE KEY(?: BLOCK)?-----[A-Za-z0-9+/=\s\\:,.()>|#*-]*", _pem),
    Rule("private_key", "private_key", "[PRIVATE_KEY]",
         r"PuTTY-User-Key-File-[0-9]:[^\n]*(?:\r?\n[A-Za-z][A-Za-z-]*:[^\n]*|\r?\n[A-Za-z0-9+/=]+)*"),
    Rule("private_key", "private_key", "[PRIVATE_KEY]", r"\bAGE-SECRET-KEY-1[0-9A-Z]{50,}"),
    Rule("private_key", "private_key", "[PRIVATE_KEY]", r"\b(?:0x)?[0-9A-Fa-f]{64}\b", _named),
    Rule("private_key", "private_key", "[PRIVATE_KEY]", r"\b[A-Za-z0-9+/]{43}=", _wireguard, words(r"private[ _-]?key|preshared|\bpsk")),
    Rule("private_key", "private_key", "[PRIVATE_KEY]", r"\"d\\?\"\s*:\s*\\?\"([A-Za-z0-9_-]{40,})", _jwk),
)  # fmt: skip
