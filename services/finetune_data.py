"""Where the fine-tune worker's rows come from, ClickHouse, and where they go: a folder per dataset, named by its digest."""

import contextlib
import os
import re
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import msgspec

from adapters.clickhouse import connect, is_away, rows
from adapters.settings import Settings
from core.dataset import Act, Dataset
from core.metrics import FIRES
from schemas.messages import ChatMessage, ContentPart, DatasetRules

MAX_ACTS: Final = 50_000
"""Acts of feedback that one dataset is made from, the newest."""
_DAY_MS: Final = 86_400_000
_FLAGS: Final = {
    "error": "error",
    "refusal": "refusal",
    "response.pii": "pii",
    "response.empty": "empty",
    "response.repeated": "repeated",
    "response.safety.unsafe": "unsafe",
    "prompt.safety.unsafe": "unsafe question",
    "prompt.safety.jailbreak": "attack",
}
"""By the score that fires: how the dataset calls it."""


class StoreAway(ConnectionError):
    """ClickHouse does not answer: worth trying again later."""


class NoDataset(LookupError):
    """The dataset's folder is not on this machine."""


def read_acts(settings: Settings, app: str, environment: str, rules: DatasetRules, *, now_ms: int) -> list[Act]:
    """Corrections and ratings of an app's last `rules.days` with what they are about. Raises StoreAway."""
    parameters = {
        "app": app,
        "environment": environment,
        "since": now_ms - rules.days * _DAY_MS,
        "limit": MAX_ACTS,
        "fires": FIRES,
        "flagging": list(_FLAGS),
    }
    try:
        with contextlib.closing(connect(settings)) as client:
            return [_act(row) for row in rows(client, "dataset_acts", parameters)]
    except Exception as error:
        if not is_away(error):
            raise
        raise StoreAway("ClickHouse does not answer") from error


def folder(settings: Settings, digest: str) -> Path:
    """Where a dataset lies. Raises NoDataset for what is no digest."""
    if not re.fullmatch(r"[0-9a-f]{32}", digest):
        raise NoDataset("that is no dataset's digest")
    return settings.data_dir / "datasets" / digest


def write_dataset(settings: Settings, dataset: Dataset) -> Path:
    """Write a dataset's files, readable by this user only; whole or not at all."""
    place = folder(settings, dataset.digest)
    if place.is_dir():
        return place
    place.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    draft = Path(tempfile.mkdtemp(prefix=".new-", dir=place.parent))
    try:
        for name, data in dataset.files.items():
            with os.fdopen(os.open(draft / name, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
        with contextlib.suppress(OSError):  # another worker was first, with the same bytes
            draft.rename(place)
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    return place


def read_file(settings: Settings, digest: str, name: str) -> bytes:
    """One file of a dataset. Raises NoDataset."""
    try:
        return (folder(settings, digest) / name).read_bytes()
    except FileNotFoundError:
        raise NoDataset(f"the folder of dataset {digest} is not on this machine") from None


def _act(row: Mapping[str, Any]) -> Act:
    context, media = _context(row["messages"])
    flags = {_FLAGS[name] for name in row["fired"]}
    flags |= {
        name
        for name, holds in (
            ("error", row["error_type"]),
            ("truncated", row["text_truncated"]),
            ("tools", row["tools"]),
            ("media", media or row["parts_not_scored"]),
        )
        if holds
    }
    return Act(
        id=row["id"],
        interaction=row["interaction_id"],
        source=f"{row['topic_id']}/{row['partition']}/{row['offset']}",
        arrival=row["arrival_ms"],
        actor=row["actor"],
        name=row["name"],
        by_receipt=row["attribution"] == "receipt",
        correction=row["correction"],
        thumbs_down=None if row["thumbs_down"] < 0 else bool(row["thumbs_down"]),
        question=row["prompt"],
        context=context,
        response=row["response"],
        flags=frozenset(flags),
    )


def _context(stored: str) -> tuple[tuple[tuple[str, str], ...], bool]:
    """The conversation before the last user message, and whether it holds anything but text of user and assistant."""
    if not stored:
        return (), False
    messages = msgspec.json.decode(stored, type=list[ChatMessage])
    last = max((n for n, message in enumerate(messages) if message.role == "user"), default=0)
    before = [message for message in messages[:last] if message.role not in ("system", "developer")]
    parts = [part for message in messages for part in _parts(message)]
    other = any(part.type != "text" for part in parts) or any(message.role not in ("user", "assistant") for message in before)
    return tuple((message.role, "\n".join(part.text or "" for part in _parts(message))) for message in before), other


def _parts(message: ChatMessage) -> list[ContentPart]:
    return [ContentPart(text=message.content)] if isinstance(message.content, str) else message.content
