"""Addresses and settings of services that carry the password which opens them."""

from typing import Final

from core.pii_checks import Rule, words

_NO_PASSWORD: Final = words(
    r"^(?:[{<$%\[*]|(?:(?:my)?password|pass|pwd|p|x+|secret|token|tiger|your[_-].*|changeme)$)|\[|[\])}>]$|^\.{3}|\*{3}"
)
"""What documentation writes; scott/tiger is Oracle's and everybody's example."""
_NO_SERVICES: Final = (b"github://", b"gitlab://")
"""File systems of fsspec, whose address is owner:repository@revision."""
_OPENS: Final = r"(?:password|passwd|pwd|accountkey|sharedaccesskey|sharedsecret(?:value)?|secret)"
_PLACE_KEY: Final = (
    r"(?:server|data ?source|addr(?:ess)?|network ?address|host(?:name)?|(?:account)?endpoint|defaultendpointsprotocol|accountname|driver|provider|dsn"
    r"|database|initial ?catalog|dbq|port|service ?name|uid|user(?: ?id| ?name)?)"
)


def _with_password(data: bytes, start: int, end: int) -> int | None:
    """An address with user and password, of which neither is a variable to be filled in."""
    if data[start:end].startswith(_NO_SERVICES):
        return None
    rest = data[start:end].partition(b"://")[2]
    return None if _NO_PASSWORD.search(rest.rpartition(b"@")[0].partition(b":")[2]) else end


_ITS_PASSWORD: Final = words(rf"{_OPENS}\s*=\s*['\"]?([^;&\s'\"]+)")
_ITS_PLACE: Final = words(
    r"\b(?:server|data ?source|addr(?:ess)?|network ?address|host(?:name|addr)?|(?:account)?endpoint|defaultendpointsprotocol|driver|provider|dsn|dbname|database"
    r"|initial ?catalog|dbq)\s*="
)


def _settings(data: bytes, start: int, end: int) -> int | None:
    """Settings that say where, and a password that is none to be filled in."""
    text = data[start:end]
    password = _ITS_PASSWORD.search(text)
    if password is None or _NO_PASSWORD.search(password[1]) or _ITS_PLACE.search(text) is None:
        return None
    return end


def _in_query(data: bytes, start: int, end: int) -> int | None:
    """A data base's address with the password among its parameters; pages of the web are no connection."""
    password = _ITS_PASSWORD.search(data[start:end])
    web = data[start : start + 4].lower() == b"http"
    return None if web or password is None or _NO_PASSWORD.search(password[1]) else end


_SCHEME: Final = r"\b(?:jdbc:)?[A-Za-z][A-Za-z0-9+._-]*://"
_VALUE: Final = r"(?:\{[^}\n]*\}|'[^'\n]*'|[^;\n\"']*)"
_MORE: Final = r"(?:(?:;\s?[A-Za-z][A-Za-z ]*=[^;\n\"']*)*;(?:\s?[A-Za-z][A-Za-z ]*=[^;\s\"']*)?)?"
_LAST: Final = r"(?:\{[^}\n]*\}|'[^'\n]*'|[^;\s\"']+)"

CONNECTION_RULES: Final = (
    Rule("connection_string", "connection_string", "[CONNECTION_STRING]",
         rf"{_SCHEME}[^\s\"'<>/@:]*:[^\s\"'<>/@]+@[^\s\"'<>]+", _with_password),
    Rule("connection_string", "connection_string", "[CONNECTION_STRING]", r"\bjdbc:oracle:[a-z]+:[^\s/\"'@:]+/[^\s\"'@]+@[^\s\"'<>]+"),
    Rule("connection_string", "connection_string", "[CONNECTION_STRING]",
         rf"(?i){_SCHEME}[^\s\"'<>?;]*[?;](?:[^\s\"'<>]*[&;])?{_OPENS}=[^\s\"'<>]+", _in_query),
    Rule("connection_string", "connection_string", "[CONNECTION_STRING]",
         rf"(?i)\b{_PLACE_KEY}\s?=\s?{_VALUE}(?:;\s?[A-Z][A-Z ]*=\s?{_VALUE})*;\s?{_OPENS}\s?=\s?{_LAST}{_MORE}", _settings),
    Rule("connection_string", "connection_string", "[CONNECTION_STRING]",
         rf"(?i)\b{_OPENS}\s?=\s?{_LAST}(?:;\s?[A-Z][A-Z ]*=\s?{_VALUE})*;\s?{_PLACE_KEY}\s?=\s?{_LAST}{_MORE}", _settings),
    Rule("connection_string", "connection_string", "[CONNECTION_STRING]",
         r"(?i)\b(?:host(?:addr)?|dbname|user|port|service)=[^\s\"']+(?:\s+[a-z_]+=(?:\\?'[^'\n]*'|[^\s\"']+))*\s+password=(?:\\?'[^'\n]*'|[^\s\"']+)"
         r"(?:\s+[a-z_]+=(?:\\?'[^'\n]*'|[^\s\"']+))*", _settings),
    Rule("connection_string", "connection_string", "[CONNECTION_STRING]",
         r"(?i)\bpassword=[^\s\"']+(?:\s+[a-z_]+=[^\s\"']+)*\s+(?:host(?:addr)?|dbname)=[^\s\"']+(?:\s+[a-z_]+=[^\s\"']+)*", _settings),
)  # fmt: skip
