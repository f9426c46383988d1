"""Key files: made once, mode 0600, the same for every process that asks at the same time."""

import base64
import contextlib
import hashlib
import os
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat, load_pem_private_key

from adapters.settings import Settings


@dataclass(frozen=True)
class ReceiptKey:
    """Signs receipts. `id` and `public` (base64 of the 32 raw bytes) go into Config.receipt_keys."""

    id: str
    public: str
    private: Ed25519PrivateKey


def ensure_key_file(path: Path) -> str:
    """The random key in `path`, made where there is none (URL-safe text, 256 bits)."""
    return _ensure(path, lambda: secrets.token_urlsafe(32).encode()).decode().strip()


def api_key(settings: Settings) -> str:
    """The key that the collector demands: the setting's, else `<data_dir>/keys/collector`."""
    if settings.api_key is not None:
        return settings.api_key.get_secret_value()
    return ensure_key_file(settings.key_dir / "collector")


def receipt_key(settings: Settings) -> ReceiptKey:
    """The Ed25519 key for receipts: the setting's file (which must exist), else `<data_dir>/keys/receipt.pem`.

    Raises FileNotFoundError for a configured file that is not there, ValueError for one that holds no Ed25519 key.
    """
    if settings.receipt_key_file is not None:
        pem = settings.receipt_key_file.read_bytes()
    else:
        pem = _ensure(settings.key_dir / "receipt.pem", _new_receipt_key)
    private = load_pem_private_key(pem, password=None)
    if not isinstance(private, Ed25519PrivateKey):
        raise ValueError("the receipt key file holds no Ed25519 private key")
    raw = private.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
    return ReceiptKey(id=hashlib.sha256(raw).hexdigest()[:16], public=base64.b64encode(raw).decode(), private=private)


def redaction_keys(settings: Settings) -> dict[str, bytes]:
    """Keys of the keyed hashes in redacted text, by the id that a config names: the file's name; white space around is not part.

    Hashes join only where every processor has the same key, and a log scores the same again only while its key is there.
    Raises ValueError for a key of fewer than 16 bytes, with which hashes of short values could be guessed.
    """
    directory = settings.redaction_key_dir or settings.key_dir / "redaction"
    paths = sorted(path for path in directory.iterdir() if path.is_file()) if directory.is_dir() else []
    keys = {path.name: path.read_bytes().strip() for path in paths}
    short = [name for name, key in keys.items() if len(key) < _MIN_KEY_BYTES]
    if short:
        raise ValueError(f"keys of redaction with fewer than {_MIN_KEY_BYTES} bytes: {', '.join(short)}")
    return keys


_MIN_KEY_BYTES = 16


def _new_receipt_key() -> bytes:
    return Ed25519PrivateKey.generate().private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def _ensure(path: Path, make: Callable[[], bytes]) -> bytes:
    """A link is made whole or not at all, so that a second process never reads half a key, and the first one's stands."""
    try:
        return path.read_bytes()
    except FileNotFoundError:
        pass
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(make())
    try:
        with contextlib.suppress(FileExistsError):
            path.hardlink_to(draft)
    finally:
        draft.unlink()
    return path.read_bytes()
