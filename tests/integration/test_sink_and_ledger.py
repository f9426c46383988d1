"""The sink between a real broker and a real store, and the ledger that counts one against the other."""

import contextlib
import json
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import confluent_kafka as ck
import pytest
from typer.testing import CliRunner

from adapters.clickhouse import Client, connect, migrate, rows
from adapters.kafka import HotProducer, hot_consumer, read_all, topic_ids
from adapters.settings import Settings
from adapters.telemetry import Telemetry
from bellbuoy.cli.main import app
from bellbuoy.ledger import read_ledger, wait_at_rest
from core.blocks import ActiveConfig, Place, score_block
from core.ledger import Ledger
from schemas import codec
from schemas.messages import ChatMessage, Command, Coordinates, DeadLetter, Feedback, Interaction, ScoredInteraction
from schemas.topics import COMMANDS, DEADLETTER, FEEDBACK, INTERACTIONS, SCORED
from services.sink import CONSUMED, build_sink
from tests.conftest import running_broker
from tests.fixtures_store import StoreProcess
from tests.unit.scoring_twin import CONFIG, TwinScoring

pytestmark = pytest.mark.integration
ACTIVE = ActiveConfig(codec.digest(CONFIG), CONFIG, TwinScoring())
WINDOW = 1_700_000_000_000
GOOD, BAD, PER_BLOCK = 120, 3, 20


def interaction(number: int) -> codec.Outgoing:
    said = Interaction(
        id=f"i-{number // 2}" if number < 2 else f"i-{number}",
        app="shop",
        version="v1",
        input=[ChatMessage(role="user", content=f"question {number}")],
        output=[ChatMessage(role="assistant", content="sorry" if number % 10 == 0 else "answer")],
        input_tokens=number,
    )
    return codec.Outgoing(INTERACTIONS, said.id.encode(), codec.encode(said), [], partition=0)


def send(settings: Settings, records: list[codec.Outgoing]) -> None:
    producer = HotProducer(settings)
    for record in records:
        producer.produce(record)
    producer.flush(20)


def score(settings: Settings, topic: str, start: int) -> int:
    """Score what partition 0 of a raw topic holds from `start` on, in blocks; returns the end."""
    records = list(read_all(settings, topic, 0, start))
    place = Place(topic, topic_ids(settings, [topic])[topic], 0)
    for first in range(0, len(records), PER_BLOCK):
        part = records[first : first + PER_BLOCK]
        window = max(WINDOW, part[0].timestamp // 5_000 * 5_000) + 5_000 * first
        block = score_block(place, window, part[0].offset, part[-1].offset + 1, part, ACTIVE)
        send(settings, [*block.scored, *block.dead_letters])
        send(settings, block.summaries)
    return records[-1].offset + 1 if records else start


@contextlib.contextmanager
def sink(settings: Settings) -> Iterator[None]:
    """A sink that has never read anything, in a thread."""
    settings = settings.model_copy(update={"consumer_group_prefix": f"test-{uuid.uuid4().hex[:8]}"})
    stop = threading.Event()
    process = build_sink(settings, Telemetry("sink", settings))
    process.start()
    thread = threading.Thread(target=process.run, args=[stop])
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join(30)
        process.close()


def until(condition: Callable[[], bool], limit_s: float = 40) -> None:
    deadline = time.monotonic() + limit_s
    while not condition():
        assert time.monotonic() < deadline, "it did not come in time"
        time.sleep(0.2)


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Settings]:
    """A broker and a store with 120 interactions, 3 broken records and 1 feedback act, scored and stored."""
    running = running_broker(tmp_path_factory.mktemp("sink-broker"))
    broker = next(running)
    store = StoreProcess(tmp_path_factory.mktemp("sink-store")).start()
    settings = broker.model_copy(update={"data_dir": store.data_dir, "store_port": store.port})
    with contextlib.closing(connect(settings)) as client:
        migrate(client)
        send(settings, [interaction(n) for n in range(GOOD)])
        send(settings, [codec.Outgoing(INTERACTIONS, None, b"{not json", [], partition=0)] * BAD)
        feedback = Feedback(id="f", interaction_id="i-3", name="thumbs", app="shop", version="v1", score=1.0)
        send(settings, [codec.Outgoing(FEEDBACK, b"i-3", codec.encode(feedback), [], partition=0)])
        score(settings, INTERACTIONS, 0)
        score(settings, FEEDBACK, 0)
        with sink(settings):
            until(lambda: read_ledger(settings, client).frontier((INTERACTIONS, 0)) == GOOD + BAD)
            until(lambda: read_ledger(settings, client).frontier((FEEDBACK, 0)) == 1)
    yield settings
    store.stop()
    next(running, None)


@pytest.fixture
def client(settings: Settings) -> Iterator[Client]:
    with contextlib.closing(connect(settings)) as client:
        yield client


def restore(settings: Settings, client: Client) -> None:
    """A sink that reads everything again brings back what was deleted."""
    with sink(settings):
        until(lambda: whole(read_ledger(settings, client)))


def whole(ledger: Ledger) -> bool:
    return ledger.missing == 0 and ledger.received == GOOD + BAD + 1 == ledger.stored + ledger.dead


def run_ledger(settings: Settings, monkeypatch: pytest.MonkeyPatch, *arguments: str) -> tuple[int, dict[str, object]]:
    monkeypatch.setenv("BELLBUOY_DATA_DIR", str(settings.data_dir))
    monkeypatch.setenv("BELLBUOY_STORE_PORT", str(settings.store_port))
    monkeypatch.setenv("KAFKA_BOOTSTRAP_SERVERS", settings.bootstrap_servers())
    result = CliRunner().invoke(app, ["ledger", "--json", *arguments])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result.exit_code, json.loads(result.stdout.splitlines()[-1])


def posted(settings: Settings) -> list[Command]:
    return [codec.decode(Command, r.value) for shard in (0, 1) for r in read_all(settings, COMMANDS, shard)]


def test_everything_received_is_stored_or_dead(settings: Settings, client: Client) -> None:
    ledger = read_ledger(settings, client)
    assert (ledger.received, ledger.stored, ledger.dead, ledger.missing) == (GOOD + BAD + 1, GOOD + 1, BAD, 0)
    assert not ledger.problems


def test_a_record_whose_id_came_before_is_counted_as_repeated(settings: Settings, client: Client) -> None:
    assert read_ledger(settings, client).repeated == 1


def test_the_view_shows_one_interaction_per_id_with_its_scores(client: Client) -> None:
    view = client.query(
        "SELECT id, records, prompt, scores['response.length'], version FROM interactions_by_id WHERE app = 'shop' AND id = 'i-0'"
    )
    assert view.result_rows == [("i-0", 2, "question 1", len("answer"), "v1")]


def test_a_second_sink_that_reads_everything_again_changes_no_count(settings: Settings, client: Client) -> None:
    before = read_ledger(settings, client)
    with sink(settings):
        until(lambda: client.command("SELECT count() FROM headers") > client.command("SELECT count() FROM headers FINAL"))
        time.sleep(1)
    after = read_ledger(settings, client)
    assert (after.received, after.stored, after.dead, after.repeated) == (
        before.received,
        before.stored,
        before.dead,
        before.repeated,
    )


def test_a_sink_whose_place_in_the_group_was_taken_ends_instead_of_waiting_for_ever(settings: Settings) -> None:
    settings = settings.model_copy(update={"consumer_group_prefix": f"test-{uuid.uuid4().hex[:8]}"})
    process = build_sink(settings, Telemetry("sink", settings))
    process.start()
    with ThreadPoolExecutor(1) as pool:
        stop = threading.Event()
        running = pool.submit(process.run, stop)
        try:
            until(lambda: bool(process._consumer.assignment()))
            other = hot_consumer(settings, "sink", CONSUMED)
            until(lambda: other.poll(0.2) is not None or running.done())
            with pytest.raises(ck.KafkaException, match=r"FENCED_INSTANCE_ID|_FATAL"):
                running.result(40)
        finally:
            stop.set()
    other.close()
    process.close()


def test_a_deleted_row_fails_the_ledger_by_name(settings: Settings, client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    client.command("DELETE FROM interactions WHERE offset = 47", settings={"mutations_sync": 1})
    code, said = run_ledger(settings, monkeypatch, "--verify", "--no-report")
    (gap,) = said["gaps"]  # type: ignore[misc]
    assert (code, said["missing"], gap["topic"], gap["partition"], gap["start"], gap["end"], gap["offsets"]) == (
        1, 1, INTERACTIONS, 0, 40, 60, [[47, 48]],
    )  # fmt: skip
    restore(settings, client)


def test_a_deleted_header_fails_the_ledger_by_name(settings: Settings, client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    client.command("DELETE FROM headers WHERE start_offset = 60 AND topic = 'llm.interactions'", settings={"mutations_sync": 1})
    code, said = run_ledger(settings, monkeypatch, "--verify", "--no-report")
    (gap,) = said["gaps"]  # type: ignore[misc]
    assert (code, said["missing"], gap["what"], gap["start"], gap["end"]) == (1, PER_BLOCK, "header", 60, 80)
    restore(settings, client)


def test_a_row_that_is_listed_as_deleted_is_not_missing(settings: Settings, client: Client) -> None:
    place = topic_ids(settings, [INTERACTIONS])[INTERACTIONS]
    client.insert(
        "deletions", [[INTERACTIONS, place, 0, 90, "test"]], column_names=["topic", "topic_id", "partition", "offset", "reason"]
    )
    client.command("DELETE FROM interactions WHERE offset = 90", settings={"mutations_sync": 1})
    ledger = read_ledger(settings, client)
    assert (ledger.missing, ledger.deleted) == (0, 1)
    client.command("TRUNCATE TABLE deletions")
    restore(settings, client)


def test_a_loss_is_posted_once_and_its_end_too(settings: Settings, client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    client.command("DELETE FROM interactions WHERE offset = 21", settings={"mutations_sync": 1})
    assert run_ledger(settings, monkeypatch)[0] == 1
    assert run_ledger(settings, monkeypatch)[0] == 1
    assert [(c.kind, c.arguments["missing"], c.arguments["start"]) for c in posted(settings)] == [("ledger_missing", 1, 20)]
    restore(settings, client)
    assert run_ledger(settings, monkeypatch)[0] == 0
    assert [c.arguments["missing"] for c in posted(settings)] == [1, 0]


def test_what_is_not_valid_on_our_own_topics_is_passed_over(settings: Settings, client: Client) -> None:
    broken = [
        codec.Outgoing(SCORED, b"x", b"\xff{", codec.cloud_headers(ScoredInteraction, id_="x", time_ms=0)),
        codec.Outgoing(SCORED, b"x", b"{}", []),
        codec.Outgoing(SCORED, b"x", b"{}", codec.cloud_headers(DeadLetter, id_="x", time_ms=0)),
    ]
    send(settings, broken)
    here = Coordinates(topic="other", topic_id="o", partition=0, offset=1)
    letter = DeadLetter(coordinates=here, append_time=int(time.time() * 1000), code="size", reason="too large")
    send(settings, [codec.Outgoing(DEADLETTER, b"y", codec.encode(letter), codec.cloud_headers(DeadLetter, id_="y", time_ms=0))])
    with sink(settings):
        until(lambda: bool(client.command("SELECT count() FROM dead_letters WHERE topic = 'other'")))


def test_waiting_for_rest_ends_when_the_frontier_has_passed(settings: Settings, client: Client) -> None:
    from datetime import timedelta

    from bellbuoy.ledger import NotAtRest

    send(settings, [interaction(1_000)])
    with pytest.raises(NotAtRest, match=r"llm.interactions/0 at 123 of 124"):
        wait_at_rest(settings, client, timeout=timedelta(seconds=0.5))


def test_every_named_query_is_valid_sql(client: Client) -> None:
    assert rows(client, "ledger_posted") is not None
    assert rows(client, "count_rows", {"app": "shop"})
    assert rows(client, "story_delay", {"app": "shop", "story": "shift", "until": WINDOW}) == []
