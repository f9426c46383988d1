"""Addresses of coins by their check digits, and the private keys of wallets."""

from base64 import b32decode
from binascii import crc_hqx
from typing import Final

from core.pii_checks import Rule, after, alone, words
from core.pii_checksums import base58, base58_check, bech32

_RIPPLE: Final = "rpshnaf39wBUDNEGHJKLM4PQRST7VWXYZ2bcdeCg65jkm8oFqi1tuvAxyz"
_NO_COINS: Final = (b"npub", b"note", b"nsec", b"nprofile", b"nevent", b"naddr", b"age", b"lnurl")
"""What else has bech32's check digits: names of Nostr, recipients of age, requests of Lightning."""
_SOLANA: Final = words(r"\bsol(?:ana)?\b|phantom|lamports?|\bspl\b|solscan|wallet|pubkey|\bmint\b")
_MONERO_NETWORKS: Final = (18, 19, 42)


def _base58(data: bytes, start: int, end: int) -> int | None:
    """A hash of 20 bytes behind one to three that name the coin, as most coins write it."""
    if not alone(data, start, end):
        return None
    text = data[start:end].decode()
    found = base58_check(text) or (base58_check(text, _RIPPLE) if text.startswith(("r", "X", "T")) else None)
    return end if found is not None and 21 <= len(found) <= 23 else None


def _bech32(data: bytes, start: int, end: int) -> int | None:
    text = data[start:end].lower()
    return end if alone(data, start, end) and not text.startswith(_NO_COINS) and bech32(text.decode()) else None


def _ethereum(data: bytes, start: int, end: int) -> int | None:
    return end if alone(data, start, end) and len(set(data[start + 2 : end].lower())) >= 8 else None


def _monero(data: bytes, start: int, end: int) -> int | None:
    """Eleven characters are eight bytes, of which the first is the network."""
    value = base58(data[start : start + 11].decode())
    return end if alone(data, start, end) and value >> 64 == 0 and value >> 56 in _MONERO_NETWORKS else None


def _solana(data: bytes, start: int, end: int) -> int | None:
    """32 bytes without check digits: only beside its name."""
    if not alone(data, start, end, b"/+=-") or not after(data, start, _SOLANA):
        return None
    return end if 252 <= base58(data[start:end].decode()).bit_length() <= 256 else None


def _stellar(data: bytes, start: int, end: int) -> int | None:
    """35 bytes in base 32, the last two of which are a CRC."""
    raw = b32decode(data[start:end])
    return end if alone(data, start, end) and crc_hqx(raw[:33], 0) == int.from_bytes(raw[33:], "little") else None


def _wallet_key(data: bytes, start: int, end: int) -> int | None:
    """Wallet import format of any coin, or an extended private key of BIP 32."""
    found = base58_check(data[start:end].decode()) if alone(data, start, end) else None
    if found is None:
        return None
    single = len(found) == 33 or (len(found) == 34 and found[-1] == 1)
    return end if (single and found[0] >= 0x80) or (len(found) == 78 and found[45] == 0) else None


def _nostr_key(data: bytes, start: int, end: int) -> int | None:
    return end if alone(data, start, end) and bech32(data[start:end].decode().lower()) else None


COIN_RULES: Final = (
    Rule("bitcoin", "crypto", "[CRYPTO]", r"\b[13][1-9A-HJ-NP-Za-km-z]{25,34}\b", _base58),
    Rule("bitcoin", "crypto", "[CRYPTO]", r"(?i)\bbc1[02-9ac-hj-np-z]{20,87}\b", _bech32),
    Rule("ethereum", "crypto", "[CRYPTO]", r"\b0[xX][0-9a-fA-F]{40}\b", _ethereum),
    Rule("coin_address", "crypto", "[CRYPTO]", r"\b[2-9A-HJ-NP-Za-km-z][1-9A-HJ-NP-Za-km-z]{25,35}\b", _base58),
    Rule("coin_address", "crypto", "[CRYPTO]", r"(?i)\b[a-z]{2,12}1[02-9ac-hj-np-z]{38,110}\b", _bech32),
    Rule("monero", "crypto", "[CRYPTO]", r"\b[48][1-9A-HJ-NP-Za-km-z]{94}(?:[1-9A-HJ-NP-Za-km-z]{11})?\b", _monero),
    Rule("solana", "crypto", "[CRYPTO]", r"\b[1-9A-HJ-NP-Za-km-z]{43,44}\b", _solana, _SOLANA),
    Rule("stellar", "crypto", "[CRYPTO]", r"\bG[A-Z2-7]{55}\b", _stellar),
    Rule("bitcoin_cash", "crypto", "[CRYPTO]", r"\bbitcoincash:[qp][02-9ac-hj-np-z]{41}\b"),
    Rule("wallet_key", "private_key", "[PRIVATE_KEY]", r"\b(?:[59KLQTc6][1-9A-HJ-NP-Za-km-z]{50,51}|[xyzt]prv[1-9A-HJ-NP-Za-km-z]{107})\b", _wallet_key),
    Rule("nostr_key", "private_key", "[PRIVATE_KEY]", r"(?i)\bnsec1[02-9ac-hj-np-z]{58}\b", _nostr_key),
)  # fmt: skip
