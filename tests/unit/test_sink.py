"""The sink's order of writing, on tables that only remember."""

import threading
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import confluent_kafka as ck
import pyarrow as pa
import pytest
from clickhouse_connect.driver.exceptions import DatabaseError, OperationalError

from adapters.settings import Settings
from adapters.telemetry import Telemetry
from schemas import codec
from schemas import messages as m
from schemas.topics import DEADLETTER, SCORED, SUMMARIES, WINDOWS
from services import sink_rows
from services.sink import Batch, ClickHouseTables, Sink, SinkProcess

PLACE = {"topic": "llm.interactions", "topic_id": "id", "partition": 0}


class Remembered:
    """Tables as a list of (table, rows)."""

    def __init__(self) -> None:
        self.inserts: list[tuple[str, pa.Table]] = []

    def insert(self, table: str, rows: pa.Table) -> None:
        self.inserts.append((table, rows))

    def names(self) -> list[str]:
        return [name for name, _ in self.inserts]


def make() -> tuple[Sink, Remembered, list[str]]:
    tables, bad = Remembered(), list[str]()
    sink = Sink(tables, lambda place, offset, error: bad.append(f"{place[0]}/{place[1]}/{offset} {error.code}"))
    sink.assigned({(SCORED, 0): 0, (DEADLETTER, 0): 0, (SUMMARIES, 0): 0})
    return sink, tables, bad


def record(message: m.Message, offset: int) -> codec.Record:
    return codec.Record(offset, 1_000, None, codec.encode(message), codec.cloud_headers(type(message), id_="x", time_ms=0))


def scored(offset: int, **values: object) -> m.ScoredInteraction:
    at = m.Coordinates(**PLACE, offset=offset)  # type: ignore[arg-type]  # a dict of both kinds
    return m.ScoredInteraction(coordinates=at, append_time=1_000, config="c", id=f"i{offset}", app="a", version="v", **values)  # type: ignore[arg-type]


def summary(start: int, end: int, *, shard: int = 0) -> m.BlockSummary:
    counts = m.LedgerCounts(scored=end - start)
    header = m.BlockHeader(**PLACE, window=0, start=start, end=end, config="c", counts=counts)  # type: ignore[arg-type]
    return m.BlockSummary(header=header, shard=shard)


def nothing_elsewhere(places: Sequence[tuple[str, int]]) -> dict[tuple[str, int], int]:
    return dict.fromkeys(places, 0)


def test_a_header_waits_for_the_rows_up_to_the_ends_that_were_noted_when_it_was_read() -> None:
    sink, tables, _ = make()
    first = Batch()
    sink.add(first, SUMMARIES, 0, record(summary(0, 2), 0))
    assert sink.write(first, lambda: {(SCORED, 0): 2, (DEADLETTER, 0): 0}) == {}
    assert sink.release(nothing_elsewhere) == {}
    second = Batch()
    for offset in range(2):
        sink.add(second, SCORED, 0, record(scored(offset), offset))
    assert sink.write(second, dict) == {(SCORED, 0): 2}
    assert sink.release(nothing_elsewhere) == {(SUMMARIES, 0): 1}
    assert tables.names() == ["interactions", "headers"]


def test_summaries_are_not_done_before_their_headers_are_stored() -> None:
    sink, _, _ = make()
    batch = Batch()
    sink.add(batch, SUMMARIES, 0, record(summary(0, 2), 0))
    assert sink.write(batch, lambda: {(SCORED, 0): 2}) == {}


def test_ends_are_asked_for_headers_only() -> None:
    sink, _, _ = make()
    batch = Batch()
    sink.add(batch, SCORED, 0, record(scored(0), 0))

    def refuse() -> dict[tuple[str, int], int]:
        raise AssertionError

    sink.write(batch, refuse)


def test_a_partition_of_another_member_counts_as_far_as_that_one_committed() -> None:
    sink, tables, _ = make()
    batch = Batch()
    sink.add(batch, SUMMARIES, 0, record(summary(0, 2), 0))
    sink.write(batch, lambda: {(SCORED, 1): 5})
    assert sink.release(lambda _: {(SCORED, 1): 4}) == {}
    assert sink.release(lambda _: {(SCORED, 1): 5}) == {(SUMMARIES, 0): 1}
    assert tables.names() == ["headers"]


def test_the_copies_of_a_header_in_every_shard_are_stored_once() -> None:
    sink, tables, _ = make()
    for shard in range(3):
        batch = Batch()
        sink.add(batch, SUMMARIES, shard, record(summary(0, 0, shard=shard), 0))
        sink.write(batch, dict)
        sink.release(nothing_elsewhere)
    assert [rows.num_rows for _, rows in tables.inserts] == [1]


def test_what_waits_is_forgotten_when_partitions_change_hands() -> None:
    sink, _, _ = make()
    batch = Batch()
    sink.add(batch, SUMMARIES, 0, record(summary(0, 2), 0))
    sink.write(batch, lambda: {(SCORED, 0): 2})
    sink.assigned({})
    assert not sink.waiting


@pytest.mark.parametrize(
    ("value", "headers", "code"),
    [
        (b"\xff", codec.cloud_headers(m.ScoredInteraction, id_="x", time_ms=0), "not_json"),
        (b"{}", codec.cloud_headers(m.ScoredInteraction, id_="x", time_ms=0), "invalid"),
        (b"{}", [], "type"),
        (b"{}", codec.cloud_headers(m.DeadLetter, id_="x", time_ms=0), "type"),
    ],
)
def test_a_record_that_is_not_valid_is_told_by_its_place_and_passed_over(value: bytes, headers: codec.Headers, code: str) -> None:
    sink, tables, bad = make()
    batch = Batch()
    sink.add(batch, SCORED, 0, codec.Record(7, 1_000, None, value, headers))
    assert sink.write(batch, dict) == {(SCORED, 0): 8}
    assert bad == [f"{SCORED}/0/7 {code}"]
    assert tables.inserts == []


def test_scores_labels_reasons_and_errors_go_to_columns_of_their_own() -> None:
    reason = m.Reason(rule="sorry", start=0, end=5)
    scores = {
        "refusal": m.Score(scorer="r@1", value=65_535, reasons=[reason]),
        "prompt.language": m.Score(scorer="l@1", label="en"),
        "topic": m.Score(scorer="t@1", outcome="error"),
    }
    columns = sink_rows.interactions([scored(0, scores=scores)], [(0, 0, 0)])
    assert columns["scores"].to_pylist() == [[("refusal", 65_535), ("prompt.language", 0)]]
    assert columns["labels"].to_pylist() == [[("prompt.language", "en")]]
    assert columns["score_errors"].to_pylist() == [["topic"]]
    assert columns["reasons"].to_pylist() == ['{"refusal":[{"rule":"sorry","end":5}]}']


def test_a_number_that_fits_no_column_becomes_the_nearest_that_does() -> None:
    columns = sink_rows.interactions([scored(0, input_tokens=10**30, output_tokens=-(10**30))], [(0, 0, 0)])
    assert (columns["input_tokens"][0].as_py(), columns["output_tokens"][0].as_py()) == (2**63 - 1, -(2**63 - 1))


def test_every_field_of_a_scored_interaction_has_a_column() -> None:
    kept = {"schema_version", "extra", "coordinates", "append_time"}
    fields = {name for name in m.ScoredInteraction.__struct_fields__ if name not in kept}
    assert fields <= set(sink_rows.interactions([scored(0)], [(0, 0, 0)]))


def test_an_empty_set_of_window_rows_makes_no_insert() -> None:
    sink, tables, _ = make()
    batch = Batch()
    sink.add(batch, WINDOWS, 0, record(m.WindowRows(shard=0, rows=[]), 0))
    assert sink.write(batch, dict) == {(WINDOWS, 0): 1}
    assert tables.inserts == []


class Flaky:
    """A client that fails with the given errors before it works."""

    def __init__(self, errors: list[Exception]) -> None:
        self.errors, self.inserted = errors, list[str]()

    def insert_arrow(self, table: str, _: pa.Table) -> None:
        if self.errors:
            raise self.errors.pop(0)
        self.inserted.append(table)

    def close(self) -> None:
        """There is nothing to close."""


def test_an_insert_waits_while_clickhouse_is_away() -> None:
    client, waits, done = Flaky([OperationalError("gone"), OperationalError("gone")]), list[str](), list[bool]()
    tables = ClickHouseTables(lambda: client, lambda error: waits.append(str(error)), lambda: done.append(True))  # type: ignore[arg-type,return-value]  # a twin
    tables.insert("interactions", pa.table({"a": [1]}))
    assert (client.inserted, waits, done) == (["interactions"], ["gone", "gone"], [True])


def test_an_insert_that_clickhouse_refuses_is_raised() -> None:
    client = Flaky([DatabaseError("no such column")])
    tables = ClickHouseTables(lambda: client, lambda _: None, lambda: None)  # type: ignore[arg-type,return-value]  # a twin
    with pytest.raises(DatabaseError, match="no such column"):
        tables.insert("interactions", pa.table({"a": [1]}))


def test_headers_are_not_released_while_the_broker_does_not_tell_the_ends_of_their_rows(tmp_path: Path) -> None:
    class Forgetful:
        """A consumer whose broker does not know the topic just now."""

        def list_topics(self, topic: str, timeout: float) -> Any:
            return SimpleNamespace(topics={topic: SimpleNamespace(error=ck.KafkaError(3), partitions={})})

    process = SinkProcess(make()[0], cast(Any, Forgetful()), Telemetry("sink", Settings(data_dir=tmp_path)))
    with pytest.raises(ck.KafkaException):
        process._ends()


@pytest.mark.parametrize(("code", "ends"), [("FENCED_INSTANCE_ID", True), ("ILLEGAL_GENERATION", False)])
def test_a_fenced_consumer_ends_the_process_and_a_stale_one_goes_on(tmp_path: Path, code: str, ends: bool) -> None:
    class Refused:
        """A consumer whose commits the group does not take."""

        def commit(self, **_: object) -> None:
            raise ck.KafkaException(ck.KafkaError(getattr(ck.KafkaError, code)))

    process = SinkProcess(make()[0], cast(Any, Refused()), Telemetry("sink", Settings(data_dir=tmp_path)))
    if ends:
        with pytest.raises(ck.KafkaException, match="FENCED_INSTANCE_ID"):
            process._commit({(SCORED, 0): 1})
    else:
        process._commit({(SCORED, 0): 1})


def test_a_consumer_that_will_never_read_again_ends_the_process(tmp_path: Path) -> None:
    class Dead:
        """A consumer that tells what it once died of."""

        def consume(self, *_: object, **__: object) -> list[Any]:
            return [SimpleNamespace(error=lambda: ck.KafkaError(ck.KafkaError._FATAL))]

    process = SinkProcess(make()[0], cast(Any, Dead()), Telemetry("sink", Settings(data_dir=tmp_path)))
    with pytest.raises(ck.KafkaException, match="_FATAL"):
        process._read(threading.Event())
