"""The phases of a fine-tune: given how far an action has come, do the next thing and say which step tells of it."""

import contextlib
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, Protocol

import msgspec

from adapters.registry import UnknownVersion, VersionRegistry
from adapters.tuning import AnswerLost, Job, ProviderAway, ProviderRefused, TuningProvider, plan
from core.actions import Known, next_step
from core.dataset import Act, Dataset, build_dataset, describe, messages, read_held_out
from core.gate import Pair, Verdict, judge
from schemas.messages import ActionState, ActionStep, AppPolicy, CallConfiguration, DatasetRules, GateRules, RouteTable, Scalar
from services.finetune_data import NoDataset

ACTOR: Final = "fine-tune worker"
KINDS: Final = ("retrain", "evaluate")
JOB_PHASES: Final = frozenset({"submitting", "submitted"})
"""Phases in which a job may be going on at the provider."""
GATE_QUESTIONS: Final = 500
"""Held-out questions that are put to both versions at most, the newest."""
_GONE_MS: Final = 600_000
"""A job that the provider has not listed for so long is given up."""


class Datasets(Protocol):
    """Where feedback comes from and datasets are kept."""

    def acts(self, app: str, environment: str, rules: DatasetRules, now_ms: int) -> list[Act]:
        """Feedback of an app. Raises StoreAway."""

    def write(self, dataset: Dataset) -> None:
        """Keep a dataset."""

    def file(self, digest: str, name: str) -> bytes:
        """One of its files. Raises NoDataset."""


class _Stop(Exception):
    """The action ends without a candidate; the text says why."""

    def __init__(self, state: ActionState, reason: str) -> None:
        super().__init__(reason)
        self.state: ActionState = state


class FinetuneSteps:
    """Retrain and evaluate, one phase at a time. Whatever it does may be done again after a crash: a job is found by the
    action's id, a version by the action that made it, and the rest changes nothing.

    `route` gives an app's present table, `policy` what holds for the app.
    """

    def __init__(
        self,
        datasets: Datasets,
        registry: VersionRegistry,
        provider: TuningProvider,
        route: Callable[[str, str], RouteTable | None],
        policy: Callable[[str, str], AppPolicy],
        clock_ms: Callable[[], int],
    ) -> None:
        self._datasets, self._registry, self._provider = datasets, registry, provider
        self._route, self._policy, self._clock_ms = route, policy, clock_ms

    def advance(self, known: Known) -> ActionStep | None:
        """The step after the action's last one; None while the provider works. Raises StoreAway, RegistryAway, ProviderAway."""
        step = known.step
        phase = step.phase or ("dataset" if step.kind == "retrain" else "gate")
        try:
            if step.state == "requested":
                return self._begin(known, phase)
            match phase:
                case "dataset" if "dataset" not in step.data:
                    return self._collect(step, phase)
                case "dataset":
                    return self._announce(step)
                case "submitting":
                    return self._submit(step)
                case "submitted":
                    return self._watch(known)
                case "tuned":
                    return self._register(step)
                case "registered":
                    return self._go_on(step, "gate", "held-out questions go to both versions")
                case "gate" if "dataset" not in step.data:
                    return self._collect(step, phase)
                case "gate":
                    return self._judge(step)
            raise _Stop("failed", f"a phase that this code does not know: {phase[:40]}")
        except _Stop as stop:
            return next_step(step, stop.state, phase, str(stop), actor=ACTOR)
        except (ProviderRefused, UnknownVersion, NoDataset) as error:
            return next_step(step, "failed", phase, str(error), actor=ACTOR)

    def waiting(self, known: Known, cause: str) -> ActionStep:
        """The step that says that the action waits for something outside."""
        step = known.step
        phase = step.phase or ("dataset" if step.kind == "retrain" else "gate")
        return next_step(step, "started", phase, f"waiting: {cause}", actor=ACTOR)

    def call_off(self, action: str) -> list[str]:
        """Cancel the jobs of an action that is not to go on; their ids. Raises ProviderAway."""
        return self._provider.cancel(action)

    def _begin(self, known: Known, phase: str) -> ActionStep:
        step = known.step
        if self._clock_ms() >= known.expires:
            raise _Stop("expired", f"not started within {step.ttl_s} s")
        table = self._table(step)
        asked = step.precondition
        if asked.version is not None and table.champion != asked.version:
            raise _Stop("superseded", f"{table.champion} is the champion now, {asked.version} was when this was asked for")
        if asked.route_epoch is not None and table.epoch != asked.route_epoch:
            raise _Stop("superseded", f"the route has epoch {table.epoch} now, {asked.route_epoch} when this was asked for")
        data: dict[str, Scalar] = {"champion": table.champion, "champion_epoch": table.epoch}
        if step.kind == "evaluate":
            version = step.target.version
            if version is None:
                raise _Stop("failed", "it names no version to evaluate")
            if version == table.champion:
                raise _Stop("failed", f"{version} is the champion already")
            data["version"] = version
        return self._go_on(step, phase, "collecting corrected and well-rated answers", data)

    def _collect(self, step: ActionStep, phase: str) -> ActionStep:
        target = step.target
        policy = self._policy(target.app, target.environment)
        rules, gate = policy.dataset or DatasetRules(), policy.gate or GateRules()
        champion = self._champion(step)
        now = self._clock_ms()
        dataset = build_dataset(
            self._datasets.acts(target.app, target.environment, rules, now),
            rules,
            app=target.app,
            environment=target.environment,
            config=step.config,
            system_prompt=champion.system_prompt,
        )
        rows, held_out = len(dataset.training), len(dataset.held_out)
        said = describe(dataset.manifest)
        if step.kind == "retrain" and rows < rules.min_rows:
            raise _Stop("failed", f"too few rows: {rows}, {rules.min_rows} are needed ({said})")
        if held_out < gate.min_questions:
            raise _Stop("failed", f"too few held-out questions: {held_out}, {gate.min_questions} are needed ({said})")
        self._datasets.write(dataset)
        data: dict[str, Scalar] = {"dataset": dataset.digest, "rows": rows, "held_out": held_out}
        return self._go_on(step, phase, said, data)

    def _announce(self, step: ActionStep) -> ActionStep:
        """Before anything is sent: what will be, and where to."""
        training = self._datasets.file(_fact(step, "dataset"), "training.jsonl")
        cost = plan(training, self._champion(step).model)
        return self._go_on(step, "submitting", f"{cost}, at {self._provider.place}", {"tokens": cost.tokens})

    def _submit(self, step: ActionStep) -> ActionStep:
        job = self._provider.keep_one(step.id)
        if job is None:
            champion, digest = self._champion(step), _fact(step, "dataset")
            training = self._datasets.file(digest, "training.jsonl")
            file = self._provider.upload(training, f"bellbuoy-{digest}.jsonl")
            suffix = re.sub(r"[^a-z0-9]+", "-", step.target.app.lower()).strip("-")[:18] or "app"
            try:
                job = self._provider.submit(step.id, file, champion.model, suffix=suffix, seed=int(digest[:7], 16))
            except AnswerLost:
                job = self._provider.keep_one(step.id)
                if job is None:
                    raise
            else:
                with contextlib.suppress(ProviderAway):  # the job is known; not every provider lists it at once
                    job = self._provider.keep_one(step.id) or job
        return self._go_on(step, "submitted", f"job {job.id} is {job.status}", {"job": job.id})

    def _watch(self, known: Known) -> ActionStep | None:
        step = known.step
        job = self._provider.keep_one(step.id)
        if job is None:
            if self._clock_ms() - known.last > _GONE_MS:
                raise _Stop("failed", f"the provider does not list job {step.data.get('job')} any more")
            return None
        if not job.ended:
            return None
        if job.status != "succeeded" or not job.fine_tuned_model:
            raise _Stop("failed", _what_became(job))
        return self._go_on(
            step, "tuned", f"job {job.id} made {job.fine_tuned_model}", {"job": job.id, "model": job.fine_tuned_model}
        )

    def _register(self, step: ActionStep) -> ActionStep:
        self._provider.keep_one(step.id)
        champion = self._champion(step)
        configuration = msgspec.structs.replace(champion, model=_fact(step, "model"))
        digest = _fact(step, "dataset")
        manifest: Mapping[str, Any] = msgspec.json.decode(self._datasets.file(digest, "manifest.json"))
        version = self._registry.register(
            step.target.app,
            step.target.environment,
            configuration,
            action=step.id,
            facts={
                "kind": step.kind,
                "incident": step.incident,
                "parent": _fact(step, "champion"),
                "job": _fact(step, "job"),
                "dataset": digest,
                "rows": _fact(step, "rows"),
                "base_model": champion.model,
            },
            manifest=manifest,
        )
        return self._go_on(step, "registered", f"{version} is in the registry", {"version": version})

    def _judge(self, step: ActionStep) -> ActionStep:
        target, version = step.target, _fact(step, "version")
        policy = self._policy(target.app, target.environment)
        champion = self._champion(step)
        candidate = self._registry.configuration(target.app, target.environment, version)
        rows = read_held_out(self._datasets.file(_fact(step, "dataset"), "held_out.jsonl"))[-GATE_QUESTIONS:]
        asked = [messages(row, None) for row in rows]
        verdict = judge(
            [
                Pair(row.question, row.answer, before, after)
                for row, before, after in zip(
                    rows, self._provider.answers(champion, asked), self._provider.answers(candidate, asked), strict=True
                )
            ],
            policy.gate or GateRules(),
        )
        self._registry.note(
            target.app,
            target.environment,
            version,
            {"gate": verdict.outcome, "gate.champion": _fact(step, "champion"), **verdict.figures},
        )
        data = _figures(verdict)
        if verdict.outcome != "pass":
            return next_step(step, "failed", "gate", verdict.reason, actor=ACTOR, data=data)
        reason = f"{version} may be tried: {verdict.reason}"
        return next_step(
            step,
            "succeeded",
            "candidate",
            reason,
            actor=ACTOR,
            data={**data, "gate": "passed"},
            evidence=_evidence(step, verdict),
        )

    def _table(self, step: ActionStep) -> RouteTable:
        table = self._route(step.target.app, step.target.environment)
        if table is None:
            raise _Stop(
                "failed",
                "no route: nothing says which version answers (`bellbuoy release APP VERSION --now --reason …` makes one)",
            )
        return table

    def _champion(self, step: ActionStep) -> CallConfiguration:
        """The configuration of the champion, which must still be the one of the beginning."""
        table = self._table(step)
        began = _fact(step, "champion")
        if table.champion != began:
            raise _Stop("failed", f"{table.champion} became the champion meanwhile, this began from {began}")
        held = table.versions.get(table.champion)
        if held is None:
            raise _Stop("failed", f"the route does not know the configuration of {table.champion}")
        return held

    def _go_on(self, step: ActionStep, phase: str, reason: str, data: Mapping[str, Scalar] | None = None) -> ActionStep:
        return next_step(step, "started", phase, reason, actor=ACTOR, data=data)


def _fact(step: ActionStep, name: str) -> str:
    """What the steps so far say of the action."""
    if name not in step.data:
        raise _Stop("failed", f"its steps do not say its {name}")
    return str(step.data[name])


def _what_became(job: Job) -> str:
    why = f": {job.error}" if job.error else ""
    return f"job {job.id} {job.status}{why}" if job.status != "succeeded" else f"job {job.id} names no model that it made"


def _figures(verdict: Verdict) -> dict[str, Scalar]:
    return {
        "questions": verdict.questions,
        "improvement": verdict.improvement.estimate,
        "low": verdict.improvement.low,
        "high": verdict.improvement.high,
        "leaks": verdict.leaks,
    }


def _evidence(step: ActionStep, verdict: Verdict) -> Sequence[str]:
    trained = [f"trained on {_fact(step, 'rows')} rows of dataset {_fact(step, 'dataset')}"] if step.kind == "retrain" else []
    return [*trained, f"gate: {verdict.reason}"]
