"""Recomputation of a recorded log: equal where nothing was touched, and it names what was."""

import msgspec
import pytest

from adapters.memory import MemoryLog, MemoryProducer
from core.configs import ConfigLog
from core.rules import DEFAULT_RULES
from core.shard import Ends, Shard
from schemas import codec
from schemas.codec import Record
from schemas.messages import Activation, BlockSummary, Rules
from schemas.topics import ACTIONS, ALERTS, COMMANDS, CONFIG, DEADLETTER, FEEDBACK, INTERACTIONS, SCORED, SUMMARIES, WINDOWS
from services.controller_output import fold_records
from streams.active_configs import ActiveConfigs
from streams.backtest import Recomputed, compare, fold_again, recompute_blocks
from streams.block_runner import BlockRunner, Chunk
from tests.unit.scoring_twin import CONFIG as SCORERS
from tests.unit.scoring_twin import TwinScoring
from tests.unit.test_blocks import chat, tick

W = 1_700_000_000_000
CONFIGURED = msgspec.structs.replace(
    SCORERS,
    partitions={INTERACTIONS: 1, FEEDBACK: 1},
    rules=Rules(reference_events=1_000, rules=DEFAULT_RULES.rules),
)


def recorded() -> MemoryLog:
    """Raw topics in which a bad version refuses from the middle on, and what processor and controller made of them."""
    log = MemoryLog(
        {INTERACTIONS: 1, FEEDBACK: 1, SCORED: 1, DEADLETTER: 1, CONFIG: 1}
        | dict.fromkeys((SUMMARIES, COMMANDS, WINDOWS, ALERTS, ACTIONS), CONFIGURED.shards)
    )
    for message in (CONFIGURED, Activation(id="a", config=codec.digest(CONFIGURED), actor="test", reason="test")):
        log.append(CONFIG, 0, codec.encode(message), time=W, headers=codec.cloud_headers(type(message), id_="x", time_ms=W))
    for n in range(3_000):
        bad = n >= 2_000
        said = chat(str(n), version="v2" if bad else "v1", response="sorry" if bad and n % 2 else "yes")
        log.append(INTERACTIONS, 0, codec.encode(said), time=W + n * 50)
        if n % 100 == 0:
            beat = tick(0, W + n * 50)
            log.append(FEEDBACK, 0, beat.value, time=beat.timestamp, headers=beat.headers)
    configs = ConfigLog()
    for record in log.recorded.of(CONFIG):
        configs.add(record)
    runner = BlockRunner(log.recorded.topic_ids, ActiveConfigs(configs, TwinScoring), MemoryProducer(log))
    for topic in (INTERACTIONS, FEEDBACK):
        runner.process(Chunk(topic, 0, 1, 0, log.recorded.of(topic), start=0))
    for number in range(CONFIGURED.shards):
        shard = Shard.begin(number, configs)
        summaries = sorted(log.recorded.of(SUMMARIES, number), key=lambda r: codec.decode(BlockSummary, r.value).header.window)
        for record in summaries:
            shard.add_summary(record)
            batch = shard.next_batch(Ends(record.offset + 1, 0, 0, 2))
            if batch is not None:
                for out in fold_records(batch.cut, shard.fold(batch)):
                    log.append(out.topic, number, out.value, time=W, key=out.key, headers=out.headers)
    return log


def again(log: MemoryLog) -> Recomputed:
    result = recompute_blocks(log.recorded, TwinScoring)
    fold_again(log.recorded, result)
    return result


def test_an_untouched_log_is_equal_to_its_recomputation() -> None:
    log = recorded()
    result = again(log)
    assert compare(log.recorded, result) == []
    assert {a.kind for a in result.actions} == {"rollback"}
    assert result.rows


def _change(log: MemoryLog, topic: str, partition: int, index: int, value: bytes) -> None:
    records = log.recorded.of(topic, partition)
    r = records[index]
    records[index] = Record(r.offset, r.timestamp, r.key, value, r.headers)


@pytest.mark.parametrize("topic", [SCORED, SUMMARIES, ALERTS, ACTIONS])
def test_one_changed_record_is_named(topic: str) -> None:
    log = recorded()
    partition = next(p for _, p in log.recorded.places(topic) if log.recorded.of(topic, p))
    value = log.recorded.of(topic, partition)[0].value
    assert value is not None
    _change(
        log,
        topic,
        partition,
        0,
        value.replace(b"v1", b"v9")
        .replace(b'"offset":0', b'"offset":1')
        .replace(b'"start":0', b'"start":1')
        .replace(b'"sequence":1', b'"sequence":7'),
    )
    assert compare(log.recorded, again(log))


def test_one_missing_scored_record_is_named() -> None:
    log = recorded()
    gone = log.recorded.of(SCORED).pop(17)
    (difference,) = compare(log.recorded, again(log))
    assert (codec.header(gone.headers, "ce_id") or b"").decode() in difference


def test_a_repetition_that_is_byte_equal_is_no_difference() -> None:
    log = recorded()
    log.recorded.of(SCORED).append(log.recorded.of(SCORED)[5])
    assert compare(log.recorded, again(log)) == []


def test_an_unequal_repetition_is_named() -> None:
    log = recorded()
    log.recorded.of(SCORED).append(log.recorded.of(SCORED)[5])
    _change(log, SCORED, 0, -1, b"{}")
    assert any("twice" in difference for difference in compare(log.recorded, again(log)))


def test_blocks_whose_records_retention_took_are_left_out_of_the_comparison() -> None:
    log = recorded()
    log.cut_head(INTERACTIONS, 0, 250)
    result = recompute_blocks(log.recorded, TwinScoring)
    assert all("not in the recomputation" not in difference for difference in compare(log.recorded, result))
