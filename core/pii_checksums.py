"""Check digits of cards, accounts, addresses and national identity numbers, over ASCII characters without separators.

Each function answers whether a candidate of the right length and alphabet is valid; sources are the registries' rules.
"""

from collections.abc import Sequence
from hashlib import sha256
from typing import Final

DNI_LETTERS: Final = "TRWAGMYFPDXBNJZSQVHLCKE"
_VERHOEFF_D: Final = (
    "0123456789", "1234067895", "2340178956", "3401289567", "4012395678",
    "5987604321", "6598710432", "7659821043", "8765932104", "9876543210",
)  # fmt: skip
_VERHOEFF_P: Final = (
    "0123456789", "1576283094", "5803796142", "8916043527", "9453126870", "4286573901", "2793806415", "7046913258",
)  # fmt: skip
_CF_ODD: Final = dict(
    zip(
        "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ",
        (1, 0, 5, 7, 9, 13, 15, 17, 19, 21, 1, 0, 5, 7, 9, 13, 15, 17, 19, 21,
         2, 4, 18, 20, 11, 3, 6, 8, 12, 14, 16, 10, 22, 25, 24, 23),
        strict=True,
    )
)  # fmt: skip
_BASE58: Final = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"
_BECH32: Final = "qpzry9x8gf2tvdw0s3jn54khce6mua7l"
_BECH32_GENERATOR: Final = (0x3B6A57B2, 0x26508E6D, 0x1EA119FA, 0x3D4233DD, 0x2A1462B3)


def _weighted(digits: str, weights: Sequence[int]) -> int:
    return sum(int(digit) * weight for digit, weight in zip(digits, weights, strict=False))


def luhn(digits: str) -> bool:
    """ISO/IEC 7812-1: payment cards, Canadian SIN, Swedish personnummer.

    >>> luhn("4111111111111111"), luhn("4111111111111112")
    (True, False)
    """
    doubled = sum(int("0246813579"[int(digit)]) for digit in digits[-2::-2])
    return (doubled + sum(map(int, digits[-1::-2]))) % 10 == 0


def mod97(account: str) -> bool:
    """ISO 7064 mod 97-10 as IBANs use it, over upper-case letters and digits.

    >>> mod97("GB82WEST12345698765432"), mod97("GB82WEST12345698765431")
    (True, False)
    """
    return int("".join(str(int(character, 36)) for character in account[4:] + account[:4])) % 97 == 1


def verhoeff(digits: str) -> bool:
    """Dihedral check digit of the Indian Aadhaar.

    >>> verhoeff("2363"), verhoeff("2364")
    (True, False)
    """
    state = 0
    for place, digit in enumerate(reversed(digits)):
        state = int(_VERHOEFF_D[state][int(_VERHOEFF_P[place % 8][int(digit)])])
    return state == 0


def dni(number: str) -> bool:
    """Spanish DNI (8 digits, letter) and NIE (X, Y or Z for the first digit).

    >>> dni("12345678Z"), dni("X1234567L"), dni("12345678A")
    (True, True, False)
    """
    digits = str("XYZ".index(number[0])) + number[1:8] if number[0] in "XYZ" else number[:8]
    return DNI_LETTERS[int(digits) % 23] == number[8]


def codice_fiscale(code: str) -> bool:
    """Italian codice fiscale, 16 upper-case characters.

    >>> codice_fiscale("RSSMRA85T10A562S"), codice_fiscale("RSSMRA85T10A562T")
    (True, False)
    """
    even = sum(int(c) if c.isdigit() else ord(c) - 65 for c in code[1:15:2])
    return (even + sum(_CF_ODD[c] for c in code[0:15:2])) % 26 == ord(code[15]) - 65


def german_tax_id(digits: str) -> bool:
    """German IdNr, 11 digits: ISO 7064 mod 11,10, no leading 0, one digit of the first ten twice or three times.

    >>> german_tax_id("86095742719"), german_tax_id("86095742710")
    (True, False)
    """
    product = 10
    for digit in digits[:10]:
        total = (int(digit) + product) % 10 or 10
        product = total * 2 % 11
    return digits[0] != "0" and 8 <= len(set(digits[:10])) <= 9 and (11 - product) % 10 == int(digits[10])


def nir(number: str) -> bool:
    """French social security number, 15 characters with its key of 2; 2A and 2B are Corsica.

    >>> nir("255081416802538"), nir("255081416802539")
    (True, False)
    """
    body = number[:13]
    corsica = {"2A": 1_000_000, "2B": 2_000_000}.get(body[5:7], 0)
    if corsica:
        body = body[:6] + "0" + body[7:]
    return body.isdigit() and 97 - (int(body) - corsica) % 97 == int(number[13:])


def bsn(digits: str) -> bool:
    """Dutch burgerservicenummer, 9 digits, the eleven test.

    >>> bsn("111222333"), bsn("111222334")
    (True, False)
    """
    return int(digits) > 0 and _weighted(digits, (9, 8, 7, 6, 5, 4, 3, 2, -1)) % 11 == 0


def pesel(digits: str) -> bool:
    """Polish PESEL, 11 digits with the date of birth (the century is in the month).

    >>> pesel("44051401359"), pesel("44051401358")
    (True, False)
    """
    month, day = int(digits[2:4]) % 20, int(digits[4:6])
    return 1 <= month <= 12 and 1 <= day <= 31 and _weighted(digits, (1, 3, 7, 9, 1, 3, 7, 9, 1, 3, 1)) % 10 == 0


def personnummer(digits: str) -> bool:
    """Swedish personnummer or samordningsnummer, its last 10 digits: a date and a Luhn digit.

    >>> personnummer("8112189876"), personnummer("8112189875")
    (True, False)
    """
    month, day = int(digits[2:4]), int(digits[4:6])
    return 1 <= month <= 12 and (1 <= day <= 31 or 61 <= day <= 91) and luhn(digits)


def cpf(digits: str) -> bool:
    """Brazilian CPF, 11 digits with 2 check digits.

    >>> cpf("52998224725"), cpf("52998224724"), cpf("11111111111")
    (True, False, False)
    """
    first = _weighted(digits[:9], range(10, 1, -1)) * 10 % 11 % 10
    second = _weighted(digits[:10], range(11, 1, -1)) * 10 % 11 % 10
    return len(set(digits)) > 1 and digits[9:] == f"{first}{second}"


def cnpj(digits: str) -> bool:
    """Brazilian CNPJ, 14 digits with 2 check digits.

    >>> cnpj("11222333000181"), cnpj("11222333000182")
    (True, False)
    """
    weights = (6, 5, 4, 3, 2, 9, 8, 7, 6, 5, 4, 3, 2)
    first = -_weighted(digits[:12], weights[1:]) % 11 % 10
    second = -_weighted(digits[:13], weights) % 11 % 10
    return len(set(digits)) > 1 and digits[12:] == f"{first}{second}"


def tfn(digits: str) -> bool:
    """Australian tax file number, 8 or 9 digits.

    >>> tfn("123456782"), tfn("123456783")
    (True, False)
    """
    weights = (1, 4, 3, 7, 5, 8, 6, 9, 10) if len(digits) == 9 else (10, 7, 8, 4, 6, 3, 5, 1)
    return int(digits) > 0 and _weighted(digits, weights) % 11 == 0


def base58(text: str, alphabet: str = _BASE58) -> int:
    """The number that a text of base 58 writes.

    >>> base58("2g")
    97
    """
    value = 0
    for character in text:
        value = value * 58 + alphabet.index(character)
    return value


def base58_check(text: str, alphabet: str = _BASE58) -> bytes | None:
    """What base 58 writes before its last 4 bytes, where those are its double SHA-256: addresses and keys of coins.

    >>> len(base58_check("1A1zP1eP5QGefi2DMPTfTL5SLmv7DivfNa")), base58_check("1A1zP1eP5QGefi2DMPTfTL5SLmv7DivfNb")
    (21, None)
    """
    value = base58(text, alphabet)
    leading = len(text) - len(text.lstrip(alphabet[0]))
    data = bytes(leading) + value.to_bytes((value.bit_length() + 7) // 8)
    return data[:-4] if sha256(sha256(data[:-4]).digest()).digest()[:4] == data[-4:] else None


def bech32(address: str) -> bool:
    """Check digits of BIP 173 and BIP 350, lower case: segregated witness, and addresses of many other coins.

    >>> bech32("bc1qw508d6qejxtdg4y5r3zarvary0c5xw7kv8f3t4"), bech32("bc1qw508d6qejxtdg4y5r3zarvary0c5xw7kv8f3t5")
    (True, False)
    """
    human, _, data = address.rpartition("1")
    values = [ord(c) >> 5 for c in human] + [0] + [ord(c) & 31 for c in human] + [_BECH32.find(c) for c in data]
    if -1 in values:
        return False
    state = 1
    for value in values:
        top = state >> 25
        state = (state & 0x1FFFFFF) << 5 ^ value
        for place, generator in enumerate(_BECH32_GENERATOR):
            state ^= generator if top >> place & 1 else 0
    return state in (1, 0x2BC830A3)
