"""Fetched batches are read as aiokafka reads them, and also where it cannot."""

from typing import Any

import pytest
from aiokafka.record.default_records import DefaultRecordBatchBuilder
from aiokafka.record.memory_records import MemoryRecords

from schemas.codec import UNREADABLE_HEADERS
from streams.lenient_records import LenientRecords

CODECS = {"none": 0, "gzip": 1, "snappy": 2, "lz4": 3, "zstd": 4}
Headers = list[tuple[str, bytes | None]]


def batch(headers: list[Headers], *, compression: int = 0, rename: tuple[bytes, bytes] | None = None) -> bytes:
    """A batch with one record for each list of headers; `rename` puts other bytes into a name, before compression."""
    builder = DefaultRecordBatchBuilder(
        magic=2,
        compression_type=compression,
        is_transactional=False,
        producer_id=7,
        producer_epoch=1,
        base_sequence=0,
        batch_size=10**6,
    )
    for offset, of in enumerate(headers):
        builder.append(offset, timestamp=1_000 + offset, key=b"key", value=b"value %d" % offset, headers=of)
    raw = bytes(builder.build())
    return raw if rename is None else raw.replace(*rename)


def read(records: Any) -> list[tuple[Any, ...]]:
    found = []
    while records.has_next():
        for r in records.next_batch():
            found.append((r.offset, r.timestamp, r.key, r.value, tuple(r.headers)))
    return found


@pytest.mark.parametrize("compression", CODECS.values(), ids=CODECS)
def test_what_aiokafka_reads_is_read_as_it_reads_it(compression: int) -> None:
    odd: list[Headers] = [[], [("ce_type", b"x"), ("ce_type", None)], [("\U0001f4a3 \ufffd", b"\xff")], [("", b"")]]
    raw = batch(odd, compression=compression) + batch(odd * 50, compression=compression)
    assert read(LenientRecords(raw)) == read(MemoryRecords(raw))
    assert len(read(LenientRecords(raw))) == 204


def test_a_batch_that_was_cut_off_ends_where_it_ends_for_aiokafka() -> None:
    raw = batch([[]]) + batch([[]])[:-3]
    assert len(read(LenientRecords(raw))) == len(read(MemoryRecords(raw))) == 1


def test_of_a_record_with_a_name_that_is_not_utf_8_everything_but_its_headers_is_kept() -> None:
    raw = batch([[("a", b"1")], [("b", b"2"), ("WRONG", b"3")], [("c", b"4")]], rename=(b"WRONG", b"\xff\xfeab\x80"))
    with pytest.raises(UnicodeDecodeError):
        read(MemoryRecords(raw))
    after = batch([[("d", b"5")]])
    assert read(LenientRecords(raw + after)) == [
        (0, 1_000, b"key", b"value 0", (("a", b"1"),)),
        (1, 1_001, b"key", b"value 1", UNREADABLE_HEADERS),
        (2, 1_002, b"key", b"value 2", (("c", b"4"),)),
        (0, 1_000, b"key", b"value 0", (("d", b"5"),)),
    ]


def test_a_name_that_is_readable_up_to_its_first_null_byte_is_so_much() -> None:
    raw = batch([[("WRONG", b"3")]], rename=(b"WRONG", b"ab\x00\xff\xff"))
    assert read(LenientRecords(raw))[0][4] == (("ab", b"3"),)


def test_a_batch_tells_of_itself_what_aiokafkas_tells() -> None:
    raw = batch([[], []])
    ours, theirs = LenientRecords(raw).next_batch(), MemoryRecords(raw).next_batch()
    assert theirs is not None
    for name in ("base_offset", "next_offset", "is_control_batch", "is_transactional", "producer_id"):
        assert getattr(ours, name) == getattr(theirs, name)
    assert ours.validate_crc()
    assert next(ours).value == b"value 0"
