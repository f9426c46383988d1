"""The outcome of a story: what `bellbuoy demo --json` prints last, and what is not as it should be."""

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

import msgspec

from bellbuoy.narrator import Narrator
from bellbuoy.watch import Told
from core.ledger import Ledger
from schemas.codec import rfc3339


class DetectionReport(msgspec.Struct, kw_only=True):
    metric: str
    slice: str
    opened_at: str
    delay_events: int | None
    delay_seconds: float | None


class ActionReport(msgspec.Struct, kw_only=True):
    id: str
    kind: str
    target: dict[str, Any]
    state: str


class PromotionReport(msgspec.Struct, kw_only=True):
    """`seconds` from the request to retrain until the new version answered everything; `gate`: passed, or why not."""

    promoted: bool = False
    seconds: float | None = None
    gate: str | None = None


class RollbackReport(msgspec.Struct, kw_only=True):
    """`seconds` from the request to roll back until it was verified."""

    verified: bool = False
    seconds: float | None = None


class DemoReport(msgspec.Struct, kw_only=True):
    """The last line of `bellbuoy demo --json`."""

    ledger: dict[str, int]
    detections: list[DetectionReport]
    actions: list[ActionReport]
    events_per_second: float
    promotion: PromotionReport
    rollback: RollbackReport


@dataclass(frozen=True)
class Expected:
    """What a story must bring, and nothing else: alerts by (metric, slice), actions by (kind, state)."""

    alerts: Collection[tuple[str, str]]
    actions: Collection[tuple[str, str]]


def report(told: Told, narrator: Narrator, ledger: Ledger, events_per_second: float) -> DemoReport:
    """What was seen of one app, put together."""
    detections = []
    for alert, append_time in told.fired():
        delay = narrator.delay(alert, append_time)
        detections.append(
            DetectionReport(
                metric=alert.metric,
                slice=alert.slice,
                opened_at=rfc3339(append_time),
                delay_events=delay[0] if delay else None,
                delay_seconds=delay[1] if delay else None,
            )
        )
    return DemoReport(
        ledger={name: getattr(ledger, name) for name in ("received", "stored", "dead", "missing", "repeated")},
        detections=detections,
        actions=[
            ActionReport(id=a.id, kind=a.kind, target=msgspec.to_builtins(a.target), state=a.state)
            for a in told.actions().values()
        ],
        events_per_second=round(events_per_second, 1),
        promotion=_promotion(told),
        rollback=_rollback(told),
    )


def _promotion(told: Told) -> PromotionReport:
    asked = told.span("retrain")
    tried = told.span("canary")
    gate = None
    if asked is not None and asked.last.state in ("succeeded", "failed"):
        gate = "passed" if asked.last.state == "succeeded" else asked.last.reason
    if asked is None or tried is None or tried.last.state != "succeeded":
        return PromotionReport(gate=gate)
    return PromotionReport(promoted=True, seconds=(tried.ended - asked.began) / 1000, gate=gate)


def _rollback(told: Told) -> RollbackReport:
    asked = told.span("rollback")
    if asked is None or asked.last.state != "succeeded":
        return RollbackReport()
    return RollbackReport(verified=True, seconds=(asked.ended - asked.began) / 1000)


def problems(found: DemoReport, expected: Expected | None) -> list[str]:
    """What is not as it should be, in words; `expected` None: only the ledger is judged."""
    out = []
    ledger = found.ledger
    if ledger["missing"]:
        out.append(f"{ledger['missing']} records are missing; `bellbuoy ledger --verify` names them")
    if ledger["received"] != ledger["stored"] + ledger["dead"] + ledger["missing"]:
        out.append(f"the ledger does not add up: {ledger}")
    if expected is None:
        return out
    got = {(d.metric, d.slice) for d in found.detections}
    out += [f"alert {metric} on {slice_} was not expected" for metric, slice_ in sorted(got - set(expected.alerts))]
    out += [f"alert {metric} on {slice_} did not come" for metric, slice_ in sorted(set(expected.alerts) - got)]
    asked = sorted((a.kind, a.state) for a in found.actions)
    if asked != sorted(expected.actions):
        out.append(f"actions {asked} instead of {sorted(expected.actions)}")
    return out
