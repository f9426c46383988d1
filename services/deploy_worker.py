"""The deploy worker: executes rollbacks and canary steps by writing routes, and says when a rollback is verified."""

import contextlib
import logging
import signal
import threading
from collections.abc import Callable
from typing import Final, Protocol

from adapters.action_log import ActionLog, step_record
from adapters.gateways import GatewayReports
from adapters.patience import EXIT_CRASHED, EXIT_FENCED, Readiness, patiently
from adapters.registry import Registry, RegistryAway
from adapters.routes import Conflict, RouteReader, RouteWriter
from adapters.settings import Settings
from adapters.shard_log import BrokerAway, Fenced, TransactionFailed
from adapters.telemetry import Telemetry, set_up_logging
from core.actions import Actions, Known
from core.deployment import ACTOR, KINDS, Change, Next, Say, Wait, reconcile
from schemas.messages import CallConfiguration, RouteTable

log = logging.getLogger(__name__)
ROLE: Final = "deploy"
POLL_S: Final = 0.03
AppKey = tuple[str, str]


class Configurations(Protocol):
    """Where registry versions are looked up. Raises RegistryAway."""

    def configuration(self, app: str, environment: str, version: str) -> CallConfiguration | None:
        """None: there is no such version."""
        ...


class DeployWorker:
    """One per cluster is at work: a second one shuts the first out, which then ends."""

    def __init__(
        self,
        settings: Settings,
        actions: ActionLog,
        reports: GatewayReports,
        routes: RouteReader,
        registry: Configurations,
        readiness: Readiness,
        stop: threading.Event,
        *,
        before: Callable[[Known, Next], None] = lambda known, what: None,  # noqa: ARG005
    ) -> None:
        """`before` is called before each write, for tests that end the process there."""
        self._settings, self._log, self._reports, self._routes, self._registry = settings, actions, reports, routes, registry
        self._readiness, self._stop, self._before = readiness, stop, before
        self._actions = Actions()
        self._writers: dict[AppKey, RouteWriter] = {}
        self._waits: dict[str, str] = {}

    def run(self) -> int:
        """The exit code: 0 after a clean stop, EXIT_FENCED, or EXIT_CRASHED when only a new start can help."""
        try:
            patiently(self._begin, self._stop, self._readiness)
            self._readiness.set_ready(None)
            while not self._stop.is_set():
                patiently(self.cycle, self._stop, self._readiness)
                self._readiness.set_ready(None)
        except Fenced as error:
            log.warning("%s; ending", error)
            return EXIT_FENCED
        except TransactionFailed as error:
            log.error("%s; ending, so that the next start begins from what is committed", error)
            return EXIT_CRASHED
        except BrokerAway as error:
            log.warning("told to stop while no broker answers: %s", error)
        finally:
            self.close()
        return 0

    def cycle(self) -> None:
        """Read what came and do what can be done now."""
        for step, time in self._log.poll(POLL_S):
            self._actions.take(step, time)
        running = self._actions.open(KINDS)
        if not running:
            return
        self._reports.poll(0.0)
        self._routes.read()
        for known in sorted(running, key=lambda known: known.step.kind != "rollback"):
            self._act(known)

    def close(self) -> None:
        for writer in self._writers.values():
            writer.__exit__(None, None, None)
        self._reports.close()
        self._routes.close()
        self._log.close()

    def _begin(self) -> None:
        self._log.fence()
        for step, time in self._log.read_to_end():
            self._actions.take(step, time)
        self._reports.read()
        self._routes.read()

    def _act(self, known: Known) -> None:
        app = (known.step.target.app, known.step.target.environment)
        routed = self._routes.routes.get(app)
        try:
            what = self._next(known, routed.table if routed else None)
        except RegistryAway as error:
            what = Wait(f"waiting for the registry: {error}")
        match what:
            case Wait(reason):
                if self._waits.get(known.step.id) != reason:
                    self._waits[known.step.id] = reason
                    log.info("%s %s: %s", known.step.kind, known.step.id, reason)
            case Say(step):
                self._before(known, what)
                self._log.append([step])
                log.info("%s %s: %s", step.kind, step.id, step.reason)
                self._seen(known.step.id)
            case Change():
                self._before(known, what)
                self._change(known, app)
                self._seen(known.step.id)

    def _next(self, known: Known, table: RouteTable | None) -> Next:
        target = known.step.target
        return reconcile(
            known,
            table,
            self._reports.reports,
            lambda version: self._registry.configuration(target.app, target.environment, version),
            now=self._reports.now(at_least=known.last),
        )

    def _change(self, known: Known, app: AppKey) -> None:
        """Write the route and its step in one transaction, judged again on the table as it stands then."""
        decided: list[Change] = []

        def changed(now: RouteTable | None) -> RouteTable:
            what = self._next(known, now)
            if not isinstance(what, Change):
                raise Conflict("the route has changed meanwhile")
            decided.append(what)
            return what.table

        try:
            self._writer(app).change(changed, lambda _: [step_record(decided[-1].step, ROLE)])
            log.info("%s %s: %s", known.step.kind, known.step.id, decided[-1].step.reason)
        except Conflict:
            return
        except Fenced:
            # A person's rollback takes the route for a moment; another deploy worker takes it for good.
            self._drop(app)
            routed = self._routes.read().get(app)
            if routed is not None and routed.table.actor == ACTOR and routed.table.action != known.step.id:
                raise

    def _writer(self, app: AppKey) -> RouteWriter:
        writer = self._writers.get(app)
        if writer is None:
            writer = self._writers[app] = RouteWriter(self._settings, *app).__enter__()
        return writer

    def _drop(self, app: AppKey) -> None:
        writer = self._writers.pop(app, None)
        if writer is not None:
            writer.__exit__(None, None, None)

    def _seen(self, action: str) -> None:
        """Read on until the step that was just written has been read: nothing is decided on what is old."""
        self._waits.pop(action, None)
        for step, time in self._log.read_to_end():
            self._actions.take(step, time)


def build_deploy_worker(settings: Settings, readiness: Readiness, stop: threading.Event) -> DeployWorker:
    """A deploy worker on the settings' cluster and registry."""
    return DeployWorker(
        settings,
        ActionLog(settings, ROLE),
        GatewayReports(settings),
        RouteReader(settings),
        Registry(settings),
        readiness,
        stop,
    )


def main(settings: Settings) -> int:
    """Run until SIGTERM or SIGINT; returns the exit code."""
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    set_up_logging("deploy-worker", settings)
    with Telemetry("deploy-worker", settings) as telemetry, contextlib.suppress(BrokerAway):
        telemetry.set_ready("waiting for Kafka")
        return build_deploy_worker(settings, telemetry, stop).run()
    return 0
