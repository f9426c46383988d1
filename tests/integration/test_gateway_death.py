"""What the supervisor records for a gateway that died."""

import threading

import pytest

from adapters.gateways import read_gateways
from adapters.kafka_producer import HotProducer
from adapters.settings import Settings
from bellbuoy.gateway_death import record_death
from schemas.codec import Outgoing, cloud_headers, encode
from schemas.messages import GatewayReport
from schemas.topics import GATEWAYS

pytestmark = pytest.mark.integration


def report(settings: Settings, incarnation: str, *, instance: str, stopped: bool = False) -> None:
    message = GatewayReport(instance=instance, incarnation=incarnation, sequence=1, stopped=stopped)
    headers = cloud_headers(GatewayReport, id_=f"{instance}/{incarnation}/1", time_ms=0, source="test")
    producer = HotProducer(settings, linger_ms=0)
    producer.produce(Outgoing(GATEWAYS, instance.encode(), encode(message), headers, 0), lambda *_: None)
    producer.flush(30)


def last(settings: Settings, instance: str) -> GatewayReport:
    return read_gateways(settings)[instance][0]


def test_the_last_incarnation_is_recorded_as_dead(broker: Settings) -> None:
    report(broker, "one", instance="dead")
    assert record_death(broker, "dead", threading.Event())
    assert (last(broker, "dead").incarnation, last(broker, "dead").known_dead) == ("one", "supervisor")


def test_a_gateway_that_was_started_again_speaks_for_itself(broker: Settings) -> None:
    report(broker, "one", instance="again")
    again = threading.Event()
    again.set()
    assert not record_death(broker, "again", again)
    assert last(broker, "again").known_dead is None


def test_a_gateway_that_stopped_cleanly_is_not_said_to_be_dead(broker: Settings) -> None:
    report(broker, "one", instance="stopped", stopped=True)
    assert not record_death(broker, "stopped", threading.Event())
    assert last(broker, "stopped").known_dead is None


def test_a_gateway_that_never_reported_needs_no_word(broker: Settings) -> None:
    assert not record_death(broker, "unknown", threading.Event())
