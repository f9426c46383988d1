"""Receipts: signed tokens (Ed25519) that tie later feedback to the version that answered; processors hold public keys only.

A token is base64url(payload JSON) "." base64url(signature), both without padding; the payload names the key.
"""

import base64
import binascii
import hashlib
from collections.abc import Mapping
from typing import Final

import msgspec
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from schemas.messages import Receipt

MAX_TOKEN: Final = 4_096


class InvalidReceipt(ValueError):
    """A token that proves nothing; `reason` is short and quotes nothing of it."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class _Payload(msgspec.Struct, kw_only=True, omit_defaults=True):
    key: str
    receipt: Receipt


_encoder = msgspec.json.Encoder(order="deterministic")
_decoder = msgspec.json.Decoder(_Payload)


def _b64(value: bytes) -> str:
    return base64.urlsafe_b64encode(value).rstrip(b"=").decode()


def _unb64(text: str) -> bytes:
    return base64.b64decode(text.encode("ascii") + b"=" * (-len(text) % 4), altchars=b"-_", validate=True)


def public_text(key: Ed25519PublicKey) -> str:
    """A public key as a config carries it: base64 of its 32 bytes."""
    return base64.b64encode(key.public_bytes_raw()).decode()


def key_id(key: Ed25519PublicKey) -> str:
    """The id under which a config lists a public key: 16 hex digits of its sha256."""
    return hashlib.sha256(key.public_bytes_raw()).hexdigest()[:16]


def public_keys(texts: Mapping[str, str]) -> dict[str, Ed25519PublicKey]:
    """A config's `receipt_keys` as keys. Raises ValueError for one that is no Ed25519 public key."""
    return {id_: Ed25519PublicKey.from_public_bytes(base64.b64decode(text, validate=True)) for id_, text in texts.items()}


def sign(receipt: Receipt, private_key: Ed25519PrivateKey, id_: str | None = None) -> str:
    """The token for a receipt, signed with the key that `id_` names (by default the key's own id).

    >>> key = Ed25519PrivateKey.from_private_bytes(bytes(32))
    >>> token = sign(Receipt(interaction_id="i-1", app="desk", environment="production"), key)
    >>> verify(token, {key_id(key.public_key()): key.public_key()}).interaction_id
    'i-1'
    """
    payload = _encoder.encode(_Payload(key=id_ or key_id(private_key.public_key()), receipt=receipt))
    return f"{_b64(payload)}.{_b64(private_key.sign(payload))}"


def verify(token: str, keys: Mapping[str, Ed25519PublicKey]) -> Receipt:
    """What a token says, once its signature holds. Raises InvalidReceipt."""
    if len(token) > MAX_TOKEN:
        raise InvalidReceipt("too long")
    body, dot, signature = token.partition(".")
    try:
        payload, proof = _unb64(body), _unb64(signature)
        said = _decoder.decode(payload)
    except (binascii.Error, UnicodeEncodeError, ValueError, RecursionError):
        raise InvalidReceipt("not a receipt") from None
    if not dot:
        raise InvalidReceipt("not a receipt")
    key = keys.get(said.key)
    if key is None:
        raise InvalidReceipt("unknown key")
    try:
        key.verify(proof, payload)
    except InvalidSignature:
        raise InvalidReceipt("wrong signature") from None
    return said.receipt
