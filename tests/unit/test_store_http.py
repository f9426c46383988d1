"""Bodies of requests to the store: whole, or refused; an insert is never cut short in silence."""

import gzip
import random
import zlib
from collections.abc import Callable

import lz4.frame  # type: ignore[import-untyped]  # ships no types
import pytest
import zstandard

from adapters.http_body import BodyTooLarge
from services.store_guard import Refused
from services.store_http import decode_body

LIMIT = 1_000_000
ENCODERS: dict[str, Callable[[bytes], bytes]] = {
    "gzip": gzip.compress,
    "deflate": zlib.compress,
    "zstd": zstandard.ZstdCompressor().compress,
    "lz4": lz4.frame.compress,
}
ROWS = random.Random(1).randbytes(200_000)


@pytest.mark.parametrize("encoding", ENCODERS)
def test_a_body_comes_back(encoding: str) -> None:
    assert decode_body(ENCODERS[encoding](ROWS), encoding.encode(), LIMIT) == ROWS


@pytest.mark.parametrize("encoding", ["gzip", "zstd", "lz4"])
def test_frames_in_a_row_are_joined(encoding: str) -> None:
    encode = ENCODERS[encoding]
    assert decode_body(encode(ROWS) + encode(b"more"), encoding.encode(), LIMIT) == ROWS + b"more"


@pytest.mark.parametrize("encoding", ENCODERS)
@pytest.mark.parametrize("kept", [0.5, 0.99])
def test_a_body_that_ends_early_is_refused(encoding: str, kept: float) -> None:
    whole = ENCODERS[encoding](ROWS)
    with pytest.raises(Refused):
        decode_body(whole[: int(len(whole) * kept)], encoding.encode(), LIMIT)


@pytest.mark.parametrize("encoding", ENCODERS)
def test_a_body_of_exactly_the_limit_passes_and_one_byte_more_does_not(encoding: str) -> None:
    encode = ENCODERS[encoding]
    assert len(decode_body(encode(bytes(LIMIT)), encoding.encode(), LIMIT)) == LIMIT
    with pytest.raises(BodyTooLarge):
        decode_body(encode(bytes(LIMIT + 1)), encoding.encode(), LIMIT)
