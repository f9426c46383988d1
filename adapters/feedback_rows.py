"""Feedback with the answers that it is about, as the store holds them: redacted, scored, attributed."""

from collections.abc import Mapping
from typing import Any, Final

import msgspec

from adapters import clickhouse
from adapters.clickhouse import Client
from schemas.messages import FIXED_ONE, ChatMessage

MOST: Final = 200_000
_FIRES: Final = (FIXED_ONE + 1) // 2
_FLAGS: Final = {
    "refusal": "refusal",
    "response.pii": "pii",
    "response.empty": "empty",
    "response.repeated": "repeated",
    "error": "error",
}
Act = dict[str, Any]
"""The fields of core.dataset.Act."""


def feedback_acts(client: Client, app: str, environment: str, days: int) -> list[Act]:
    """Explicit acts of the last `days` days with a correction or a rating, the newest MOST of them."""
    found = client.query(
        clickhouse.named_query("dataset_acts"),
        parameters={"app": app, "environment": environment, "days": days, "most": MOST},
    )
    return [_act(row) for row in found.named_results()]


def _act(row: Mapping[str, Any]) -> Act:
    down = row["act_scores"].get("thumbs.down")
    return {
        "id": row["id"],
        "interaction": row["interaction_id"],
        "source": row["source"],
        "arrival": row["arrival"],
        "actor": row["actor"],
        "name": row["name"],
        "by_receipt": bool(row["by_receipt"]),
        "correction": row["correction"],
        "thumbs_down": None if down is None else down >= _FIRES,
        "question": row["prompt"],
        "context": _context(row["messages"]),
        "response": row["response"],
        "flags": _flags(row),
    }


def _flags(row: Mapping[str, Any]) -> frozenset[str]:
    found = {flag for metric, flag in _FLAGS.items() if row["scores"].get(metric, 0) >= _FIRES}
    if row["error_type"]:
        found.add("error")
    if row["text_truncated"]:
        found.add("truncated")
    if row["parts_not_scored"]:
        found.add("media")
    if row["tool_calls"]:
        found.add("tools")
    return frozenset(found)


def _context(messages: str) -> tuple[tuple[str, str], ...]:
    """The conversation before the last user message, without system messages."""
    if not messages:
        return ()
    said = msgspec.json.decode(messages.encode(), type=list[ChatMessage])
    asked = max((at for at, message in enumerate(said) if message.role == "user"), default=0)
    return tuple(
        (m.role, m.content if isinstance(m.content, str) else " ".join(p.text or "" for p in m.content))
        for m in said[:asked]
        if m.role in ("user", "assistant")
    )
