"""National identity and tax numbers, each with its check digits; context words where those alone are weak."""

from collections.abc import Callable
from typing import Final

import re2

from core.pii_checks import Check, Rule, after, alone, digits_of, letters_of, words
from core.pii_checksums import (
    bsn,
    cnpj,
    codice_fiscale,
    cpf,
    dni,
    german_tax_id,
    luhn,
    nir,
    personnummer,
    pesel,
    tfn,
    verhoeff,
)

NOT_PERSONAL: Final = words(
    r"\b(?:order|invoice|part|sku|tracking|model|serial|case|ticket|product|article|version|licen[cs]e|flight|lot|batch|item|catalogue"
    r"|commit|build|isbn|issn|ean|gtin|upc|imei)\b[^0-9\n]*$"
)
"""A number that is called something else."""

_NINO: Final = words(r"\bni\b|nino\b|nat(?:ional|\.)? ?ins|\bn\.i\.")
_SIN: Final = words(
    r"\bsin\b ?(?:number|no|nr|#|:|is)|\bsin[\"\x27]?\s?[:#=]|social insurance|assurance sociale|\bnas\b|\bsin \D{0,2}$"
)
_TAX_ID: Final = words(r"steuer|idnr|identifikationsnummer|\btax|\btin\b")
_BSN: Final = words(r"\bbsn|burgerservice|sofi-?n")
_PESEL: Final = words(r"pesel|ewidencyjn")
_PERSONNUMMER: Final = words(r"person(?:al|ligt)?[ _-]?(?:n|id)|\bpnr\b|samordning|f\xc3\xb6dd|swedish")
_CPF: Final = words(r"\bcpf|_cpf")
_CNPJ: Final = words(r"\bcnpj|_cnpj")
_AADHAAR: Final = words(r"aad+haa?r|aadhar|adhaar|uidai|\buid\b|\xe0\xa4\x86\xe0\xa4\xa7\xe0\xa4\xbe\xe0\xa4\xb0")
_PAN: Final = words(r"\bpan\b ?(?:card|number|no|#|:|is|=|$)|permanent account|income[ -]?tax")
_TFN: Final = words(r"\btfn|tax file")
_NAMED: Final = words(r"national id|nat(?:ional)?[_ -]?id|identity (?:card|number|no)|\bnid\b|id card")

_NINO_NOT: Final = frozenset(("BG", "GB", "KN", "NK", "NT", "TN", "ZZ"))


def _checked(valid: Callable[[str], bool], joins: bytes = b"-.") -> Check:
    """A check of digits whose form and check digits are enough."""

    def check(data: bytes, start: int, end: int) -> int | None:
        known = alone(data, start, end, joins) and valid(digits_of(data, start, end))
        return end if known and not after(data, start, NOT_PERSONAL) else None

    return check


def _letters(valid: Callable[[str], bool]) -> Check:
    """A check of letters and digits."""

    def check(data: bytes, start: int, end: int) -> int | None:
        known = alone(data, start, end, b"-./") and valid(letters_of(data, start, end))
        return end if known and not after(data, start, NOT_PERSONAL) else None

    return check


def _nino(data: bytes, start: int, end: int) -> int | None:
    """Spaced in pairs, or called what it is."""
    if not alone(data, start, end, b"-") or data[start : start + 2].decode().upper() in _NINO_NOT:
        return None
    spaced = data[start:end].count(b" ") == 4 and data[start:end].isupper()
    return end if after(data, start, _NINO) or (spaced and not after(data, start, NOT_PERSONAL)) else None


def _rule(name: str, pattern: str, check: Check) -> Rule:
    return Rule(name, "national_id", "[NATIONAL_ID]", pattern, check)


def _called(
    name: str,
    pattern: str,
    context: re2._Regexp,
    valid: Callable[[str], bool] | None = None,
    anywhere: re2._Regexp | None = None,
) -> Rule:
    """A rule for what counts only when it is called by its name, and is valid where there are check digits.

    `anywhere` stands for a context that asks where the number begins, in texts as a whole.
    """

    def check(data: bytes, start: int, end: int) -> int | None:
        if not alone(data, start, end, b"-.") or (valid is not None and not valid(digits_of(data, start, end))):
            return None
        behind = valid is not None and context.search(data[end : end + _BEHIND]) is not None
        return end if behind or after(data, start, context) else None

    return Rule(name, "national_id", "[NATIONAL_ID]", pattern, check, anywhere or context)


_BEHIND: Final = 14
_NINE: Final = r"\b[0-9]{3}[ .-]?[0-9]{3}[ .-]?[0-9]{3}\b"
_DAY: Final = r"(?:0[1-9]|1[0-2])(?:[0-2][0-9]|3[01]|[6-8][0-9]|9[01])"

NATIONAL_RULES: Final = (
    _rule("uk_nino", r"(?i)\b[A-CEGHJ-PR-TW-Z][A-CEGHJ-NPR-TW-Z] ?[0-9]{2} ?[0-9]{2} ?[0-9]{2} ?[A-D]\b", _nino),
    _called("ca_sin", _NINE, _SIN, lambda d: d[0] != "0" and luhn(d), words(r"\bsin\b|insurance|assurance|\bnas\b")),
    _rule("es_dni", r"\b(?:[0-9]{8}|[XYZxyz]-?[0-9]{7})-?[TRWAGMYFPDXBNJZSQVHLCKEtrwagmyfpdxbnjzsqvhlcke]\b", _letters(dni)),
    _rule("it_codice_fiscale", r"(?i)\b[A-Z]{6}[0-9]{2}[A-EHLMPR-T][0-7][0-9][A-Z][0-9]{3}[A-Z]\b", _letters(codice_fiscale)),
    _called("de_tax_id", r"\b[1-9][0-9][ ]?[0-9]{3}[ ]?[0-9]{3}[ ]?[0-9]{3}\b", _TAX_ID, german_tax_id),
    _rule("fr_nir", r"\b[12][ .]?[0-9]{2}[ .]?[0-9]{2}[ .]?(?:[0-9]{2}|2[ABab])[ .]?[0-9]{3}[ .]?[0-9]{3}[ .-]?[0-9]{2}\b", _letters(nir)),
    _called("nl_bsn", r"\b(?:[0-9]{3}[ .-]?[0-9]{3}[ .-]?[0-9]{3}|[0-9]{4}[ .-][0-9]{2}[ .-][0-9]{2,3})\b", _BSN, bsn),
    _called("pl_pesel", r"\b[0-9]{4}[0-3][0-9]{6}\b", _PESEL, pesel),
    _rule("se_personnummer", rf"\b(?:18|19|20)?[0-9]{{2}}{_DAY}[-+][0-9]{{4}}\b", _checked(lambda d: personnummer(d[-10:]))),
    _called("se_personnummer", rf"\b(?:18|19|20)?[0-9]{{2}}{_DAY}[0-9]{{4}}\b", _PERSONNUMMER, lambda d: personnummer(d[-10:])),
    _rule("br_cpf", r"\b[0-9]{3}\.[0-9]{3}\.[0-9]{3}-[0-9]{2}\b", _checked(cpf)),
    _called("br_cpf", r"\b[0-9]{11}\b|\b[0-9]{3} [0-9]{3} [0-9]{3}[ -][0-9]{2}\b", _CPF, cpf),
    _rule("br_cnpj", r"\b[0-9]{2}\.[0-9]{3}\.[0-9]{3}/[0-9]{4}-[0-9]{2}\b", _checked(cnpj)),
    _called("br_cnpj", r"\b[0-9]{14}\b", _CNPJ, cnpj),
    _called("in_aadhaar", r"\b[2-9][0-9]{3}[ -]?[0-9]{4}[ -]?[0-9]{4}\b", _AADHAAR, lambda d: len(set(d)) > 2 and verhoeff(d)),
    _called("in_pan", r"(?i)\b[A-Z]{3}[ABCFGHLJPT][A-Z][0-9]{4}[A-Z]\b", _PAN, anywhere=words(r"\bpan\b|permanent|income")),
    _called("au_tfn", r"\b[0-9]{3}[ -]?[0-9]{3}[ -]?[0-9]{2,3}\b", _TFN, tfn),
    _called("national_id", r"(?i)\b(?:[A-Z]{2,3}-)?[0-9]{4}[ -]?[0-9]{4}[ -]?[0-9]{1,4}\b", _NAMED),
    Rule("national_id", "national_id", "[NATIONAL_ID]", r"\bNID-[0-9]{6,12}\b"),
)  # fmt: skip
