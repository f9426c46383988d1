"""Reads what stands on the control topics and says things there on a person's behalf."""

import getpass
import logging
import socket
import time
import uuid
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Generic, TypeVar

from adapters.kafka import LogOffsets, control_producer, read_all
from adapters.settings import Settings
from core.actions import Actions
from schemas.codec import InvalidMessage, Outgoing, cloud_headers, encode, read
from schemas.messages import ActionStep, AlertTransition, Command
from schemas.topics import ACTIONS, ALERTS, COMMANDS, SUMMARIES, shard_of

log = logging.getLogger(__name__)
M = TypeVar("M", AlertTransition, ActionStep)


class NotFound(LookupError):
    """No alert or action of that id."""


@dataclass(frozen=True)
class Entry(Generic[M]):
    """One transition or step, with the broker's append time (ms)."""

    time: int
    message: M


def alert_histories(settings: Settings) -> dict[str, list[Entry[AlertTransition]]]:
    """Every alert's transitions by id, oldest alert first."""
    return _histories(_entries(settings, ALERTS, AlertTransition))


def action_histories(settings: Settings) -> dict[str, list[Entry[ActionStep]]]:
    """Every action's steps by id, oldest action first."""
    return _histories(_entries(settings, ACTIONS, ActionStep))


def standing(history: Sequence[Entry[ActionStep]]) -> ActionStep:
    """The step that says how an action stands: the last one, unless it came after the action's end."""
    actions = Actions()
    for entry in history:
        actions.take(entry.message, entry.time)
    known = actions.get(history[0].message.id)
    assert known is not None
    return known.step


def find(histories: dict[str, list[Entry[M]]], id_: str) -> list[Entry[M]]:
    """The history of an id or of an unambiguous beginning of one. Raises NotFound."""
    matches = [known for known in histories if known == id_] or [known for known in histories if known.startswith(id_)]
    if not matches:
        raise NotFound(f"there is no {id_}")
    if len(matches) > 1:
        raise NotFound(f"{id_} is the beginning of {len(matches)} ids")
    return histories[matches[0]]


def shards(settings: Settings) -> int:
    """How many shards the running cluster has."""
    with LogOffsets(settings) as offsets:
        return len(offsets.partitions(SUMMARIES))


def shard_for(settings: Settings, app: str, environment: str) -> int:
    return shard_of(app, environment, shards(settings))


def actor() -> str:
    """Who is at the keyboard, as it is written into commands."""
    return f"{getpass.getuser()}@{socket.gethostname()}"


def new_id() -> str:
    return str(uuid.uuid4())


def send(settings: Settings, command: Command, to_shards: Sequence[int]) -> None:
    """Append a command to the given shards, all of them or none. It counts in the next window that closes."""
    with closing(control_producer(settings, f"command-{command.id}" if len(to_shards) > 1 else None)) as producer:
        if len(to_shards) > 1:
            producer.init_transactions()
            producer.begin_transaction()
        futures = [
            producer.send(o.topic, value=o.value, key=o.key, headers=o.headers, partition=o.partition)
            for o in command_records(command, to_shards, time_ms=int(time.time() * 1000))
        ]
        producer.flush(timeout=30)
        for future in futures:
            future.get(timeout=1)
        if len(to_shards) > 1:
            producer.commit_transaction()


def command_records(command: Command, to_shards: Iterable[int], *, time_ms: int) -> list[Outgoing]:
    """One record per shard, with the same id."""
    return [
        Outgoing(
            COMMANDS,
            str(shard).encode(),
            encode(command),
            cloud_headers(Command, id_=command.id, time_ms=time_ms, source="bellbuoy.cli"),
            shard,
        )
        for shard in to_shards
    ]


def _entries(settings: Settings, topic: str, type_: type[M]) -> Iterator[Entry[M]]:
    with LogOffsets(settings) as offsets:
        partitions = offsets.partitions(topic)
    for partition in partitions:
        for record in read_all(settings, topic, partition):
            try:
                message = read(record)
            except InvalidMessage as error:
                log.warning("%s/%d at %d cannot be read: %s", topic, partition, record.offset, error.reason)
                continue
            if isinstance(message, type_):
                yield Entry(record.timestamp, message)


def _histories(entries: Iterable[Entry[M]]) -> dict[str, list[Entry[M]]]:
    by_id: dict[str, list[Entry[M]]] = {}
    for entry in entries:
        by_id.setdefault(entry.message.id, []).append(entry)
    return dict(sorted(by_id.items(), key=lambda item: (item[1][0].time, item[0])))
