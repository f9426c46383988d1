"""Receipts: what was signed is read back, and anything else proves nothing."""

import base64

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from core.receipts import InvalidReceipt, key_id, public_keys, public_text, sign, verify
from schemas.messages import Receipt

KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
OTHER = Ed25519PrivateKey.from_private_bytes(bytes(32))
KEYS = public_keys({key_id(KEY.public_key()): public_text(KEY.public_key())})
RECEIPT = Receipt(interaction_id="i-1", app="desk", environment="production", version="v1", turn=2, route_epoch=7)


def test_a_signed_receipt_is_read_back() -> None:
    assert verify(sign(RECEIPT, KEY), KEYS) == RECEIPT


def test_a_token_is_the_same_each_time() -> None:
    assert sign(RECEIPT, KEY) == sign(RECEIPT, KEY)


def test_a_token_of_an_unknown_key_proves_nothing() -> None:
    with pytest.raises(InvalidReceipt, match="unknown key"):
        verify(sign(RECEIPT, OTHER), KEYS)


def test_a_token_that_names_another_key_proves_nothing() -> None:
    with pytest.raises(InvalidReceipt, match="wrong signature"):
        verify(sign(RECEIPT, OTHER, key_id(KEY.public_key())), KEYS)


def test_a_changed_payload_proves_nothing() -> None:
    body, _, signature = sign(RECEIPT, KEY).partition(".")
    payload = base64.urlsafe_b64decode(body + "=" * (-len(body) % 4)).replace(b"v1", b"v2")
    forged = base64.urlsafe_b64encode(payload).rstrip(b"=").decode()
    with pytest.raises(InvalidReceipt, match="wrong signature"):
        verify(f"{forged}.{signature}", KEYS)


def test_a_payload_that_is_nested_too_deeply_proves_nothing() -> None:
    deep = base64.urlsafe_b64encode(b'{"x":' + b"[" * 3_000).rstrip(b"=").decode()
    with pytest.raises(InvalidReceipt, match="not a receipt"):
        verify(f"{deep}.AAAA", KEYS)


@given(st.text(max_size=300))
def test_any_other_text_proves_nothing(text: str) -> None:
    with pytest.raises(InvalidReceipt):
        verify(text, KEYS)


def test_a_token_without_end_is_not_even_read() -> None:
    with pytest.raises(InvalidReceipt, match="too long"):
        verify("x" * 10_000, KEYS)
