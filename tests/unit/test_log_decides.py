"""The log decides: whatever happens to the processors that read it, what they publish is one and the same."""

import itertools
import random

import pytest

from adapters.memory import MemoryLog, MemoryProducer
from schemas import codec
from schemas.messages import Activation, BlockSummary, Feedback, Message, Tick
from schemas.topics import CONFIG, FEEDBACK, INTERACTIONS, SUMMARIES
from streams.block_runner import BlockRunner, Chunk, ChunkMissing, Dropped, OffsetSteppedBack
from tests.unit.log_variations import OUTPUTS, check_variation, configs_of, recomputed
from tests.unit.scoring_twin import CONFIG as SCORERS
from tests.unit.test_blocks import chat

W = 1_700_000_000_000
PARTITIONS = {INTERACTIONS: 2, FEEDBACK: 1}


def written_log(seed: int = 7) -> MemoryLog:
    """A log with gaps, ticks, bad bytes, silent windows, and append times that step back."""
    rng = random.Random(seed)
    log = MemoryLog(PARTITIONS | OUTPUTS | {CONFIG: 1})
    for at, message in ((W, SCORERS), (W, Activation(id="a", config=codec.digest(SCORERS), actor="test", reason="test"))):
        headers = codec.cloud_headers(type(message), id_="x", time_ms=at)
        log.append(CONFIG, 0, codec.encode(message), time=at, headers=headers)
    for topic, count in PARTITIONS.items():
        for partition in range(count):
            now = W + rng.randrange(5_000)
            for n in range(400):
                now += int(rng.expovariate(1 / 200))
                if rng.random() < 0.01:
                    now += rng.randrange(40_000)
                stamp = now - rng.randrange(20_000) if rng.random() < 0.05 else now
                kind = rng.random()
                if kind < 0.03:
                    log.skip(topic, partition, rng.randrange(1, 4))
                if kind < 0.06:
                    log.append(
                        topic, partition, codec.encode(Tick(window=stamp)), time=stamp, headers=[("ce_type", codec.TICK_TYPE)]
                    )
                elif kind < 0.1:
                    log.append(topic, partition, rng.choice([b"", None, b"{", b"\xff", b'{"id":"x"}']), time=stamp)
                else:
                    message_: Message = (
                        chat(
                            f"{partition}-{n}",
                            app=f"app-{rng.randrange(9)}",
                            response=rng.choice(["So.", "sorry", ""]),
                            version=rng.choice([None, "v1"]),
                        )
                        if topic == INTERACTIONS
                        else Feedback(
                            id=f"f{n}",
                            interaction_id=f"0-{n}",
                            name="thumbs",
                            score=rng.random(),
                            app=rng.choice([None, "app-1"]),
                            version="v1",
                        )
                    )
                    log.append(topic, partition, codec.encode(message_), time=stamp)
    return log


REFERENCE = recomputed(written_log())


@pytest.mark.parametrize("seed", range(40))
def test_one_log_gives_one_result(seed: int) -> None:
    check_variation(written_log(), REFERENCE, seed)


def test_the_chain_of_headers_has_no_gap() -> None:
    for key, outs in REFERENCE.items():
        headers = [codec.decode(BlockSummary, out.value).header for out in outs if out.topic == SUMMARIES and out.partition == 0]
        assert headers[0].start == 0
        assert all(a.end == b.start for a, b in itertools.pairwise(headers)), key
        assert all(sum((h.counts.scored, h.counts.dead, h.counts.tick, h.counts.control)) == h.end - h.start for h in headers)


def _runner(log: MemoryLog) -> BlockRunner:
    return BlockRunner(log.recorded.topic_ids, configs_of(log), MemoryProducer(log))


def test_the_first_header_after_retention_took_the_head_begins_at_the_logs_start() -> None:
    log = written_log()
    runner = _runner(log)
    records = log.read(INTERACTIONS, 0, 100, 400)
    runner.process(Chunk(INTERACTIONS, 0, 1, 0, records, start=97))
    headers = [codec.decode(BlockSummary, r.value).header for r in log.recorded.of(SUMMARIES, 0)]
    assert headers[0].start == 97
    assert headers[0].counts.control >= records[0].offset - 97


def test_nothing_is_offered_for_commit_before_its_block_is_delivered() -> None:
    log = written_log()
    producer = MemoryProducer(log)
    runner = BlockRunner(log.recorded.topic_ids, configs_of(log), producer)
    end = runner.process(Chunk(INTERACTIONS, 0, 1, 0, log.read(INTERACTIONS, 0, 0, 400), start=0))
    ends = {codec.decode(BlockSummary, r.value).header.end for r in log.recorded.of(SUMMARIES, 1)}
    assert (end, len(producer)) == (max(ends), 0)


def test_a_chunk_that_never_came_ends_the_process() -> None:
    log = written_log()
    runner = _runner(log)
    runner.process(Chunk(INTERACTIONS, 0, 1, 0, log.read(INTERACTIONS, 0, 0, 5), start=0))
    with pytest.raises(ChunkMissing):
        runner.process(Chunk(INTERACTIONS, 0, 1, 2, log.read(INTERACTIONS, 0, 10, 5)))


def test_an_offset_that_steps_back_ends_the_process() -> None:
    log = written_log()
    runner = _runner(log)
    runner.process(Chunk(INTERACTIONS, 0, 1, 0, log.read(INTERACTIONS, 0, 50, 5), start=50))
    with pytest.raises(OffsetSteppedBack):
        runner.process(Chunk(INTERACTIONS, 0, 1, 1, log.read(INTERACTIONS, 0, 0, 5)))


def test_a_partition_that_was_taken_away_is_dropped_between_steps() -> None:
    log = written_log()
    runner = _runner(log)
    asked = iter([False, True])
    with pytest.raises(Dropped):
        runner.process(Chunk(INTERACTIONS, 0, 1, 0, log.read(INTERACTIONS, 0, 0, 400), start=0), lambda: next(asked))
    assert not runner.open_blocks()
    assert not log.recorded.of(SUMMARIES, 0)


def test_a_full_queue_is_waited_for() -> None:
    log = written_log()
    producer = MemoryProducer(log, max_queued=3)
    runner = BlockRunner(log.recorded.topic_ids, configs_of(log), producer)
    runner.process(Chunk(INTERACTIONS, 0, 1, 0, log.read(INTERACTIONS, 0, 0, 100), start=0))
    assert log.recorded.of(SUMMARIES, 0)
