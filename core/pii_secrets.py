"""Keys, tokens and passwords: what opens something."""

import re
from typing import Final

from core.pii_checks import Rule, alone, any_of, words

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


def _token(data: bytes, start: int, end: int) -> int | None:
    """A key: begins where no word goes on, is not one character repeated, and has a digit or a change of case."""
    before, value = data[start - 1 : start], data[start:end]
    if before.isalnum() or before in (b"_", b"-") or len(set(value)) < 8:
        return None
    random = any(48 <= c <= 57 for c in value[4:]) or (value[4:].lower() != value[4:] and value[4:].upper() != value[4:])
    return end if random else None


_NO_PROVIDERS: Final = words(
    r"^(?:sha[0-9]|md5|h1|blake|resp|chatcmpl|msg|req|call|run|thread|file|asst|toolu|cus|evt|pi|ch|sub|in)[_-]"
)
"""Digests, and names of objects of well-known services."""


def _of_some_provider(data: bytes, start: int, end: int) -> int | None:
    """A short prefix and a long random part, as most providers of keys write them."""
    value = data[start:end]
    if not alone(data, start, end, b"-+/.=") or _NO_PROVIDERS.search(value):
        return None
    random = re.split(rb"[_-]", value)[-1]
    kinds = (sum(97 <= c <= 122 for c in random), sum(65 <= c <= 90 for c in random), sum(48 <= c <= 57 for c in random))
    beyond_hex = sum(103 <= c <= 122 for c in random)
    return end if min(kinds) >= 3 or (len(random) >= 40 and kinds[2] >= 5 and beyond_hex >= 8) else None


_OTHER_KEYS: Final = words(
    r"(?:cache|primary|foreign|public|pub|partition|sort|row|s3|object|idempotency|host|map|dict|hash|shard|lookup|dedup\w*)[ _-]?$"
)


def _key(data: bytes, start: int, end: int) -> int | None:
    """What is called a key and is random; not the keys of caches, tables and stores."""
    value = data[start:end]
    random = any(48 <= c <= 57 for c in value) and any(chr(c).isalpha() for c in value) and len(set(value)) >= 8
    near = data[max(0, start - 32) : start]
    name = near[: max(0, near.lower().rfind(b"key"))]
    return end if random and not _OTHER_KEYS.search(name) else None


def _login(data: bytes, start: int, end: int) -> int | None:
    """A password behind its user in the option of a command; user and group are numbers or names."""
    return _password(data, start, end) if any(48 <= c <= 57 for c in data[start:end]) else None


def _bearer(data: bytes, start: int, end: int) -> int | None:
    value = data[start:end]
    return end if any(48 <= c <= 57 for c in value) and len(set(value)) >= 8 else None


_FOREIGN: Final = any_of(
    "пароль", "Пароль", "密码", "密碼", "パスワード", "비밀번호", "암호", "κωδικός", "סיסמה", "كلمة المرور", "كلمة السر", "पासवर्ड", "รหัสผ่าน",
    "mật khẩu", "parola", "şifre", "heslo", "jelszó", "adgangskode", "kodeord", "passord", "salasana", "kata sandi", "geslo", "lozinka",
)  # fmt: skip
_SENSITIVE: Final = (
    r"(?:passw(?:or)?d|passwd|passphrase|pwd|[_-]pass|dbpass|\bpass|secret(?:[_-]?(?:key|token|value))?"
    r"|(?:api|access|auth|account|encryption|signing|private|master)[_-]?key"
    r"|(?:access|auth|api|refresh|bearer|session|id|bot|csrf|client)[_-]?token|[A-Z]_token|\btoken|credentials?"
    r"|passwort|kennwort|contrase(?:n|\xc3\xb1)a|mot[ _]de[ _]passe|senha|wachtwoord|has[\xc5][\x82]o|l\xc3\xb6senord|passcode|\bpw"
    rf"|{_FOREIGN})"
)
_IS: Final = r"[\"']?\s*(?:[{,]?\s*[\"']?(?:default|value)[\"']?\s*)?(?::=|=>|[:=]|\xef\xbc\x9a|\b(?:is|ist|es|est|was|lautet|set to|to jest|jest|\xc3\xa4r|\xc3\xa9|\xc3\xa8)\b:?)\s*"
_ASSIGNED: Final = _IS + r"(?:\"([^\"\n]{6,256})|'([^'\n]{6,256})|([^\s\"',;(){}<>\[\]]{6,256}))"
_SIGN: Final = (
    r"(?:pass[a-z]*|pwd|\bpw|secret[a-z_-]*|key|token|credentials?|kennwort|contrasena|mot de passe|mot_de_passe|senha|wachtwoord|l\xc3\xb6senord"
    r"|parola|heslo|geslo|lozinka|salasana|adgangskode|kodeord|kata sandi|[\x80-\xbf][a-z]{0,4})"
)
"""How all names of `_SENSITIVE` end, or nearly: few states, few hits."""
_KEYS: Final = "|".join((
    r"sk-[A-Za-z0-9_-]{20,}",                                     # OpenAI, Anthropic, and those that copy the prefix
    r"(?:sk|rk|pk)_(?:live|test)_[A-Za-z0-9]{10,}", r"whsec_[A-Za-z0-9+/]{24,}",   # Stripe
    r"(?:AKIA|ASIA|AROA|AIDA|ABIA|ACCA)[A-Z0-9]{16}", r"ABSK[A-Za-z0-9+/=]{60,}",                        # Amazon
    r"gh[oprsu]_[A-Za-z0-9]{30,}", r"github_pat_[A-Za-z0-9_]{22,}", r"glpat-[A-Za-z0-9_-]{20,}",
    r"gl(?:dt|rt|ptt|ft|agent|soat)-[A-Za-z0-9_-]{20,}",
    r"xox[abeoprs]-[A-Za-z0-9-]{10,}", r"xapp-[A-Za-z0-9-]{20,}",  # Slack
    r"hooks\.slack\.com/services/T[A-Z0-9]{6,}/B[A-Z0-9]{6,}/[A-Za-z0-9]{16,}",
    r"AIza[A-Za-z0-9_-]{35}", r"ya29\.[A-Za-z0-9_-]{20,}", r"GOCSPX-[A-Za-z0-9_-]{20,}",   # Google
    r"hf_[A-Za-z0-9]{30,}", r"npm_[A-Za-z0-9]{30,}", r"pypi-[A-Za-z0-9_-]{40,}", r"rubygems_[0-9a-f]{40,}",
    r"SG\.[A-Za-z0-9_-]{16,}\.[A-Za-z0-9_-]{16,}", r"(?:SK|AC)[0-9a-f]{32}", r"key-[0-9a-f]{32}",   # SendGrid, Twilio, Mailgun
    r"dapi[0-9a-f]{32}", r"do[opr]_v1_[0-9a-f]{40,}", r"shp(?:at|ca|pa|ss)_[0-9a-fA-F]{32}",
    r"gsk_[A-Za-z0-9]{40,}", r"xai-[A-Za-z0-9]{40,}", r"r8_[A-Za-z0-9]{30,}", r"pplx-[A-Za-z0-9]{40,}", r"tvly-[A-Za-z0-9-]{20,}",
    r"(?:bot)?[0-9]{8,10}:AA[A-Za-z0-9_-]{30,35}", r"lin_api_[A-Za-z0-9]{30,}", r"ntn_[A-Za-z0-9]{40,}", r"secret_[A-Za-z0-9]{40,}",
    r"hv[sb]\.[A-Za-z0-9_-]{24,}", r"dckr_pat_[A-Za-z0-9_-]{20,}", r"sq0(?:atp|csp)-[A-Za-z0-9_-]{22,}", r"EAA[A-Za-z0-9]{60,}",
    r"glsa_[A-Za-z0-9_]{32,}", r"sntrys_[A-Za-z0-9_=+/]{40,}", r"phc_[A-Za-z0-9]{30,}", r"lsv2_(?:pt|sk)_[A-Za-z0-9_]{30,}",
    r"FlyV1 fm[0-9]_[A-Za-z0-9+/=,_-]{40,}", r"PMAK-[0-9a-f]{24}-[0-9a-f]{34}", r"sbp_[0-9a-f]{40}", r"vercel_[A-Za-z0-9]{24,}",
    r"[MNO][A-Za-z0-9_-]{23,27}\.[A-Za-z0-9_-]{6}\.[A-Za-z0-9_-]{27,40}",                # Discord
    r"discord(?:app)?\.com/api/webhooks/[0-9]{17,20}/[A-Za-z0-9_-]{40,}", r"hooks\.slack\.com/(?:workflows|triggers)/T[A-Za-z0-9/]{30,}",
    r"NRAK-[A-Z0-9]{27}", r"pcsk_[A-Za-z0-9_]{40,}", r"glc_[A-Za-z0-9+/=]{32,}", r"pscale_(?:tkn|pw|oauth)_[A-Za-z0-9._=-]{32,}", r"pul-[0-9a-f]{40}",
    r"fig[dou]_[A-Za-z0-9_-]{36,}", r"pat[A-Za-z0-9]{14}\.[0-9a-f]{64}", r"AT(?:ATT3|CTT3|BB)[A-Za-z0-9=_-]{24,}", r"dp\.(?:pt|st|ct|scim|audit)\.[A-Za-z0-9_.-]{32,}",
    r"[A-Za-z0-9]{14}\.atlasv1\.[A-Za-z0-9_=-]{60,}", r"sl\.[A-Za-z0-9_-]{100,}", r"LTAI[A-Za-z0-9]{12,20}", r"AKID[A-Za-z0-9]{32}", r"nvapi-[A-Za-z0-9_-]{50,}",
    r"fc-[0-9a-f]{32}", r"re_[A-Za-z0-9]{6,}_[A-Za-z0-9]{20,}", r"[0-9a-f]{32}-us[0-9]{1,2}", r"xkeysib-[0-9a-f]{64}-[A-Za-z0-9]{16}", r"oy2[a-z0-9]{43}",
    r"SWMTKN-1-[a-z0-9]{40,}-[a-z0-9]{20,}", r"amzn\.mws\.[0-9a-f-]{36}", r"rzp_live_[A-Za-z0-9]{14,}", r"sk_[0-9a-f]{48}", r"EAAA[A-Za-z0-9_-]{56,}",
    r"aio_[A-Za-z0-9]{28}", r"(?:bkua|sq[pau])_[0-9a-f]{40}", r"shippo_live_[0-9a-f]{40}", r"NR(?:II|JS|SP)-[A-Za-z0-9_-]{32}", r"phx_[A-Za-z0-9]{30,}", r"jina_[A-Za-z0-9]{50,}",
    r"GOOG1?[A-Z0-9]{20,}", r"CFPAT-[A-Za-z0-9_-]{40,}", r"sgp_[A-Za-z0-9_]{40,}", r"dd[pa]_[A-Za-z0-9]{30,}", r"tskey-[a-z]+-[A-Za-z0-9]+-[A-Za-z0-9]{20,}",
))  # fmt: skip

SECRET_RULES: Final = (
    Rule("jwt", "secret", "[JWT]", r"\beyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{8,}(?:\.[A-Za-z0-9_-]*)?"),
    Rule("api_key", "secret", "[API_KEY]", rf"\b(?:{_KEYS})", _token),
    Rule("api_key", "secret", "[API_KEY]", r"\b[a-z]{2,8}[0-9]?(?:[_-][a-z0-9]{1,8}){0,2}[_-][A-Za-z0-9]{32,}\b", _of_some_provider,
        sign=r"[_-][A-Za-z0-9]{16}"),
    Rule("api_key", "secret", "[API_KEY]", r"(?i)\bkey[\"']?(?: is| ?[:=]) ?[\"']?([A-Z0-9]{32,})\b", _key, sign=r"(?i)\bkey[\"' ]?[^\n]{0,6}[A-Z0-9]{16}"),
    Rule("bearer", "secret", "[API_KEY]", r"(?i)\b(?:bearer|basic)\s+([A-Za-z0-9._~+/-]{16,}=*)", _bearer),
    Rule("storage_key", "secret", "[API_KEY]", r"(?i)\b(?:AccountKey|SharedAccessKey|sig)=([A-Za-z0-9+/%]{32,}=*)"),
    Rule("password", "secret", "[PASSWORD]", rf"(?i){_SENSITIVE}{_ASSIGNED}", _password, sign=rf"(?i){_SIGN}{_IS}"),
    Rule("password", "secret", "[PASSWORD]", r"\s(?:-u|--user|--proxy-user)[ =][\"']?[A-Za-z0-9._@-]+:([^\s\"']{6,256})", _login),
    Rule("password", "secret", "[PASSWORD]", r"(?i)\bidentified\s+by\s+[\"']([^\"'\n]{4,})[\"']", _identified),
)  # fmt: skip

_SECRET_NAME: Final = words(rf"(?:{_SENSITIVE}|authorization|[A-Z]token)$")


def is_secret_name(name: str) -> bool:
    """Whether a field of this name holds a secret, whatever its value looks like.

    >>> is_secret_name("db.password"), is_secret_name("max_tokens")
    (True, False)
    """
    return _SECRET_NAME.search(name.encode("utf-8", "replace")) is not None
