"""What a run must look like afterwards: the store and the decisions equal a recomputation of the raw topics of the same run."""

from collections import Counter
from dataclasses import dataclass, field

from adapters.clickhouse import Client
from adapters.embedding import load_embedding
from adapters.heads import load_heads
from adapters.settings import Settings
from bellbuoy.ledger import read_ledger
from schemas.codec import header, message_type, read
from schemas.messages import WINDOW_MS, ActionStep, AlertTransition, Cut, ScoredFeedback, ScoredInteraction, WindowRow
from schemas.topics import ACTIONS, ALERTS, WINDOWS
from streams.backtest import Recomputed, RecordedLog, compare, recompute, record_log


@dataclass
class Verdict:
    """Counts of the run, and every difference in words."""

    missing: int = 0
    duplicates: int = 0
    """Records counted more than once in window rows, plus actions opened more than once."""
    repeated: int = 0
    alerts: int = 0
    actions: int = 0
    problems: list[str] = field(default_factory=list)


def judge(settings: Settings, client: Client) -> Verdict:
    """Compare ledger, rows, window rows, alerts and actions with the recomputation. The system is at rest."""
    ledger = read_ledger(settings, client)
    log = record_log(settings)
    recomputed = recompute(log, load_embedding(settings), load_heads())
    verdict = Verdict(
        missing=ledger.missing, repeated=ledger.repeated, alerts=len(recomputed.alerts), actions=len(recomputed.actions)
    )
    verdict.problems += ledger.problems + compare(log, recomputed)
    if ledger.received != ledger.stored + ledger.dead:
        verdict.problems.append(
            f"the ledger does not add up: {ledger.received} received, {ledger.stored} stored, {ledger.dead} dead"
        )
    verdict.problems += raw_rows(client, recomputed)
    counted = window_rows(client, log, recomputed, verdict)
    verdict.duplicates = counted + opened_twice(log)
    verdict.problems += decisions(client, log)
    return verdict


def raw_rows(client: Client, recomputed: Recomputed) -> list[str]:
    """Every scored record that a stored header covers has exactly one row, and no row is of anything else."""
    problems = []
    for table, type_ in (("interactions", ScoredInteraction), ("feedback", ScoredFeedback)):
        stored = {
            tuple(row) for row in client.query(f"SELECT topic_id, partition, offset FROM {table} WHERE lane = 'live'").result_rows
        }
        want = set()
        for out in recomputed.scored:
            if message_type(out.headers) is type_:
                _, topic_id, partition, offset = (header(out.headers, "ce_id") or b"").decode().split("/")
                want.add((topic_id, int(partition), int(offset)))
        if stored != want:
            problems.append(
                f"{table}: {len(want - stored)} recomputed records have no row, {len(stored - want)} rows are of no record"
            )
    return problems


Key = tuple[str, str, str, str, int, int]


def key_of(row: WindowRow) -> Key:
    return row.app, row.environment, row.version, row.metric, row.resolution, row.window


def folded_until(log: RecordedLog) -> dict[int, int]:
    """The last window (ms) that each shard had folded when the log was recorded."""
    cuts = [(p, m) for _, p in log.places(WINDOWS) for r in log.of(WINDOWS, p) if isinstance(m := read(r), Cut)]
    return {shard: max(cut.last_window for p, cut in cuts if p == shard) for shard, _ in cuts}


def window_rows(client: Client, log: RecordedLog, recomputed: Recomputed, verdict: Verdict) -> int:
    """Differences go to the verdict; returns how many records the store counts more often than the log holds them.

    The fold goes on while this is looked at: a minute that ended after the log was recorded is not compared.
    """
    want = {key_of(row): (row.n, row.bins, row.names, row.counts) for row in recomputed.rows}
    until = folded_until(log)
    stored = {}
    query = (
        "SELECT app, environment, version, metric, resolution, toUnixTimestamp64Milli(window), n, bins, names, counts, shard "
        "FROM window_rows FINAL WHERE lane = 'live'"
    )
    for row in client.query(query).result_rows:
        resolution_ms, window, shard = row[4] * 1000, row[5], row[10]
        folded_at = window if resolution_ms == WINDOW_MS else window + resolution_ms
        if folded_at <= until.get(shard, 0):
            stored[tuple(row[:6])] = (row[6], list(row[7]), list(row[8]), list(row[9]))
    twice = sum(max(0, sum(there[3]) - sum(want[k][3])) for k, there in stored.items() if k in want)
    unequal = [k for k in want.keys() | stored.keys() if want.get(k) != stored.get(k)]
    if unequal:
        verdict.problems.append(
            f"window_rows: {len(unequal)} of {len(want)} differ from the recomputation, for example {sorted(unequal)[:3]}"
        )
    return twice


def opened_twice(log: RecordedLog) -> int:
    """Actions whose first step stands on the topic more than once, and incidents that asked for one thing twice in an attempt."""
    steps = [read(r) for place in log.places(ACTIONS) for r in log.of(*place)]
    first = [s for s in steps if isinstance(s, ActionStep) and s.sequence == 1]
    by_id = Counter(s.id for s in first)
    by_cause = Counter((s.incident, s.kind, s.attempt) for s in first)
    return max(sum(n - 1 for n in by_id.values()), sum(n - 1 for n in by_cause.values()))


def decisions(client: Client, log: RecordedLog) -> list[str]:
    """Alerts and actions in the store are those on the topics as far as these were read, each once."""
    problems = []
    for table, topic in (("alerts", ALERTS), ("actions", ACTIONS)):
        messages = [read(r) for place in log.places(topic) for r in log.of(*place)]
        want = Counter((m.id, m.sequence, m.state) for m in messages if isinstance(m, AlertTransition | ActionStep))
        rows = client.query(f"SELECT id, sequence, state, partition, offset FROM {table} FINAL WHERE lane = 'live'").result_rows
        stored = Counter(
            (id_, int(sequence), state)
            for id_, sequence, state, partition, offset in rows
            if offset < log.ends[topic, int(partition)]
        )
        if want != stored:
            problems.append(f"{table}: the store holds {sum(stored.values())}, the topic {sum(want.values())}")
    return problems
