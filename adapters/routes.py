"""Route tables on the log: read to the end, written by one fenced writer per app in one transaction with what goes along."""

import contextlib
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Final, Self

import kafka
import kafka.errors

from adapters.kafka import control_producer
from adapters.settings import Settings
from adapters.shard_log import Fenced, TransactionFailed, is_fencing
from adapters.tail import Tail
from schemas.codec import InvalidMessage, Outgoing, Record, cloud_headers, encode, read
from schemas.messages import RouteTable
from schemas.topics import ROUTES, route_key

Change = Callable[[RouteTable | None], RouteTable]
"""From the present table (None: the app has none yet) to the next; raises core.routing.Refused where it does not allow it."""
_BLOCK_MS: Final = 15_000


class Conflict(RuntimeError):
    """The next table is not based on the present one."""


@dataclass(frozen=True)
class Routed:
    """A table on the log, with its append time (ms)."""

    table: RouteTable
    time: int


class RouteReader:
    """The present tables by (app, environment), kept up to date by `read`. Methods raise BrokerAway."""

    def __init__(self, settings: Settings) -> None:
        self._tail = Tail(settings, ROUTES)
        self.routes: dict[tuple[str, str], Routed] = {}

    def read(self) -> dict[tuple[str, str], Routed]:
        """Read to the end of the log. A record that is no route table is passed over."""
        self._take(self._tail.read_to_end())
        return self.routes

    def poll(self, timeout: float) -> None:
        """Take what came."""
        self._take(self._tail.poll(timeout))

    def close(self) -> None:
        self._tail.close()

    def _take(self, records: Iterable[Record]) -> None:
        for record in records:
            if record.value is None:
                continue
            with contextlib.suppress(InvalidMessage):
                message = read(record)
                if isinstance(message, RouteTable) and record.key == route_key(message.app, message.environment):
                    self.routes[message.app, message.environment] = Routed(message, record.timestamp)


def read_routes(settings: Settings) -> dict[tuple[str, str], Routed]:
    """The present table of every (app, environment)."""
    reader = RouteReader(settings)
    try:
        return reader.read()
    finally:
        reader.close()


def read_route(settings: Settings, app: str, environment: str) -> RouteTable | None:
    """The present table of one app."""
    routed = read_routes(settings).get((app, environment))
    return routed.table if routed else None


class RouteWriter:
    """The writer of one app's route table: entering fences the writer before it, whoever that was.

    Use as a context manager; Fenced when another writer came since, TransactionFailed when a change may not have been
    committed (then read again before you repeat it: `table.action` says what has been done).
    """

    def __init__(self, settings: Settings, app: str, environment: str) -> None:
        self._settings, self.app, self.environment = settings, app, environment
        self._reader = RouteReader(settings)
        self._producer: kafka.KafkaProducer | None = None

    def __enter__(self) -> Self:
        with _route_errors(self.app):
            self._producer = control_producer(
                self._settings,
                f"routes-{self.app}/{self.environment}",
                max_block_ms=_BLOCK_MS,
                request_timeout_ms=10_000,
                delivery_timeout_ms=20_000,
                linger_ms=0,
            )
            self._producer.init_transactions()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._producer is not None:
            self._producer.close(timeout=2)
            self._producer = None
        self._reader.close()

    def current(self) -> RouteTable | None:
        """The present table, read to the end of the log."""
        routed = self._reader.read().get((self.app, self.environment))
        return routed.table if routed else None

    def change(self, change: Change, also: Callable[[RouteTable], Sequence[Outgoing]] = lambda _: ()) -> Routed:
        """Write what `change` makes of the present table, and the records that `also` adds, in one transaction.

        Raises whatever `change` raises, Conflict, Fenced, TransactionFailed.
        """
        assert self._producer is not None, "enter the writer first"
        producer = self._producer
        now = self.current()
        table = change(now)
        if table.based_on != (now.epoch if now else 0) or table.epoch != table.based_on + 1:
            raise Conflict(f"epoch {table.epoch} is not the one after {now.epoch if now else 0}")
        with _route_errors(self.app):
            producer.begin_transaction()
            futures = [
                producer.send(o.topic, value=o.value, key=o.key, headers=list(o.headers), partition=o.partition)
                for o in (route_record(table), *also(table))
            ]
            producer.flush(timeout=20)
            appended = max(int(future.get(timeout=1).timestamp) for future in futures)
            producer.commit_transaction()
        return Routed(table, appended)


def route_record(table: RouteTable) -> Outgoing:
    """A table as its record."""
    id_ = f"{table.app}/{table.environment}/{table.epoch}"
    headers = cloud_headers(RouteTable, id_=id_, time_ms=int(time.time() * 1000), source="bellbuoy.routes")
    return Outgoing(ROUTES, route_key(table.app, table.environment), encode(table), headers, 0)


@contextlib.contextmanager
def _route_errors(app: str) -> Iterator[None]:
    try:
        yield
    except kafka.errors.KafkaError as error:
        if is_fencing(error):
            raise Fenced(f"the route of {app}: another writer has taken over") from error
        raise TransactionFailed(f"the route of {app}: {type(error).__name__}: {error}") from error
