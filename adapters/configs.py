"""Follows llm.config: every read goes to the end that the topic has when it is called."""

import time
from collections.abc import Callable
from typing import Final, Protocol

import confluent_kafka as ck

from adapters.kafka import LogOffsets, hot_consumer, offset_of, to_record
from adapters.settings import Settings
from schemas.codec import Record
from schemas.topics import CONFIG

_STALL_S: Final = 30.0


class TakesRecords(Protocol):
    """What is fed with the records: `core.configs.ConfigLog`."""

    def add(self, record: Record) -> None: ...


class ConfigReader:
    """Feeds `target` with llm.config. `refresh` is a no-op until `max_age` seconds have passed since the last read began."""

    def __init__(
        self, settings: Settings, target: TakesRecords, *, max_age: float = 3.0, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._target, self._max_age, self._clock = target, max_age, clock
        self._read_at: float | None = None
        self._position = 0
        self._offsets = LogOffsets(settings)
        self._consumer = hot_consumer(
            settings, "config", (), extra={"group.instance.id": "", "enable.partition.eof": True, "auto.offset.reset": "error"}
        )
        self._consumer.assign([ck.TopicPartition(CONFIG, 0, 0)])
        self._started = False

    def refresh(self) -> None:
        """Read on to the end, unless that was done less than `max_age` seconds ago."""
        now = self._clock()
        if self._read_at is None or now - self._read_at >= self._max_age:
            self._read()
            self._read_at = now

    def close(self) -> None:
        self._consumer.close()
        self._offsets.close()

    def _read(self) -> None:
        if not self._started:
            self._position = self._offsets.start(CONFIG)[0]
            self._consumer.assign([ck.TopicPartition(CONFIG, 0, self._position)])
            self._started = True
        end = self._offsets.end(CONFIG)[0]
        moved = time.monotonic()
        while self._position < end:
            for message in self._consumer.consume(500, timeout=0.2):
                error = message.error()
                if error is None:
                    self._target.add(to_record(message))
                    self._position = offset_of(message) + 1
                    moved = time.monotonic()
                elif error.code() == ck.KafkaError._PARTITION_EOF:
                    self._position = max(self._position, offset_of(message))
                elif not error.retriable():
                    raise ck.KafkaException(error)
            if time.monotonic() - moved > _STALL_S:
                raise TimeoutError(f"{CONFIG}: nothing between offset {self._position} and the end at {end}")
