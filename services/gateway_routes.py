"""The routes as one gateway holds them: followed from the log, kept on disk, with what was started on each version."""

import contextlib
import logging
import os
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Final, NamedTuple

import confluent_kafka as ck
import msgspec
from kafka.errors import KafkaError

from adapters.kafka import hot_consumer, offset_of, to_record
from adapters.routes import read_routes
from adapters.settings import Settings
from adapters.shard_log import BrokerAway
from core.routing import Arm, choose
from schemas import codec
from schemas.codec import InvalidMessage
from schemas.messages import CallConfiguration, RouteReport, RouteTable
from schemas.topics import ROUTES, route_key

Key = tuple[str, str]
"""App and environment."""
_RETRY_S: Final = 1.0
_log: Final = logging.getLogger("bellbuoy.gateway")


class Choice(NamedTuple):
    """Which version is to answer a request, under which epoch, and how it is called."""

    key: Key
    version: str
    arm: Arm
    epoch: int
    configuration: CallConfiguration


class Routes:
    """The present tables and the counts of each, for several threads.

    `candidates_allowed` says whether the lease holds; it is asked at each choice.
    """

    def __init__(self, file: Path, candidates_allowed: Callable[[], bool] = lambda: True) -> None:
        self._file, self._allowed = file, candidates_allowed
        self._lock, self._applying = threading.Lock(), threading.Lock()
        self._tables: dict[Key, RouteTable] = {}
        self._started: dict[Key, Counter[str]] = {}
        self._running: dict[Key, Counter[str]] = {}

    def load(self) -> None:
        """Take the tables that are on disk; a file that cannot be read counts as none."""
        try:
            stored = msgspec.json.decode(self._file.read_bytes(), type=list[msgspec.Raw])
            tables = [codec.decode(RouteTable, bytes(raw)) for raw in stored]
        except FileNotFoundError:
            return
        except (msgspec.MsgspecError, InvalidMessage) as error:
            _log.warning("the routes on disk cannot be read", extra={"fields": {"error": type(error).__name__}})
            return
        for table in tables:
            self._put((table.app, table.environment), table)

    def apply(self, changes: Mapping[Key, RouteTable | None]) -> bool:
        """Put these tables in force, on disk first: what is reported as applied must survive this process. None takes one away.

        Tables that are in force already, ones of an earlier epoch, and ones that lack their champion's configuration, change
        nothing. Whether anything changed.
        """
        with self._applying:
            new = {key: table for key, table in changes.items() if self._changes(key, table)}
            if not new:
                return False
            after = {key: table for key, table in (self._tables | new).items() if table is not None}
            _write(self._file, after.values())
            with self._lock:
                for key, table in new.items():
                    self._put(key, table)
        return True

    def __contains__(self, key: Key) -> bool:
        return key in self._tables

    def choose(self, key: Key, unit: str) -> Choice | None:
        """Who answers now; None where the app has no route."""
        with self._lock:
            return self._choose(key, unit)

    def begin(self, choice: Choice, unit: str) -> bool:
        """Count a start, if the choice is still the right one; otherwise choose again."""
        with self._lock:
            if self._choose(choice.key, unit) != choice:
                return False
            self._started[choice.key][choice.version] += 1
            self._running.setdefault(choice.key, Counter())[choice.version] += 1
            return True

    def finish(self, choice: Choice) -> None:
        """A request that had begun is over."""
        with self._lock:
            running = self._running[choice.key]
            running[choice.version] -= 1
            if not running[choice.version]:
                del running[choice.version]

    def reports(self) -> list[RouteReport]:
        """What to confirm of each app, in order."""
        with self._lock:
            return [
                RouteReport(
                    app=table.app,
                    environment=table.environment,
                    epoch=table.epoch,
                    champion=table.champion,
                    started=dict(sorted(self._started[key].items())),
                    running=dict(sorted(self._running.get(key, {}).items())),
                )
                for key, table in sorted(self._tables.items())
            ]

    def apps(self) -> list[str]:
        """Apps that have a route, in any environment."""
        with self._lock:
            return sorted({app for app, _ in self._tables})

    def _choose(self, key: Key, unit: str) -> Choice | None:
        table = self._tables.get(key)
        if table is None:
            return None
        chosen = choose(table, unit, champion_only=table.candidate not in table.versions or not self._allowed())
        return Choice(key, *chosen, table.epoch, table.versions[chosen.version])

    def _changes(self, key: Key, table: RouteTable | None) -> bool:
        if table is not None and table.champion not in table.versions:
            _log.error(
                "a route table lacks its champion's configuration", extra={"fields": {"app": key[0], "epoch": table.epoch}}
            )
            return False
        present = self._tables.get(key)
        if table is not None and present is not None and table.epoch < present.epoch:
            return False  # the log is being read again
        return present != table

    def _put(self, key: Key, table: RouteTable | None) -> None:
        if table is None:
            self._tables.pop(key, None)
        else:
            self._tables[key] = table
            self._started[key] = Counter()


def read_now(settings: Settings, routes: Routes) -> bool:
    """Bring the routes to where the log ends now; False where that cannot be done."""
    epochs = {(report.app, report.environment): report.epoch for report in routes.reports()}
    try:
        tables = read_routes(settings)
        routes.apply({key: table for key, table in tables.items() if table.epoch > epochs.get(key, 0)})
    except (BrokerAway, ck.KafkaException, KafkaError, TimeoutError, OSError) as error:
        _log.warning("the routes cannot be read to their end", extra={"fields": {"error": type(error).__name__}})
        return False
    return True


class RouteFollower:
    """Reads llm.routes from its beginning and then on, whenever a broker answers; `applied` is called after each change."""

    def __init__(self, settings: Settings, routes: Routes, applied: Callable[[], None]) -> None:
        self._settings, self._routes, self._applied = settings, routes, applied
        self._stop = threading.Event()
        self.caught_up = threading.Event()
        """Set once the routes are what they were at the end of the log."""

    def run(self) -> None:
        """Follow until `stop`. Tables that are read before the end was reached once are put in force together."""
        while not self._stop.is_set():
            consumer = hot_consumer(self._settings, "gateway-routes", (), extra=_CONSUMER)
            try:
                consumer.assign([ck.TopicPartition(ROUTES, 0, ck.OFFSET_BEGINNING)])
                self._follow(consumer)
            except ck.KafkaException as error:
                _log.warning("the routes are read anew", extra={"fields": {"error": error.args[0].name()}})
            finally:
                consumer.close()
            self._stop.wait(_RETRY_S)

    def stop(self) -> None:
        self._stop.set()

    def _follow(self, consumer: ck.Consumer) -> None:
        behind: dict[Key, RouteTable | None] = {}
        reached_end = False
        while not self._stop.is_set():
            for message in consumer.consume(1, timeout=0.25):  # more at once would be waited for
                error = message.error()
                if error is None:
                    behind |= _change(message)
                elif error.code() == ck.KafkaError._PARTITION_EOF:
                    reached_end = True
                elif error.code() == ck.KafkaError.UNKNOWN_TOPIC_OR_PART or not error.retriable():
                    raise ck.KafkaException(error)
            if reached_end and behind:
                try:
                    changed = self._routes.apply(behind)
                except OSError as error:  # it serves on with the tables that it has, and reports those
                    _log.error("the routes cannot be kept on disk", extra={"fields": {"error": str(error)}})
                    self._stop.wait(_RETRY_S)
                    continue
                if changed:
                    self._applied()
                behind = {}
            if reached_end:
                self.caught_up.set()


_CONSUMER: Final = {
    "group.instance.id": "",
    "enable.partition.eof": True,
    "auto.offset.reset": "error",  # an offset that is gone means a log that was made anew: read it from its beginning
    "fetch.wait.max.ms": 50,
    "topic.metadata.refresh.interval.ms": 10_000,
}


def _change(message: ck.Message) -> dict[Key, RouteTable | None]:
    record = to_record(message)
    app, zero, environment = (record.key or b"").decode(errors="replace").partition("\0")
    if not zero:
        return {}
    if record.value is None:
        return {(app, environment): None}
    with contextlib.suppress(InvalidMessage):
        table = codec.read(record)
        if isinstance(table, RouteTable) and record.key == route_key(table.app, table.environment):
            return {(table.app, table.environment): table}
    _log.error("a record of the routes cannot be read", extra={"fields": {"offset": offset_of(message)}})
    return {}


def _write(file: Path, tables: Iterable[RouteTable]) -> None:
    file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    draft = file.with_suffix(".new")
    with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as out:
        out.write(b"[" + b",".join(codec.encode(table) for table in tables) + b"]")
        out.flush()
        os.fsync(out.fileno())
    draft.replace(file)
