"""Messages of our own topics as Arrow columns of ClickHouse's tables: one table and one shape per message type."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final, TypeAlias

import msgspec
import pyarrow as pa

from schemas import codec
from schemas import messages as m

LIVE: Final = "live"
_INT64_MAX: Final = 2**63 - 1
_encode = msgspec.json.Encoder(order="deterministic").encode

Place = tuple[int, int, int]
"""Partition, offset and append time (ms) of a record on our own topic."""
Column: TypeAlias = "pa.Array[Any]"
Columns: TypeAlias = dict[str, "Column"]
_map_array: Any = pa.MapArray.from_arrays  # the stubs ask for 64-bit offsets, the library for 32-bit ones


def _text(values: Iterable[str | None]) -> Column:
    return pa.array([v or "" for v in values], pa.string())


def _integers(values: Iterable[int | None]) -> Column:
    """Whatever a client claims (a token count of 10^30) is stored as the nearest number that fits."""
    listed = list(values)
    try:
        return pa.array(listed, pa.int64())
    except (OverflowError, pa.ArrowInvalid):
        return pa.array([v if v is None else max(min(v, _INT64_MAX), -_INT64_MAX) for v in listed], pa.int64())


def _times(values: Iterable[int | None]) -> Column:
    return _integers(values).cast(pa.timestamp("ms", "UTC"))


def _floats(values: Iterable[float]) -> Column:
    return pa.array(list(values), pa.float64())


def _json(values: Iterable[Any]) -> Column:
    """JSON text; nothing for what is empty."""
    return pa.array([_encode(v).decode() if v else "" for v in values], pa.string())


def _lists(values: Iterable[Sequence[Any]], type_: Any) -> Column:
    return pa.array([list(v) for v in values], pa.list_(type_))


def _maps(values: Sequence[Mapping[str, Any]], type_: Any) -> Column:
    offsets, keys, items, size = [0], list[str](), list[Any](), 0
    for value in values:
        keys += value
        items += value.values()
        size += len(value)
        offsets.append(size)
    column: Column = _map_array(pa.array(offsets, pa.int32()), pa.array(keys, pa.string()), pa.array(items, type_))
    return column


def _constant(value: str, count: int) -> Column:
    return pa.repeat(value, count)


def _coordinates(batch: Sequence[m.ScoredInteraction] | Sequence[m.ScoredFeedback] | Sequence[m.DeadLetter]) -> Columns:
    at = [x.coordinates for x in batch]
    return {
        "topic": _text(c.topic for c in at),
        "topic_id": _text(c.topic_id for c in at),
        "partition": _integers(c.partition for c in at),
        "offset": _integers(c.offset for c in at),
        "arrival": _times(x.append_time for x in batch),
    }


def _scores(batch: Sequence[m.ScoredInteraction] | Sequence[m.ScoredFeedback]) -> Columns:
    values, labels, reasons, errors = [], [], [], []
    for scored in batch:
        value, label, reason, error = dict[str, int](), dict[str, str](), dict[str, list[m.Reason]](), list[str]()
        for name, score in scored.scores.items():
            if score.outcome == "error":
                error.append(name)
                continue
            value[name] = score.value
            if score.label is not None:
                label[name] = score.label
            if score.reasons:
                reason[name] = score.reasons
        values.append(value)
        labels.append(label)
        reasons.append(reason)
        errors.append(error)
    return {
        "scores": _maps(values, pa.int64()),
        "labels": _maps(labels, pa.string()),
        "reasons": _json(reasons),
        "score_errors": _lists(errors, pa.string()),
    }


def _attributes(batch: Sequence[m.ScoredInteraction] | Sequence[m.ScoredFeedback]) -> Column:
    return _maps(
        [{k: v if isinstance(v, str) else _encode(v).decode() for k, v in x.attributes.items()} for x in batch], pa.string()
    )


def interactions(batch: Sequence[m.ScoredInteraction], places: Sequence[Place]) -> Columns:  # noqa: ARG001
    columns = _coordinates(batch) | _scores(batch)
    columns["lane"] = _constant(LIVE, len(batch))
    for name in (
        "app", "config", "environment", "version", "id", "time", "kind", "part", "provider", "request_model", "response_model",
        "prompt_name", "prompt_version", "arm", "conversation", "trace_id", "span_id", "parent_id", "user", "prompt", "response",
        "error_type",
    ):  # fmt: skip
        columns[name] = _text([getattr(x, name) for x in batch])
    for name in (
        "route_epoch", "turn", "input_tokens", "output_tokens", "latency_us", "first_chunk_us", "cost_microusd", "parts_not_scored",
    ):  # fmt: skip
        columns[name] = _integers([getattr(x, name) for x in batch])
    for name in ("messages", "tool_calls", "documents"):
        columns[name] = _json([getattr(x, name) for x in batch])
    columns["finish_reasons"] = _lists([x.finish_reasons for x in batch], pa.string())
    columns["attributes"] = _attributes(batch)
    columns["text_truncated"] = pa.array([x.text_truncated for x in batch], pa.bool_())
    return columns


def feedback(batch: Sequence[m.ScoredFeedback], places: Sequence[Place]) -> Columns:  # noqa: ARG001
    columns = _coordinates(batch) | _scores(batch)
    columns["lane"] = _constant(LIVE, len(batch))
    for name in (
        "app", "config", "environment", "version", "id", "interaction_id", "name", "kind", "attribution", "time", "label", "comment",
        "correction", "actor", "receipt_error",
    ):  # fmt: skip
        columns[name] = _text([getattr(x, name) for x in batch])
    for name in ("turn", "route_epoch", "score"):
        columns[name] = _integers([getattr(x, name) for x in batch])
    columns["attributes"] = _attributes(batch)
    return columns


def dead_letters(batch: Sequence[m.DeadLetter], places: Sequence[Place]) -> Columns:  # noqa: ARG001
    columns = _coordinates(batch)
    for name in ("code", "reason", "field", "sha256"):
        columns[name] = _text([getattr(x, name) for x in batch])
    columns["size"] = _integers([x.size for x in batch])
    return columns


def headers(batch: Sequence[m.BlockHeader]) -> Columns:
    """Block headers; equal ones have equal digests."""
    columns = {name: _text([getattr(x, name) for x in batch]) for name in ("topic", "topic_id", "config")}
    columns["partition"] = _integers(x.partition for x in batch)
    columns["window"] = _times(x.window for x in batch)
    columns["digest"] = _text([codec.digest(x) for x in batch])
    columns["start_offset"] = _integers(x.start for x in batch)
    columns["end_offset"] = _integers(x.end for x in batch)
    for name in ("scored", "dead", "poison", "tick", "control"):
        columns[name] = _integers([getattr(x.counts, name) for x in batch])
    columns["dead_reasons"] = _maps([x.dead_reasons for x in batch], pa.int64())
    return columns


def window_rows(batch: Sequence[m.WindowRows], places: Sequence[Place]) -> Columns:  # noqa: ARG001
    rows = [row for message in batch for row in message.rows]
    columns = {name: _text([getattr(x, name) for x in rows]) for name in ("app", "environment", "metric", "version")}
    columns["lane"] = _constant(LIVE, len(rows))
    columns["resolution"] = _integers(x.resolution for x in rows)
    columns["window"] = _times(x.window for x in rows)
    columns["shard"] = _integers(message.shard for message in batch for _ in message.rows)
    columns["n"] = _integers(x.n for x in rows)
    columns["bins"] = _lists([x.bins for x in rows], pa.int32())
    columns["names"] = _lists([x.names for x in rows], pa.string())
    columns["counts"] = _lists([x.counts for x in rows], pa.int64())
    return columns


def _record(places: Sequence[Place]) -> Columns:
    return {
        "lane": _constant(LIVE, len(places)),
        "partition": _integers(p[0] for p in places),
        "offset": _integers(p[1] for p in places),
        "arrival": _times(p[2] for p in places),
    }


def detections(batch: Sequence[m.Detection], places: Sequence[Place]) -> Columns:
    columns = _record(places)
    for name in ("app", "environment", "id", "metric", "slice", "config"):
        columns[name] = _text([getattr(x, name) for x in batch])
    return columns | {
        "shard": _integers(x.shard for x in batch),
        "window": _times(x.window for x in batch),
        "onset": _times(x.onset for x in batch),
        "statistic": _floats(x.statistic for x in batch),
        "threshold": _floats(x.threshold for x in batch),
        "effect": _json(x.effect for x in batch),
        "contributions": _json(x.contributions for x in batch),
    }


def alerts(batch: Sequence[m.AlertTransition], places: Sequence[Place]) -> Columns:
    columns = _record(places)
    for name in (
        "app", "environment", "id", "rule", "metric", "slice", "state", "previous", "reason", "config", "rules", "actor",
    ):  # fmt: skip
        columns[name] = _text([getattr(x, name) for x in batch])
    for name in ("window", "opened_window", "onset"):
        columns[name] = _times([getattr(x, name) for x in batch])
    return columns | {
        "shard": _integers(x.shard for x in batch),
        "sequence": _integers(x.sequence for x in batch),
        "statistic": _floats(x.statistic for x in batch),
        "threshold": _floats(x.threshold for x in batch),
        "effect": _json(x.effect for x in batch),
        "contributions": _json(x.contributions for x in batch),
        "paged": pa.array([x.paged for x in batch], pa.bool_()),
    }


def actions(batch: Sequence[m.ActionStep], places: Sequence[Place]) -> Columns:
    columns = _record(places)
    for name in ("id", "incident", "kind", "mode", "state", "phase", "reason", "actor", "config", "rules"):
        columns[name] = _text([getattr(x, name) for x in batch])
    for name in ("shard", "sequence", "attempt", "ttl_s"):
        columns[name] = _integers([getattr(x, name) for x in batch])
    for name in ("app", "environment", "version", "to_version"):
        columns[name] = _text([getattr(x.target, name) for x in batch])
    return columns | {
        "window": _times(x.window for x in batch),
        "precondition": _json(x.precondition for x in batch),
        "data": _json(x.data for x in batch),
        "evidence": _lists([x.evidence for x in batch], pa.string()),
    }


def cuts(batch: Sequence[m.Cut], places: Sequence[Place]) -> Columns:
    columns: Columns = {"offset": _integers(p[1] for p in places)}
    for name in ("shard", "windows", "summaries_end", "commands_end", "actions_end", "config_end"):
        columns[name] = _integers([getattr(x, name) for x in batch])
    for name in ("first_window", "last_window", "catch_up_until"):
        columns[name] = _times([getattr(x, name) for x in batch])
    return columns


Shape = Callable[[Any, Sequence[Place]], Columns]
TABLES: Final[Mapping[type[m.Message], tuple[str, Shape]]] = {
    m.ScoredInteraction: ("interactions", interactions),
    m.ScoredFeedback: ("feedback", feedback),
    m.DeadLetter: ("dead_letters", dead_letters),
    m.WindowRows: ("window_rows", window_rows),
    m.Detection: ("detections", detections),
    m.AlertTransition: ("alerts", alerts),
    m.ActionStep: ("actions", actions),
    m.Cut: ("cuts", cuts),
}
"""Message type → its table and its shape. `headers` go by their own way."""


def table(columns: Columns) -> pa.Table:
    return pa.table(columns)
