"""Which version answers a request, and what a route table becomes when something is decided."""

import hashlib
from collections.abc import Iterable, Mapping
from typing import Final, Literal, NamedTuple

import msgspec

from schemas.messages import WEIGHT_ONE, CallConfiguration, RouteTable

Arm = Literal["champion", "candidate"]
BAD_KEPT: Final = 20
"""Versions that were rolled back and are remembered in the table."""


class Chosen(NamedTuple):
    """The version that answers, and on which arm."""

    version: str
    arm: Arm


class Refused(ValueError):
    """A change that the present table does not allow; the text says why."""


def share_of(experiment: str, app: str, environment: str, unit: str) -> int:
    """Where a unit of assignment falls in [0, WEIGHT_ONE): the same in every gateway and at every step of an experiment.

    >>> 0 <= share_of("canary-1", "help-desk", "production", "conversation-1") < 10_000
    True
    """
    digest = hashlib.blake2b("\0".join((app, environment, experiment, unit)).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") * WEIGHT_ONE >> 64


def choose(table: RouteTable, unit: str, *, champion_only: bool = False) -> Chosen:
    """The version for a unit (conversation, else user, else request): the candidate's units are [0, weight)."""
    if (
        table.candidate is not None
        and not champion_only
        and share_of(table.experiment, table.app, table.environment, unit) < table.weight
    ):
        return Chosen(table.candidate, "candidate")
    return Chosen(table.champion, "champion")


def first_table(
    app: str, environment: str, version: str, configuration: CallConfiguration, *, actor: str, reason: str
) -> RouteTable:
    """The first table of an app: epoch 1."""
    return RouteTable(
        app=app,
        environment=environment,
        epoch=1,
        based_on=0,
        champion=version,
        versions={version: configuration},
        actor=actor,
        reason=reason,
    )


def with_champion(
    table: RouteTable,
    version: str,
    configuration: CallConfiguration | None = None,
    *,
    actor: str,
    reason: str,
    action: str | None = None,
    bad: Iterable[str] = (),
    hold: str | None = None,
) -> RouteTable:
    """`version` answers everything from now on: a promotion, a rollback, a person's release.

    `configuration` may be left out where the table has it. A version in `bad` is never `previous`. Raises Refused.
    """
    chosen = configuration or table.versions.get(version)
    if chosen is None:
        raise Refused(f"the route of {table.app} does not know the configuration of {version}")
    excluded = [*table.bad, *(b for b in bad if b not in table.bad)][-BAD_KEPT:]
    excluded = [b for b in excluded if b != version]
    previous = table.champion if table.champion != version else table.previous
    if previous in excluded:
        previous = None
    return _next(
        table,
        champion=version,
        candidate=None,
        weight=0,
        previous=previous,
        experiment="",
        versions=_kept(table.versions | {version: chosen}, version, previous),
        bad=excluded,
        hold=hold,
        action=action,
        actor=actor,
        reason=reason,
    )


def with_candidate(
    table: RouteTable,
    version: str,
    configuration: CallConfiguration,
    weight: int,
    *,
    experiment: str,
    actor: str,
    reason: str,
    action: str | None = None,
) -> RouteTable:
    """`version` answers `weight` ten-thousandths of the units. Raises Refused under a hold, or beside another candidate."""
    if table.hold is not None:
        raise Refused(f"{table.hold} rolled {table.app} back, and a person's decision stands")
    if version == table.champion:
        raise Refused(f"{version} answers already")
    if table.candidate not in (None, version):
        raise Refused(f"{table.candidate} is being tried; one candidate at a time")
    if not 0 < weight <= WEIGHT_ONE:
        raise Refused(f"a weight must lie in (0, {WEIGHT_ONE}]")
    return _next(
        table,
        candidate=version,
        weight=weight,
        experiment=experiment,
        versions=_kept(table.versions | {version: configuration}, table.champion, table.previous, version),
        action=action,
        actor=actor,
        reason=reason,
    )


def without_candidate(
    table: RouteTable, *, actor: str, reason: str, action: str | None = None, bad: Iterable[str] = ()
) -> RouteTable:
    """The champion answers everything again."""
    excluded = [*table.bad, *(b for b in bad if b not in table.bad and b != table.champion)][-BAD_KEPT:]
    return _next(
        table,
        candidate=None,
        weight=0,
        experiment="",
        versions=_kept(table.versions, table.champion, table.previous),
        bad=excluded,
        action=action,
        actor=actor,
        reason=reason,
    )


def without_hold(table: RouteTable, *, actor: str, reason: str) -> RouteTable:
    """Automatic actors may change the table again. Raises Refused where no person holds it."""
    if table.hold is None:
        raise Refused(f"nobody holds the route of {table.app}")
    return _next(table, hold=None, action=None, actor=actor, reason=reason)


def _next(table: RouteTable, **changes: object) -> RouteTable:
    return msgspec.structs.replace(table, epoch=table.epoch + 1, based_on=table.epoch, extra={}, **changes)


def _kept(versions: Mapping[str, CallConfiguration], *named: str | None) -> dict[str, CallConfiguration]:
    return {name: versions[name] for name in sorted({n for n in named if n is not None}) if name in versions}
