"""Ticks: one per silent partition and window, again while the broker's clock lies behind, none where there is more to read."""

import asyncio
from collections.abc import Iterable

from adapters.memory import MemoryLog, MemoryProducer
from core.blocks import Place as BlockPlace
from core.blocks import begin
from schemas.topics import INTERACTIONS
from streams.ticker import Place, Ticker
from tests.unit.test_blocks import ACTIVE

BORDER = 1_700_000_000_000


class Partitions:
    """Three partitions as the test says they are."""

    def __init__(self) -> None:
        self.windows = {(INTERACTIONS, 0): BORDER - 5_000, (INTERACTIONS, 1): BORDER, (INTERACTIONS, 2): -1}
        self.behind: set[Place] = set()

    def owned(self) -> Iterable[Place]:
        return list(self.windows)

    def newest_window(self, place: Place) -> int:
        return self.windows[place]

    def at_end(self, place: Place) -> bool:
        return place not in self.behind


def _beat(partitions: Partitions, clock_ms: int = BORDER + 200) -> tuple[MemoryLog, list[Place], Ticker]:
    log = MemoryLog({INTERACTIONS: 3})
    ticker = Ticker(partitions, MemoryProducer(log, clock_ms=clock_ms))
    again = asyncio.run(ticker.beat(BORDER, partitions.owned()))
    return log, again, ticker


def _ticked(log: MemoryLog) -> list[int]:
    return [partition for _, partition in log.recorded.places(INTERACTIONS) if log.recorded.of(INTERACTIONS, partition)]


def test_partitions_without_a_record_of_the_new_window_are_ticked() -> None:
    log, again, _ = _beat(Partitions())
    assert (_ticked(log), again) == ([0, 2], [])


def test_a_partition_with_more_to_read_is_not_ticked() -> None:
    partitions = Partitions()
    partitions.behind.add((INTERACTIONS, 0))
    log, _, _ = _beat(partitions)
    assert _ticked(log) == [2]


def test_a_tick_that_the_broker_stamped_before_the_border_is_repeated() -> None:
    _, again, _ = _beat(Partitions(), clock_ms=BORDER - 1)
    assert again == [(INTERACTIONS, 0), (INTERACTIONS, 2)]


def test_a_broker_that_is_away_is_counted_and_not_waited_for() -> None:
    partitions = Partitions()
    producer = MemoryProducer(MemoryLog({INTERACTIONS: 3}))
    producer.broker_away = True
    ticker = Ticker(partitions, producer)
    assert asyncio.run(ticker.beat(BORDER, partitions.owned())) == []
    assert ticker.failed == 1


def test_a_tick_is_a_tick_to_the_block_that_it_closes() -> None:
    log, _, _ = _beat(Partitions())
    block = begin(BlockPlace(INTERACTIONS, "id", 0), BORDER, 0, ACTIVE)
    assert block.step(log.recorded.of(INTERACTIONS, 0)) == []
    assert block.counts.tick == 1
