"""What a gateway tells of its requests: a queue in memory, then the broker, or the spool while the broker is away."""

import contextlib
import dataclasses
import logging
import queue
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from adapters.http_body import BodyTooLarge, decompress
from adapters.kafka import OnDelivery, ProduceFailed, Producer, partition_by_key
from adapters.spool import Position, Spool
from core.chat import Exchange, bare, interaction_of, record_of
from schemas.codec import InvalidMessage, Outgoing
from schemas.messages import Interaction

QUEUED_BYTES: Final = 64 * 1024 * 1024
"""What may wait in memory for the emitting thread."""
AWAY_S: Final = 1.0
"""A record that the broker has not confirmed by then goes to disk, and so does everything after it."""
_TEXT_RESERVE: Final = 0.1
"""Share of the spool that is kept for events without their texts."""
_BATCH: Final = 500
_BATCH_BYTES: Final = 8 * 1024 * 1024
_BUSY_S: Final = 0.01
_IDLE_S: Final = 0.25
_MAX_ANSWER: Final = 16 * 1024 * 1024
_log: Final = logging.getLogger("bellbuoy.gateway")


@dataclass
class _Flying:
    """A record that the producer has; `position` where it stands in the spool too."""

    out: Outgoing
    since: float
    position: Position | None = None
    done: bool = False


class Emission:
    """`offer` is for the event loop and never waits; all else happens in the thread that is in `run`.

    `partitions` tells how many the topic has, None as long as no broker has said so; then everything goes to disk. `shed` is
    told of each text or event that is dropped, by kind. Order is kept: while something waits on disk, everything goes there.
    """

    def __init__(
        self,
        spool: Spool,
        make_producer: Callable[[], Producer],
        partitions: Callable[[], int | None],
        *,
        instance: str,
        shed: Callable[[str], None] = lambda _: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._spool, self._make_producer, self._partitions = spool, make_producer, partitions
        self._instance, self._count_shed, self._clock = instance, shed, clock
        self._producer = make_producer()
        self._queue: queue.SimpleQueue[Exchange | None] = queue.SimpleQueue()
        self._put = self._taken = 0
        self._sequence = 0
        self._flying: deque[_Flying] = deque()
        self._stopping = threading.Event()
        self.shed = 0
        self.spooled = len(spool)

    def offer(self, exchange: Exchange) -> None:
        """Take an exchange that is over. Dropped, and counted, when too much waits."""
        size = exchange.size
        if self._put - self._taken + size > QUEUED_BYTES:
            self._shed("queue")
            return
        self._put += size
        self._queue.put(exchange)

    def run(self) -> None:
        """Emit until `stop`; then what is on its way gets `AWAY_S` more, and the rest goes to disk."""
        while not self._stopping.is_set():
            self._step(_BUSY_S if self._flying else _IDLE_S)
        end = self._clock() + AWAY_S
        while self._clock() < end and (self._flying or not self._queue.empty()):
            self._step(_BUSY_S)
        while not self._queue.empty():
            self._step(0.0)
        self._to_disk()
        self.spooled = len(self._spool)
        self._spool.close()

    def stop(self) -> None:
        self._stopping.set()
        self._queue.put(None)

    def _step(self, wait_s: float) -> None:
        self._take(wait_s)
        try:
            self._producer.poll()
            self._settle()
            if self._flying and not len(self._spool) and self._clock() - self._flying[0].since > AWAY_S:
                self._to_disk()
            self._drain()
        except ProduceFailed:
            self._replace_producer()
        self.spooled = len(self._spool)

    def _take(self, wait_s: float) -> None:
        for _ in range(_BATCH):
            try:
                exchange = self._queue.get(timeout=wait_s) if wait_s else self._queue.get_nowait()
            except queue.Empty:
                return
            wait_s = 0.0
            if exchange is not None:
                self._taken += exchange.size
                self._emit(exchange)

    def _emit(self, exchange: Exchange) -> None:
        interaction = _readable(exchange)
        interaction.producer_instance, interaction.producer_sequence = self._instance, self._sequence
        self._sequence += 1
        out = record_of(interaction, exchange.started_ms)
        if not len(self._spool) and (partitions := self._partitions()):
            flying = _Flying(out, self._clock())
            try:
                self._hand_over(flying, partitions)
            except BufferError:
                self._to_disk()
            except ProduceFailed:
                self._replace_producer()
            else:
                self._flying.append(flying)
                return
        if self._spool.append(out, reserve=_TEXT_RESERVE) is None:
            kept = self._spool.append(record_of(bare(interaction), exchange.started_ms))
            self._shed("event" if kept is None else "text")

    def _to_disk(self) -> None:
        """Put what the producer has not confirmed on disk as well, in order, but do not hand it over twice.

        Where something waits on disk already, all of it is there.
        """
        if len(self._spool):
            return
        for flying in self._flying:
            if not flying.done:
                flying.position = self._spool.append(flying.out)
        self._spool.read_to_end()

    def _settle(self) -> None:
        """Forget what was delivered, from the oldest on."""
        position = None
        while self._flying and self._flying[0].done:
            position = self._flying.popleft().position or position
        if position is not None:
            self._spool.confirm(position)

    def _drain(self) -> None:
        """Hand over what waits on disk, as far as not too much is on its way."""
        partitions = self._partitions()
        if not self._spool.unread or len(self._flying) >= _BATCH or not partitions:
            return
        room = _BATCH_BYTES - sum(len(flying.out.value or b"") for flying in self._flying)
        for position, out in self._spool.read(_BATCH - len(self._flying), room):
            flying = _Flying(out, self._clock(), position)
            try:
                self._hand_over(flying, partitions)
            except BufferError:
                self._spool.rewind(self._flying[-1].position if self._flying else None)
                return
            self._flying.append(flying)

    def _hand_over(self, flying: _Flying, partitions: int) -> None:
        out = flying.out
        placed = dataclasses.replace(out, partition=partition_by_key(out.key or b"", partitions))
        self._producer.produce(placed, self._on_delivery(flying))

    def _replace_producer(self) -> None:
        """A producer that cannot go on takes what it has with it: all of that is on disk first and is handed over again."""
        _log.warning("the producer is made anew")
        self._to_disk()
        self._settle()
        for _ in range(sum(flying.position is None for flying in self._flying)):
            self._shed("event")
        self._flying.clear()
        self._spool.rewind()
        self._producer = self._make_producer()

    def _on_delivery(self, flying: _Flying) -> OnDelivery:
        def report(_: int | None, reason: str | None) -> None:
            flying.done = True
            if reason is not None:
                _log.error("the broker refuses an interaction", extra={"fields": {"reason": reason}})
                self._shed("refused")

        return report

    def _shed(self, what: str) -> None:
        self.shed += 1
        self._count_shed(what)


class BrokerKnown:
    """Learns the topic's number of partitions in a thread of its own, since asking waits for the broker."""

    def __init__(self, ask: Callable[[], int]) -> None:
        self._ask = ask
        self._count: int | None = None
        self._asking: threading.Thread | None = None

    def __call__(self) -> int | None:
        """The number, or None while it is being asked for. `ask` raises BufferError when no broker answers."""
        if self._count is None and (self._asking is None or not self._asking.is_alive()):
            self._asking = threading.Thread(target=self._learn, daemon=True)
            self._asking.start()
        return self._count

    def _learn(self) -> None:
        with contextlib.suppress(BufferError):
            self._count = self._ask()


def _readable(exchange: Exchange) -> Interaction:
    answer = b"".join(exchange.answer)
    try:
        answer = decompress(answer, exchange.encoding, _MAX_ANSWER)
    except (BodyTooLarge, InvalidMessage):
        answer = b""
    return interaction_of(exchange, answer)
