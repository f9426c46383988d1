"""The processor: Faust carries fetched chunks to the block runner, ticks silent partitions, and commits at block ends."""

import asyncio
import gc
import logging
import time
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Final, cast

import faust
from confluent_kafka import KafkaException
from faust.types import TP
from mode.supervisors import CrashingSupervisor

from adapters.configs import ConfigReader
from adapters.embedding import load_embedding
from adapters.heads import load_heads
from adapters.kafka import HotProducer, Producer, group_id, topic_ids
from adapters.keys import redaction_keys
from adapters.settings import Settings
from adapters.telemetry import Telemetry, set_up_logging
from core.configs import ConfigLog
from core.scoring import Scoring
from schemas.messages import Config, LedgerCounts
from schemas.topics import RAW_TOPICS
from streams.active_configs import ActiveConfigs, MakeScoring
from streams.block_consumer import BlockConsumer
from streams.block_runner import BlockRunner, Chunk, Configs, Dropped
from streams.careful import find_poison
from streams.headers import last_topic_ids
from streams.ticker import Place, Ticker

GROUP: Final = "processor"
PROCESS: Final = "processor"
_COMMIT_INTERVAL_S: Final = 1.0
_MEASURE_EVERY_S: Final = 2.0
_BUFFERED_CHUNKS: Final = 8
_LINGER_MS: Final = 50
"""A window takes 5 s; few large batches cost the broker less than many small ones."""
_GC_THRESHOLDS: Final = (50_000, 20, 50)
_LOUD_LOGGERS: Final = ("abc", "streams.block_consumer")
"""Faust names the loggers of its services by the module of their class."""
_TOPIC_IDS_EVERY_S: Final = 30.0


class TopicRecreated(RuntimeError):
    """A raw topic was made anew under this process: blocks must not mix the two."""


@dataclass
class Dependencies:
    """What a processor is built of."""

    settings: Settings
    configs: Configs
    producer: Producer
    ticks: Producer
    topic_ids: Mapping[str, str]
    recreated: frozenset[str]
    telemetry: Telemetry


class Watch:
    """The runner's observer: counts for /metrics."""

    def __init__(self, telemetry: Telemetry) -> None:
        self._records = telemetry.counter("processor_records", "Records taken into blocks", ["topic"])
        self._seconds = telemetry.counter("processor_step_seconds", "Time spent on scoring and producing", ["topic"])
        stages = telemetry.counter("stage_seconds", "CPU seconds of the scoring thread by stage of its work", ["stage"])
        self._stages = {stage: stages.labels(stage) for stage in ("decode", "score", "encode", "produce")}
        self._blocks = telemetry.counter("processor_blocks", "Blocks closed", ["topic"])
        self._dead = telemetry.counter("processor_dead_letters", "Dead letters", ["topic", "code"])
        self._by_class = telemetry.counter("processor_offsets", "Offsets of closed blocks by ledger class", ["topic", "class"])
        self.ticks = telemetry.counter("processor_ticks", "Ticks appended", ["topic"])
        self.lag = telemetry.gauge("processor_lag", "Records not read yet", ["topic", "partition"])
        self.recreated = telemetry.counter("processor_topics_recreated", "Topics found to have been made anew", ["topic"])

    def stepped(self, topic: str, records: int, seconds: float) -> None:
        self._records.labels(topic).inc(records)
        self._seconds.labels(topic).inc(seconds)

    def spent(self, stage: str, seconds: float) -> None:
        self._stages[stage].inc(seconds)

    def closed(self, topic: str, counts: LedgerCounts, dead_reasons: Mapping[str, int]) -> None:
        self._blocks.labels(topic).inc()
        for code, count in dead_reasons.items():
            self._dead.labels(topic, code).inc(count)
        for name in ("scored", "dead", "tick", "control"):
            self._by_class.labels(topic, name).inc(getattr(counts, name))


class _Owned:
    """The ticker's view of the partitions that Faust assigned to this process."""

    def __init__(self, consumer: Callable[[], BlockConsumer]) -> None:
        self._consumer = consumer

    def owned(self) -> Iterable[Place]:
        return [(tp.topic, tp.partition) for tp in self._consumer().assignment()]

    def newest_window(self, place: Place) -> int:
        return self._consumer().windows.get(TP(*place), -1)

    def at_end(self, place: Place) -> bool:
        consumer = self._consumer()
        stand = consumer.stand(TP(*place)) if consumer.flow_active else None
        return stand is not None and stand[0] >= stand[1]


def build_processor(d: Dependencies) -> faust.App:
    """The Faust app; `faust.Worker` runs it."""
    group = group_id(d.settings, GROUP)
    app = faust.App(
        group,
        broker=[f"kafka://{server.strip()}" for server in d.settings.bootstrap_servers().split(",")],
        datadir=str(d.settings.data_dir / "faust"),
        store="memory://",
        value_serializer="raw",
        web_enabled=False,
        topic_disable_leader=True,
        consumer_auto_offset_reset="earliest",
        consumer_group_instance_id=f"{group}-{d.settings.instance}",
        broker_client_id=f"bellbuoy-{PROCESS}-{d.settings.instance}",
        broker_session_timeout=10.0,
        broker_heartbeat_interval=2.0,
        broker_request_timeout=30.0,
        broker_commit_interval=_COMMIT_INTERVAL_S,
        stream_wait_empty=False,
        stream_buffer_maxsize=_BUFFERED_CHUNKS,
        agent_supervisor=CrashingSupervisor,
    )
    app.transport.Consumer = type(  # type: ignore[misc]  # this app's own consumer, not every app's
        "Consumer", (BlockConsumer,), {"recreated": d.recreated}
    )
    watch = Watch(d.telemetry)
    for topic in d.recreated:
        watch.recreated.labels(topic).inc()
    runner = BlockRunner(d.topic_ids, d.configs, d.producer, watch)
    scoring = ThreadPoolExecutor(1, thread_name_prefix="scoring")

    def consumer() -> BlockConsumer:
        return cast(BlockConsumer, app.consumer)

    async def carry(stream: Any) -> None:
        """Chunks through blocks; what is acknowledged is the chunk, what is committed is the end of the last closed block."""
        loop = asyncio.get_running_loop()
        async for event in stream.noack().events():
            chunk: Chunk = event.message.value
            if not consumer().stale(chunk):
                try:
                    end = await loop.run_in_executor(scoring, runner.process, chunk, lambda chunk=chunk: consumer().stale(chunk))
                except Dropped:
                    end = None
                if end is not None:
                    consumer().block_ended(chunk, end)
            event.ack()

    async def beat() -> None:
        ticker = Ticker(_Owned(consumer), d.ticks, ticked=lambda place: watch.ticks.labels(place[0]).inc())
        await ticker.run(lambda: app.should_stop)

    async def measure() -> None:
        checked = time.monotonic()
        while not app.should_stop:
            await asyncio.sleep(_MEASURE_EVERY_S)
            d.telemetry.ready("assigned", bool(consumer().assignment()), "no partitions are assigned")
            for tp in consumer().assignment():
                stand = consumer().stand(tp)
                if stand is not None:
                    watch.lag.labels(tp.topic, tp.partition).set(max(0, stand[1] - stand[0]))
            if time.monotonic() - checked >= _TOPIC_IDS_EVERY_S:
                checked = time.monotonic()
                try:
                    now = await asyncio.to_thread(topic_ids, d.settings, RAW_TOPICS)
                except KafkaException:
                    continue  # no broker answers: asked again later
                if now != d.topic_ids:
                    raise TopicRecreated("a raw topic was made anew: the process starts again with its new id")

    app.agent(app.topic(*RAW_TOPICS, key_type=bytes, value_type=bytes, value_serializer=None))(carry)
    app.task(beat)
    app.task(measure)
    return app


def scoring_factory(settings: Settings) -> MakeScoring:
    """Scorers with this machine's tables; a config that names another one cannot be scored here."""
    table, heads = load_embedding(settings), load_heads()
    keys = redaction_keys(settings)

    def scoring(config: Config) -> Scoring:
        made = Scoring(config, table, heads, redaction_keys=keys)
        if made.missing_redaction_keys:
            missing = sorted(made.missing_redaction_keys)
            logging.getLogger("bellbuoy.processor").error(
                "keys of redaction are missing: what they should hash is masked", extra={"fields": {"keys": missing}}
            )
        return made

    return scoring


def _wait_for_config(reader: ConfigReader, config_log: ConfigLog, telemetry: Telemetry) -> None:
    """Before the first activation there is nothing to score with."""
    reader.refresh()
    while not config_log.activations:
        telemetry.ready("config", False, "no config has been activated")
        time.sleep(0.5)
        reader.refresh()
    telemetry.ready("config", True)


def main(settings: Settings, careful: bool = False, factory: Callable[[Settings], MakeScoring] = scoring_factory) -> None:
    """Run until SIGTERM (exit code 0) or a crash (1). `careful` first finds the record that killed the process, if any did."""
    set_up_logging(PROCESS, settings)
    for name in _LOUD_LOGGERS:
        logging.getLogger(name).setLevel(logging.WARNING)
    log = logging.getLogger("bellbuoy.processor")
    with Telemetry(PROCESS, settings) as telemetry:
        if careful:
            for poison in find_poison(settings, factory):
                log.warning("poison found", extra={"fields": {"coordinates": str(poison.coordinates), "reason": poison.reason}})
        ids = topic_ids(settings, RAW_TOPICS)
        before = last_topic_ids(settings)
        recreated = frozenset(topic for topic, id_ in before.items() if ids.get(topic, id_) != id_)
        if recreated:
            log.error("topics were made anew; they are read from offset 0", extra={"fields": {"topics": sorted(recreated)}})
        config_log = ConfigLog()
        reader = ConfigReader(settings, config_log)
        telemetry.ready("assigned", False, "starting")
        _wait_for_config(reader, config_log, telemetry)
        configs = ActiveConfigs(config_log, factory(settings), reader.refresh)
        configs.for_window(time.time_ns() // 1_000_000)
        # What is loaded now stays; searching it again and again for garbage costs more than scoring.
        gc.collect()
        gc.freeze()
        gc.set_threshold(*_GC_THRESHOLDS)
        app = build_processor(
            Dependencies(
                settings=settings,
                configs=configs,
                producer=HotProducer(settings, linger_ms=_LINGER_MS),
                ticks=HotProducer(settings, linger_ms=0),
                topic_ids=ids,
                recreated=recreated,
                telemetry=telemetry,
            )
        )
        loop = asyncio.new_event_loop()
        asyncio.set_event_loop(loop)
        worker = faust.Worker(app, loop=loop, quiet=True, override_logging=False, redirect_stdouts=False)
        worker.spinner = None
        worker.execute_from_commandline()
