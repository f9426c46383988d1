"""Corrections that are kept in the data folder: one file per app, written whole or not at all, for the owner's eyes only."""

import contextlib
import hashlib
import os
import secrets
from collections.abc import Sequence
from pathlib import Path

import msgspec

from adapters.settings import Settings
from schemas.messages import AdaptedHead

MAX_KEPT = 20
"""Versions per score that are kept."""


class UnreadableCorrections(RuntimeError):
    """The file of an app's corrections was damaged; the text names it."""


class KeptCorrections(msgspec.Struct):
    """What was learned for an app, oldest first, and what was activated, in order (a rollback too)."""

    app: str
    environment: str
    learned: list[AdaptedHead] = []
    activated: list[AdaptedHead] = []

    def active(self) -> list[AdaptedHead]:
        """The last activated correction of each score."""
        return list({head.name: head for head in self.activated}.values())

    def history(self, name: str) -> list[AdaptedHead]:
        """The activated corrections of a score, in order."""
        return [head for head in self.activated if head.name == name]


def corrections_path(settings: Settings, app: str, environment: str) -> Path:
    """Where an app's corrections are kept: no part of the name is what somebody typed."""
    digest = hashlib.sha256(f"{app}\0{environment}".encode()).hexdigest()
    return settings.data_dir / "adapted" / f"{digest[:32]}.json"


def load_corrections(settings: Settings, app: str, environment: str) -> KeptCorrections:
    """An app's corrections; none where there is no file. Raises UnreadableCorrections."""
    path = corrections_path(settings, app, environment)
    try:
        kept = msgspec.json.decode(path.read_bytes(), type=KeptCorrections)
    except FileNotFoundError:
        return KeptCorrections(app, environment)
    except msgspec.DecodeError as error:
        raise UnreadableCorrections(f"{path} was damaged ({error}): move it away to begin anew") from None
    if (kept.app, kept.environment) != (app, environment):
        raise UnreadableCorrections(f"{path} holds another app's corrections: move it away to begin anew")
    return kept


def save_corrections(settings: Settings, kept: KeptCorrections) -> Path:
    """Write an app's corrections, the newest MAX_KEPT of each score; where they are."""
    path = corrections_path(settings, kept.app, kept.environment)
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    small = KeptCorrections(kept.app, kept.environment, _newest(kept.learned), _newest(kept.activated))
    draft = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    try:
        with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(msgspec.json.encode(small))
            file.flush()
            os.fsync(file.fileno())
        draft.replace(path)
    finally:
        with contextlib.suppress(FileNotFoundError):
            draft.unlink()
    return path


def _newest(heads: Sequence[AdaptedHead]) -> list[AdaptedHead]:
    kept: list[AdaptedHead] = []
    counts: dict[str, int] = {}
    for head in reversed(heads):
        counts[head.name] = counts.get(head.name, 0) + 1
        if counts[head.name] <= MAX_KEPT:
            kept.append(head)
    return kept[::-1]
