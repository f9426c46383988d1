"""The registry's aliases champion, candidate and previous: moved after the route table and the actions, whenever MLflow is there."""

import logging
import time
from collections.abc import Callable, Mapping
from typing import Final

from adapters.registry import Alias, RegistryAway, VersionRegistry
from core.actions import ENDED, Actions
from schemas.messages import ActionStep, RouteTable

log = logging.getLogger(__name__)
_RETRY_S: Final = 5.0
_REVIEW_S: Final = 15.0
"""So often the route tables are read though no action has ended: a person may have written one."""
_App = tuple[str, str]


class Aliases:
    """Remembers which apps' aliases may be out of date. Never keeps an action waiting: what fails is tried again later."""

    def __init__(
        self,
        registry: VersionRegistry,
        routes: Callable[[], Mapping[_App, RouteTable]],
        *,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._registry, self._routes, self._monotonic = registry, routes, monotonic
        self._due: set[_App] = set()
        self._set: dict[_App, Mapping[Alias, str | None]] = {}
        self._not_before = self._review = 0.0

    def saw(self, step: ActionStep) -> None:
        """Note that an action has come to an end that may move an alias."""
        if step.state in ENDED and (step.kind in ("canary", "rollback") or step.state == "succeeded"):
            self._due.add((step.target.app, step.target.environment))

    def catch_up(self, actions: Actions) -> None:
        """Move the aliases of the apps that are due; while the registry is away they stay due. Raises BrokerAway."""
        now = self._monotonic()
        if now < self._not_before or not (self._due or now >= self._review):
            return
        routes = self._routes()
        if now >= self._review:
            self._due |= routes.keys()
            self._review = now + _REVIEW_S
        for app, environment in sorted(self._due):
            wanted = wanted_aliases(routes.get((app, environment)), actions, app, environment)
            try:
                if self._set.get((app, environment)) != wanted:
                    self._registry.set_aliases(app, environment, wanted)
            except RegistryAway as error:
                self._not_before = self._monotonic() + _RETRY_S
                log.warning("aliases of %r wait: %s", app, error)
                return
            self._set[app, environment] = wanted
            self._due.discard((app, environment))


def wanted_aliases(table: RouteTable | None, actions: Actions, app: str, environment: str) -> dict[Alias, str | None]:
    """Champion and previous as the route table has them; the candidate is the one being tried, else the newest version that
    passed the gate and has not been tried yet."""
    champion = table.champion if table else None
    out_of_play = {champion, *(table.bad if table else ())}
    passed: str | None = None
    for known in actions.ended(("retrain", "evaluate", "canary")):
        step = known.step
        if (step.target.app, step.target.environment) != (app, environment):
            continue
        if step.kind == "canary":
            out_of_play.add(step.target.version)
        elif step.state == "succeeded" and isinstance(version := step.data.get("version"), str):
            passed = version
    return {
        "champion": champion,
        "previous": table.previous if table else None,
        "candidate": (table.candidate if table else None) or (passed if passed not in out_of_play else None),
    }
