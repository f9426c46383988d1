"""Whether a rollback holds: read from the gateways' own reports, told the broker's time."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final, Literal

from schemas.codec import rfc3339
from schemas.messages import GatewayReport, RouteReport, RouteTable

UNVERIFIED_AFTER_MS: Final = 30_000
"""So long after the table was committed a rollback that is not verified is called unverified."""
FORGOTTEN_MS: Final = 86_400_000
"""An instance that ended cleanly, or is known dead, so long ago does not matter any more."""
NAMED: Final = 10
"""Instances that a reason names; the rest are counted."""
NAME_SHOWN: Final = 80

REPLACED_KEPT: Final = 16
"""Former incarnations of an instance that are remembered."""

Outcome = Literal["verified", "not yet", "unverified", "no gateway"]


@dataclass(frozen=True)
class Heard:
    """A gateway's last report and its append time, ms."""

    report: GatewayReport
    append_time: int

    @property
    def lease_end(self) -> int:
        return self.append_time + self.report.lease_ms

    def live(self, now: int) -> bool:
        """Whether the lease holds at `now` (the broker's time, ms)."""
        return self.ended is None and self.lease_end >= now

    @property
    def ended(self) -> str | None:
        """How the process is known to have ended, or None."""
        if self.report.known_dead is not None:
            return f"known dead ({self.report.known_dead[:NAME_SHOWN]})"
        return "stopped" if self.report.stopped else None

    def route(self, app: str, environment: str) -> RouteReport | None:
        """What it last reported for an app."""
        for route in self.report.routes:
            if (route.app, route.environment) == (app, environment):
                return route
        return None


class Fleet:
    """The last report of every gateway instance.

    A new incarnation speaks for its instance. One that reports again after that is another process under the same name: both
    are heard from then on, by instance and by instance/incarnation.
    """

    def __init__(self) -> None:
        self.instances: dict[str, Heard] = {}
        self._replaced: dict[str, list[str]] = {}

    def take(self, report: GatewayReport, append_time: int) -> None:
        """Take the next report of the log. That an incarnation is dead says nothing about a newer one."""
        name, incarnation = report.instance, report.incarnation
        known = self.instances.get(name)
        replaced = self._replaced.setdefault(name, [])
        if known is not None and known.report.incarnation != incarnation:
            if incarnation in replaced and (report.known_dead is None or self._own_name(report) in self.instances):
                name = self._own_name(report)
            elif report.known_dead is not None:
                return
            else:
                replaced.append(known.report.incarnation)
                del replaced[:-REPLACED_KEPT]
        self.instances[name] = Heard(report, append_time)

    def remove(self, instance: str) -> None:
        """The instance's key was deleted from the topic."""
        for name in [name for name, heard in self.instances.items() if heard.report.instance == instance]:
            del self.instances[name]
        self._replaced.pop(instance, None)

    def _own_name(self, report: GatewayReport) -> str:
        return f"{report.instance}/{report.incarnation}"


@dataclass(frozen=True)
class _Reign:
    champion: str
    epoch: int
    since: int


class Routes:
    """The present table of every app, and since when its champion has been one. Times are append times, ms."""

    def __init__(self) -> None:
        self._tables: dict[tuple[str, str], tuple[RouteTable, int]] = {}
        self._reigns: dict[tuple[str, str], list[_Reign]] = {}

    def take(self, table: RouteTable, append_time: int) -> None:
        """Take the next table of the log. One that is older than what is known, since the reader wrote that itself, is passed over."""
        key = (table.app, table.environment)
        if key in self._tables and self._tables[key][0].epoch > table.epoch:
            return
        self._tables[key] = (table, append_time)
        reigns = self._reigns.setdefault(key, [])
        if not reigns or reigns[-1].champion != table.champion:
            reigns.append(_Reign(table.champion, table.epoch, append_time))
            del reigns[:-2]

    def table(self, app: str, environment: str) -> RouteTable | None:
        """The present table of an app."""
        return self._tables[app, environment][0] if (app, environment) in self._tables else None

    def append_time(self, app: str, environment: str, epoch: int) -> int | None:
        """When the table of this epoch was appended; None where it is not the present one."""
        table, append_time = self._tables.get((app, environment), (None, 0))
        return append_time if table is not None and table.epoch == epoch else None

    def tables(self) -> Mapping[tuple[str, str], RouteTable]:
        """Every app's present table."""
        return {key: table for key, (table, _) in self._tables.items()}

    def champion_since(self, app: str, environment: str, version: str) -> int | None:
        """Since when `version` has been the present champion: None where it is not, 0 where the log no longer tells."""
        reigns = self._reigns.get((app, environment), [])
        if not reigns or reigns[-1].champion != version:
            return None
        return 0 if len(reigns) == 1 and reigns[0].epoch > 1 else reigns[-1].since


@dataclass(frozen=True)
class Question:
    """What is to be shown: that no request starts on the `bad` versions since the table of `epoch`.

    `committed`: that table's append time, ms. `champion_since`: since when a bad version had been the champion before it
    (ms; 0 where that is unknown; None where none was: then it was a candidate only).
    """

    app: str
    environment: str
    epoch: int
    bad: frozenset[str]
    committed: int
    champion_since: int | None = None


@dataclass(frozen=True)
class Verdict:
    """The answer at one time. `running` counts requests that are still under way on a bad version; they never block."""

    outcome: Outcome
    reason: str
    waiting: tuple[str, ...] = ()
    """Instances that are waited for, by name."""
    confirmed: tuple[str, ...] = ()
    """Instances that confirmed the epoch themselves."""
    running: int = 0
    why: Mapping[str, str] = field(default_factory=dict)
    """Instance → why it is waited for."""


def verify(question: Question, fleet: Iterable[Heard], now: int) -> Verdict:
    """Judge the gateways' last reports at `now` (the broker's time, ms; one that is too early only waits longer).

    A gateway is done when it confirmed the epoch with no request started on a bad version since, or is known to have
    ended, or when its lease has been over for its grace and its champion cannot be a bad version: by itself it then serves
    the champion of the last table that it has. That is the one it confirmed, or one that it got later and could not confirm:
    so a lease that ended after a bad version became champion (and less than the grace before) is waited for as well.
    """
    waiting: dict[str, str] = {}
    confirmed: list[str] = []
    running = known = 0
    for heard in fleet:
        if heard.ended is not None and heard.append_time < now - FORGOTTEN_MS:
            continue
        known += 1
        route = heard.route(question.app, question.environment)
        if heard.live(now) and route is not None:
            running += sum(route.running.get(version, 0) for version in question.bad)
        why = _why_wait(question, heard, route, now)
        if why is not None:
            waiting[heard.report.instance] = why
        elif heard.ended is None and route is not None and route.epoch >= question.epoch:
            confirmed.append(heard.report.instance)
    late = now - question.committed >= UNVERIFIED_AFTER_MS
    if not known:
        return Verdict("no gateway", f"no gateway serves {question.app}: nothing can verify it")
    names = tuple(sorted(waiting))
    reasons = {name: waiting[name] for name in names}
    if waiting:
        said = "; ".join(f"{_shown(name)}: {reasons[name]}" for name in names[:NAMED])
        more = f"; and {len(names) - NAMED} more" if len(names) > NAMED else ""
        return Verdict(
            "unverified" if late else "not yet", f"waiting for {said}{more}", names, tuple(sorted(confirmed)), running, reasons
        )
    others = known - len(confirmed)
    reason = f"epoch {question.epoch} confirmed by {_gateways(len(confirmed))}"
    if others:
        reason += f", {_gateways(others)} ended or cut off without a way to the bad version"
    return Verdict("verified", reason, (), tuple(sorted(confirmed)), running)


def _why_wait(question: Question, heard: Heard, route: RouteReport | None, now: int) -> str | None:
    if heard.ended is not None:
        return None
    if route is not None and route.epoch >= question.epoch:
        started = sum(route.started.get(version, 0) for version in question.bad)
        return f"reports epoch {route.epoch}, and {started} requests started on the bad version since" if started else None
    at = f"at epoch {route.epoch}" if route is not None else "without a route for the app"
    if heard.live(now):
        return f"alive, {at}"
    silent = f"silent since {rfc3339(heard.append_time)}"
    if now - heard.lease_end <= heard.report.grace_ms:
        return f"{silent}, {at}"
    if route is not None and route.champion in question.bad:
        return f"{silent} with {_shown(route.champion)} as its champion"
    if question.champion_since is not None and heard.lease_end + heard.report.grace_ms > question.champion_since:
        return f"{silent}, {at}: it may have got the bad champion without confirming it"
    return None


def _shown(name: str) -> str:
    return name[:NAME_SHOWN]


def _gateways(count: int) -> str:
    return f"{count} gateway" if count == 1 else f"{count} gateways"
