"""Bodies: what they decompress to, how they are cut into items, and that no body takes more memory than its limit."""

import gzip
import random
import tracemalloc

import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from adapters.http_body import BodyTooLarge, decompress, split_items
from schemas.codec import InvalidMessage

LIMIT = 1_000_000
ENCODERS = {"gzip": gzip.compress, "zstd": zstandard.ZstdCompressor().compress, "": bytes}


@pytest.mark.parametrize("encoding", ENCODERS)
@given(body=st.binary(max_size=500))
@settings(deadline=None, max_examples=30)
def test_a_compressed_body_comes_back(encoding: str, body: bytes) -> None:
    assert decompress(ENCODERS[encoding](body), encoding, LIMIT) == body


@pytest.mark.parametrize("encoding", ["gzip", "zstd"])
def test_frames_in_a_row_are_joined(encoding: str) -> None:
    assert decompress(ENCODERS[encoding](b"ab") + ENCODERS[encoding](b"cd"), encoding, LIMIT) == b"abcd"


@pytest.mark.parametrize("encoding", ["gzip", "zstd"])
def test_a_bomb_stops_at_the_limit(encoding: str) -> None:
    bomb = ENCODERS[encoding](bytes(200_000_000))
    tracemalloc.start()
    with pytest.raises(BodyTooLarge):
        decompress(bomb, encoding, LIMIT)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 20_000_000


@pytest.mark.parametrize("encoding", ["gzip", "zstd"])
def test_many_empty_frames_are_read_without_copying_the_rest_for_each(encoding: str) -> None:
    body = ENCODERS[encoding](b"") * 20_000
    copied = 0

    class Counted(bytes):
        def __getitem__(self, key: object) -> bytes:  # type: ignore[override]  # a slice is enough
            nonlocal copied
            piece = bytes.__getitem__(self, key)  # type: ignore[index]  # a slice
            copied += len(piece)
            return piece

    decompress(Counted(body), encoding, LIMIT)
    assert 0 < copied < 20_000 * 1_000


@pytest.mark.parametrize("encoding", ["gzip", "zstd"])
def test_a_body_of_exactly_the_limit_passes(encoding: str) -> None:
    assert len(decompress(ENCODERS[encoding](bytes(LIMIT)), encoding, LIMIT)) == LIMIT


@pytest.mark.parametrize("encoding", ["gzip", "zstd", "br", "gzip, gzip"])
@pytest.mark.parametrize("body", [b"{}", b"\x1f\x8b\x08", b"\x28\xb5\x2f\xfd"])
def test_a_damaged_or_unknown_encoding_is_refused(encoding: str, body: bytes) -> None:
    with pytest.raises(InvalidMessage) as refused:
        decompress(body, encoding, LIMIT)
    assert refused.value.code == "encoding"


@pytest.mark.parametrize("encoding", ["gzip", "zstd"])
@pytest.mark.parametrize("kept", [0.1, 0.5, 0.9, 0.999])
def test_a_body_that_ends_early_is_refused(encoding: str, kept: float) -> None:
    whole = ENCODERS[encoding](random.Random(1).randbytes(300_000))
    with pytest.raises(InvalidMessage):
        decompress(whole[: int(len(whole) * kept)], encoding, LIMIT)


@pytest.mark.parametrize(
    ("body", "content_type", "items"),
    [
        (b'{"a":1}', "application/json", [b'{"a":1}']),
        (b'{"a":1}', "application/x-www-form-urlencoded", [b'{"a":1}']),
        (b'\xef\xbb\xbf {"a":1}\r\n', "", [b'{"a":1}']),
        (b'[{"a":1}, {"a":2}]', "application/json", [b'{"a":1}', b'{"a":2}']),
        (b"[]", "", []),
        (b'[1,"x",null]', "", [b"1", b'"x"', b"null"]),
        (b'{"a":1}\n\n{"a":2}\r\n', "application/x-ndjson; charset=utf-8", [b'{"a":1}', b'{"a":2}']),
        (b'{"a":1}\n{"a":2}\n', "application/json", [b'{"a":1}', b'{"a":2}']),
        (b'{"a":1}\n{broken', "", [b'{"a":1}', b"{broken"]),
        (b'{broken\n{"a":2}', "application/x-ndjson", [b"{broken", b'{"a":2}']),
        (b'{\n"a":1\n}', "", [b'{\n"a":1\n}']),
    ],
)
def test_a_body_is_cut_into_items(body: bytes, content_type: str, items: list[bytes]) -> None:
    assert split_items(body, content_type) == items


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b" \n",
        b"{",
        b'{"a":1',
        b"[1,",
        b"hello",
        b"\xff\xfe",
        b"\x00",
        b'[{"a":1}]x',
        b"[" * 100_000,
        b'{"a":' * 100_000,
        b"{}{}",
    ],
)
def test_a_body_that_is_no_json_is_refused(body: bytes) -> None:
    with pytest.raises(InvalidMessage):
        split_items(body, "application/json")


def test_a_refusal_quotes_nothing_of_the_body() -> None:
    with pytest.raises(InvalidMessage) as refused:
        split_items(b'{"password": hunter2}', "")
    assert "hunter" not in refused.value.reason


@pytest.mark.parametrize(("body", "kind"), [(b"[" + b"1," * 30_000 + b"1]", ""), (b"1\n" * 30_000, "application/x-ndjson")])
def test_too_many_items_are_refused(body: bytes, kind: str) -> None:
    with pytest.raises(BodyTooLarge):
        split_items(body, kind)


@given(st.binary(max_size=300), st.sampled_from(["", "application/x-ndjson"]))
@settings(deadline=None)
def test_any_bytes_are_cut_or_refused(body: bytes, content_type: str) -> None:
    try:
        items = split_items(body, content_type)
    except InvalidMessage:
        return
    assert all(items)
