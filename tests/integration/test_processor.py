"""The processor on a real broker: killed, joined, stopped, left alone, and always the same blocks as a recomputation."""

import json
import os
import random
import signal
import subprocess
import sys
import time
import urllib.request
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import confluent_kafka as ck
import confluent_kafka.admin
import pytest

from adapters.broker import Broker
from adapters.kafka import HotProducer, ensure_topics, group_id
from adapters.recorded import RecordedLog, record_log
from adapters.settings import Settings
from schemas import codec
from schemas.codec import Outgoing, cloud_headers, encode
from schemas.messages import Activation, BlockSummary, DeadLetter, Feedback, Message, Poison
from schemas.topics import CONFIG, DEADLETTER, FEEDBACK, INTERACTIONS, RAW_TOPICS, SCORED, SUMMARIES
from streams.backtest import compare_blocks, recompute_blocks
from tests.conftest import StartBroker, broker_settings, connected
from tests.integration.processor_process import DEADLY, make
from tests.unit.log_variations import check_variation, inputs_of, recomputed
from tests.unit.scoring_twin import CONFIG as SCORERS
from tests.unit.test_blocks import chat

pytestmark = pytest.mark.integration
ROOT = Path(__file__).parent.parent.parent
Start = Callable[..., subprocess.Popen[bytes]]


@pytest.fixture
def broker_process(start_broker: StartBroker, tmp_path: Path) -> Broker:
    return start_broker(broker_settings(tmp_path / "broker"))


@pytest.fixture
def activated(broker_process: Broker, tmp_path: Path) -> Settings:
    """A broker with a config that the cheap scorer understands."""
    settings = connected(tmp_path / "broker", broker_process)
    ensure_topics(settings, embedded=True)
    send(
        settings,
        *(
            Outgoing(CONFIG, key.encode(), encode(message), cloud_headers(type(message), id_=key, time_ms=0), 0)
            for key, message in (
                ("config/x", SCORERS),
                ("activation/a", Activation(id="a", config=codec.digest(SCORERS), actor="test", reason="test")),
            )
        ),
    )
    return settings


@pytest.fixture
def start(activated: Settings, tmp_path: Path) -> Iterator[Start]:
    """A function that starts a processor process; all of them are gone at the end."""
    running: list[subprocess.Popen[bytes]] = []

    def begin(instance: str = "one", *arguments: str, seconds: float = 0.0) -> subprocess.Popen[bytes]:
        environment = os.environ | {
            "KAFKA_BOOTSTRAP_SERVERS": activated.bootstrap_servers(),
            "BELLBUOY_DATA_DIR": str(tmp_path / instance),
            "BELLBUOY_INSTANCE": instance,
            "TEST_SCORING_SECONDS": str(seconds),
        }
        log = (tmp_path / f"{instance}.log").open("ab")
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.integration.processor_process", *arguments],
            cwd=ROOT,
            env=environment,
            stdout=log,
            stderr=log,
        )
        log.close()
        running.append(process)
        return process

    yield begin
    for process in running:
        if process.poll() is None:
            process.kill()
        process.wait()


def send(settings: Settings, *records: Outgoing) -> None:
    producer = HotProducer(settings)
    for record in records:
        producer.produce(record)
    producer.flush(30)


def traffic(settings: Settings, count: int, *, seed: int = 1) -> int:
    """Interactions, feedback and garbage; returns how many records were sent."""
    rng = random.Random(seed)
    out = []
    for n in range(count):
        topic, value = INTERACTIONS, encode(chat(f"{seed}-{n}", app=f"app-{rng.randrange(5)}", prompt="q" * rng.randrange(900)))
        if rng.random() < 0.05:
            topic, value = FEEDBACK, encode(Feedback(id=f"f{n}", interaction_id=f"{seed}-{n}", name="thumbs", score=rng.random()))
        elif rng.random() < 0.02:
            value = b"{"
        out.append(Outgoing(topic, str(n).encode(), value, []))
    send(settings, *out)
    return len(out)


def transactions(settings: Settings) -> None:
    """One committed and one aborted record to partition 2, each with its marker."""
    producer = ck.Producer(
        {"bootstrap.servers": settings.bootstrap_servers(), "transactional.id": "a client", "transaction.timeout.ms": 10_000}
    )
    producer.init_transactions(20)
    for id_, end in (("kept", producer.commit_transaction), ("aborted", producer.abort_transaction)):
        producer.begin_transaction()
        producer.produce(INTERACTIONS, encode(chat(id_)), partition=2)
        producer.flush(20)
        end(20)


def eventually(condition: Callable[[], bool], what: str, timeout: float = 90.0) -> None:
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline, f"{what}: not within {timeout:g} s"
        time.sleep(0.3)


def ready(data_dir: Path) -> bool:
    """Whether the process with this data folder says that it is."""
    try:
        port = json.loads((data_dir / "run" / "processor.health").read_text())["port"]
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/ready", timeout=5) as reply:
            return bool(reply.status == 200)
    except (OSError, ValueError):
        return False


def scored_on(settings: Settings) -> int:
    return sum(record_log(settings, (SCORED,)).ends.values())


def headers_of(log: RecordedLog) -> list[Any]:
    return [codec.decode(BlockSummary, r.value).header for r in log.of(SUMMARIES, 0)]


def frontiers(log: RecordedLog) -> dict[tuple[str, int], int]:
    ends: dict[tuple[str, int], int] = defaultdict(int)
    for header in headers_of(log):
        ends[header.topic, header.partition] = max(ends[header.topic, header.partition], header.end)
    return ends


def all_carried(settings: Settings, until: dict[tuple[str, int], int]) -> Callable[[], bool]:
    def check() -> bool:
        reached = frontiers(record_log(settings, (SUMMARIES,)))
        return all(reached[place] >= end for place, end in until.items())

    return check


def ends_of(settings: Settings) -> dict[tuple[str, int], int]:
    return dict(record_log(settings, RAW_TOPICS).ends)


def committed(settings: Settings) -> dict[tuple[str, int], int]:
    consumer = ck.Consumer({"bootstrap.servers": settings.bootstrap_servers(), "group.id": group_id(settings, "processor")})
    places = [ck.TopicPartition(t, p) for t, n in ((INTERACTIONS, 4), (FEEDBACK, 2)) for p in range(n)]
    found = {(at.topic, at.partition): at.offset for at in consumer.committed(places, timeout=20) if at.offset >= 0}
    consumer.close()
    return found


def differences(log: RecordedLog) -> Sequence[str]:
    return compare_blocks(log, recompute_blocks(log, make))


def test_kills_joins_and_a_clean_stop_leave_exactly_the_blocks_of_a_recomputation(
    activated: Settings, start: Start, tmp_path: Path
) -> None:
    sent = traffic(activated, 2_000, seed=1)
    for target in (300, 900):
        process = start("one", seconds=0.004)
        eventually(lambda target=target: scored_on(activated) >= target, f"{target} scored records")
        process.kill()
        process.wait()
        sent += traffic(activated, 500, seed=target)
    third = start("one")
    sent += traffic(activated, 2_000, seed=3)
    time.sleep(3)
    second_worker = start("two")
    eventually(lambda: ready(tmp_path / "two"), "the second worker has partitions")
    sent += traffic(activated, 2_000, seed=4)
    time.sleep(5)
    sent += traffic(activated, 500, seed=5)
    until = ends_of(activated)
    eventually(all_carried(activated, until), "every block")
    for process in (third, second_worker):
        process.send_signal(signal.SIGTERM)
    assert [third.wait(30), second_worker.wait(30)] == [0, 0]

    log = record_log(activated)
    assert differences(log) == []
    ids = {
        codec.header(r.headers, "ce_id") for topic in (SCORED, DEADLETTER) for _, p in log.places(topic) for r in log.of(topic, p)
    }
    assert len(ids) == sent
    assert scored_on(activated) + len(log.of(DEADLETTER)) > sent, "the kills left scored records of blocks that were still open"
    borders: dict[tuple[str, int], set[int]] = defaultdict(lambda: {0})
    for header in headers_of(log):
        borders[header.topic, header.partition] |= {header.start, header.end}
    assert all(offset in borders[place] for place, offset in committed(activated).items())
    assert committed(activated) == frontiers(log)


def test_silent_partitions_are_ticked_once_per_window_also_behind_a_transactions_marker(
    activated: Settings, start: Start
) -> None:
    process = start("one")
    eventually(lambda: len(frontiers(record_log(activated, (SUMMARIES,)))) == 6, "a block of each partition")
    transactions(activated)
    time.sleep(16)
    process.send_signal(signal.SIGTERM)
    assert process.wait(30) == 0
    log = record_log(activated)
    for topic, partition in [*log.places(INTERACTIONS), *log.places(FEEDBACK)]:
        windows = [r.timestamp // 5_000 for r in log.of(topic, partition)]
        assert len(set(windows)) >= 4
        assert sorted(set(windows)) == list(range(windows[0], windows[-1] + 1)), "no window without a record"
        assert len(windows) <= len(set(windows)) + 1, "one tick in each window"
    control = {h.partition: 0 for h in headers_of(log) if h.topic == INTERACTIONS}
    for header in headers_of(log):
        if header.topic == INTERACTIONS:
            control[header.partition] += header.counts.control
    assert control == {0: 0, 1: 0, 2: 3, 3: 0}, "two markers and an aborted record"
    assert differences(log) == []


def test_a_record_that_kills_its_scorer_is_found_by_the_careful_scan(activated: Settings, start: Start) -> None:
    first = start("one")
    eventually(lambda: len(frontiers(record_log(activated, (SUMMARIES,)))) == 6, "a block of each partition")
    poisoned = encode(chat("poison", prompt=f"please {DEADLY}"))
    send(activated, *(Outgoing(INTERACTIONS, b"k", encode(chat(f"before-{n}")), []) for n in range(50)))
    send(activated, Outgoing(INTERACTIONS, b"k", poisoned, []))
    send(activated, *(Outgoing(INTERACTIONS, b"k", encode(chat(f"after-{n}")), []) for n in range(50)))
    assert first.wait(60) == 9
    assert start("one").wait(60) == 9
    careful = start("one", "--careful")
    until = ends_of(activated)
    eventually(all_carried(activated, until), "every block")
    careful.send_signal(signal.SIGTERM)
    assert careful.wait(30) == 0
    log = record_log(activated)
    verdicts: list[Message] = [codec.read(r) for r in log.of(CONFIG)]
    (poison,) = [v for v in verdicts if isinstance(v, Poison)]
    letters = [codec.decode(DeadLetter, r.value) for r in log.of(DEADLETTER)]
    assert {letter.coordinates for letter in letters if letter.code == "poison"} == {poison.coordinates}
    assert sum(h.counts.poison for h in headers_of(log)) == 1
    assert differences(log) == []
    written = recomputed(inputs_of(log))
    for seed in range(40):
        check_variation(inputs_of(log), written, seed)


def test_a_broker_that_is_killed_under_load_costs_no_record(activated: Settings, start: Start, broker_process: Broker) -> None:
    process = start("one", seconds=0.004)
    sent = traffic(activated, 2_000, seed=1)
    eventually(lambda: scored_on(activated) >= 300, "scored records")
    broker_process.kill()
    time.sleep(4)
    broker_process.start()
    sent += traffic(activated, 500, seed=2)
    until = ends_of(activated)
    carried = all_carried(activated, until)

    def carried_or_restarted() -> bool:
        nonlocal process
        if process.poll() is not None:
            process = start("one")
        return carried()

    eventually(carried_or_restarted, "every block", 150)
    process.send_signal(signal.SIGTERM)
    assert process.wait(30) == 0
    log = record_log(activated)
    assert differences(log) == []
    ids = {
        codec.header(r.headers, "ce_id") for topic in (SCORED, DEADLETTER) for _, p in log.places(topic) for r in log.of(topic, p)
    }
    assert len(ids) == sent


def test_a_topic_that_was_made_anew_is_read_from_its_beginning_under_its_new_id(activated: Settings, start: Start) -> None:
    process = start("one")
    traffic(activated, 300, seed=1)
    eventually(all_carried(activated, ends_of(activated)), "every block")
    process.send_signal(signal.SIGTERM)
    assert process.wait(30) == 0
    before = record_log(activated, (INTERACTIONS,)).topic_ids[INTERACTIONS]
    admin = ck.admin.AdminClient({"bootstrap.servers": activated.bootstrap_servers()})
    admin.delete_topics([INTERACTIONS])[INTERACTIONS].result(30)
    eventually(lambda: INTERACTIONS not in admin.list_topics(timeout=10).topics, "the topic is gone")
    ensure_topics(activated, embedded=True)
    traffic(activated, 300, seed=2)
    again = start("one")
    until = ends_of(activated)
    now = record_log(activated, (INTERACTIONS,)).topic_ids[INTERACTIONS]
    assert now != before

    def carried() -> bool:
        newest = [h for h in headers_of(record_log(activated, (SUMMARIES,))) if h.topic_id == now]
        return all(any(h.partition == p and h.end >= until[INTERACTIONS, p] for h in newest) for p in range(4))

    eventually(carried, "every block of the new topic")
    again.send_signal(signal.SIGTERM)
    assert again.wait(30) == 0
    log = record_log(activated)
    assert {h.start for h in headers_of(log) if h.topic_id == now and h.partition == 0} >= {0}
    assert differences(log) == []
