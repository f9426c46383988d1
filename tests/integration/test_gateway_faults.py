"""The gateway while the broker is away, after kill -9, and when it was stopped for longer than its lease."""

import contextlib
import signal
import stat
import time
from collections import defaultdict
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import openai
import pytest

from adapters.kafka import ensure_topics
from adapters.process import pick_port
from adapters.routes import RouteWriter
from adapters.settings import Settings
from core.routing import with_candidate, with_champion, without_candidate
from schemas.messages import CallConfiguration, GatewayReport, Interaction
from tests.conftest import StartBroker, broker_settings, connected
from tests.integration.gateway_process import Provider, Running, arrived, gateway, release, reports, until

pytestmark = pytest.mark.integration
ALL = 10_000


@pytest.fixture(scope="module")
def provider() -> Iterator[Provider]:
    with Provider().running() as provider:
        yield provider


def canary(settings: Settings, app: str, weight: int = ALL) -> int:
    """Route an app to a candidate; the epoch."""
    release(settings, app, "good")
    with RouteWriter(settings, app, "production") as writer:
        new = CallConfiguration(model="model-of-new")

        def change(now: object) -> object:
            return with_candidate(now, "new", new, weight, experiment="e", actor="test", reason="a test")  # type: ignore[arg-type]  # the table is there

        return writer.change(change).epoch  # type: ignore[arg-type]  # as above


def last(settings: Settings, instance: str) -> GatewayReport:
    return reports(settings, instance)[-1]


def in_order(found: list[Interaction]) -> bool:
    """Whether each conversation's turns stand in the order in which they were asked."""
    asked = defaultdict(list)
    for interaction in found:
        asked[interaction.conversation].append(int(str(interaction.input[-1].content)))
    return all(numbers == sorted(set(numbers)) for numbers in asked.values())


def converse(one: Running, app: str, numbers: range) -> None:
    """Ask in four conversations at once; raises where a request is refused."""

    def conversation(name: int) -> None:
        for number in numbers:
            one.ask(app, str(number), extra_headers={"x-bellbuoy-conversation": f"c{name}"})

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(conversation, range(4)))


def test_while_the_broker_is_away_nobody_is_refused_and_afterwards_nothing_is_lost(
    start_broker: StartBroker, provider: Provider, tmp_path: Path
) -> None:
    broker = start_broker()
    settings = connected(tmp_path / "bellbuoy", broker)
    ensure_topics(settings, embedded=True)
    with gateway(settings, provider.url, tmp_path / "log") as one:
        one.wait()
        converse(one, "away", range(10))
        broker.kill()
        converse(one, "away", range(10, 40))
        time.sleep(2)
        spool = settings.data_dir / "gateway" / settings.instance / "spool"
        assert {stat.S_IMODE(path.stat().st_mode) for path in spool.glob("*.spool")} == {0o600}
        converse(one, "away", range(40, 50))
        broker.start()
        converse(one, "away", range(50, 60))
        found = arrived(settings, "away", 240)
        assert (len(found), in_order(found)) == (240, True)
        assert sorted(i.producer_sequence or 0 for i in found) == list(range(240))
        until(lambda: last(settings, settings.instance).spooled == 0)
        assert list(spool.glob("*.spool")) == []


def test_what_was_on_disk_arrives_after_kill_9(start_broker: StartBroker, provider: Provider, tmp_path: Path) -> None:
    broker = start_broker()
    settings = connected(tmp_path / "bellbuoy", broker)
    ensure_topics(settings, embedded=True)
    with gateway(settings, provider.url, tmp_path / "log") as one:
        one.wait()
        one.ask("killed", "0")
        arrived(settings, "killed", 1)
        broker.kill()
        converse(one, "killed", range(1, 10))
        time.sleep(2.5)
        one.kill()
    with gateway(settings, provider.url, tmp_path / "log") as one:
        one.wait()
        one.ask("killed", "10")
        broker.start()
        found = arrived(settings, "killed", 38)
    assert len({i.id for i in found}) == 38
    assert len(found) == 38


def test_a_start_without_a_broker_serves_the_champions_that_are_on_disk(
    start_broker: StartBroker, provider: Provider, tmp_path: Path
) -> None:
    broker = start_broker()
    settings = connected(tmp_path / "bellbuoy", broker)
    ensure_topics(settings, embedded=True)
    canary(settings, "known")
    with gateway(settings, provider.url, tmp_path / "log") as one:
        one.wait()
        until(lambda: one.ask("known").headers.get("x-bellbuoy-version") == "new")
    broker.kill()
    with gateway(settings, provider.url, tmp_path / "log") as one:
        one.wait()
        assert {one.ask("known").headers["x-bellbuoy-version"] for _ in range(10)} == {"good"}
        broker.start()
        until(lambda: one.ask("known").headers["x-bellbuoy-version"] == "new")


def test_a_start_serves_nothing_from_disk_that_the_log_has_replaced(broker: Settings, tmp_path: Path) -> None:
    settings = broker.model_copy(update={"instance": "came-back"})
    with Provider().running() as provider:
        release(settings, "replaced", "bad")
        with gateway(settings, provider.url, tmp_path / "log") as one:
            one.wait()
            until(lambda: one.ask("replaced").headers.get("x-bellbuoy-version") == "bad")
            one.kill()
        with RouteWriter(settings, "replaced", "production") as writer:
            good = CallConfiguration(model="model-of-good")
            writer.change(lambda now: with_champion(now, "good", good, actor="test", reason="a rollback", bad=["bad"]))  # type: ignore[arg-type]  # the table is there
        before = len(provider.requests)
        with gateway(settings, provider.url, tmp_path / "log") as one:

            def answer() -> object:
                with contextlib.suppress(openai.APIConnectionError):
                    return one.ask("replaced")
                return None

            until(answer)
            for _ in range(50):
                one.ask("replaced")
        assert set(provider.models()[before:]) == {"model-of-good"}


def test_routes_that_the_disk_does_not_take_stop_no_request_and_are_applied_later(
    broker: Settings, provider: Provider, tmp_path: Path
) -> None:
    settings = broker.model_copy(update={"instance": "full-disk"})
    release(settings, "first-app", "good")
    with gateway(settings, provider.url, tmp_path / "log") as one:
        one.wait()
        in_the_way = settings.data_dir / "gateway" / settings.instance / "routes.new"
        in_the_way.mkdir()
        release(settings, "second-app", "new")
        until(lambda: "the routes cannot be kept on disk" in one.log.read_text())
        assert one.ask("first-app").headers["x-bellbuoy-version"] == "good"
        in_the_way.rmdir()
        until(lambda: one.ask("second-app").headers.get("x-bellbuoy-version") == "new")


def test_a_gateway_that_never_saw_a_broker_passes_requests_on_and_stops(provider: Provider, tmp_path: Path) -> None:
    address = f"127.0.0.1:{pick_port('127.0.0.1', (0,))}"
    settings = broker_settings(tmp_path, KAFKA_BOOTSTRAP_SERVERS=address)
    with gateway(settings, provider.url, tmp_path / "log") as one:
        one.wait()
        assert one.ask("alone").headers["x-bellbuoy-id"]
        assert one.stop() == 0, one.log.read_text()


def test_after_a_stop_longer_than_its_grace_no_request_starts_on_a_candidate_that_was_rolled_back_meanwhile(
    broker: Settings, provider: Provider, tmp_path: Path
) -> None:
    settings = broker.model_copy(update={"instance": "stopped-for-long"})
    with gateway(settings, provider.url, tmp_path / "log") as one:
        one.wait()
        epoch = canary(settings, "paused")
        until(lambda: reports(settings, settings.instance) and last(settings, settings.instance).routes)
        until(lambda: any(r.app == "paused" and r.epoch == epoch for r in last(settings, settings.instance).routes))
        until(lambda: one.ask("paused").headers["x-bellbuoy-version"] == "new")
        with ThreadPoolExecutor(8) as pool:
            one.process.send_signal(signal.SIGSTOP)
            waiting = [pool.submit(one.ask, "paused", "during") for _ in range(8)]
            time.sleep(11)
            with RouteWriter(settings, "paused", "production") as writer:
                writer.change(lambda now: without_candidate(now, actor="test", reason="a rollback"))  # type: ignore[arg-type]  # the table is there
            one.process.send_signal(signal.SIGCONT)
            versions = {answer.result().headers["x-bellbuoy-version"] for answer in waiting}
        versions |= {one.ask("paused", "during").headers["x-bellbuoy-version"] for _ in range(50)}
        during = [r["model"] for r in provider.requests if r["messages"][-1]["content"] == "during"]
        assert (versions, set(during)) == ({"good"}, {"model-of-good"})


def test_a_lease_that_lapses_routes_to_champions_until_the_broker_is_back(
    start_broker: StartBroker, provider: Provider, tmp_path: Path
) -> None:
    broker = start_broker()
    settings = connected(tmp_path / "bellbuoy", broker)
    ensure_topics(settings, embedded=True)
    canary(settings, "lapsed")
    with gateway(settings, provider.url, tmp_path / "log") as one:
        one.wait()
        until(lambda: one.ask("lapsed").headers.get("x-bellbuoy-version") == "new")
        broker.kill()
        assert one.ask("lapsed").headers["x-bellbuoy-version"] == "new"
        until(lambda: one.ask("lapsed").headers["x-bellbuoy-version"] == "good")
        broker.start()
        until(lambda: one.ask("lapsed").headers["x-bellbuoy-version"] == "new")
        routes = last(settings, settings.instance).routes[0]
        assert set(routes.started) == {"good", "new"}


def test_a_full_spool_sheds_texts_first_and_counts_them(start_broker: StartBroker, provider: Provider, tmp_path: Path) -> None:
    broker = start_broker()
    settings = connected(tmp_path / "bellbuoy", broker)
    ensure_topics(settings, embedded=True)
    with gateway(settings, provider.url, tmp_path / "log", BELLBUOY_GATEWAY_SPOOL_MB="1") as one:
        one.wait()
        broker.kill()
        one.ask("before", "what waits on disk is what the rest has to wait behind")
        until(lambda: "bellbuoy_gateway_spooled 1.0" in httpx.get(f"http://127.0.0.1:{one.port}/metrics").text)
        for number in range(30):
            one.ask("full", f"{number} " + "x" * 100_000)
        broker.start()
        found = arrived(settings, "full", 30)
        shed = [i for i in found if i.attributes == {"text": "shed"}]
        assert (len(found), len({i.id for i in found})) == (30, 30)
        assert 15 < len(shed) < 30
        assert all(i.input == [] for i in shed)
        until(lambda: last(settings, settings.instance).shed == len(shed))
