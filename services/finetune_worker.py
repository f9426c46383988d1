"""The fine-tune worker: takes `retrain` and `evaluate` from llm.actions to a candidate that has passed the gate."""

import contextlib
import logging
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Final, Protocol

import confluent_kafka as ck
import kafka.errors

from adapters.action_log import ActionLog
from adapters.kafka import read_all
from adapters.patience import EXIT_CRASHED, EXIT_FENCED, Readiness, patiently
from adapters.registry import Registry, RegistryAway, VersionRegistry
from adapters.routes import read_routes
from adapters.settings import Settings
from adapters.shard_log import BrokerAway, Fenced, TransactionFailed
from adapters.telemetry import Telemetry, set_up_logging
from adapters.tuning import OpenAITuning, ProviderAway
from core.actions import Actions, Known
from core.configs import ConfigLog
from core.dataset import Act, Dataset
from core.rules import DEFAULT_RULES, app_policy
from schemas.messages import ActionStep, AppPolicy, DatasetRules, RouteTable
from schemas.topics import CONFIG
from services.finetune_aliases import Aliases
from services.finetune_data import StoreAway, read_acts, read_file, write_dataset
from services.finetune_steps import ACTOR, JOB_PHASES, KINDS, FinetuneSteps

log = logging.getLogger(__name__)

_AWAY: Final = (StoreAway, RegistryAway, ProviderAway)
_CALLED_OFF: Final = frozenset({"superseded", "rejected", "expired", "failed"})
_CALL_OFF_MS: Final = 7 * 86_400_000
"""Jobs of an action that ended longer ago are not looked for any more."""
_POLL_S: Final = 0.25


class WorkerLog(Protocol):
    """llm.actions for one worker: `adapters.action_log.ActionLog`; `adapters.memory_action_log` has the in-memory twin."""

    def fence(self) -> None: ...
    def poll(self, timeout: float) -> list[tuple[ActionStep, int]]: ...
    def read_to_end(self) -> list[tuple[ActionStep, int]]: ...
    def append(self, steps: list[ActionStep]) -> None: ...
    def close(self) -> None: ...


class FinetuneWorker:
    """Reads every action, and takes those that may run one phase after the other until it is told to stop."""

    def __init__(
        self,
        actions_log: WorkerLog,
        steps: FinetuneSteps,
        aliases: Aliases,
        readiness: Readiness,
        stop: threading.Event,
        *,
        clock_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._log, self._steps, self._aliases = actions_log, steps, aliases
        self._readiness, self._stop = readiness, stop
        self._clock_ms, self._monotonic = clock_ms, monotonic
        self.actions = Actions()
        self._not_before: dict[str, float] = {}
        """By action when it is looked at again, by the monotonic clock."""
        self._said: dict[str, tuple[str, str]] = {}
        """By action the phase and the cause of waiting that its last step told of."""
        self._jobs: set[str] = set()
        """Actions for which a job may have been made."""
        self._written: set[tuple[str, int]] = set()
        """Steps (id, sequence) of this worker that have not come back from the log yet."""

    def run(self) -> int:
        """The exit code: 0 after a clean stop, EXIT_FENCED, or EXIT_CRASHED when only a new start can help."""
        try:
            patiently(self.start, self._stop, self._readiness)
            while not self._stop.is_set():
                patiently(self.cycle, self._stop, self._readiness)
        except Fenced as error:
            log.warning("%s; ending", error)
            return EXIT_FENCED
        except TransactionFailed as error:
            log.error("%s; ending, so that the next start begins from what is committed", error)
            return EXIT_CRASHED
        except BrokerAway as error:
            log.warning("told to stop while no broker answers: %s", error)
        finally:
            self._log.close()
        return 0

    def start(self) -> None:
        """Shut out the worker before this one, and read every action."""
        self._log.fence()
        self.actions = Actions()
        self._take(self._log.read_to_end())

    def cycle(self) -> None:
        """Take what is new, then each action one phase on. Raises BrokerAway, Fenced, TransactionFailed."""
        self._follow(self._log.poll(_POLL_S))
        waiting: list[str] = []
        for known in self.actions.open(KINDS):
            if known.step.state != "unverified" and self._monotonic() >= self._not_before.get(known.step.id, 0.0):
                self._advance(known)
            if cause := self._said.get(known.step.id):
                waiting.append(f"{known.step.kind} of {known.step.target.app!r} in phase {cause[0]} waits: {cause[1]}")
        self._call_off()
        self._aliases.catch_up(self.actions)
        self._readiness.set_ready("; ".join(waiting) or None)

    def _advance(self, known: Known) -> None:
        id_ = known.step.id
        try:
            step = self._steps.advance(known)
        except _AWAY as error:
            step = None
            self._not_before[id_] = self._monotonic() + 2.0
            if self._said.get(id_) != (known.step.phase, str(error)):
                step = self._steps.waiting(known, str(error))
                self._said[id_] = (step.phase, str(error))
        else:
            self._said.pop(id_, None)
            age_s = (self._clock_ms() - known.last) / 1000
            self._not_before[id_] = self._monotonic() + (max(0.5, min(30.0, age_s / 10)) if step is None else 0.0)
        if step is not None:
            self._append(known, step)

    def _append(self, known: Known, step: ActionStep) -> None:
        """Write the step, unless the action has gone on without us (a kill switch, a person)."""
        self._follow(self._log.read_to_end())
        if self.actions.get(step.id) != known:
            return
        self._written.add((step.id, step.sequence))
        self._log.append([step])
        log.info("%s %s: %s/%s", step.kind, step.id, step.state, step.phase)
        self._take([(step, self._clock_ms())])

    def _follow(self, steps: list[tuple[ActionStep, int]]) -> None:
        """Take steps that came after the start. One of this role that we did not write is another worker's: raises Fenced."""
        for step, _ in steps:
            place = (step.id, step.sequence)
            if step.actor == ACTOR and place not in self._written:
                raise Fenced("another finetune worker has taken over")
            self._written.discard(place)
        self._take(steps)

    def _take(self, steps: list[tuple[ActionStep, int]]) -> None:
        for step, append_time in steps:
            self.actions.take(step, append_time)
            if step.kind in KINDS and step.phase in JOB_PHASES:
                self._jobs.add(step.id)
            self._aliases.saw(step)

    def _call_off(self) -> None:
        """Cancel what still runs for actions that have ended without a candidate."""
        for id_ in sorted(self._jobs):
            known = self.actions.get(id_)
            if known is None or known.step.state not in _CALLED_OFF | {"succeeded"}:
                continue
            if known.step.state != "succeeded" and self._clock_ms() - known.last < _CALL_OFF_MS:
                if self._monotonic() < self._not_before.get(id_, 0.0):
                    continue
                try:
                    cancelled = self._steps.call_off(id_)
                except ProviderAway as error:
                    self._not_before[id_] = self._monotonic() + 5.0
                    log.warning("cannot cancel the jobs of %s yet: %s", id_, error)
                    continue
                if cancelled:
                    log.warning("%s is %s: cancelled %s", id_, known.step.state, ", ".join(cancelled))
            self._jobs.discard(id_)


class StoredDatasets:
    """`services.finetune_steps.Datasets` on ClickHouse and the data folder."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings

    def acts(self, app: str, environment: str, rules: DatasetRules, now_ms: int) -> list[Act]:
        return read_acts(self._settings, app, environment, rules, now_ms=now_ms)

    def write(self, dataset: Dataset) -> None:
        write_dataset(self._settings, dataset)

    def file(self, digest: str, name: str) -> bytes:
        return read_file(self._settings, digest, name)


@contextlib.contextmanager
def _broker_errors() -> Iterator[None]:
    try:
        yield
    except (ck.KafkaException, kafka.errors.KafkaError, TimeoutError, KeyError) as error:
        raise BrokerAway(f"{type(error).__name__}: {error}") from error


def build_finetune_worker(
    settings: Settings, readiness: Readiness, stop: threading.Event, registry: VersionRegistry | None = None
) -> FinetuneWorker:
    """A worker on the settings' cluster, store, provider and registry."""

    def routes() -> Mapping[tuple[str, str], RouteTable]:
        with _broker_errors():
            return read_routes(settings)

    def route(app: str, environment: str) -> RouteTable | None:
        return routes().get((app, environment))

    def policy(app: str, environment: str) -> AppPolicy:
        configs = ConfigLog()
        with _broker_errors():
            for record in read_all(settings, CONFIG, 0):
                configs.add(record)
        active = configs.config(configs.activations[-1][1].config).rules if configs.activations else DEFAULT_RULES
        return app_policy(active, app, environment)

    versions = registry or Registry(settings)
    steps = FinetuneSteps(
        StoredDatasets(settings), versions, OpenAITuning(settings), route, policy, lambda: time.time_ns() // 1_000_000
    )
    return FinetuneWorker(ActionLog(settings, "finetune"), steps, Aliases(versions, routes), readiness, stop)


def main(settings: Settings) -> int:
    """Run until SIGTERM or SIGINT; returns the exit code."""
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    set_up_logging("finetune-worker", settings)
    with Telemetry("finetune-worker", settings) as telemetry:
        telemetry.set_ready("waiting for Kafka")
        return build_finetune_worker(settings, telemetry, stop).run()
