"""Route tables on the log: read to the end, written by one fenced writer per app in one transaction with what goes along."""

import contextlib
import time
from collections.abc import Callable, Iterator, Sequence
from types import TracebackType
from typing import Final, Self

import kafka
import kafka.errors

from adapters.follow import Follower
from adapters.kafka import control_producer
from adapters.settings import Settings
from adapters.shard_log import Fenced, TransactionFailed, is_fencing
from adapters.transaction import write_all
from schemas.codec import InvalidMessage, Outgoing, Record, cloud_headers, encode, read
from schemas.messages import RouteTable
from schemas.topics import ROUTES, route_key

Change = Callable[[RouteTable | None], RouteTable]
"""From the present table (None: the app has none yet) to the next; raises core.routing.Refused where it does not allow it."""
_BLOCK_MS: Final = 15_000


class Conflict(RuntimeError):
    """The next table is not based on the present one."""


def table_of(record: Record) -> RouteTable | None:
    """The table that a record of llm.routes holds; None for one that is no table, or not under its app's key."""
    if record.value is None:
        return None
    with contextlib.suppress(InvalidMessage):
        message = read(record)
        if isinstance(message, RouteTable) and record.key == route_key(message.app, message.environment):
            return message
    return None


def route_log(settings: Settings) -> Iterator[tuple[RouteTable, int]]:
    """Every table that the log still holds, oldest first, with its append time (ms)."""
    with Follower(settings, [ROUTES]) as follower:
        records = follower.read_to_end()
    for _, record in records:
        table = table_of(record)
        if table is not None:
            yield table, record.timestamp


def read_routes(settings: Settings) -> dict[tuple[str, str], RouteTable]:
    """The present table of every (app, environment). A record that is no route table is passed over."""
    return {(table.app, table.environment): table for table, _ in route_log(settings)}


def read_route(settings: Settings, app: str, environment: str) -> RouteTable | None:
    """The present table of one app."""
    return read_routes(settings).get((app, environment))


class RouteWriter:
    """The writer of one app's route table: entering fences the writer before it, whoever that was.

    Use as a context manager; Fenced when another writer came since, TransactionFailed when a change may not have been
    committed (then enter anew before you repeat it: `table.action` says what has been done). Until then nobody else can have
    written, so the table read on entering, and what was written since, is the present one.

    `read`: how the present table is found, by whoever follows llm.routes already; default: by reading the topic.
    """

    def __init__(
        self, settings: Settings, app: str, environment: str, read: Callable[[], RouteTable | None] | None = None
    ) -> None:
        self._settings, self.app, self.environment = settings, app, environment
        self._read = read or (lambda: read_route(settings, app, environment))
        self._producer: kafka.KafkaProducer | None = None
        self._now: RouteTable | None = None

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
            try:
                self._producer.init_transactions()
                self._now = self._read()
            except BaseException:
                self.close()
                raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        if self._producer is not None:
            self._producer.close(timeout=2)
            self._producer = None

    def current(self) -> RouteTable | None:
        """The present table."""
        assert self._producer is not None, "enter the writer first"
        return self._now

    def change(self, change: Change, also: Callable[[RouteTable], Sequence[Outgoing]] = lambda _: ()) -> RouteTable:
        """Write what `change` makes of the present table, and the records that `also` adds, in one transaction.

        Raises whatever `change` raises, Conflict, Fenced, TransactionFailed; after the last two the writer is of no more use.
        """
        assert self._producer is not None, "enter the writer first"
        now = self._now
        table = change(now)
        if table.based_on != (now.epoch if now else 0) or table.epoch != table.based_on + 1:
            raise Conflict(f"epoch {table.epoch} is not the one after {now.epoch if now else 0}")
        with _route_errors(self.app):
            write_all(self._producer, (route_record(table), *also(table)), flush_s=20.0)
        self._now = table
        return table


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
