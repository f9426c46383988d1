"""Whether a rollback is done: judged from the gateways' own reports, never from the store.

Verified: every instance with a live lease reports the route's epoch (or a later one) and no request started on the bad version
since. One that went silent is safe once its lease has been over for its grace period, unless the bad version was the champion of
the last table that it confirmed: by then its own clock has made it route to champions only.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final, Literal

from schemas.messages import GatewayReport, RouteReport

PATIENCE_MS: Final = 30_000
"""After this a rollback that is not verified is `unverified`, and pages."""
FORGOTTEN_MS: Final = 24 * 3_600_000
"""An instance that has been silent for so long, and had ended well, is not asked for any more."""


Reports = Mapping[str, tuple[GatewayReport, int]]
"""Instance → its last report and that report's append time (ms)."""


@dataclass(frozen=True)
class Verdict:
    """What the reports say at one moment."""

    outcome: Literal["verified", "waiting", "unverified"]
    confirmed: list[str] = field(default_factory=list)
    """Instances that have confirmed, or are known to be safe."""
    waiting: dict[str, str] = field(default_factory=dict)
    """Instance → why it does not count yet."""
    running: int = 0
    """Requests on the bad version that started before and still run (streams)."""

    @property
    def reason(self) -> str:
        """The verdict in one sentence."""
        if self.waiting:
            named = "; ".join(f"{instance}: {why}" for instance, why in sorted(self.waiting.items()))
            return f"{self.outcome}, {named}"
        if not self.confirmed:
            return "verified: no gateway has ever reported, so none can route to the bad version"
        still = f"; {self.running} that started before still run" if self.running else ""
        return f"verified by {', '.join(sorted(self.confirmed))}: no request started on the bad version{still}"


def verify(reports: Reports, app: str, environment: str, epoch: int, bad: Iterable[str], *, changed: int, now: int) -> Verdict:
    """Judge a rollback. `epoch` is that of the route without the `bad` versions, `changed` its append time, `now` the broker's
    time; all times in ms."""
    avoided = frozenset(bad)
    confirmed, waiting, running = [], {}, 0
    for instance, (report, time) in reports.items():
        why = _why_not(report, time, app, environment, epoch, avoided, changed=changed, now=now)
        route = _route(report, app, environment)
        if route is not None and not _gone(report):
            running += sum(count for version, count in route.running.items() if version in avoided)
        if why is None:
            confirmed.append(instance)
        else:
            waiting[instance] = why
    if not waiting:
        return Verdict("verified", confirmed, {}, running)
    return Verdict("unverified" if now - changed >= PATIENCE_MS else "waiting", confirmed, waiting, running)


def _why_not(
    report: GatewayReport, time: int, app: str, environment: str, epoch: int, bad: frozenset[str], *, changed: int, now: int
) -> str | None:
    """None where an instance cannot start a request on the bad version any more."""
    over = now - time - report.lease_ms
    if _gone(report):
        return None
    route = _route(report, app, environment)
    if route is not None and route.epoch >= epoch:
        started = {version: count for version, count in route.started.items() if version in bad and count}
        if started and route.champion not in bad:
            return f"{sum(started.values())} requests started on {', '.join(sorted(started))} under epoch {route.epoch}"
        return None
    if over < 0:
        at = "no route" if route is None else f"epoch {route.epoch}"
        return f"has {at}, not yet epoch {epoch}"
    if over < report.grace_ms:
        return f"silent; safe in {(report.grace_ms - over) / 1000:.0f} s at the earliest"
    if route is None or route.champion not in bad:
        return None
    if over > FORGOTTEN_MS and time < changed - FORGOTTEN_MS:
        return None
    return f"silent, and {route.champion} was its champion: it may still be routing to it"


def _gone(report: GatewayReport) -> bool:
    return report.stopped or report.known_dead is not None


def _route(report: GatewayReport, app: str, environment: str) -> RouteReport | None:
    for route in report.routes:
        if (route.app, route.environment) == (app, environment):
            return route
    return None
