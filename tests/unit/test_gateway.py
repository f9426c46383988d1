"""The gateway's parts without a network: emission, lease and routes."""

from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from adapters.kafka import ProduceFailed
from adapters.memory import MemoryLog, MemoryProducer
from adapters.spool import Spool
from core.chat import Exchange
from core.routing import first_table, with_candidate, with_champion
from schemas import codec
from schemas.messages import CallConfiguration, GatewayReport, Interaction, RouteTable
from schemas.topics import GATEWAYS, INTERACTIONS
from services.gateway_emission import Emission
from services.gateway_lease import GRACE_MS, Lease
from services.gateway_routes import Routes

KEY = ("desk", "production")
OLD, NEW = CallConfiguration(model="old"), CallConfiguration(model="new")


class Bench:
    """An emission over a log in memory, stepped by hand."""

    def __init__(self, folder: Path, *, max_bytes: int = 1_000_000, known: bool = True) -> None:
        self.log = MemoryLog({INTERACTIONS: 1})
        self.producers: list[MemoryProducer] = []
        self.now, self.partitions = 0.0, 1 if known else None
        self.shed: list[str] = []
        self.spool = Spool(folder, max_bytes)
        self.emission = Emission(
            self.spool, self._producer, lambda: self.partitions, instance="g", shed=self.shed.append, clock=lambda: self.now
        )

    @property
    def producer(self) -> MemoryProducer:
        return self.producers[-1]

    def _producer(self) -> MemoryProducer:
        self.producers.append(MemoryProducer(self.log))
        return self.producers[-1]

    def emit(self, *numbers: int, text: str = "") -> None:
        for number in numbers:
            sent = b'{"messages":[{"role":"user","content":"%s"}]}' % text.encode()
            self.emission.offer(
                Exchange(id=str(number), app="desk", environment="production", started_ms=0, turn=1, sent=sent, status=200)
            )
        self.step()

    def step(self, seconds: float = 0.0) -> None:
        self.now += seconds
        for _ in range(3):
            self.emission._step(0.001)

    def found(self) -> list[Interaction]:
        return [codec.decode(Interaction, r.value) for r in self.log.read(INTERACTIONS, 0, 0, 1_000)]

    def ids(self) -> list[int]:
        return [int(i.id) for i in self.found()]


def test_what_is_offered_reaches_the_log_with_a_sequence(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    bench.emit(0, 1, 2)
    assert [(i.id, i.producer_instance, i.producer_sequence) for i in bench.found()] == [
        ("0", "g", 0),
        ("1", "g", 1),
        ("2", "g", 2),
    ]


def test_while_no_broker_has_answered_everything_waits_on_disk(tmp_path: Path) -> None:
    bench = Bench(tmp_path, known=False)
    bench.emit(0, 1)
    assert (bench.ids(), bench.emission.spooled) == ([], 2)
    bench.partitions = 1
    bench.step()
    assert (bench.ids(), bench.emission.spooled) == ([0, 1], 0)


def test_what_is_not_confirmed_in_time_goes_to_disk_and_arrives_once(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    bench.producer.broker_away = True
    bench.emit(0, 1)
    bench.step(2)
    assert bench.emission.spooled == 2
    bench.emit(2)
    bench.producer.broker_away = False
    bench.step()
    assert (bench.ids(), bench.emission.spooled) == ([0, 1, 2], 0)


def test_what_is_on_disk_survives_the_process(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    bench.producer.broker_away = True
    bench.emit(0, 1)
    bench.step(2)
    bench.emit(2)
    bench.spool.close()
    again = Bench(tmp_path)
    again.emit(3)
    assert again.ids() == [0, 1, 2, 3]


def test_a_queue_that_is_full_leads_to_disk_in_order(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    bench.producer._max_queued = 2
    bench.producer.broker_away = True
    bench.emit(0, 1, 2, 3)
    assert bench.emission.spooled == 4
    bench.producer.broker_away = False
    bench.step()
    assert bench.ids() == [0, 1, 2, 3]


class Broken(MemoryProducer):
    """A producer that is beyond repair."""

    def poll(self) -> None:
        raise ProduceFailed("fatal")


def test_a_producer_that_is_beyond_repair_is_replaced_and_nothing_is_lost(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    bench.emission._producer = Broken(bench.log)
    bench.emit(0, 1)
    bench.step()
    assert bench.ids() == [0, 1]


def test_a_full_spool_sheds_texts_and_then_events(tmp_path: Path) -> None:
    bench = Bench(tmp_path, max_bytes=4_000, known=False)
    bench.emit(*range(20), text="x" * 1_000)
    bench.partitions = 1
    bench.step()
    found = bench.found()
    texts = [bool(i.input) for i in found]
    assert (texts, bench.ids()) == (sorted(texts, reverse=True), list(range(len(found))))
    assert bench.shed == ["text"] * texts.count(False) + ["event"] * (20 - len(found))
    assert set(texts) == {True, False}


def lease(producer: MemoryProducer, now: list[float], refresh: Callable[[], bool] = lambda: True) -> Lease:
    return Lease("g", "1", lambda: producer, clock=lambda: now[0], refresh=refresh)


def test_a_lease_holds_only_once_a_report_was_confirmed() -> None:
    log, now = MemoryLog({GATEWAYS: 1}), [100.0]
    one = lease(MemoryProducer(log), now)
    before = one.holds()
    assert one.report()
    assert (before, one.holds()) == (False, True)
    report = codec.decode(GatewayReport, log.read(GATEWAYS, 0, 0, 10)[0].value)
    assert (report.instance, report.sequence, report.stopped) == ("g", 0, False)


def test_a_lease_that_lapsed_counts_again_only_with_the_routes_read_to_their_end() -> None:
    now, current, asked = [100.0], [True], list[float]()

    def refresh() -> bool:
        asked.append(now[0])
        return current[0]

    one = lease(MemoryProducer(MemoryLog({GATEWAYS: 1})), now, refresh)
    one.report()
    now[0] += 1
    one.report()  # it holds: nothing is read again
    now[0] += GRACE_MS / 1000
    current[0] = False
    assert one.report()
    lapsed = one.holds()
    current[0] = True
    one.report()
    assert (lapsed, one.holds(), asked) == (False, True, [100.0, 111.0, 111.0])


@pytest.mark.parametrize(("seconds", "holds"), [(GRACE_MS / 1000 - 0.001, True), (GRACE_MS / 1000, False)])
def test_a_lease_lapses_after_the_grace(seconds: float, holds: bool) -> None:
    now = [100.0]
    one = lease(MemoryProducer(MemoryLog({GATEWAYS: 1})), now)
    one.report()
    now[0] += seconds
    assert one.holds() is holds


def test_a_report_that_is_not_confirmed_renews_nothing() -> None:
    producer, now = MemoryProducer(MemoryLog({GATEWAYS: 1})), [100.0]
    one = lease(producer, now)
    one.report()
    producer.broker_away = True
    now[0] += 5
    assert not one.report()
    assert one.confirmed == 100.0


def first() -> RouteTable:
    return first_table(*KEY, "old", OLD, actor="t", reason="r")


def trial() -> RouteTable:
    return with_candidate(first(), "new", NEW, 10_000, experiment="e", actor="t", reason="r")


def test_starts_are_counted_from_the_epoch_on_and_running_ones_stay(tmp_path: Path) -> None:
    routes = Routes(tmp_path / "routes.json")
    routes.apply({KEY: first()})
    choice = routes.choose(KEY, "u")
    assert choice is not None
    assert routes.begin(choice, "u")
    assert (routes.reports()[0].started, routes.reports()[0].running) == ({"old": 1}, {"old": 1})
    routes.apply({KEY: trial()})
    assert (routes.reports()[0].started, routes.reports()[0].running) == ({}, {"old": 1})
    routes.finish(choice)
    assert routes.reports()[0].running == {}


def test_a_choice_that_was_overtaken_by_a_new_table_may_not_begin(tmp_path: Path) -> None:
    routes = Routes(tmp_path / "routes.json")
    routes.apply({KEY: trial()})
    choice = routes.choose(KEY, "u")
    assert choice is not None
    routes.apply({KEY: with_champion(trial(), "old", actor="t", reason="r", bad=["new"])})
    assert not routes.begin(choice, "u")
    assert routes.reports()[0].started == {}


def test_a_choice_that_outlives_the_lease_may_not_begin(tmp_path: Path) -> None:
    holds = [True]
    routes = Routes(tmp_path / "routes.json", lambda: holds[0])
    routes.apply({KEY: trial()})
    choice = routes.choose(KEY, "u")
    holds[0] = False
    assert choice is not None
    assert (choice.version, routes.begin(choice, "u")) == ("new", False)
    again = routes.choose(KEY, "u")
    assert again is not None
    assert (again.version, routes.begin(again, "u")) == ("old", True)


def test_what_was_applied_is_there_after_a_new_start(tmp_path: Path) -> None:
    Routes(tmp_path / "routes.json").apply({KEY: trial()})
    again = Routes(tmp_path / "routes.json")
    again.load()
    assert (again.reports()[0].epoch, (tmp_path / "routes.json").stat().st_mode & 0o777) == (2, 0o600)


@pytest.mark.parametrize("text", [b"", b"{", b'[{"app":1}]', b"\xff", b"[1]"])
def test_routes_on_disk_that_cannot_be_read_count_as_none(tmp_path: Path, text: bytes) -> None:
    (tmp_path / "routes.json").write_bytes(text)
    routes = Routes(tmp_path / "routes.json")
    routes.load()
    assert routes.reports() == []


def test_a_table_without_its_champions_configuration_changes_nothing(tmp_path: Path) -> None:
    routes = Routes(tmp_path / "routes.json")
    routes.apply({KEY: first()})
    assert not routes.apply({KEY: RouteTable(app="desk", environment="production", epoch=9, based_on=8, champion="gone")})
    assert routes.reports()[0].epoch == 1


def test_the_same_table_again_resets_no_count(tmp_path: Path) -> None:
    routes = Routes(tmp_path / "routes.json")
    routes.apply({KEY: first()})
    choice = routes.choose(KEY, "u")
    assert choice is not None
    routes.begin(choice, "u")
    assert not routes.apply({KEY: first()})
    assert routes.reports()[0].started == {"old": 1}


def test_a_route_that_is_taken_away_is_gone(tmp_path: Path) -> None:
    routes = Routes(tmp_path / "routes.json")
    routes.apply({KEY: first()})
    routes.apply({KEY: None})
    assert (routes.choose(KEY, "u"), routes.reports()) == (None, [])


def test_a_table_of_an_earlier_epoch_changes_nothing(tmp_path: Path) -> None:
    routes = Routes(tmp_path / "routes.json")
    newer = msgspec.structs.replace(trial(), epoch=trial().epoch + 1)
    assert routes.apply({KEY: newer})
    assert not routes.apply({KEY: trial()})
    assert [report.epoch for report in routes.reports()] == [newer.epoch]
