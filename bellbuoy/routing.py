"""What people do to route tables at once: release a version, roll back, release the hold, and see a rollback verified."""

import time
from collections.abc import Callable
from dataclasses import replace
from typing import Final, NamedTuple

from adapters.follow import Follower
from adapters.gateways import report_of
from adapters.routes import RouteWriter, route_log, table_of
from adapters.settings import Settings
from adapters.shard_log import Fenced
from bellbuoy.control import command_records, new_id, send, shard_for
from core.deployment import Configuration, UnknownVersion
from core.routing import Refused, first_table, with_champion, without_hold
from core.verification import UNVERIFIED_AFTER_MS, Fleet, Question, Routes, Verdict, verify
from schemas.messages import CallConfiguration, Command, CommandKind, RouteTable, Scalar
from schemas.topics import GATEWAYS, ROUTES

TRIES: Final = 10
"""How often a change is begun anew when another writer of the app's route came in between."""
_LOOK_S: Final = 0.05


class RolledBack(NamedTuple):
    """A person's rollback: the table before, the one written, and since when a bad version was champion (Question)."""

    before: RouteTable
    table: RouteTable
    champion_since: int | None

    @property
    def bad(self) -> list[str]:
        """The versions that may not answer any more."""
        return [v for v in (self.before.champion, self.before.candidate) if v is not None and v != self.table.champion]


class Waited(NamedTuple):
    """How the wait for the gateways ended, and the seconds since the table was appended."""

    verdict: Verdict
    seconds: float


def release_now(
    settings: Settings, app: str, environment: str, version: str, configuration: CallConfiguration, actor: str, reason: str
) -> RouteTable:
    """Let `version` answer everything at once, without gate and canary; the app's first route where it has none.

    Writes nothing where it is so already. A person's hold stays as it is. Raises Fenced, TransactionFailed.
    """

    def change(now: RouteTable | None) -> RouteTable:
        if now is None:
            return first_table(app, environment, version, configuration, actor=actor, reason=reason)
        if (now.champion, now.candidate, now.versions.get(version)) == (version, None, configuration):
            raise _AsItIs(now)
        return with_champion(now, version, configuration, actor=actor, reason=reason, hold=now.hold)

    try:
        return _write(settings, app, environment, "deploy_marker", actor, reason, change, lambda _: {"version": version})
    except _AsItIs as unchanged:
        return unchanged.table


def roll_back_now(
    settings: Settings,
    app: str,
    environment: str,
    to_version: str | None,
    actor: str,
    reason: str,
    configuration: Configuration | None = None,
    *,
    dry_run: bool = False,
) -> RolledBack:
    """Let `to_version` (default: the champion before this one) answer everything at once, and hold it against automatic actors.

    `configuration` is asked for a version that the table does not hold. Raises Refused, UnknownVersion, RegistryAway, Fenced,
    TransactionFailed.
    """
    routes = Routes()
    before: list[RouteTable] = []

    def look() -> RouteTable | None:
        for table, append_time in route_log(settings):
            routes.take(table, append_time)
        return routes.table(app, environment)

    def change(now: RouteTable | None) -> RouteTable:
        before[:] = [now] if now is not None else []
        return rolled_back(now, app, environment, to_version, actor, reason, configuration)

    def arguments(table: RouteTable) -> dict[str, Scalar]:
        return {"version": before[0].champion, "to_version": table.champion, "hold": True}

    def write() -> RouteTable:
        return _write(settings, app, environment, "roll_back", actor, reason, change, arguments, look)

    table = change(look()) if dry_run else write()
    return RolledBack(before[0], table, bad_champion_since(routes, before[0], table))


def bad_champion_since(routes: Routes, before: RouteTable, after: RouteTable) -> int | None:
    """Since when the champion that a rollback took off had been one (ms): None where it stays, 0 where `routes`, which may be
    a little older than `before`, do not tell."""
    if before.champion == after.champion:
        return None
    return routes.champion_since(before.app, before.environment, before.champion) or 0


def rolled_back(
    now: RouteTable | None,
    app: str,
    environment: str,
    to_version: str | None,
    actor: str,
    reason: str,
    configuration: Configuration | None = None,
) -> RouteTable:
    """The table of a person's rollback. Raises as roll_back_now."""
    if now is None:
        raise Refused(f"{app} ({environment}) has no route; `bellbuoy routes list` shows those that have one")
    to = to_version or now.previous
    if to is None:
        raise Refused(f"the route of {app} remembers no version before {now.champion}: name one with --to")
    if to == now.champion and now.candidate is None:
        raise Refused(f"{to} answers everything already")
    held = now.versions.get(to)
    if held is None:
        if configuration is None:
            raise UnknownVersion(f"the route of {app} does not hold version {to}")
        held = configuration(app, environment, to)
    bad = [version for version in (now.champion, now.candidate) if version is not None and version != to]
    return with_champion(now, to, held, actor=actor, reason=reason, bad=bad, hold=actor)


def release_hold(settings: Settings, app: str, environment: str, actor: str, reason: str) -> RouteTable:
    """Let automatic actors change the app's route again. Raises Refused where nobody holds it."""

    def change(now: RouteTable | None) -> RouteTable:
        if now is None:
            raise Refused(f"{app} ({environment}) has no route")
        return without_hold(now, actor=actor, reason=reason)

    return _write(settings, app, environment, "roll_back", actor, reason, change, lambda _: {"hold": False})


def ask_release(settings: Settings, app: str, environment: str, version: str, actor: str, reason: str, *, gate: bool) -> Command:
    """Ask the controller to bring a version through the gate (where `gate`) and a canary."""
    command = Command(
        id=new_id(),
        kind="release",
        actor=actor,
        reason=reason,
        app=app,
        environment=environment,
        arguments={"version": version, "gate": gate},
    )
    send(settings, command, [shard_for(settings, app, environment)])
    return command


def wait_verified(settings: Settings, table: RouteTable, bad: list[str], champion_since: int | None = None) -> Waited:
    """Follow the gateways until none of them can start a request on the `bad` versions any more, or 30 s are over.

    The verdict is `verified`, `unverified`, or `no gateway` where not one has ever reported. Raises BrokerAway.
    """
    fleet, committed = Fleet(), None
    given_up = time.monotonic() + 2 * UNVERIFIED_AFTER_MS / 1000
    with Follower(settings, (ROUTES, GATEWAYS)) as follower:
        news = follower.read_to_end()
        while True:
            for topic, record in news:
                if topic == ROUTES:
                    written = table_of(record)
                    if written is not None and _same(written, table):
                        committed = record.timestamp
                elif (report := report_of(record)) is not None:
                    fleet.take(report, record.timestamp)
                elif record.value is None and record.key is not None:
                    fleet.remove(record.key.decode(errors="replace"))
            now = follower.clock.now()
            asked = Question(
                table.app, table.environment, table.epoch, frozenset(bad), now if committed is None else committed, champion_since
            )
            verdict = verify(asked, fleet.instances.values(), now)
            if verdict.outcome == "not yet" and time.monotonic() > given_up:
                verdict = replace(verdict, outcome="unverified")
            if verdict.outcome != "not yet":
                return Waited(verdict, max(0, now - asked.committed) / 1000)
            news = follower.poll(_LOOK_S)


class _AsItIs(Exception):
    def __init__(self, table: RouteTable) -> None:
        super().__init__()
        self.table = table


def _same(one: RouteTable, other: RouteTable) -> bool:
    return (one.app, one.environment, one.epoch) == (other.app, other.environment, other.epoch)


def _write(
    settings: Settings,
    app: str,
    environment: str,
    kind: CommandKind,
    actor: str,
    reason: str,
    change: Callable[[RouteTable | None], RouteTable],
    arguments: Callable[[RouteTable], dict[str, Scalar]],
    look: Callable[[], RouteTable | None] | None = None,
) -> RouteTable:
    """A table and the command that tells the controller of it, in one transaction; again where another writer came between."""
    shard, id_ = shard_for(settings, app, environment), new_id()

    def command(table: RouteTable) -> Command:
        said = arguments(table) | {"epoch": table.epoch}
        return Command(id=id_, kind=kind, actor=actor, reason=reason, app=app, environment=environment, arguments=said)

    for left in reversed(range(TRIES)):
        try:
            with RouteWriter(settings, app, environment, look) as writer:
                return writer.change(change, lambda t: command_records(command(t), [shard], time_ms=int(time.time() * 1000)))
        except Fenced:
            if not left:
                raise
    raise AssertionError("unreachable")
