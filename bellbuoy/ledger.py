"""The ledger of a running system, for the command line, the demo and the tests."""

import time
from datetime import timedelta

from adapters.clickhouse import Client
from adapters.kafka import LogOffsets
from adapters.settings import Settings
from core.ledger import Ledger
from schemas.topics import RAW_TOPICS
from services import ledger_reader


class NotAtRest(TimeoutError):
    """What had been accepted was not accounted for in time."""


def read_ledger(settings: Settings, client: Client) -> Ledger:
    """Count the whole store against the log."""
    with LogOffsets(settings) as offsets:
        return ledger_reader.read_ledger(client, offsets)


def wait_at_rest(settings: Settings, client: Client, *, timeout: timedelta, poll_s: float = 0.5) -> None:
    """Wait until the frontier has passed the ends that the raw topics have now. Raises NotAtRest."""
    deadline = time.monotonic() + timeout.total_seconds()
    with LogOffsets(settings) as offsets:
        ends = {(topic, p): end for topic in RAW_TOPICS for p, end in offsets.end(topic).items()}
        while True:
            ledger = ledger_reader.read_ledger(client, offsets, recent_ms=ledger_reader.RECENT_MS)
            waiting = {place: end for place, end in ends.items() if ledger.frontier(place) < end}
            if not waiting:
                return
            if time.monotonic() > deadline:
                behind = ", ".join(f"{t}/{p} at {ledger.frontier((t, p))} of {end}" for (t, p), end in waiting.items())
                raise NotAtRest(f"not at rest after {timeout.total_seconds():g} s: {behind}")
            time.sleep(poll_s)
