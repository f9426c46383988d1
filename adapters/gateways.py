"""What gateways say on llm.gateways: their last reports, and that one of them is known to be dead."""

import contextlib
import time
from contextlib import closing

import msgspec

from adapters.follow import Follower
from adapters.kafka import control_producer
from adapters.settings import Settings
from schemas.codec import InvalidMessage, Outgoing, Record, cloud_headers, encode, read
from schemas.messages import GatewayReport
from schemas.topics import GATEWAYS


def report_of(record: Record) -> GatewayReport | None:
    """The report that a record of llm.gateways holds; None for one that is no report, or not under its instance's key."""
    if record.value is None:
        return None
    with contextlib.suppress(InvalidMessage):
        message = read(record)
        if isinstance(message, GatewayReport) and record.key == message.instance.encode():
            return message
    return None


def read_gateways(settings: Settings) -> dict[str, tuple[GatewayReport, int]]:
    """The last report of every instance, with its append time (ms)."""
    reports: dict[str, tuple[GatewayReport, int]] = {}
    with Follower(settings, [GATEWAYS]) as follower:
        records = follower.read_to_end()
    for _, record in records:
        report = report_of(record)
        if report is not None:
            reports[report.instance] = (report, record.timestamp)
        elif record.value is None and record.key is not None:
            reports.pop(record.key.decode(errors="replace"), None)
    return reports


def mark_dead(settings: Settings, instance: str, who: str, incarnation: str | None = None) -> GatewayReport | None:
    """Say on a gateway's behalf that its process is gone; returns what was written.

    None where there is nothing to say: no such instance, an end that is known already, or, where `incarnation` names the
    process that died, a newer one that has reported since.
    """
    report, _ = read_gateways(settings).get(instance, (None, 0))
    if report is None or report.stopped or report.known_dead is not None or incarnation not in (None, report.incarnation):
        return None
    dead = msgspec.structs.replace(report, known_dead=who, sequence=report.sequence + 1, extra={})
    out = report_record(dead)
    with closing(control_producer(settings, None)) as producer:
        future = producer.send(out.topic, value=out.value, key=out.key, headers=list(out.headers), partition=out.partition)
        producer.flush(timeout=10)
        future.get(timeout=1)
    return dead


def report_record(report: GatewayReport) -> Outgoing:
    """A report as its record."""
    id_ = f"{report.instance}/{report.incarnation}/{report.sequence}"
    headers = cloud_headers(GatewayReport, id_=id_, time_ms=int(time.time() * 1000), source="bellbuoy.gateways")
    return Outgoing(GATEWAYS, report.instance.encode(), encode(report), headers, 0)
