"""The fine-tune worker: from a request to retrain to a candidate that passed the gate, one recorded phase after the other."""

import contextlib
import logging
import os
import signal
import threading
from collections.abc import Callable, Mapping
from contextlib import closing
from pathlib import Path
from typing import Final

import clickhouse_connect.driver.exceptions as clickhouse_errors
import msgspec

from adapters import clickhouse
from adapters.action_log import ActionLog
from adapters.configs import ConfigReader
from adapters.feedback_rows import feedback_acts
from adapters.patience import EXIT_CRASHED, EXIT_FENCED, Readiness, patiently
from adapters.registry import Lineage, Registry, RegistryAway
from adapters.routes import RouteReader
from adapters.settings import Settings
from adapters.shard_log import BrokerAway, Fenced, TransactionFailed
from adapters.telemetry import Telemetry, set_up_logging
from adapters.tuning import ProviderAway, ProviderRefused, Tuning
from core.actions import Actions, Known, next_step
from core.configs import ConfigLog
from core.dataset import Act, Dataset, Row, build_dataset, describe, messages, read_held_out
from core.gate import Pair, judge
from core.rules import app_policy
from schemas.messages import ActionStep, AppPolicy, CallConfiguration, Scalar

log = logging.getLogger(__name__)
ROLE: Final = "finetune"
ACTOR: Final = "fine-tune worker"
KINDS: Final = ("retrain", "evaluate")
POLL_S: Final = 0.2
MAX_QUESTIONS: Final = 200
"""Held-out questions that the gate asks: more cost more and tell little more."""
REDACTED_REASON: Final = 300


class Waiting(Exception):
    """Somebody who is needed is away; the action goes on when they are back."""


class Ended(Exception):
    """The action ends here, for a reason."""


class FinetuneWorker:
    """One per cluster is at work: a second one shuts the first out, which then ends."""

    def __init__(
        self,
        settings: Settings,
        actions: ActionLog,
        routes: RouteReader,
        registry: Registry,
        tuning: Tuning,
        readiness: Readiness,
        stop: threading.Event,
        *,
        before: Callable[[ActionStep], None] = lambda _: None,
    ) -> None:
        """`before` is called before each step is written, for tests that end the process there."""
        self._settings, self._log, self._routes, self._registry, self._tuning = settings, actions, routes, registry, tuning
        self._readiness, self._stop, self._before = readiness, stop, before
        self._actions = Actions()
        self._configs = ConfigLog()
        self._reader: ConfigReader | None = None
        self._waits: dict[str, str] = {}
        self._aliases: dict[tuple[str, str], tuple[str, str | None]] = {}

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
            self._log.close()
            self._routes.close()
            if self._reader is not None:
                self._reader.close()
        return 0

    def cycle(self) -> None:
        """Read what came and carry each action on by one phase."""
        self._take(self._log.poll(POLL_S))
        self._routes.poll(0.0)
        for known in self._actions.open(KINDS):
            self._carry_on(known)
        self._name_champions()

    def _begin(self) -> None:
        self._log.fence()
        self._take(self._log.read_to_end())
        self._routes.read()

    def _take(self, steps: list[tuple[ActionStep, int]]) -> None:
        for step, time in steps:
            self._actions.take(step, time)

    def _carry_on(self, known: Known) -> None:
        step = known.step
        try:
            following = self._next(known)
        except Waiting as waiting:
            if self._waits.get(step.id) != str(waiting):
                self._waits[step.id] = str(waiting)
                log.info("%s %s: %s", step.kind, step.id, waiting)
            return
        except Ended as ended:
            following = next_step(step, "failed", step.phase, str(ended), actor=ACTOR)
        if following is None:
            return
        self._take(self._log.read_to_end())
        now = self._actions.get(step.id)
        if now is None or now.step != step:  # somebody else said something meanwhile: a kill switch, a person
            self._give_up(step)
            return
        self._before(following)
        self._log.append([following])
        self._waits.pop(step.id, None)
        log.info("%s %s: %s/%s: %s", step.kind, step.id, following.state, following.phase, following.reason)
        self._take(self._log.read_to_end())

    def _give_up(self, step: ActionStep) -> None:
        """What was begun for a step that does not stand any more is taken back."""
        if step.kind == "retrain" and step.phase in ("submitting", "submitted"):
            with contextlib.suppress(ProviderAway, ProviderRefused):
                for job in self._tuning.find(step.id):
                    if not job.ended:
                        self._tuning.cancel(job.id)

    # --- one phase after the other ----------------------------------------------------------------------------------

    def _next(self, known: Known) -> ActionStep | None:
        """Do what comes next, and the step that says so; None while there is nothing to say. Raises Waiting, Ended."""
        step = known.step
        if step.state == "requested":
            return self._start(known)
        try:
            match step.phase:
                case "dataset":
                    return self._dataset(step)
                case "submitting":
                    return self._submit(step)
                case "submitted":
                    return self._watch(step)
                case "tuned":
                    return self._register(step)
                case "registered" | "gate":
                    return self._gate(step)
                case _:
                    raise Ended(f"no worker knows the phase {step.phase!r}")
        except ProviderAway as error:
            raise Waiting(f"waiting for the provider: {error}") from error
        except ProviderRefused as error:
            raise Ended(f"the provider refused: {error}") from error
        except RegistryAway as error:
            raise Waiting(f"waiting for the registry: {error}") from error
        except (clickhouse_errors.OperationalError, OSError) as error:
            raise Waiting(f"waiting for ClickHouse: {type(error).__name__}") from error

    def _start(self, known: Known) -> ActionStep:
        step = known.step
        routed = self._routes.read().get((step.target.app, step.target.environment))
        table = routed.table if routed else None
        if table is None:
            return next_step(step, "failed", "", "the app has no route here: nothing says what its champion is", actor=ACTOR)
        if known.last >= known.expires:
            return next_step(step, "superseded", "", f"stale: it was asked for more than {step.ttl_s} s ago", actor=ACTOR)
        if table.hold is not None:
            reason = f"{table.hold} rolled this app back, and a person's decision stands"
            return next_step(step, "superseded", "", reason, actor=ACTOR)
        before = step.precondition
        if before.route_epoch is not None and before.route_epoch != table.epoch:
            reason = f"the route has gone from epoch {before.route_epoch} to {table.epoch} since it was asked for"
            return next_step(step, "superseded", "", reason, actor=ACTOR)
        data: dict[str, Scalar] = {"champion": table.champion, "epoch": table.epoch}
        if step.kind == "evaluate":
            version = step.target.version or ""
            return next_step(
                step, "started", "gate", f"{version} against {table.champion}", actor=ACTOR, data={**data, "version": version}
            )
        return next_step(step, "started", "dataset", f"to be better than {table.champion}", actor=ACTOR, data=data)

    def _dataset(self, step: ActionStep) -> ActionStep:
        dataset = self._made(step)
        rows = dataset.manifest["rows"]
        least = self._policy(step).dataset
        assert least is not None
        if rows["training"] < least.min_rows:
            raise Ended(f"too few rows: {describe(dataset.manifest)}; at least {least.min_rows} are needed")
        data: dict[str, Scalar] = {"rows": rows["training"], "held_out": rows["held_out"], "dataset": dataset.digest}
        return next_step(step, "started", "submitting", describe(dataset.manifest), actor=ACTOR, data=data)

    def _submit(self, step: ActionStep) -> ActionStep:
        job = self._tuning.settle(step.id)
        if job is None:
            content = (self._folder(step) / "training.jsonl").read_bytes()
            file = self._tuning.upload(content)
            with contextlib.suppress(ProviderAway):  # it may have been created all the same: what is there counts
                self._tuning.submit(self._base(step), file, step.id, _suffix(step))
            job = self._tuning.settle(step.id)
        if job is None:
            raise Waiting("the provider has not taken the job yet")
        return next_step(step, "started", "submitted", f"job {job.id}", actor=ACTOR, data={"job": job.id})

    def _watch(self, step: ActionStep) -> ActionStep | None:
        job = self._tuning.settle(step.id)  # a second one may have appeared since
        if job is None:
            raise Ended(f"the provider no longer knows job {step.data['job']}")
        if not job.ended:
            return None
        if job.status != "succeeded" or job.model is None:
            raise Ended(f"job {job.id} {job.status}: {(job.error or 'no reason given')[:REDACTED_REASON]}")
        return next_step(step, "started", "tuned", f"{job.model} is trained", actor=ACTOR, data={"model": job.model})

    def _register(self, step: ActionStep) -> ActionStep:
        configuration = msgspec.structs.replace(self._champion(step), model=str(step.data["model"]))
        dataset = self._made(step)
        lineage = Lineage(
            parameters={name: str(step.data[name]) for name in ("champion", "job", "dataset", "rows", "model")},
            manifest=dataset.files["manifest.json"],
        )
        version = self._registry.register(
            step.target.app,
            step.target.environment,
            configuration,
            reason=step.reason,
            actor=ACTOR,
            action=step.id,
            lineage=lineage,
        )
        return next_step(step, "started", "registered", f"{version} is registered", actor=ACTOR, data={"version": version})

    def _gate(self, step: ActionStep) -> ActionStep:
        version = str(step.data["version"])
        app, environment = step.target.app, step.target.environment
        candidate = self._registry.configuration(app, environment, version)
        if candidate is None:
            raise Ended(f"the registry has no {version}")
        held_out = self._made(step).held_out[:MAX_QUESTIONS]
        asked = [messages(row, None) for row in held_out]
        champion_said = self._tuning.answers(self._champion(step), asked)
        candidate_said = self._tuning.answers(candidate, asked)
        rules = self._policy(step).gate
        assert rules is not None
        verdict = judge(_pairs(held_out, champion_said, candidate_said), rules)
        self._registry.log_metrics(app, environment, version, verdict.figures)
        data: dict[str, Scalar] = {
            "version": version,
            "gate": "passed" if verdict.outcome == "pass" else verdict.outcome,
            "questions": verdict.questions,
            "improvement": verdict.improvement.estimate,
            "low": verdict.improvement.low,
            "high": verdict.improvement.high,
        }
        if verdict.outcome != "pass":
            return next_step(step, "failed", "gate", verdict.reason, actor=ACTOR, data=data)
        self._registry.set_aliases(app, environment, {"candidate": version})
        return next_step(step, "succeeded", "candidate", verdict.reason, actor=ACTOR, data=data)

    # --- what the phases need ---------------------------------------------------------------------------------------

    def _champion(self, step: ActionStep) -> CallConfiguration:
        """The call configuration that the candidate is compared with: the champion's when the action began."""
        version = str(step.data["champion"])
        routed = self._routes.routes.get((step.target.app, step.target.environment))
        known = routed.table.versions.get(version) if routed else None
        known = known or self._registry.configuration(step.target.app, step.target.environment, version)
        if known is None:
            raise Ended(f"the configuration of {version} is not known any more")
        return known

    def _base(self, step: ActionStep) -> str:
        """The model that is trained on: the one that the champion calls."""
        return self._champion(step).model

    def _made(self, step: ActionStep) -> Dataset:
        """The action's dataset, made once: a restart finds the files of the first time."""
        folder = self._folder(step)
        if (folder / "manifest.json").exists():
            files = {name: (folder / name).read_bytes() for name in ("training.jsonl", "held_out.jsonl", "manifest.json")}
            return Dataset([], read_held_out(files["held_out.jsonl"]), msgspec.json.decode(files["manifest.json"]), files)
        rules = self._policy(step).dataset
        assert rules is not None
        app, environment = step.target.app, step.target.environment
        with closing(clickhouse.connect(self._settings)) as client:
            acts = [Act(**act) for act in feedback_acts(client, app, environment, rules.days)]
        dataset = build_dataset(
            acts,
            rules,
            app=app,
            environment=environment,
            config=step.config,
            system_prompt=self._champion(step).system_prompt,
        )
        _store(folder, dataset.files)
        return dataset

    def _folder(self, step: ActionStep) -> Path:
        return self._settings.data_dir / "datasets" / step.id

    def _policy(self, step: ActionStep) -> AppPolicy:
        """The policy under which the action was asked for."""
        if step.config not in self._configs.configs:
            if self._reader is None:
                self._reader = ConfigReader(self._settings, self._configs, max_age=0.0)
            self._reader.refresh()
        return app_policy(self._configs.config(step.config).rules, step.target.app, step.target.environment)

    def _name_champions(self) -> None:
        """Let the registry's aliases follow the routes; while it is away they wait."""
        for key, routed in self._routes.routes.items():
            wanted = (routed.table.champion, routed.table.previous)
            if self._aliases.get(key) == wanted:
                continue
            aliases: Mapping[str, str | None] = {"champion": wanted[0], "previous": wanted[1]}
            with contextlib.suppress(RegistryAway):
                self._registry.set_aliases(*key, aliases)
                self._aliases[key] = wanted


def _pairs(rows: list[Row], champion: list[str], candidate: list[str]) -> list[Pair]:
    return [Pair(row.question, row.answer, before, after) for row, before, after in zip(rows, champion, candidate, strict=True)]


def _suffix(step: ActionStep) -> str:
    """What a provider puts into the model's name: harmless, and short."""
    return f"bellbuoy-{step.id[:8]}"


def _store(folder: Path, files: Mapping[str, bytes]) -> None:
    """Write the files, readable by their owner alone; the manifest last, so that half a dataset is none."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    for name in sorted(files, key=lambda name: name == "manifest.json"):
        draft = folder / f".{name}.new"
        with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
            file.write(files[name])
            file.flush()
            os.fsync(file.fileno())
        draft.replace(folder / name)


def build_finetune_worker(settings: Settings, readiness: Readiness, stop: threading.Event) -> FinetuneWorker:
    """A fine-tune worker on the settings' cluster, store, registry and provider."""
    return FinetuneWorker(
        settings, ActionLog(settings, ROLE), RouteReader(settings), Registry(settings), Tuning(settings), readiness, stop
    )


def main(settings: Settings) -> int:
    """Run until SIGTERM or SIGINT; returns the exit code."""
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    set_up_logging("finetune-worker", settings)
    with Telemetry("finetune-worker", settings) as telemetry, contextlib.suppress(BrokerAway):
        telemetry.set_ready("waiting for Kafka")
        return build_finetune_worker(settings, telemetry, stop).run()
    return 0
