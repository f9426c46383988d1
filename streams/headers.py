"""What the last block headers on the broker say: which incarnation of each raw topic they were made from."""

from typing import Final

from adapters.kafka import LogOffsets, read_all
from adapters.settings import Settings
from schemas.codec import decode, message_type
from schemas.messages import BlockSummary
from schemas.topics import SUMMARIES

_TAIL_RECORDS: Final = 2_000


def last_topic_ids(settings: Settings) -> dict[str, str]:
    """Topic → topic id of its newest header; a topic without a recent header is not in it. Every shard has every header."""
    with LogOffsets(settings) as offsets:
        end = offsets.end(SUMMARIES)[0]
    found: dict[str, str] = {}
    for record in read_all(settings, SUMMARIES, 0, start=max(0, end - _TAIL_RECORDS), end=end):
        if message_type(record.headers) is BlockSummary:
            header = decode(BlockSummary, record.value, keep_unknown=False).header
            found[header.topic] = header.topic_id
    return found
