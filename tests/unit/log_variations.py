"""One log read in many ways: restarts, zombies, fetch sizes, interleavings and clocks drawn from a seed."""

import itertools
import random
from collections import defaultdict
from collections.abc import Iterable

from adapters.memory import MemoryLog, MemoryProducer
from adapters.recorded import RecordedLog
from core.blocks import BlockCutter, Place, score_block
from core.configs import ConfigLog
from schemas import codec
from schemas.codec import Outgoing
from schemas.messages import BlockSummary
from schemas.topics import CONFIG, DEADLETTER, FEEDBACK, INTERACTIONS, SCORED, SUMMARIES
from streams.active_configs import ActiveConfigs, MakeScoring
from streams.block_runner import BlockRunner, Chunk
from tests.unit.scoring_twin import TwinScoring

OUTPUTS = {SCORED: 3, SUMMARIES: 2, DEADLETTER: 1}
Key = tuple[str, int]
Said = tuple[bytes | None, bytes | None, tuple[tuple[str, bytes], ...]]


def inputs_of(recorded: RecordedLog) -> MemoryLog:
    """A log with the raw topics and the config of a recorded one, and nothing published yet."""
    log = MemoryLog(
        {INTERACTIONS: len(recorded.places(INTERACTIONS)), FEEDBACK: len(recorded.places(FEEDBACK)), CONFIG: 1} | OUTPUTS
    )
    log.recorded.topic_ids = recorded.topic_ids
    for place in [*recorded.places(INTERACTIONS), *recorded.places(FEEDBACK), *recorded.places(CONFIG)]:
        log.recorded.records[place] = list(recorded.records[place])
        log.recorded.starts[place], log.recorded.ends[place] = recorded.starts[place], recorded.ends[place]
    return log


def raw_partitions(log: MemoryLog) -> dict[str, int]:
    return {topic: log.partitions(topic) for topic in (INTERACTIONS, FEEDBACK)}


def configs_of(log: MemoryLog, make: MakeScoring = TwinScoring) -> ActiveConfigs:
    config_log = ConfigLog()
    for record in log.recorded.of(CONFIG):
        config_log.add(record)
    return ActiveConfigs(config_log, make)


def published(log: MemoryLog) -> dict[str, Said]:
    """What stands in the output topics by ce_id; a repetition must be byte-equal."""
    found: dict[str, Said] = {}
    for topic in OUTPUTS:
        for _, partition in log.recorded.places(topic):
            for record in log.recorded.of(topic, partition):
                id_ = codec.header(record.headers, "ce_id")
                assert id_ is not None
                said = (record.key, record.value, tuple(record.headers))
                key = f"{topic} {partition} {id_.decode()}"
                assert found.setdefault(key, said) == said
    return found


def recomputed(log: MemoryLog, make: MakeScoring = TwinScoring) -> dict[Key, list[Outgoing]]:
    """Every closed block of the log, computed block by block."""
    configs = configs_of(log, make)
    out: dict[Key, list[Outgoing]] = defaultdict(list)
    for topic, count in raw_partitions(log).items():
        for partition in range(count):
            place = Place(topic, log.recorded.topic_ids[topic], partition)
            start = log.start(topic, partition)
            blocks = list(BlockCutter().cut(log.recorded.of(topic, partition)))
            for (window, records), (_, after) in itertools.pairwise(blocks):
                end = after[0].offset
                block = score_block(place, window, start, end, records, configs.for_window(window))
                out[topic, partition] += [*block.scored, *block.dead_letters, *block.summaries]
                start = end
    return out


class Worker:
    """One process: its own runner and producer, and where it stands in each partition since it last sought."""

    def __init__(self, log: MemoryLog, clock_ms: int, make: MakeScoring) -> None:
        self.log = log
        self.producer = MemoryProducer(log, clock_ms=clock_ms)
        self.runner = BlockRunner(log.recorded.topic_ids, configs_of(log, make), self.producer)
        self.positions: dict[Key, int] = {}
        self.epochs: dict[Key, int] = defaultdict(int)
        self.numbers: dict[Key, int] = {}

    def seek(self, key: Key, committed: dict[Key, int]) -> None:
        self.epochs[key] += 1
        self.numbers[key] = 0
        self.positions[key] = max(committed.get(key, 0), self.log.start(*key))

    def take(self, key: Key, fetch: int) -> int | None:
        """Fetch and process; the offset to commit."""
        records = self.log.read(*key, self.positions[key], fetch)
        if not records:
            return None
        number = self.numbers[key]
        start = self.positions[key] if number == 0 else None
        self.numbers[key] += 1
        self.positions[key] = records[-1].offset + 1
        return self.runner.process(Chunk(*key, self.epochs[key], number, records, start))


def run(log: MemoryLog, seed: int, make: MakeScoring = TwinScoring) -> dict[Key, int]:
    """Read the whole log with restarts, zombies, any fetch sizes, any interleaving; returns what was committed."""
    rng = random.Random(seed)
    keys = [(topic, partition) for topic, count in raw_partitions(log).items() for partition in range(count)]
    committed: dict[Key, int] = {}
    fetch = rng.choice([1, 7, 137, 1_024])

    def start() -> Worker:
        worker = Worker(log, rng.randrange(4_000_000_000_000), make)
        for key in keys:
            worker.seek(key, committed)
        return worker

    workers = [start() for _ in range(rng.randrange(1, 4))]
    done: set[Key] = set()
    rounds = 0
    while len(done) < len(keys):
        rounds += 1
        troubled = rounds < 600
        index = rng.randrange(len(workers))
        worker = workers[index]
        if troubled and rng.random() < 0.02:
            worker.producer.lose(rng.randrange(len(worker.producer) + 1))
            workers[index] = start()
            continue
        key = rng.choice(keys)
        if troubled and rng.random() < 0.02:
            worker.seek(key, committed)
            continue
        end = worker.take(key, fetch if troubled else 1_024)
        if end is not None and rng.random() < 0.8:
            # A zombie may commit what others have passed; a later one never undoes a block that is published.
            committed[key] = end
        if worker.positions[key] >= log.end(*key):
            done.add(key)
    for worker in workers:
        worker.producer.flush(1)
    return committed


def check_variation(log: MemoryLog, wanted_blocks: dict[Key, list[Outgoing]], seed: int, make: MakeScoring = TwinScoring) -> None:
    """Read the log in the way that `seed` draws: everything wanted is published, no other summary is, commits are borders."""
    committed = run(log, seed, make)
    values = set(published(log).values())
    wanted = {(out.key, out.value, tuple(out.headers)) for outs in wanted_blocks.values() for out in outs}
    assert wanted <= values
    assert {v for v in values if _is_summary(v)} == {w for w in wanted if _is_summary(w)}
    assert all(offset in borders_of(wanted_blocks[key]) for key, offset in committed.items())


def borders_of(outs: Iterable[Outgoing]) -> set[int]:
    headers = [codec.decode(BlockSummary, out.value).header for out in outs if out.topic == SUMMARIES]
    return {h.start for h in headers} | {h.end for h in headers}


def _is_summary(said: Said) -> bool:
    return codec.header(said[2], "ce_type") == codec.TYPE_NAMES[BlockSummary].encode()
