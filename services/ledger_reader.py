"""Reads what the loss ledger is made of, from the broker and from ClickHouse, and posts what is missing to llm.commands."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from adapters.clickhouse import Client, rows
from adapters.kafka import LogOffsets, Producer
from core.ledger import ROW_LIFE_MS, Block, Gap, Ledger, Log, Run, account
from core.operations import APP, ENVIRONMENT
from schemas.codec import Outgoing, cloud_headers, encode
from schemas.messages import Command
from schemas.topics import COMMANDS, RAW_TOPICS, shard_of

RECENT_MS: Final = 3_600_000
ACTOR: Final = "ledger"
_FINDING: Final = ("id", "topic", "topic_id", "partition", "start_offset", "end_offset", "records", "what", "state")


def read_ledger(client: Client, offsets: LogOffsets, *, now_ms: int | None = None, recent_ms: int | None = None) -> Ledger:
    """Count the store against the log. With `recent_ms`, only blocks of that last time (and no repetitions).

    Headers are read before the log's ends, so that none lies beyond them, and a block whose rows are short is counted
    twice: its header may have come into the first query's view and its rows, stored earlier, only into the second's.
    """
    now_ms = int(time.time() * 1000) if now_ms is None else now_ms
    since = max(now_ms - recent_ms, 0) if recent_ms else 0
    runs = [Run(**row) for row in rows(client, "ledger_runs", {"since": since})]
    counted = {"since": max(since, now_ms - ROW_LIFE_MS)}
    short = [Block(**row) for row in rows(client, "ledger_blocks", counted)]
    if any(block.missing for block in short):
        seen = {(b.topic_id, b.partition, b.start) for b in short}
        short = [
            b for row in rows(client, "ledger_blocks", counted) if ((b := Block(**row)).topic_id, b.partition, b.start) in seen
        ]
    repeated = 0 if recent_ms else int(rows(client, "ledger_repeated")[0]["repeated"])
    return account(runs, short, _logs(offsets, runs if recent_ms else ()), now_ms=now_ms, repeated=repeated)


def _logs(offsets: LogOffsets, recent: Sequence[Run]) -> list[Log]:
    """The raw partitions. Where only recent blocks were read, the account begins with the first of them."""
    first = dict[tuple[str, int], int]()
    for run in recent:
        place = run.topic_id, run.partition
        first[place] = min(run.start, first.get(place, run.start))
    ids = offsets.topic_ids(RAW_TOPICS)
    logs = []
    for topic in RAW_TOPICS:
        starts, ends = offsets.start(topic), offsets.end(topic, committed=False)
        for partition, end in ends.items():
            start = max(starts[partition], first.get((ids[topic], partition), 0))
            logs.append(Log(topic, ids[topic], partition, start, end))
    return logs


@dataclass
class Reporter:
    """Posts each gap once; the controller opens the alert. `whole` ledgers also say which places have nothing missing any more."""

    client: Client
    producer: Producer
    shards: int
    timeout_s: float = 15.0
    posted: list[str] = field(default_factory=list)

    def report(self, ledger: Ledger, *, whole: bool) -> list[Gap]:
        """Returns the gaps that were posted now. They are noted after the broker has them: a crash in between posts again."""
        known: Mapping[str, Mapping[str, Any]] = {row["id"]: row for row in rows(self.client, "ledger_posted")}
        new = [gap for gap in ledger.gaps if gap.id not in known]
        for gap in new:
            self._post(gap.id, f"{gap.records} records are missing in the store", _arguments(gap))
        gone = []
        if whole:
            open_places = {(gap.topic, gap.partition) for gap in ledger.gaps}
            still = {gap.id for gap in ledger.gaps}
            gone = [row for id_, row in known.items() if id_ not in still]
            for topic, partition in {(row["topic"], row["partition"]) for row in gone} - open_places:
                self._post(f"found-{topic}-{partition}-{time.time_ns()}", "nothing is missing any more",
                           {"topic": topic, "partition": partition, "start": 0, "end": 0, "missing": 0})  # fmt: skip
        if new or gone:
            self.producer.flush(self.timeout_s)
            noted = [[g.id, g.topic, g.topic_id, g.partition, g.start, g.end, g.records, g.what, "missing"] for g in new]
            noted += [[row["id"], row["topic"], "", row["partition"], 0, 0, 0, "", "found"] for row in gone]
            self.client.insert("ledger_findings", noted, column_names=_FINDING)
        return new

    def _post(self, id_: str, reason: str, arguments: dict[str, Any]) -> None:
        command = Command(
            id=id_, kind="ledger_missing", actor=ACTOR, reason=reason, app=APP, environment=ENVIRONMENT, arguments=arguments
        )
        shard = shard_of(APP, ENVIRONMENT, self.shards)
        headers = cloud_headers(Command, id_=id_, time_ms=int(time.time() * 1000), source="bellbuoy/ledger")
        self.producer.produce(Outgoing(COMMANDS, str(shard).encode(), encode(command), headers, partition=shard))


def _arguments(gap: Gap) -> dict[str, Any]:
    return {
        "topic": gap.topic,
        "topic_id": gap.topic_id,
        "partition": gap.partition,
        "start": gap.start,
        "end": gap.end,
        "missing": gap.records,
        "what": gap.what,
    }
