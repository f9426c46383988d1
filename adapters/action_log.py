"""llm.actions as a worker sees it: every step from the beginning, and one fenced transaction at a time to add to them."""

import contextlib
import time
from collections.abc import Iterable, Iterator, Sequence
from typing import Final

import kafka
import kafka.errors

from adapters.follow import BrokerClock, Follower
from adapters.kafka import control_producer
from adapters.settings import Settings
from adapters.shard_log import BrokerAway, Fenced, TransactionFailed, is_fencing
from adapters.transaction import write_all
from schemas.codec import InvalidMessage, Outgoing, Record, cloud_headers, encode, read
from schemas.messages import ActionStep
from schemas.topics import ACTIONS

SOURCE_PREFIX: Final = "bellbuoy.worker/"


class ActionLog:
    """All shards of llm.actions for one worker role. Entering `fence` shuts out the worker of the same role before it.

    `also`: topics that are followed along, by `records`. Methods raise BrokerAway while there is no broker (worth trying
    again), Fenced when another worker took over (end, and stay away for a while), TransactionFailed when a write may not
    have happened (end; a restart reads what did).
    """

    def __init__(self, settings: Settings, role: str, also: Sequence[str] = ()) -> None:
        self._settings, self.role, self._topics = settings, role, (ACTIONS, *also)
        self._producer: kafka.KafkaProducer | None = None
        self._follower: Follower | None = None

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
        if self._follower is not None:
            self._follower.close()
            self._follower = None
        self._follower = Follower(self._settings, self._topics)

    @property
    def clock(self) -> BrokerClock:
        """The broker's time, as the records read so far tell it."""
        assert self._follower is not None, "fence() comes first"
        return self._follower.clock

    def records(self, timeout: float) -> list[tuple[str, Record]]:
        """(topic, record) of what came on llm.actions and the topics that are followed along."""
        assert self._follower is not None, "fence() comes first"
        return self._follower.poll(timeout)

    def records_to_end(self) -> list[tuple[str, Record]]:
        """The same, up to where the log ends now."""
        assert self._follower is not None, "fence() comes first"
        return self._follower.read_to_end()

    def poll(self, timeout: float) -> list[tuple[ActionStep, int]]:
        """Steps that came, in order, with their append time (ms). A record that is no step is passed over."""
        return _steps(self.records(timeout))

    def read_to_end(self) -> list[tuple[ActionStep, int]]:
        """Every step up to where the log ends now."""
        return _steps(self.records_to_end())

    def append(self, steps: Sequence[ActionStep]) -> None:
        """Write steps in one transaction, all or none."""
        assert self._producer is not None, "fence() comes first"
        with _broker_errors(self.role, writing=True):
            write_all(self._producer, [step_record(step, self.role) for step in steps])

    def close(self) -> None:
        if self._follower is not None:
            self._follower.close()
        if self._producer is not None:
            self._producer.close(timeout=2)


def step_record(step: ActionStep, role: str) -> Outgoing:
    """A worker's step as its record."""
    headers = cloud_headers(
        ActionStep,
        id_=f"{step.id}/{step.sequence}/{role}",
        time_ms=int(time.time() * 1000),
        source=f"{SOURCE_PREFIX}{role}",
    )
    return Outgoing(ACTIONS, step.id.encode(), encode(step), headers, step.shard)


def step_of(record: Record) -> ActionStep | None:
    """The step that a record of llm.actions holds, or None for one that is no step, or not in its shard's partition."""
    with contextlib.suppress(InvalidMessage):
        message = read(record)
        if isinstance(message, ActionStep) and record.partition in (None, message.shard):
            return message
    return None


def _steps(records: Iterable[tuple[str, Record]]) -> list[tuple[ActionStep, int]]:
    return [(step, record.timestamp) for topic, record in records if topic == ACTIONS and (step := step_of(record)) is not None]


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
