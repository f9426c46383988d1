"""The records of a controller's transaction."""

import msgspec

from core.fold import FoldOutput
from schemas.codec import Record, decode, header
from schemas.messages import Cut, StateSection, WindowRow, WindowRows
from services.controller_output import fold_records, row_parts, state_records
from services.controller_recovery import load_sections

CUT = Cut(
    shard=1, first_window=5_000, last_window=10_000, windows=2, summaries_end=4, commands_end=3, actions_end=2, config_end=1
)


def row(number: int) -> WindowRow:
    return WindowRow(
        app="a", environment="e", version="v", metric="refusal@1", resolution=5, window=number, n=1, bins=[0], counts=[1]
    )


def test_rows_leave_in_parts_of_bounded_size_and_none_is_lost() -> None:
    rows = [row(n) for n in range(1_000)]
    parts = row_parts(1, rows, max_bytes=8_000)
    assert [(p.part, p.parts) for p in parts] == [(n, len(parts)) for n in range(1, len(parts) + 1)]
    assert max(len(msgspec.json.encode(p)) for p in parts) <= 8_000
    assert [r for p in parts for r in p.rows] == rows


def test_a_cut_without_rows_is_the_only_record() -> None:
    records = fold_records(CUT, FoldOutput())
    assert [header(r.headers, "ce_type") for r in records] == [b"bellbuoy.cut.v1"]
    assert decode(Cut, records[0].value) == CUT


def test_ids_are_those_of_the_windows_and_times_their_ends() -> None:
    records = fold_records(CUT, FoldOutput(rows=[row(5_000)]))
    assert [header(r.headers, "ce_id") for r in records] == [b"rows/1/5000-10000/1", b"cut/1/5000-10000"]
    assert {header(r.headers, "ce_time") for r in records} == {b"1970-01-01T00:00:15.000Z"}
    assert {(r.key, r.partition) for r in records} == {(b"1", 1)}
    assert isinstance(decode(WindowRows, records[0].value), WindowRows)


def test_a_section_that_is_gone_is_a_tombstone_and_is_not_loaded() -> None:
    kept = StateSection(shard=1, section="kept", window=5, data=msgspec.Raw(b"1"))
    gone = StateSection(shard=1, section="app/x", window=5, data=msgspec.Raw(b"2"))
    over = StateSection(shard=1, section="app/x", window=9)
    outs = state_records([kept, gone, over])
    assert (outs[-1].key, outs[-1].value) == (b"1/app/x", None)
    loaded = load_sections(Record(n, 0, o.key, o.value, o.headers) for n, o in enumerate(outs))
    assert list(loaded) == ["kept"]
