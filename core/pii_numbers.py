"""How to reach, pay or locate somebody: e-mail, card, account, social security number, network addresses."""

import re
from ipaddress import AddressValueError, IPv6Address
from typing import Final

from core.pii_checks import COUNTED, Rule, after, alone, any_of, called, column, digits_of, letters_of, words
from core.pii_checksums import luhn, mod97
from core.pii_national import NOT_PERSONAL

_NO_MAILBOXES: Final = frozenset((b"git", b"hg", b"svn"))
_NO_MAIL_DOMAINS: Final = frozenset((b"openssh.com", b"libssh.org"))
"""Algorithms of SSH are named `name@domain` (RFC 4251)."""
_IN_LOGIN: Final = words(r"://[^\s/?#=]{0,64}$")


def _email(data: bytes, start: int, end: int) -> int | None:
    """An address, unless it is the login of a repository or of a URL."""
    local, _, domain = data[start:end].lower().rpartition(b"@")
    if local in _NO_MAILBOXES or domain in _NO_MAIL_DOMAINS:
        return None
    return None if b"@" in data[start:end] and after(data, start, _IN_LOGIN, 72) else end


_CARD_WORDS: Final = words(
    r"card|\bkarte|kreditkart|carte|tarjeta|cart[a\xc3\xa3]+o|\xd0\xba\xd0\xb0\xd1\x80\xd1\x82|\bvisa|amex|american express|master|maestro"
    r"|credit|debit|diners|discover|unionpay|\bjcb|\bpan\b|_pan\b|\bcc\b|"
    + any_of("卡", "カード", "카드", "κάρτα", "بطاقة", "כרטיס", "thẻ", "บัตร", "कार्ड")
)
_NO_CARD_WORDS: Final = words(
    r"\b(?:ean|gtin|isbn|upc|imei|iccid|barcode|snowflake|tweet|guild|channel|user id|(?:gift|loyalty|library|membership|sim|graphics|video) ?-?card)\b[^0-9\n]*$"
)


def _issued(digits: str) -> bool:
    """Whether an issuer's prefix goes with the length."""
    size, two, four = len(digits), int(digits[:2]), int(digits[:4])
    if digits[0] == "4":
        return size in (13, 16, 19)
    if two in (34, 37):
        return size == 15
    if two in (36, 38, 39) or 300 <= int(digits[:3]) <= 305:
        return size in (14, 16, 19)
    if 51 <= two <= 55 or 2200 <= four <= 2204 or 2221 <= four <= 2720 or 3528 <= four <= 3589:
        return size == 16
    return two in (50, 56, 57, 58, 59) or digits[0] == "6"


def _card(data: bytes, start: int, end: int) -> int | None:
    """Issued and with a right check digit; one that is called a card counts with a wrong one too when it is grouped like one."""
    digits = digits_of(data, start, end)
    named = after(data, start, _CARD_WORDS)
    glued = named and not data[end : end + 1].isdigit()
    if len(set(digits)) == 1 or not (glued or alone(data, start, end, b"-.:")) or not _issued(digits):
        return None
    if not luhn(digits):
        return end if named and len(digits) < end - start and not after(data, start, _NO_CARD_WORDS) else None
    common = len(digits) in (14, 15, 16) or (len(digits) == 13 and digits[0] == "4") or len(digits) < end - start
    return end if named or (common and not after(data, start, _NO_CARD_WORDS)) else None


# Lengths of the registry of ISO 13616.
_IBAN_LENGTHS: Final = {
    "AD": 24, "AE": 23, "AL": 28, "AT": 20, "AZ": 28, "BA": 20, "BE": 16, "BG": 22, "BH": 22, "BI": 27, "BR": 29, "BY": 28, "CH": 21,
    "CR": 22, "CY": 28, "CZ": 24, "DE": 22, "DJ": 27, "DK": 18, "DO": 28, "EE": 20, "EG": 29, "ES": 24, "FI": 18, "FK": 18, "FO": 18,
    "FR": 27, "GB": 22, "GE": 22, "GI": 23, "GL": 18, "GR": 27, "GT": 28, "HN": 28, "HR": 21, "HU": 28, "IE": 22, "IL": 23, "IQ": 23,
    "IS": 26, "IT": 27, "JO": 30, "KW": 30, "KZ": 20, "LB": 28, "LC": 32, "LI": 21, "LT": 20, "LU": 20, "LV": 21, "LY": 25, "MC": 27,
    "MD": 24, "ME": 22, "MK": 19, "MN": 20, "MR": 27, "MT": 31, "MU": 30, "NI": 28, "NL": 18, "NO": 15, "OM": 23, "PK": 24, "PL": 28,
    "PS": 29, "PT": 25, "QA": 29, "RO": 24, "RS": 22, "RU": 33, "SA": 24, "SC": 31, "SD": 18, "SE": 24, "SI": 19, "SK": 24, "SM": 27,
    "SO": 23, "ST": 25, "SV": 28, "TL": 23, "TN": 24, "TR": 26, "UA": 29, "VA": 22, "VG": 24, "XK": 20, "YE": 30,
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
    called = data[max(0, start - 4) : start].upper() == b"IBAN"
    if not length or len(characters) < length or not alone(data, start - 4 if called else start, position):
        return None
    return position if mod97(characters) else None


_SSN_WORDS: Final = words(r"ssn|soc(?:ial|\.)?[ _]?sec|security n|taxpayer|\bitin\b|\bsocial\b|seguro social|\bref\*sy\*")
"""`REF*SY*` is how X12 calls it."""
_SSN_BEHIND: Final = words(r"^ ?(?:\(|is (?:my|his|her|their|your|the) )(?:ssn|soc(?:ial|\.)?[ _]?sec|social\b)")
_SSN_PREFIX: Final = re.compile(rb"(?i)ssn[-_./]$")
_ITIN: Final = words(r"\bitin\b|taxpayer")


def _ssn(data: bytes, start: int, end: int) -> int | None:
    """A number that the Social Security Administration can have issued, dashed or called by its name; or a taxpayer's."""
    digits = digits_of(data, start, end)
    area, group, serial = digits[:3], digits[3:5], digits[5:]
    prefix = _SSN_PREFIX.search(data, max(0, start - 5), start)
    if not alone(data, start, end, b"-/.") and not (prefix and not data[end : end + 1].isalnum()):
        return None
    issued = area not in ("000", "666") and area < "900" and group != "00" and serial != "0000"
    taxpayer = area >= "900" and group >= "50" and after(data, start, _ITIN)
    named = called(data, start, _SSN_WORDS, NOT_PERSONAL)
    if not (issued or taxpayer) or (not named and after(data, start, NOT_PERSONAL)):
        return None
    if data[start:end].isdigit() and COUNTED.search(data[end : end + 16]):
        return None
    dashed = data[start + 3 : start + 4] == b"-" and data[end - 5 : end - 4] == b"-"
    named = named or _SSN_WORDS.search(column(data, start)) is not None or _SSN_BEHIND.search(data[end : end + 24]) is not None
    return end if dashed or named else None


_VERSION_WORDS: Final = words(
    r"(?:\b(?:version|release|section|chapter|paragraph|clause|article|firmware|build|oid|v|ver|kernel|driver|runtime|brd|broadcast|netmask)\b|[=><~]=)"
    r"[^0-9\n]{0,12}$"
)
_ADDRESS_WORDS: Final = words(r"\bips?\b|ipv4|_ip\b|\bip_|host|addr|server|\bping|://|@")


_NOBODYS: Final = frozenset((b"10.0.0.0", b"172.16.0.0", b"192.168.0.0", b"1.2.3.4"))
"""Names of the private networks, and the example that everybody writes."""
_RESOLVERS: Final = frozenset((b"8.8.8.8", b"8.8.4.4", b"9.9.9.9"))
"""Public servers, whose addresses look like versions."""


def _ipv4(data: bytes, start: int, end: int) -> int | None:
    """A dotted quad, no longer row, that is no version number, mask, loopback or unspecified address: private, spread like one, or called one."""
    dotted = data[start:end].rpartition(b":")[2]
    octets = [int(part) for part in dotted.split(b".")]
    if len(octets) != 4:
        return None
    if not alone(data, start, end, b".-") or octets[0] in (0, 127, 255) or data[start - 1 : start] in (b"v", b"V"):
        return None
    if dotted in _NOBODYS or octets[:2] == [169, 254] or after(data, start, _VERSION_WORDS):
        return None
    private = dotted in _RESOLVERS or octets[0] == 10 or octets[:2] == [192, 168] or (octets[0] == 172 and 16 <= octets[1] <= 31)
    spread = max(octets) >= 64 and sum(octet >= 10 for octet in octets) >= 2
    return end if private or spread or after(data, start, _ADDRESS_WORDS) else None


_IN_USE: Final = re.compile(rb"(?i)(?:2[0-9a-f]{3}|f[cd][0-9a-f]{2}):")
"""Global and unique local unicast; fe80::1 is on every machine."""


def _ipv6(data: bytes, start: int, end: int) -> int | None:
    """At least four groups or a beginning in use, so that clock times and scope operators stay; no MAC address, no fingerprint."""
    text = data[start:end]
    groups = [group for group in text.split(b":") if group]
    if not alone(data, start, end, b":.-") or all(len(group) == 2 for group in groups):
        return None
    if len(groups) < 4 and not (len(groups) > 1 and b"::" in text[:-2] and _IN_USE.match(text)):
        return None
    try:
        IPv6Address(text.decode())
    except AddressValueError:
        return None
    return end


_MAC_WORDS: Final = words(r"\bmac\b|mac[ _-]?addr|hwaddr|ether\b|physical address|bssid")


_MAC_NAMED: Final = words(r"(?:\bmac(?:[ _-]?addr(?:ess)?)?|macaddr|hwaddr|bssid)[\"']?(?: ?[:=] ?| is | )[\"']?$")


def _bare_mac(data: bytes, start: int, end: int) -> int | None:
    return end if alone(data, start, end) and len(set(data[start:end])) > 2 and after(data, start, _MAC_NAMED) else None


def _mac(data: bytes, start: int, end: int) -> int | None:
    """Six groups that are no example, no broadcast, and more than numbers (times, dates) unless called an address."""
    groups = letters_of(data, start, end)
    separator = data[start + 2 : start + 3] if data[start + 2 : start + 3] in (b":", b"-") else b"."
    same = all(groups[at] == groups[at + 1] for at in range(0, 12, 2))
    if (
        same
        or not alone(data, start, end, separator)
        or data[start:end].count(separator) != (2 if separator == b"." and data[start + 4 : start + 5] == b"." else 5)
    ):
        return None
    return end if not groups.isdigit() or after(data, start, _MAC_WORDS) else None


_LETTER: Final = r"[\xc3-\xd1][\x80-\xbf]"
"""A Latin, Greek or Cyrillic letter beyond ASCII, as UTF-8: real names, and look-alikes of ASCII letters."""
_DOMAIN: Final = rf"(?:(?:[A-Za-z0-9-]|{_LETTER})+\.)+(?:[A-Za-z]|{_LETTER}){{2,}}"
_SPELLED_DOT: Final = r"(?:[\[({<] ?dot ?[\])}>])"
_SPELLED_DOMAIN: Final = rf"[A-Z0-9-]+(?:(?: ?{_SPELLED_DOT} ?|\.)[A-Z0-9-]+)*(?: ?{_SPELLED_DOT} ?|\.)[A-Z]{{2,}}\b"
_OCTET: Final = r"(?:25[0-5]|2[0-4][0-9]|1?[0-9]?[0-9])"
_HEX2: Final = "[0-9A-Fa-f]{2}"

NUMBER_RULES: Final = (
    Rule("email", "email", "[EMAIL]",
         rf"(?:[A-Za-z0-9_+-]|{_LETTER})(?:(?:[A-Za-z0-9!#$'+^_`~.-]|{_LETTER})*(?:[A-Za-z0-9_+-]|{_LETTER}))?(?:\+[A-Za-z0-9=._+-]+)?(?:@|%40)"
         rf"{_DOMAIN}", _email),
    Rule("email", "email", "[EMAIL]", rf"\"[^\"@\n\\]{{1,64}}\"@{_DOMAIN}", sign=r"\"@[A-Za-z0-9\xc3-\xd1]"),
    Rule("email", "email", "[EMAIL]", rf"(?i)\b[A-Z0-9][A-Z0-9._+-]*(?: ?{_SPELLED_DOT} ?[A-Z0-9_+-]+)* ?[\[({{<] ?at ?[\])}}>] ?{_SPELLED_DOMAIN}", sign=r"(?i)[\[({<] ?at ?[\])}>]"),
    Rule("iban", "iban", "[IBAN]", r"(?i)\b(?:IBAN)?([A-Z]{2}[0-9]{2}(?:[ .-]?[A-Z0-9]){11,30})", _iban),
    Rule("card", "card", "[CARD]",
         r"\b(?:[0-9]{13,19}|[0-9]{4}(?:[ .-][0-9]{4}){2}[ .-][0-9]{1,7}(?:[ .-][0-9]{3})?|[0-9]{4}[ -][0-9]{6}[ -][0-9]{4,5})", _card),
    Rule("ssn", "ssn", "[SSN]", r"\b[0-9]{3}[- .]?[0-9]{2}[- .]?[0-9]{4}\b", _ssn),
    Rule("ip_address", "ip", "[IP]", rf"(?:::(?:(?i:ffff):)?(?:0:)?|\b){_OCTET}(?:\.{_OCTET}){{3,}}\b", _ipv4),
    Rule("ip_address", "ip", "[IP]", r"\b[0-9A-Fa-f]{1,4}(?::[0-9A-Fa-f]{0,4}){2,7}", _ipv6),
    Rule("mac_address", "mac", "[MAC]", rf"\b{_HEX2}(?:[:.-]{_HEX2}){{5}}\b|\b[0-9A-Fa-f]{{4}}\.[0-9A-Fa-f]{{4}}\.[0-9A-Fa-f]{{4}}\b", _mac),
    Rule("mac_address", "mac", "[MAC]", r"\b[0-9A-Fa-f]{12}\b", _bare_mac, _MAC_WORDS),
)  # fmt: skip
