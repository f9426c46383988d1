"""The deploy worker: carries out rollbacks and canaries by writing route tables, and says when a rollback is verified."""

import contextlib
import logging
import signal
import threading
from collections import OrderedDict
from collections.abc import Iterable
from typing import Final

from adapters.action_log import ActionLog, step_of, step_record
from adapters.gateways import report_of
from adapters.patience import EXIT_CRASHED, EXIT_FENCED, Readiness
from adapters.routes import Conflict, RouteWriter, table_of
from adapters.settings import Settings
from adapters.shard_log import BrokerAway, Fenced, TransactionFailed
from adapters.telemetry import Telemetry, set_up_logging
from core.actions import ENDED, Actions, Known
from core.deployment import KINDS, Change, Configuration, Decision, Present, Wait, leftover, reconcile
from core.verification import Fleet, Routes
from schemas.codec import Record
from schemas.messages import ActionStep, RouteTable
from schemas.topics import ACTIONS, GATEWAYS, ROUTES
from services.deploy_registry import Lookup, registry

log = logging.getLogger(__name__)

ROLE: Final = "deploy"
WRITERS: Final = 16
"""Route writers that are kept open; an app beyond them waits for a new one when its turn comes."""
_VERIFYING_S: Final = 0.05
_IDLE_S: Final = 0.5
"""What comes is taken at once; so long it takes to notice that a lease is over, or that the registry has answered."""
_RETRY_S: Final = 0.5


class DeployWorker:
    """Follows actions, routes and gateways, and does what core.deployment says, one action after the other.

    Every table goes out in one transaction with the step that tells of it, by the app's one route writer; an action is
    begun only once that writer is open and the log has been read to its end since. So what the worker knows of an app is
    complete when it decides, and a step that was written is never done again.
    """

    def __init__(
        self,
        settings: Settings,
        action_log: ActionLog,
        configuration: Configuration,
        readiness: Readiness,
        stop: threading.Event,
    ) -> None:
        self._settings, self._log, self._configuration = settings, action_log, configuration
        self._readiness, self._stop = readiness, stop
        self._writers: OrderedDict[tuple[str, str], RouteWriter] = OrderedDict()
        self._said: dict[str, str] = {}
        self.actions, self.routes, self.fleet = Actions(), Routes(), Fleet()

    def run(self) -> int:
        """The exit code: 0 after a clean stop, EXIT_FENCED, or EXIT_CRASHED when only a new start can help."""
        begun = False
        try:
            while not self._stop.is_set():
                try:
                    if not begun:
                        self.begin()
                        begun = True
                    self.cycle()
                    self._readiness.set_ready(None)
                except BrokerAway as error:
                    self._readiness.set_ready(f"waiting for Kafka: {error}")
                    self._stop.wait(_RETRY_S)
        except Fenced as error:
            log.warning("%s; ending", error)
            return EXIT_FENCED
        except TransactionFailed as error:
            log.error("%s; ending, so that the next start begins from what is committed", error)
            return EXIT_CRASHED
        finally:
            for key in list(self._writers):
                self._close(key)
            self._log.close()
        return 0

    def begin(self) -> None:
        """Shut out the worker before this one and read the log to its end."""
        self._log.fence()
        self.actions, self.routes, self.fleet = Actions(), Routes(), Fleet()
        self._take(self._log.records_to_end())

    def cycle(self) -> None:
        """Wait a moment for news, then carry every action on as far as it goes."""
        verifying = any(known.step.state == "started" for known in self.actions.open(["rollback"]))
        self._take(self._log.records(_VERIFYING_S if verifying else _IDLE_S))
        for known in sorted(self.actions.open(KINDS), key=lambda k: KINDS.index(k.step.kind)):
            self._carry_on(known.step.id)
        for table in list(self.routes.tables().values()):
            self._take_back(table)

    # --- what the log says --------------------------------------------------------------------------------------

    def _take(self, records: Iterable[tuple[str, Record]]) -> None:
        for topic, record in records:
            if topic == ACTIONS:
                step = step_of(record)
                if step is not None:
                    self.actions.take(step, record.timestamp)
            elif topic == ROUTES:
                table = table_of(record)
                if table is not None:
                    self.routes.take(table, record.timestamp)
            elif topic == GATEWAYS:
                report = report_of(record)
                if report is not None:
                    self.fleet.take(report, record.timestamp)
                elif record.value is None and record.key is not None:
                    self.fleet.remove(record.key.decode(errors="replace"))

    # --- what follows -------------------------------------------------------------------------------------------

    def _carry_on(self, id_: str) -> None:
        """Do what comes next for an action, until it waits or has ended."""
        while (known := self.actions.get(id_)) is not None and known.step.state not in ENDED:
            decision = reconcile(known, self._present(known), self._configuration)
            if isinstance(decision, Wait):
                self._say(id_, decision)
                return
            app, environment = known.step.target.app, known.step.target.environment
            if (isinstance(decision, Change) or known.step.state == "requested") and not self._own(app, environment):
                self._open(app, environment)
                continue
            self._say(id_, decision)
            if isinstance(decision, Change):
                if not self._change(decision):
                    return
            else:
                self._log.append([decision.step])
                self._written(decision.step)
        self._said.pop(id_, None)

    def _present(self, known: Known) -> Present:
        step = known.step
        app, environment = step.target.app, step.target.environment
        epoch = step.data.get("epoch")
        committed = self.routes.append_time(app, environment, epoch) if isinstance(epoch, int) else None
        if committed is None and step.state == "started":
            committed = known.last
        return Present(
            table=self.routes.table(app, environment),
            now=self._log.clock.now(),
            fleet=self.fleet.instances.values(),
            committed=committed,
            champion_since=self.routes.champion_since(app, environment, step.target.version or ""),
        )

    def _take_back(self, table: RouteTable) -> None:
        """The candidate of a canary that another hand ended does not stay."""
        known = self.actions.get(table.action or "") if table.candidate is not None else None
        if known is None or known.step.state not in ENDED:
            return
        if not self._own(table.app, table.environment):
            self._open(table.app, table.environment)
        decision = leftover(known, self.routes.table(table.app, table.environment))
        if decision is not None:
            self._say(known.step.id, decision)
            self._change(decision)

    def _change(self, decision: Change) -> bool:
        """Write a table with its step. False when it may not have been: the route's next writer reads what is committed."""
        key = (decision.table.app, decision.table.environment)
        steps = [step_record(decision.step, ROLE)] if decision.step is not None else []
        try:
            self._writers[key].change(lambda _: decision.table, lambda _: steps)
        except (Fenced, TransactionFailed, Conflict) as error:
            log.warning("%s; reading again", error)  # a Conflict: a person has written since this writer was opened
            self._close(key)
            return False
        self._writers.move_to_end(key)
        self.routes.take(decision.table, self._log.clock.now())
        if decision.step is not None:
            self._written(decision.step)
        return True

    def _written(self, step: ActionStep) -> None:
        self.actions.take(step, self._log.clock.now())

    def _own(self, app: str, environment: str) -> bool:
        """Whether this is the app's route writer still, as far as the log tells: a table by another hand means that it is not."""
        writer = self._writers.get((app, environment))
        return writer is not None and writer.current() == self.routes.table(app, environment)

    def _open(self, app: str, environment: str) -> None:
        """Become the app's route writer, then read to the end of the log. Raises BrokerAway."""
        if (app, environment) in self._writers:
            self._close((app, environment))
        while len(self._writers) >= WRITERS:
            self._close(next(iter(self._writers)))
        writer = RouteWriter(self._settings, app, environment, lambda: self._table_to_end(app, environment))
        try:
            writer.__enter__()
        except (Fenced, TransactionFailed) as error:
            raise BrokerAway(str(error)) from error
        self._writers[app, environment] = writer

    def _table_to_end(self, app: str, environment: str) -> RouteTable | None:
        self._take(self._log.records_to_end())
        return self.routes.table(app, environment)

    def _close(self, key: tuple[str, str]) -> None:
        self._writers.pop(key).close()

    def _say(self, id_: str, decision: Decision) -> None:
        if self._said.get(id_) != decision.reason:
            self._said[id_] = decision.reason
            fields = {"action": id_, "decision": type(decision).__name__.lower(), "reason": decision.reason}
            log.info("action", extra={"fields": fields})


def build_deploy_worker(
    settings: Settings, configuration: Configuration, readiness: Readiness, stop: threading.Event
) -> DeployWorker:
    """A deploy worker on the settings' cluster. `configuration` is asked in a thread: it may be slow, or away."""
    configuration = Lookup(configuration)
    return DeployWorker(settings, ActionLog(settings, ROLE, (ROUTES, GATEWAYS)), configuration, readiness, stop)


def main(settings: Settings, configuration: Configuration | None = None) -> int:
    """Run until SIGTERM or SIGINT; returns the exit code. `configuration`: default the MLflow registry."""
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    set_up_logging("deploy-worker", settings)
    with Telemetry("deploy-worker", settings) as telemetry:
        telemetry.set_ready("waiting for Kafka")
        with contextlib.suppress(BrokerAway):
            return build_deploy_worker(settings, configuration or registry(settings), telemetry, stop).run()
    return 0
