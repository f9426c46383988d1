"""llm.actions as a worker sees it: every step from the beginning, and one fenced transaction at a time to add to them."""

import contextlib
import time
from collections.abc import Iterator, Sequence
from typing import Any, Final

import kafka
import kafka.errors

from adapters.kafka import LogOffsets, control_consumer, control_producer
from adapters.settings import Settings
from adapters.shard_log import BrokerAway, Fenced, TransactionFailed, is_fencing
from schemas.codec import InvalidMessage, Outgoing, Record, cloud_headers, encode, read
from schemas.messages import ActionStep
from schemas.topics import ACTIONS

SOURCE_PREFIX: Final = "bellbuoy.worker/"


class ActionLog:
    """All shards of llm.actions for one worker role. Entering `fence` shuts out the worker of the same role before it.

    Methods raise BrokerAway while there is no broker (worth trying again), Fenced when another worker took over (end, and
    stay away for a while), TransactionFailed when a write may not have happened (end; a restart reads what did).
    """

    def __init__(self, settings: Settings, role: str) -> None:
        self._settings, self.role = settings, role
        self._producer: kafka.KafkaProducer | None = None
        self._consumer: kafka.KafkaConsumer | None = None
        self._places: list[kafka.TopicPartition] = []

    def fence(self) -> None:
        """Shut out the worker before this one, then begin to read from the start of the log."""
        with _broker_errors(self.role):
            if self._producer is None:
                self._producer = control_producer(
                    self._settings,
                    f"{self.role}-worker",
                    max_block_ms=20_000,
                    request_timeout_ms=15_000,
                    delivery_timeout_ms=30_000,
                    linger_ms=0,
                )
            self._producer.init_transactions()
            with LogOffsets(self._settings) as offsets:
                partitions = offsets.partitions(ACTIONS)
                starts = offsets.start(ACTIONS)
            self._places = [kafka.TopicPartition(ACTIONS, p) for p in partitions]
            self._consumer = self._consumer or control_consumer(self._settings)
            self._consumer.assign(self._places)
            for place in self._places:
                self._consumer.seek(place, starts[place.partition])

    def poll(self, timeout: float) -> list[tuple[ActionStep, int]]:
        """Steps that came, in order, with their append time (ms). A record that is no step is passed over."""
        assert self._consumer is not None, "fence() comes first"
        with _broker_errors(self.role):
            polled = self._consumer.poll(timeout_ms=int(timeout * 1000))
        return [pair for records in polled.values() for record in records if (pair := _step(record)) is not None]

    def read_to_end(self) -> list[tuple[ActionStep, int]]:
        """Everything up to where the log ends now."""
        assert self._consumer is not None, "fence() comes first"
        with _broker_errors(self.role):
            ends = self._consumer.end_offsets(self._places, timeout_ms=10_000)
        steps: list[tuple[ActionStep, int]] = []
        while any(self._position(place) < end for place, end in ends.items()):
            steps += self.poll(0.2)
        return steps

    def append(self, steps: Sequence[ActionStep], also: Sequence[Outgoing] = ()) -> None:
        """Write steps (and other records) in one transaction, all or none."""
        assert self._producer is not None, "fence() comes first"
        producer = self._producer
        with _broker_errors(self.role, writing=True):
            producer.begin_transaction()
            futures = [
                producer.send(o.topic, value=o.value, key=o.key, headers=list(o.headers), partition=o.partition)
                for o in (*(step_record(step, self.role) for step in steps), *also)
            ]
            producer.flush(timeout=30)
            for future in futures:
                future.get(timeout=1)
            producer.commit_transaction()

    def close(self) -> None:
        if self._consumer is not None:
            self._consumer.close()
        if self._producer is not None:
            self._producer.close(timeout=2)

    def _position(self, place: kafka.TopicPartition) -> int:
        assert self._consumer is not None
        with _broker_errors(self.role):
            return int(self._consumer.position(place, timeout_ms=10_000))


def step_record(step: ActionStep, role: str) -> Outgoing:
    """A worker's step as its record."""
    headers = cloud_headers(
        ActionStep,
        id_=f"{step.id}/{step.sequence}/{role}",
        time_ms=int(time.time() * 1000),
        source=f"{SOURCE_PREFIX}{role}",
    )
    return Outgoing(ACTIONS, step.id.encode(), encode(step), headers, step.shard)


def _step(r: Any) -> tuple[ActionStep, int] | None:
    with contextlib.suppress(InvalidMessage):
        message = read(Record(r.offset, r.timestamp, r.key, r.value, [(name, value or b"") for name, value in r.headers]))
        if isinstance(message, ActionStep):
            return message, r.timestamp
    return None


@contextlib.contextmanager
def _broker_errors(role: str, *, writing: bool = False) -> Iterator[None]:
    try:
        yield
    except kafka.errors.KafkaError as error:
        if is_fencing(error):
            raise Fenced(f"another {role} worker has taken over") from error
        if writing:
            raise TransactionFailed(f"{role} worker: {type(error).__name__}: {error}") from error
        if isinstance(error, kafka.errors.RetriableError | kafka.errors.KafkaTimeoutError | kafka.errors.KafkaConnectionError):
            raise BrokerAway(f"{type(error).__name__}: {error}") from error
        raise
