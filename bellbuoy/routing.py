"""A person's changes of a route: a release and a rollback go at once, and are recorded as a person's."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from adapters.gateways import GatewayReports
from adapters.routes import Routed, RouteWriter
from adapters.settings import Settings
from bellbuoy.control import command_records, new_id, shard_for
from core.routing import Refused, first_table, with_champion
from core.verification import PATIENCE_MS, Verdict, verify
from schemas.codec import Outgoing
from schemas.messages import CallConfiguration, Command, RouteTable

_POLL_S: Final = 0.05


@dataclass(frozen=True)
class RolledBack:
    """A rollback that has been written: the table before and after, and when the broker took it (ms)."""

    before: RouteTable
    after: RouteTable
    time: int

    @property
    def bad(self) -> list[str]:
        """The versions that must get no more requests."""
        return [v for v in (self.before.champion, self.before.candidate) if v is not None and v != self.after.champion]


def release_now(
    settings: Settings,
    app: str,
    environment: str,
    version: str,
    configuration: CallConfiguration,
    *,
    actor: str,
    reason: str,
) -> Routed:
    """Let a version answer everything from now on, past gate and canary; the first release of an app makes its route.

    The route and a `deploy_marker` are written in one transaction. Raises core.routing.Refused under a person's hold.
    """
    shard = shard_for(settings, app, environment)

    def change(now: RouteTable | None) -> RouteTable:
        if now is None:
            return first_table(app, environment, version, configuration, actor=actor, reason=reason)
        if now.hold is not None:
            raise Refused(f"{now.hold} rolled {app} back; `bellbuoy rollback {app} --release-hold` lets it go")
        return with_champion(now, version, configuration, actor=actor, reason=reason)

    def marker(table: RouteTable) -> list[Outgoing]:
        command = Command(
            id=new_id(),
            kind="deploy_marker",
            actor=actor,
            reason=reason,
            app=app,
            environment=environment,
            arguments={"version": version, "epoch": table.epoch},
        )
        return command_records(command, [shard], time_ms=_now_ms())

    with RouteWriter(settings, app, environment) as writer:
        return writer.change(change, marker)


def planned_rollback(now: RouteTable | None, to: str | None, *, app: str, actor: str, reason: str) -> RouteTable:
    """The table that a person's rollback makes. Raises core.routing.Refused, which says what there is to go back to."""
    if now is None:
        raise Refused(f"{app} has no route: nothing of it goes through the gateway")
    if to is None and now.candidate is not None:
        to = now.champion
    target = to or now.previous
    if target is None:
        raise Refused(f"{app} has no version before {now.champion}; name one with --to")
    bad = [v for v in (now.champion, now.candidate) if v is not None and v != target]
    return with_champion(now, target, actor=actor, reason=reason, bad=bad, hold=actor)


def roll_back_now(
    settings: Settings,
    app: str,
    environment: str,
    *,
    to: str | None,
    actor: str,
    reason: str,
    configuration: Callable[[str], CallConfiguration | None] = lambda _: None,
) -> RolledBack:
    """Go back at once, by a person: no automatic actor changes the route until the hold is released.

    The route and a `roll_back` command are written in one transaction. `configuration` is asked for a version that the route
    does not know. Raises core.routing.Refused.
    """
    shard = shard_for(settings, app, environment)
    befores: list[RouteTable] = []

    def change(now: RouteTable | None) -> RouteTable:
        if now is not None and to is not None and to not in now.versions and (found := configuration(to)) is not None:
            now = with_known(now, to, found)
        planned = planned_rollback(now, to, app=app, actor=actor, reason=reason)
        assert now is not None
        befores.append(now)
        return planned

    def command(table: RouteTable) -> list[Outgoing]:
        said = Command(
            id=new_id(),
            kind="roll_back",
            actor=actor,
            reason=reason,
            app=app,
            environment=environment,
            arguments={"version": befores[-1].champion, "to_version": table.champion, "epoch": table.epoch, "hold": True},
        )
        return command_records(said, [shard], time_ms=_now_ms())

    with RouteWriter(settings, app, environment) as writer:
        written = writer.change(change, command)
    return RolledBack(befores[-1], written.table, written.time)


def release_hold(settings: Settings, app: str, environment: str, *, actor: str, reason: str) -> Routed:
    """Let automatic actors change the route again."""
    shard = shard_for(settings, app, environment)

    def change(now: RouteTable | None) -> RouteTable:
        if now is None or now.hold is None:
            raise Refused(f"{app} is not held")
        return with_champion(now, now.champion, actor=actor, reason=reason)

    def command(table: RouteTable) -> list[Outgoing]:
        said = Command(
            id=new_id(),
            kind="roll_back",
            actor=actor,
            reason=reason,
            app=app,
            environment=environment,
            arguments={"hold": False, "epoch": table.epoch},
        )
        return command_records(said, [shard], time_ms=_now_ms())

    with RouteWriter(settings, app, environment) as writer:
        return writer.change(change, command)


def with_known(table: RouteTable, version: str, configuration: CallConfiguration) -> RouteTable:
    """The same table, knowing one more configuration."""
    table.versions[version] = configuration
    return table


def wait_verified(settings: Settings, done: RolledBack, *, say: Callable[[Verdict], None] = lambda _: None) -> Verdict:
    """Wait until the gateways have confirmed a rollback, or for 30 seconds; `say` is told whenever the reason changes."""
    reports = GatewayReports(settings)
    try:
        reports.read()
        last = ""
        while True:
            now = reports.now(at_least=done.time)
            verdict = verify(
                reports.reports,
                done.after.app,
                done.after.environment,
                done.after.epoch,
                done.bad,
                changed=done.time,
                now=now,
            )
            if verdict.reason != last:
                say(verdict)
                last = verdict.reason
            if verdict.outcome == "verified" or now - done.time >= PATIENCE_MS:
                return verdict
            reports.poll(_POLL_S)
    finally:
        reports.close()


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
