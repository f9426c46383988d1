"""Phone numbers: international, in a form that only phone numbers have, or any number that is called one."""

import re
from typing import Final

from core.pii_checks import COUNTED, Rule, after, alone, any_of, column, digits_of, words

_WORDS: Final = (
    r"(?:\b|_)(?:(?:tele)?(?:phone|fon|foon|phon)s?|ph|telefon[a-z]{0,4}|t[e\xc3\xa9]+l[e\xc3\xa9]+(?:phone|fono)s?|tel[fe]?|tlf|telp|call(?:ed|er|ers|ing|back|s)?"
    r"|mob(?:ile|il|iel)?s?|cell(?:ulare|phone)?|celular|fax|whats ?app|sms|msisdn|text(?:ed)?|contact|reach|dial(?:ed)?|r[iu]ng|handy|hot-?line|pager|reception|front desk|switchboard|help-?line"
    r"|land-?line|voice-?mail|call-?back|m\xc3\xb3vil|number is|portable|rufnummer|fono|fijo|fixe|fisso|appel\w{0,3}(?:[ -]moi)?(?: au)?|rappel\w{0,3}"
    r"|ll(?:a|\xc3\xa1)m\w{1,4}|ligu?[ae]r?|chiam\w{1,4}|anruf\w{0,2}|ruf\w{0,2}|joindre|num\xc3\xa9ro|bel(?:len)?|zadzwo\xc5\x84|dzwo\xc5\x84|kom(?:\xc3\xb3rka)?"
    r"|cep|gsm|hmu|hit (?:me|us) up|ring(?:a|e)?|puh(?:elin)?|soita|volejte|hubungi|no ?hp|hp|suna\xc8\x9bi|g\xe1\xbb\x8di|sdt)"
    r"(?:_?(?:number|no|nr|num|nummer|nummern))?\b"
)
_SIGNS: Final = any_of(
    "тел", "моб", "позвон", "звон", "дзвон", "номер", "電話", "連絡", "携帯", "电话", "手机", "手機", "联系", "聯絡", "热线", "전화", "연락", "휴대",
    "핸드폰", "τηλ", "κιν", "هاتف", "جوال", "تلفون", "موبايل", "טלפון", "נייד", "फ़ोन", "फोन", "मोबाइल", "โทร", "điện thoại", "đt", "sđt", "iletişim",
    "numarası", "teléfono", "móvil", "sunați", "hívj",
)  # fmt: skip
_GAP: Final = r"[^0-9\n]{0,24}(?:[:|,] *\n[^0-9\n]{0,12})?$"
_CALLED: Final = words(rf"(?:{_WORDS}|{_SIGNS}){_GAP}")
_LISTED: Final = words(rf"(?:(?:{_WORDS}|{_SIGNS})[^0-9\n]{{0,24}}|\+)[0-9(][0-9 ()./-]{{6,20}}[0-9][^0-9\n]{{1,16}}$")
"""A number that follows one that is called a phone's."""
_ANSWERED: Final = words(
    r"\b(?:(?:yo)?ur|ya|the) (?:(?:cell|mobile|phone|tel\w*|contact|call-?back)[ -]?)?(?:number|num|nr|no|digits|phone|cell|mobile)\b[^\n]{0,40}\n[^\n]{0,24}: ?$"
)
"""The next line of a chat answers who asked for a number."""
_LINKED: Final = words(r"(?:wa\.me/|\b(?:tel|callto|sms|fax):)\+?$")
_LISTED_REACH: Final = 90
_NOT_A_PHONE: Final = words(
    r"\b(?:order|invoice|part|sku|tracking|model|serial|case|ticket|product|article|isbn|issn|lot|batch|version|build|ref(?:erence)?|policy|ndc|cas|upc|ean|gtin)\b"
    r"[^0-9\n]{0,12}$"
)
_EXTENSION: Final = r"(?:,? ?(?:(?i:ext|extn|extension|x|durchwahl|dw|poste|interno|ramal|anexo)|\xd0\xb4\xd0\xbe\xd0\xb1)[.:]? ?[0-9]{1,6}|,? ?#[0-9]{1,6})"
_ITS_EXTENSION: Final = re.compile(rb"(?:,? ?(?:[A-Za-z\xd0\xb4\xbe\xb1]+[.:]? ?|#)[0-9]{1,6})$")
_OWN_FORM: Final = re.compile(
    rb"\(0[0-9]{1,4}\)[ .-]?[0-9]{2,5}(?:[ .-]?[0-9]{2,5}){0,3}"
    rb"|\([1-9][0-9]\) ?9?[ .]?[0-9]{4}[ .-][0-9]{4}"
    rb"|8(?:[ -]?\([0-9]{3,4}\)[ -]?|[ -][0-9]{3}[ -])[0-9]{2,3}[ -][0-9]{2}[ -][0-9]{2}"
)
"""Area codes in brackets, and what is grouped as only Russian numbers are."""
_TRUNK: Final = re.compile(rb"0[1-9][0-9]{0,3}(?:[ -][0-9]{2,4}){2,4}|0[1-9][0-9]{3} [0-9]{6}")
_GOES_ON: Final = re.compile(rb"[0-9][ -]")
"""What is only the last groups of a longer number."""
_NAMED_DIRECTLY: Final = re.compile(rb"[^0-9:]:")
"""A colon joins numbers; behind a word it names what follows."""
_LINK_REACH: Final = 10
_POSTAL_CODE: Final = re.compile(rb"(?i)\bcep\b[^0-9\n]{0,4}[0-9]{5}-[0-9]{3}")
"""Of Brazil; `cep` is also how a mobile is called in Turkish."""
_FIVE_PAIRS: Final = re.compile(rb"0[1-9](?: [0-9]{2}){4}")
_PAIR_BEFORE: Final = re.compile(rb"(?:^|[^0-9A-Za-z])[0-9A-Fa-f]{2}[ -]$")
_PAIR_BEHIND: Final = re.compile(rb"[ -][0-9A-Fa-f]{2}(?![0-9A-Za-z])")
_PAIRS_OR_DATE: Final = re.compile(rb"[0-9]{2}(?:[ -][0-9]{2})+|[0-9]{2}[ -][0-9]{2}[ -](?:19|20)[0-9]{2}.*")


def _phone(data: bytes, start: int, end: int) -> int | None:
    extension = _ITS_EXTENSION.search(data, start, end)
    last = extension.start() if extension else end
    text = data[start:last]
    digits = digits_of(data, start, last)
    linked = after(data, start, _LINKED, _LINK_REACH)
    whole = b"+" in text[:2] or _NAMED_DIRECTLY.fullmatch(data, max(0, start - 2), start)
    joins = b".-" if linked else b".-/" if whole else b".-/:"
    if not alone(data, start, end, joins) or len(set(digits)) < 3 or after(data, start, _NOT_A_PHONE):
        return None
    if _POSTAL_CODE.search(data, max(0, start - 8), end):
        return None
    if b"+" in text[:2]:
        return end if 8 <= len(digits) <= 15 else None
    if 8 <= len(digits) <= 15 and _own_form(text, digits, _GOES_ON.fullmatch(data, max(0, start - 2), start) is not None):
        return end
    if _french(data, start, end):
        return end
    if text.startswith(b"00") and not 9 <= len(digits) <= 17:
        return None
    if text.isdigit() and COUNTED.search(data[end : end + 16]):
        return None
    named = linked or after(data, start, _CALLED) or after(data, start, _LISTED, _LISTED_REACH)
    if not named and len(digits) >= 9:
        named = after(data, start, _ANSWERED, _LISTED_REACH)
    if not named and len(digits) >= 7:
        named = _CALLED.search(column(data, start)) is not None
    return end if named and 7 <= len(digits) <= 15 else None


def _french(data: bytes, start: int, end: int) -> bool:
    """Whether these are five pairs as of a French number: no bytes of a longer row, and in no order, as drawn numbers are."""
    pairs = data[start:end].split(b" ")
    return (
        _FIVE_PAIRS.fullmatch(data, start, end) is not None
        and pairs != sorted(pairs)
        and not _PAIR_BEFORE.search(data, max(0, start - 4), start)
        and not _PAIR_BEHIND.match(data, end)
    )


def _own_form(text: bytes, digits: str, goes_on: bool) -> bool:
    """Whether only phone numbers look like this: North American with separators, an area code in brackets, a trunk 0 and groups
    (unless those are the last of a longer number)."""
    national = digits[1:] if len(digits) == 11 and digits.startswith("1") else digits
    american = len(national) == 10 and national[0] > "1" and national[3] > "1"
    grouped = american and text[-5:-4] in (b"-", b".", b" ") and text[-9:-8] in (b"-", b".", b" ", b")")
    if grouped and (b"-" in text or b"(" in text or b"." in text):
        return True
    if _OWN_FORM.fullmatch(text):
        return True
    trunk = not goes_on and len(digits) in (10, 11) and len(set(digits)) >= 4 and _TRUNK.fullmatch(text)
    return bool(trunk) and not _PAIRS_OR_DATE.fullmatch(text)


_SEPARATOR: Final = r"(?:[ ./-]| [/-] )?"

PHONE_RULES: Final = (
    Rule("phone", "phone", "[PHONE]",
         rf"(?:(?:\(?\+|\b00 ?)[0-9]{{1,3}}\)?{_SEPARATOR}(?:\([0-9]{{1,4}}\){_SEPARATOR})?[0-9]{{1,4}}(?:{_SEPARATOR}[0-9]{{2,4}}){{1,4}}(?: ?- ?[0-9]{{1,5}}| 0)?"
         r"|(?:\b1[ .-]?)?\([0-9]{3}\) ?[0-9]{3}[ .-]?[0-9]{4}|\b(?:1[ .-])?[0-9]{3}[ .-][0-9]{3}[ .-][0-9]{4}"
         r"|\(0[0-9]{1,4}\)[ .-]?[0-9]{2,5}(?:[ .-]?[0-9]{2,5}){0,3}|\([1-9][0-9]\) ?9?[ .]?[0-9]{4}[ .-]?[0-9]{4}"
         r"|\b8(?:[ -]?\([0-9]{3,4}\)[ -]?|[ -][0-9]{3}[ -])[0-9]{2,3}[ -][0-9]{2}[ -][0-9]{2}"
         r"|\b0[1-9](?:[ .-][0-9]{2}){4}|\b0[1-9][0-9]{0,3}(?:[ -][0-9]{2,4}){2,4}"
         r"|\b0[0-9]{2,3}/[0-9]{2,3}(?:[. ][0-9]{2,3}){1,3}"
         r"|\b0?[0-9]{2,5}(?:[ ./-]| [/-] )?[0-9]{3,8}(?:[ -]?[0-9]{2,4}){0,3}|\b[0-9]{2}(?:[ .-][0-9]{2}){3}|\b[0-9]{2,4}(?:[ -][0-9]{2,4}){2,3}"
         rf"){_EXTENSION}?\b", _phone),
)  # fmt: skip
