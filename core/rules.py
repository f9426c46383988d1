"""The default policy: what is judged, what follows an alert, and which alert explains which."""

import math
from collections import Counter
from collections.abc import Mapping
from typing import Any, Final

import msgspec

from schemas.messages import (
    WEIGHT_ONE,
    AppPolicy,
    CanaryRules,
    Config,
    DatasetRules,
    FitRules,
    GateRules,
    Mode,
    PolicyRule,
    Rules,
)

EXPLAINED_AFTER_S: Final = 30
"""How long an alert without an action waits for the alert that explains it."""

LEAST_FIT: Final = 400
MOST_FIT: Final = 40_000
"""Prompts that an app's own cells may be fitted to."""

DEMO_ENVIRONMENT: Final = "demo"
"""Apps of this environment are the demo's: actions run by themselves, and a canary lasts seconds. Their topics keep the
fixed cells: the story is too short for cells of its own."""
DEMO_POLICY: Final = AppPolicy(
    environment=DEMO_ENVIRONMENT,
    mode="auto",
    canary=CanaryRules(weights=(1_000, 5_000), step_s=10, step_units=100, margin=3.0, tolerable=0.03, max_s=180),
    dataset=DatasetRules(min_rows=10, per_actor=5, per_cluster=10, held_out=0.3),
    gate=GateRules(min_questions=20),
    fit=FitRules(events=0),
)
DEFAULT_RULES: Final = Rules(
    rules=(
        PolicyRule(id="topic-shift", metric="topic.mix", action="retrain"),
        PolicyRule(id="refusal-on-version", metric="refusal", action="rollback"),
        PolicyRule(id="error", metric="error"),
        PolicyRule(id="response-unsafe", metric="response.safety.unsafe"),
        PolicyRule(id="jailbreak", metric="prompt.safety.jailbreak"),
        PolicyRule(id="prompt-unsafe", metric="prompt.safety.unsafe", pending_s=EXPLAINED_AFTER_S, inhibited_by=("topic.mix",)),
        PolicyRule(id="response-pii", metric="response.pii"),
        PolicyRule(id="prompt-pii", metric="prompt.pii", pending_s=EXPLAINED_AFTER_S, inhibited_by=("topic.mix",)),
        PolicyRule(
            id="response-over-refusal",
            metric="response.over_refusal",
            pending_s=EXPLAINED_AFTER_S,
            inhibited_by=("refusal", "topic.mix"),
        ),
        PolicyRule(id="response-prompt-leak", metric="response.prompt_leak"),
        PolicyRule(id="scorer-error", metric="scorer.error"),
        PolicyRule(
            id="thumbs-down", metric="thumbs.down", pending_s=EXPLAINED_AFTER_S, inhibited_by=("refusal", "topic.mix", "error")
        ),
        *(
            PolicyRule(
                id=metric.replace(".", "-"),
                metric=metric,
                pending_s=EXPLAINED_AFTER_S,
                inhibited_by=("refusal", "topic.mix", "error"),
            )
            for metric in (
                "response.length",
                "response.empty",
                "response.repeated",
                "response.cut_off",
                "response.format",
                "response.language_differs",
                "latency",
                "cost",
            )
        ),
        PolicyRule(id="prompt-language", metric="prompt.language", pending_s=EXPLAINED_AFTER_S, inhibited_by=("topic.mix",)),
    ),
    apps=(DEMO_POLICY,),
)


def app_policy(rules: Rules, app: str, environment: str) -> AppPolicy:
    """What holds for an app: the first entry of `rules.apps` that fits, filled up from the rules themselves; `mode` None means
    that each rule's own mode holds."""
    for entry in rules.apps:
        if entry.app in (None, app) and entry.environment in (None, environment):
            break
    else:
        entry = AppPolicy()
    return AppPolicy(
        app=app,
        environment=environment,
        mode=entry.mode,
        canary=entry.canary or rules.canary,
        dataset=entry.dataset or rules.dataset,
        gate=entry.gate or rules.gate,
        fit=entry.fit or rules.fit,
    )


def mode_of(rule: PolicyRule, rules: Rules, app: str, environment: str) -> Mode:
    """In which mode a rule's action runs for an app."""
    return app_policy(rules, app, environment).mode or rule.mode


def canonical(rules: Rules) -> Rules:
    """Equal rules, of which equal ones have equal bytes and so one digest: what equals a default is the default itself, which
    is not written.

    >>> from schemas.codec import digest
    >>> spelled_out = Rules(per_days=float("30"), canary=CanaryRules(step_s=int("600")))
    >>> digest(spelled_out) == digest(Rules()), digest(canonical(spelled_out)) == digest(Rules())
    (False, True)
    """
    made = _canonical(rules)
    assert isinstance(made, Rules)
    return made


def _canonical(value: Any) -> Any:
    if isinstance(value, tuple):
        return tuple(_canonical(one) for one in value)
    if not isinstance(value, msgspec.Struct):
        return value
    held = {f.name: (_canonical(getattr(value, f.name)), f.default) for f in msgspec.structs.fields(value)}
    return type(value)(**{name: default if is_ == default else is_ for name, (is_, default) in held.items()})


def default_config(
    *,
    scorers: Mapping[str, int],
    embedding: str,
    heads: str,
    partitions: Mapping[str, int],
    shards: int,
    receipt_keys: Mapping[str, str],
    rules: Rules = DEFAULT_RULES,
) -> Config:
    """The config that a new installation activates first. `scorers`: name → version; `embedding`, `heads`: sha256 of the tables;
    `partitions`: raw topic → count; `receipt_keys`: key id → Ed25519 public key, base64."""
    return Config(
        scorers=dict(scorers),
        embedding=embedding,
        heads=heads,
        partitions=dict(partitions),
        shards=shards,
        receipt_keys=dict(receipt_keys),
        rules=rules,
    )


def check_rules(rules: Rules) -> None:
    """Raises ValueError for a policy that nothing can be judged by; the message names the field."""
    if rules.false_pages < 1 or not 0.0 < rules.per_days < math.inf:
        raise ValueError("rules.false_pages and rules.per_days must be positive: they are the budget of false alarms")
    if not 0.0 < rules.delta < 1.0:
        raise ValueError("rules.delta must lie between 0 and 1: it is a probability")
    if rules.reference_events < 1:
        raise ValueError("rules.reference_events must be positive")
    if not all(0.0 < share < math.inf for share in rules.shares.values()):
        raise ValueError("rules.shares must be positive: they are weights")
    twice = [id_ for id_, count in Counter(rule.id for rule in rules.rules).items() if count > 1]
    if twice:
        raise ValueError(f"rules.rules: the id {twice[0]} is there twice")
    for canary in (rules.canary, *(a.canary for a in rules.apps if a.canary)):
        _check_canary(canary)
    for dataset in (rules.dataset, *(a.dataset for a in rules.apps if a.dataset)):
        _check_dataset(dataset)
    for gate in (rules.gate, *(a.gate for a in rules.apps if a.gate)):
        if gate.min_questions < 2 or not 0.5 < gate.confidence < 1.0 or not 0.0 < gate.correct <= 1.0:
            raise ValueError("rules.gate: min_questions must be 2 or more, confidence in (0.5, 1), correct in (0, 1]")
    for fit in (rules.fit, *(a.fit for a in rules.apps if a.fit)):
        if fit.events != 0 and not LEAST_FIT <= fit.events <= MOST_FIT:
            raise ValueError(f"rules.fit.events must lie between {LEAST_FIT:,} and {MOST_FIT:,}, or be 0: never")
    for rule in rules.rules:
        if min(rule.cooldown_s, rule.pending_s, rule.ttl_s, rule.remind_s) < 0:
            raise ValueError(f"rules.rules: a time of {rule.id} is negative")


def _check_canary(canary: CanaryRules) -> None:
    if not canary.weights or list(canary.weights) != sorted(set(canary.weights)):
        raise ValueError("rules.canary.weights must rise from step to step")
    if not all(0 < weight < WEIGHT_ONE for weight in canary.weights):
        raise ValueError(f"rules.canary.weights must lie between 0 and {WEIGHT_ONE}: they are ten-thousandths")
    if not 0.0 < canary.alpha < 0.5 or not 1.0 < canary.margin < math.inf or not 0.0 <= canary.tolerable < 1.0:
        raise ValueError("rules.canary: alpha must lie in (0, 0.5), margin above 1 (it is an odds ratio), tolerable in [0, 1)")
    if min(canary.step_s, canary.step_units, canary.max_s) < 0:
        raise ValueError("rules.canary: a time or a number of units is negative")


def _check_dataset(dataset: DatasetRules) -> None:
    if min(dataset.days, dataset.min_rows, dataset.max_rows, dataset.per_actor, dataset.per_cluster) < 1:
        raise ValueError("rules.dataset: days, rows and caps must be positive")
    if not 0.0 < dataset.held_out < 1.0:
        raise ValueError("rules.dataset.held_out must lie between 0 and 1: it is a share")
