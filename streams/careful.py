"""The careful scan: after a processor died again and again, find the record that kills it, in a child process of its own."""

import logging
import multiprocessing
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Final

import confluent_kafka as ck

from adapters.configs import ConfigReader
from adapters.kafka import HotProducer, LogOffsets, Producer, group_id, hot_consumer, read_all, topic_ids
from adapters.process import die_with
from adapters.settings import Settings
from core.blocks import BlockCutter, Place, begin
from core.configs import ConfigLog, UnknownConfig
from schemas.codec import Outgoing, Record, cloud_headers, coordinates_key, encode
from schemas.messages import Coordinates, Poison
from schemas.topics import CONFIG, RAW_TOPICS
from streams.active_configs import ActiveConfigs, MakeScoring

HANG_S: Final = 30.0
_START_S: Final = 180.0
_BATCH: Final = 256
_FLUSH_S: Final = 30.0
_MOST_POISON: Final = 100

log = logging.getLogger("bellbuoy.processor")


class CarefulFailed(RuntimeError):
    """The scan itself could not run; nothing is known about any record."""


@dataclass(frozen=True)
class Suspect:
    """A record that is to be scored, and the window of its block."""

    place: Place
    window: int
    record: Record


def find_poison(settings: Settings, factory: Callable[[Settings], MakeScoring], *, hang: float = HANG_S) -> list[Poison]:
    """Score everything that is not committed yet, one record at a time; publishes and returns what killed the child."""
    configs = _Configs()
    reader = ConfigReader(settings, configs)
    reader.refresh()
    reader.close()
    producer = HotProducer(settings, linger_ms=0)
    found = []
    for poison in scan(_uncommitted(settings, configs.log), configs.records, settings, factory, hang=hang):
        publish(producer, poison)
        found.append(poison)
        if len(found) >= _MOST_POISON:
            raise CarefulFailed(f"{len(found)} records kill their scorer: that is not the records' fault")
    return found


def publish(producer: Producer, poison: Poison) -> None:
    """Put a verdict on llm.config and wait until it is there."""
    key = f"poison/{coordinates_key(poison.coordinates)}"
    producer.produce(Outgoing(CONFIG, key.encode(), encode(poison), cloud_headers(Poison, id_=key, time_ms=0), 0))
    producer.flush(_FLUSH_S)


def scan(
    suspects: Iterator[Suspect],
    config_records: Sequence[Record],
    settings: Settings,
    factory: Callable[[Settings], MakeScoring],
    *,
    hang: float = HANG_S,
) -> Iterator[Poison]:
    """Hand the suspects to a child one by one; each on which it dies, or hangs for `hang` seconds, is poison."""
    child = _Child(config_records, settings, factory, hang)
    try:
        while batch := [s for s, _ in zip(suspects, range(_BATCH), strict=False)]:
            while batch:
                done, reason = child.score(batch)
                if reason is None:
                    break
                killer = batch[done]
                log.warning("a record killed the careful child", extra={"fields": {"place": str(killer.place), "reason": reason}})
                topic, topic_id, partition = killer.place
                at = Coordinates(topic=topic, topic_id=topic_id, partition=partition, offset=killer.record.offset)
                yield Poison(coordinates=at, reason=reason)
                batch = batch[done + 1 :]
                child.stop()
                child = _Child(config_records, settings, factory, hang)
    finally:
        child.stop()


class _Child:
    """The process that risks its life."""

    def __init__(
        self, config_records: Sequence[Record], settings: Settings, factory: Callable[[Settings], MakeScoring], hang: float
    ) -> None:
        self._hang = hang
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        arguments = (theirs, list(config_records), settings, factory, os.getpid())
        self._process = context.Process(target=_serve, args=arguments, daemon=True)
        self._process.start()
        theirs.close()
        try:
            said = self._pipe.recv() if self._pipe.poll(_START_S) else "nothing"
        except EOFError:
            said = "it died"
        if said != "ready":
            self.stop()
            raise CarefulFailed(f"the child did not start: {said}")

    def score(self, batch: Sequence[Suspect]) -> tuple[int, str | None]:
        """How many were scored, and why the next one was not."""
        done = 0
        try:
            self._pipe.send(batch)
            while done < len(batch):
                if not self._pipe.poll(self._hang):
                    return done, f"scoring it took more than {self._hang:g} s"
                said = self._pipe.recv()
                if said is not None:
                    raise CarefulFailed(said)
                done += 1
        except (EOFError, OSError):
            self._process.join(5)
            return done, f"scoring it ended the process (exit code {self._process.exitcode})"
        return done, None

    def stop(self) -> None:
        if self._process.is_alive():
            self._process.kill()
        self._process.join()
        self._pipe.close()


def _serve(
    pipe: Connection, config_records: list[Record], settings: Settings, factory: Callable[[Settings], MakeScoring], parent: int
) -> None:
    die_with(parent)
    config_log = ConfigLog()
    for record in config_records:
        config_log.add(record)
    configs = ActiveConfigs(config_log, factory(settings))
    pipe.send("ready")
    while True:
        try:
            batch: list[Suspect] = pipe.recv()
        except EOFError:
            return
        for suspect in batch:
            try:
                active = configs.for_window(suspect.window)
            except UnknownConfig as error:
                pipe.send(str(error))
                return
            begin(suspect.place, suspect.window, suspect.record.offset, active).step([suspect.record])
            pipe.send(None)


class _Configs:
    """The config log and the records that it was made of, for the child."""

    def __init__(self) -> None:
        self.log, self.records = ConfigLog(), list[Record]()

    def add(self, record: Record) -> None:
        self.log.add(record)
        self.records.append(record)


def _uncommitted(settings: Settings, config_log: ConfigLog) -> Iterator[Suspect]:
    """What the processor has still to do, less what is known to be poison."""
    ids = topic_ids(settings, RAW_TOPICS)
    with LogOffsets(settings) as offsets:
        places = [ck.TopicPartition(topic, partition) for topic in RAW_TOPICS for partition in offsets.partitions(topic)]
    # Without a subscription it asks for offsets only and does not join the group.
    consumer = hot_consumer(
        settings, "processor", (), extra={"group.id": group_id(settings, "processor"), "group.instance.id": ""}
    )
    try:
        committed = consumer.committed(places, timeout=30)
    finally:
        consumer.close()
    for at in committed:
        place = Place(at.topic, ids[at.topic], at.partition)
        cutter = BlockCutter()
        for record in read_all(settings, at.topic, at.partition, start=at.offset if at.offset >= 0 else None):
            known = Coordinates(topic=place.topic, topic_id=place.topic_id, partition=place.partition, offset=record.offset)
            for window, records in cutter.cut([record]):
                if known not in config_log.poison:
                    yield Suspect(place, window, records[0])
