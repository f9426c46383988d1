"""The default policy: what is judged, what follows an alert, and which alert explains which."""

import math
from collections import Counter
from collections.abc import Mapping
from typing import Final

from schemas.messages import Config, PolicyRule, Rules

EXPLAINED_AFTER_S: Final = 30
"""How long an alert without an action waits for the alert that explains it."""

DEFAULT_RULES: Final = Rules(
    false_pages=1,
    per_days=30.0,
    delta=0.05,
    reference_events=5_000,
    rules=(
        PolicyRule(id="topic-shift", metric="topic.mix", action="retrain"),
        PolicyRule(id="refusal-on-version", metric="refusal", action="rollback"),
        PolicyRule(id="error", metric="error"),
        PolicyRule(id="response-pii", metric="response.pii"),
        PolicyRule(id="prompt-pii", metric="prompt.pii", pending_s=EXPLAINED_AFTER_S, inhibited_by=("topic.mix",)),
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
            for metric in ("response.length", "response.empty", "response.repeated", "latency")
        ),
        PolicyRule(id="prompt-language", metric="prompt.language", pending_s=EXPLAINED_AFTER_S, inhibited_by=("topic.mix",)),
    ),
)


def default_config(
    *,
    scorers: Mapping[str, int],
    embedding: str,
    partitions: Mapping[str, int],
    shards: int,
    receipt_keys: Mapping[str, str],
    rules: Rules = DEFAULT_RULES,
) -> Config:
    """The config that a new installation activates first. `scorers`: name → version; `embedding`: sha256 of the table;
    `partitions`: raw topic → count; `receipt_keys`: key id → Ed25519 public key, base64."""
    return Config(
        scorers=dict(scorers),
        embedding=embedding,
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
    twice = [id_ for id_, count in Counter(rule.id for rule in rules.rules).items() if count > 1]
    if twice:
        raise ValueError(f"rules.rules: the id {twice[0]} is there twice")
    for rule in rules.rules:
        if min(rule.cooldown_s, rule.pending_s, rule.ttl_s) < 0:
            raise ValueError(f"rules.rules: a time of {rule.id} is negative")
