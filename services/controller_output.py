"""What one fold puts out, as the records of one transaction: deterministic ids, partition = shard, parts of bounded size."""

from collections.abc import Iterable, Sequence
from typing import Final

import msgspec

from core.fold import FoldOutput
from core.shard import SOURCE
from schemas.codec import Outgoing, cloud_headers, encode
from schemas.messages import (
    WINDOW_MS,
    ActionStep,
    AlertTransition,
    Cut,
    Detection,
    Message,
    StateSection,
    WindowRow,
    WindowRows,
)
from schemas.topics import ACTIONS, ALERTS, STATE, WINDOWS

MAX_PART_BYTES: Final = 512 * 1024


def fold_records(cut: Cut, output: FoldOutput) -> list[Outgoing]:
    """Window rows, detections, alerts, actions, and the cut last."""
    shard, end = cut.shard, cut.last_window + WINDOW_MS
    batch = f"{shard}/{cut.first_window}-{cut.last_window}"
    key = str(shard)
    return [
        *(_out(WINDOWS, key, part, f"rows/{batch}/{part.part}", end, shard) for part in row_parts(shard, output.rows)),
        *(_out(WINDOWS, key, d, d.id, d.window + WINDOW_MS, shard) for d in output.detections),
        *(_out(ALERTS, a.id, a, f"{a.id}/{a.sequence}", a.window + WINDOW_MS, shard) for a in output.alerts),
        *(_out(ACTIONS, s.id, s, f"{s.id}/{s.sequence}", s.window + WINDOW_MS, shard) for s in output.actions),
        _out(WINDOWS, key, cut, f"cut/{batch}", end, shard),
    ]


def state_records(sections: Iterable[StateSection]) -> list[Outgoing]:
    """Sections of the state; one that is gone (`data` null) becomes a tombstone."""
    return [
        _out(STATE, f"{s.shard}/{s.section}", s, f"{s.shard}/{s.section}/{s.window}", s.window + WINDOW_MS, s.shard)
        if bytes(s.data) != b"null"
        else Outgoing(STATE, f"{s.shard}/{s.section}".encode(), None, [], s.shard)
        for s in sections
    ]


def row_parts(shard: int, rows: Sequence[WindowRow], max_bytes: int = MAX_PART_BYTES) -> list[WindowRows]:
    """Rows in as few messages as fit `max_bytes` each; none where there are no rows."""
    parts: list[list[WindowRow]] = []
    used = max_bytes
    for row in rows:
        size = len(msgspec.json.encode(row)) + 1
        if used + size > max_bytes:
            parts.append([])
            used = 256
        parts[-1].append(row)
        used += size
    return [WindowRows(shard=shard, rows=part, part=number, parts=len(parts)) for number, part in enumerate(parts, 1)]


def _out(
    topic: str,
    key: str,
    message: WindowRows | Detection | AlertTransition | ActionStep | Cut | StateSection,
    id_: str,
    time_ms: int,
    shard: int,
) -> Outgoing:
    type_: type[Message] = type(message)
    return Outgoing(topic, key.encode(), encode(message), cloud_headers(type_, id_=id_, time_ms=time_ms, source=SOURCE), shard)
