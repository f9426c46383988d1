import base64
import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from pydantic import SecretStr

from adapters.keys import api_key, ensure_key_file, receipt_key, redaction_keys
from adapters.settings import Settings


def test_a_key_is_made_once_and_read_afterwards(tmp_path: Path) -> None:
    assert ensure_key_file(tmp_path / "keys" / "store") == ensure_key_file(tmp_path / "keys" / "store")


def test_only_the_owner_can_read_a_key_file(tmp_path: Path) -> None:
    ensure_key_file(tmp_path / "store")
    assert stat.S_IMODE((tmp_path / "store").stat().st_mode) == 0o600


def test_askers_at_the_same_time_get_one_key(tmp_path: Path) -> None:
    with ThreadPoolExecutor(16) as pool:
        keys = set(pool.map(ensure_key_file, [tmp_path / "store"] * 64))
    assert len(keys) == 1
    assert [p.name for p in tmp_path.iterdir()] == ["store"]


def test_a_set_api_key_wins_over_the_file(tmp_path: Path) -> None:
    assert api_key(Settings(data_dir=tmp_path, api_key=SecretStr("chosen"))) == "chosen"


def test_the_receipt_key_signs_what_its_published_half_verifies(tmp_path: Path) -> None:
    key = receipt_key(Settings(data_dir=tmp_path))
    Ed25519PublicKey.from_public_bytes(base64.b64decode(key.public)).verify(key.private.sign(b"x"), b"x")
    assert receipt_key(Settings(data_dir=tmp_path)).id == key.id


def test_a_configured_receipt_key_file_that_is_missing_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        receipt_key(Settings(data_dir=tmp_path, receipt_key_file=tmp_path / "no.pem"))


def test_keys_of_redaction_are_named_by_their_files(tmp_path: Path) -> None:
    ensure_key_file(tmp_path / "keys" / "redaction" / "2026-11")
    (tmp_path / "keys" / "redaction" / "old").write_text("sixteen bytes at least\n")
    keys = redaction_keys(Settings(data_dir=tmp_path))
    assert sorted(keys) == ["2026-11", "old"]
    assert keys["old"] == b"sixteen bytes at least"


def test_without_a_folder_there_are_no_keys_of_redaction(tmp_path: Path) -> None:
    assert redaction_keys(Settings(data_dir=tmp_path)) == {}


def test_a_key_of_redaction_that_could_be_guessed_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "k1").write_text("short")
    with pytest.raises(ValueError, match="k1"):
        redaction_keys(Settings(data_dir=tmp_path, redaction_key_dir=tmp_path))
