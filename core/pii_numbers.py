"""How to reach, pay or locate somebody: e-mail, phone, card, account, social security number, network and coin addresses."""

from ipaddress import AddressValueError, IPv6Address
from typing import Final

from core.pii_checks import Rule, after, alone, digits_of, letters_of, words
from core.pii_checksums import base58_check, bech32, luhn, mod97
from core.pii_national import NOT_PERSONAL

_NO_MAILBOXES: Final = frozenset((b"git", b"hg", b"svn"))
_NO_MAIL_DOMAINS: Final = frozenset((b"openssh.com", b"libssh.org"))
"""Algorithms of SSH are named `name@domain` (RFC 4251)."""
_LOGINS: Final = frozenset((b"user", b"username", b"root", b"admin", b"deploy"))


def _email(data: bytes, start: int, end: int) -> int | None:
    """An address, unless it is the login of a repository or a stand-in for one in a URL."""
    local, _, domain = data[start:end].lower().rpartition(b"@")
    login = local in _LOGINS and data[start - 3 : start] == b"://"
    return None if login or local in _NO_MAILBOXES or domain in _NO_MAIL_DOMAINS else end


_CARD_WORDS: Final = words(
    r"card|\bkarte|kreditkart|carte|tarjeta|cart[a\xc3\xa3]+o|\xd0\xba\xd0\xb0\xd1\x80\xd1\x82|\bvisa|amex|american express|master|maestro"
    r"|credit|debit|diners|discover|unionpay|\bjcb|\bpan\b|_pan\b|\bcc\b"
)
_NO_CARD_WORDS: Final = words(r"\b(?:ean|gtin|isbn|upc|imei|barcode|snowflake|tweet|guild|channel|user id)\b[^0-9\n]*$")


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
        return end if named and len(digits) < end - start else None
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
    if not length or len(characters) < length or not alone(data, start, position):
        return None
    return position if mod97(characters) else None


_SSN_WORDS: Final = words(r"ssn|soc(?:ial|\.)?[ _]?sec|security n|taxpayer|\bitin\b|\bsocial\b|seguro social")


def _ssn(data: bytes, start: int, end: int) -> int | None:
    digits = digits_of(data, start, end)
    area, group, serial = digits[:3], digits[3:5], digits[5:]
    if not alone(data, start, end, b"-/."):
        return None
    if after(data, start, _SSN_WORDS) and not after(data, start, NOT_PERSONAL):
        return end
    issued = area not in ("000", "666") and area < "900" and group != "00" and serial != "0000"
    dashed = data[start + 3 : start + 4] == b"-" and data[end - 5 : end - 4] == b"-"
    return end if issued and dashed and not after(data, start, NOT_PERSONAL) else None


_PHONE_WORDS: Final = words(
    r"(?:\b|_)(?:(?:tele)?(?:phone|fon)|tel|call|mobile|cell|fax|whatsapp|sms|text|contact|reach|dial|ring|handy|m\xc3\xb3vil|number is"
    r"|telefonu|telefono|tel\xc3\xa9fono|telefoon|telefone|t[e\xc3\xa9]+l[e\xc3\xa9]+phone|cellulare|celular|portable|mobil|rufnummer"
    r"|appel\w{0,3}(?:[ -]moi)?(?: au)?|rappel\w{0,3}|ll(?:a|\xc3\xa1)m\w{1,4}|ligu?[ae]r?|chiam\w{1,3}|anruf\w{0,2}|joindre|zadzwo\xc5\x84|bel me|num\xc3\xa9ro"
    r"|\xd1\x82\xd0\xb5\xd0\xbb\xd0\xb5\xd1\x84\xd0\xbe\xd0\xbd|\xe9\x9b\xbb\xe8\xa9\xb1|\xe7\x94\xb5\xe8\xaf\x9d|\xe6\x89\x8b\xe6\x9c\xba)"
    r"(?:_?(?:number|no|nr|nummer|nummern))?\b[^0-9\n]{0,24}$"
)
_PHONE_SIGNS: Final = words(
    r"(?:\xd1\x82\xd0\xb5\xd0\xbb|\xe9\x9b\xbb\xe8\xa9\xb1|\xe7\x94\xb5\xe8\xaf\x9d|\xe6\x89\x8b\xe6\x9c\xba|\xec\xa0\x84\xed\x99\x94)[^0-9\n]{0,24}$"
)
_NO_PHONE_WORDS: Final = words(
    r"\b(?:order|invoice|part|sku|tracking|model|serial|case|ticket|product|article|isbn|issn|lot|batch|version|build)\b[^0-9\n]{0,12}$"
)


def _phone(data: bytes, start: int, end: int) -> int | None:
    """An international number, a separated North American one, or any number that is called a phone's."""
    text = data[start:end]
    digits = digits_of(data, start, end)
    joins = b".-/" if b"+" in text[:2] else b".-/:"
    if not alone(data, start, end, joins) or len(set(digits)) < 3 or after(data, start, _NO_PHONE_WORDS):
        return None
    named = after(data, start, _PHONE_WORDS) or after(data, start, _PHONE_SIGNS)
    if text.startswith((b"+", b"00", b"(+")):
        return end if 8 <= len(digits) <= 15 and (named or b"+" in text[:2]) else None
    national = digits[1:] if len(digits) == 11 and digits.startswith("1") else digits
    american = len(national) == 10 and national[0] > "1" and national[3] > "1"
    grouped = american and text[-5:-4] in (b"-", b".", b" ") and text[-9:-8] in (b"-", b".", b" ", b")")
    if grouped and (b"-" in text or b"(" in text or b"." in text):
        return end
    return end if 7 <= len(digits) <= 15 and named else None


_VERSION_WORDS: Final = words(
    r"(?:\b(?:version|release|section|chapter|paragraph|clause|article|firmware|build|oid|v|ver|brd|broadcast|netmask)\b|[=><~]=)"
    r"[^0-9\n]{0,12}$"
)
_ADDRESS_WORDS: Final = words(r"\bips?\b|ipv4|_ip\b|\bip_|host|addr|server|\bping|://|@")


_NOBODYS: Final = frozenset((b"10.0.0.0", b"172.16.0.0", b"192.168.0.0", b"1.2.3.4"))
"""Names of the private networks, and the example that everybody writes."""


def _ipv4(data: bytes, start: int, end: int) -> int | None:
    """A dotted quad, no longer row, that is no version number, mask, loopback or unspecified address: private, spread like one, or called one."""
    octets = [int(part) for part in data[start:end].split(b".")]
    if len(octets) != 4:
        return None
    if not alone(data, start, end, b".-") or octets[0] in (0, 127, 255) or data[start - 1 : start] in (b"v", b"V"):
        return None
    if data[start:end] in _NOBODYS or octets[:2] == [169, 254] or after(data, start, _VERSION_WORDS):
        return None
    private = octets[0] == 10 or octets[:2] == [192, 168] or (octets[0] == 172 and 16 <= octets[1] <= 31)
    spread = max(octets) >= 64 and sum(octet >= 10 for octet in octets) >= 2
    return end if private or spread or after(data, start, _ADDRESS_WORDS) else None


def _ipv6(data: bytes, start: int, end: int) -> int | None:
    """At least four groups, so that clock times and scope operators stay; no MAC address, no fingerprint."""
    groups = [group for group in data[start:end].decode().split(":") if group]
    if not alone(data, start, end, b":.-") or len(groups) < 4 or all(len(group) == 2 for group in groups):
        return None
    try:
        IPv6Address(data[start:end].decode())
    except AddressValueError:
        return None
    return end


_MAC_WORDS: Final = words(r"\bmac\b|mac[ _-]?addr|hwaddr|ether\b|physical address|bssid")


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


def _base58(data: bytes, start: int, end: int) -> int | None:
    return end if alone(data, start, end) and base58_check(data[start:end].decode()) else None


def _bech32(data: bytes, start: int, end: int) -> int | None:
    return end if alone(data, start, end) and bech32(data[start:end].decode().lower()) else None


def _ethereum(data: bytes, start: int, end: int) -> int | None:
    return end if alone(data, start, end) and len(set(data[start + 2 : end].lower())) >= 8 else None


_LETTER: Final = r"[\xc3-\xd1][\x80-\xbf]"
"""A Latin, Greek or Cyrillic letter beyond ASCII, as UTF-8: real names, and look-alikes of ASCII letters."""
_OCTET: Final = r"(?:25[0-5]|2[0-4][0-9]|1?[0-9]?[0-9])"
_HEX2: Final = "[0-9A-Fa-f]{2}"

NUMBER_RULES: Final = (
    Rule("email", "email", "[EMAIL]",
         rf"(?:[A-Za-z0-9_+-]|{_LETTER})(?:(?:[A-Za-z0-9!#$'+^_`~.-]|{_LETTER})*(?:[A-Za-z0-9_+-]|{_LETTER}))?(?:@|%40)"
         rf"(?:(?:[A-Za-z0-9-]|{_LETTER})+\.)+(?:[A-Za-z]|{_LETTER}){{2,}}", _email),
    Rule("iban", "iban", "[IBAN]", r"(?i)\b[A-Z]{2}[0-9]{2}(?:[ -]?[A-Z0-9]){11,30}", _iban),
    Rule("card", "card", "[CARD]",
         r"\b(?:[0-9]{13,19}|[0-9]{4}(?:[ .-][0-9]{4}){2}[ .-][0-9]{1,7}(?:[ .-][0-9]{3})?|[0-9]{4}[ -][0-9]{6}[ -][0-9]{4,5})", _card),
    Rule("ssn", "ssn", "[SSN]", r"\b[0-9]{3}[- ]?[0-9]{2}[- ]?[0-9]{4}\b", _ssn),
    Rule("phone", "phone", "[PHONE]",
         r"(?:\(?\+|\b00)[0-9]{1,3}\)?[ .-]?(?:\([0-9]{1,4}\)[ .-]?)?[0-9]{1,4}(?:[ .-]?[0-9]{2,4}){1,4}\b"
         r"|(?:\b1[ .-]?)?\([0-9]{3}\) ?[0-9]{3}[ .-]?[0-9]{4}\b|\b(?:1[ .-])?[0-9]{3}[ .-][0-9]{3}[ .-][0-9]{4}\b"
         r"|\b0?[0-9]{2,5}(?:[ ./-]| [/-] )?[0-9]{3,8}(?:[ -]?[0-9]{2,4}){0,3}\b|\b0[0-9](?:[ .-][0-9]{2}){4}\b", _phone),
    Rule("ip_address", "ip", "[IP]", rf"\b{_OCTET}(?:\.{_OCTET}){{3,}}\b", _ipv4),
    Rule("ip_address", "ip", "[IP]", r"\b[0-9A-Fa-f]{1,4}(?::[0-9A-Fa-f]{0,4}){3,7}", _ipv6),
    Rule("mac_address", "mac", "[MAC]", rf"\b{_HEX2}(?:[:.-]{_HEX2}){{5}}\b|\b[0-9A-Fa-f]{{4}}\.[0-9A-Fa-f]{{4}}\.[0-9A-Fa-f]{{4}}\b", _mac),
    Rule("bitcoin", "crypto", "[CRYPTO]", r"\b[13][1-9A-HJ-NP-Za-km-z]{25,34}\b", _base58),
    Rule("bitcoin", "crypto", "[CRYPTO]", r"(?i)\bbc1[02-9ac-hj-np-z]{20,87}\b", _bech32),
    Rule("ethereum", "crypto", "[CRYPTO]", r"\b0[xX][0-9a-fA-F]{40}\b", _ethereum),
)  # fmt: skip
