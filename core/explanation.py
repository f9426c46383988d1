"""Why a stored interaction has the scores that it has: each score with its scorer's version and its reasons, in words of its text."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

from core.cells import cells_of, scorer_version
from core.metrics import FIRES, METRICS
from core.scoring.adapted import versioned
from schemas.messages import FIXED_ONE, Config

MAX_QUOTED: Final = 200
"""Characters of a text that a reason quotes."""


@dataclass(frozen=True)
class Why:
    """One reason; `quoted` is what stands at [start, end) of the text, None where that is no longer kept."""

    rule: str
    text: Literal["prompt", "response"]
    start: int
    end: int
    quoted: str | None


@dataclass(frozen=True)
class ExplainedScore:
    """One score; `scorer` None where the config that scored it is not at hand, `value` None where the scorer failed."""

    name: str
    value: int | None
    label: str | None
    scorer: str | None
    fires: bool
    reasons: tuple[Why, ...] = ()

    @property
    def shown(self) -> str:
        """The value as people read it: a share of one for a rate or a distance, else the number or the label.

        >>> ExplainedScore("refusal", 65535, None, None, True).shown, ExplainedScore("latency", 1200, None, None, False).shown
        ('1.000', '1,200')
        """
        if self.value is None:
            return "failed"
        kind = METRICS[self.name].kind if self.name in METRICS else "rate"
        if kind in ("rate", "distance"):
            return f"{self.value / FIXED_ONE:.3f}"
        return f"{self.value:,}" if kind == "number" else self.label or "-"


@dataclass(frozen=True)
class Explained:
    """One interaction: its redacted texts and its scores, those that fire first."""

    id: str
    app: str
    environment: str
    version: str
    arrival_ms: int
    config: str
    prompt: str
    response: str
    scores: tuple[ExplainedScore, ...]


def explained(row: Mapping[str, Any], config: Config | None) -> Explained:
    """A row of the query `explain`; `config` is the one that the row names, where it is at hand."""
    texts = {"prompt": str(row["prompt"]), "response": str(row["response"])}
    given = json.loads(row["reasons"]) if row["reasons"] else {}
    labels, values = dict(row["labels"]), dict(row["scores"])
    scorers = scorer_of(config, row["app"], row["environment"]) if config is not None else {}
    scores = [
        ExplainedScore(
            name,
            int(value),
            labels.get(name),
            scorers.get(name),
            fires(name, int(value)),
            tuple(_why(reason, texts) for reason in given.get(name, ())),
        )
        for name, value in values.items()
    ]
    scores += [ExplainedScore(name, None, None, scorers.get(name), False) for name in row["score_errors"]]
    return Explained(
        row["id"],
        row["app"],
        row["environment"],
        row["version"],
        row["arrival_ms"],
        row["config"],
        texts["prompt"],
        texts["response"],
        tuple(sorted(scores, key=lambda score: (not score.fires, score.value is not None, score.name))),
    )


def fires(name: str, value: int) -> bool:
    """Whether a score fires: only what is no number, category or distance can.

    >>> fires("refusal", 65_535), fires("refusal", 0), fires("latency", 65_535), fires("prompt.pii.email", 65_535)
    (True, False, False, True)
    """
    return (name not in METRICS or METRICS[name].kind == "rate") and value >= FIRES


def scorer_of(config: Config, app: str, environment: str) -> dict[str, str]:
    """Metric → `name@version` as a config has an app scored."""
    found = {
        name: f"{metric.scorer}@{config.scorers[metric.scorer]}"
        for name, metric in METRICS.items()
        if metric.scorer in config.scorers
    }
    for head in config.adapted:
        if (head.app, head.environment) == (app, environment) and head.name in found:
            found[head.name] = versioned(found[head.name], head.version)
    own = cells_of(config, app, environment)
    if own is not None and "topic" in config.scorers:
        found |= dict.fromkeys(("topic", "novelty"), f"topic@{scorer_version(config.scorers['topic'], own.version)}")
    return found


def as_json(one: Explained) -> dict[str, Any]:
    """An explained interaction as plain values."""
    return {
        "id": one.id,
        "app": one.app,
        "environment": one.environment,
        "version": one.version,
        "arrival_ms": one.arrival_ms,
        "config": one.config,
        "prompt": one.prompt,
        "response": one.response,
        "scores": {
            score.name: {
                "value": score.value,
                "label": score.label,
                "scorer": score.scorer,
                "fires": score.fires,
                "reasons": [
                    {
                        "feature" if ":" in why.rule else "rule": why.rule,
                        "text": why.text,
                        "start": why.start,
                        "end": why.end,
                        "quoted": why.quoted,
                    }
                    for why in score.reasons
                ],
            }
            for score in one.scores
        },
    }


def _why(reason: Mapping[str, Any], texts: Mapping[str, str]) -> Why:
    where: Literal["prompt", "response"] = "prompt" if reason.get("text") == "prompt" else "response"
    start, end = int(reason.get("start", 0)), int(reason.get("end", 0))
    text = texts[where]
    quoted = text[start : min(end, start + MAX_QUOTED)] if text and 0 <= start <= end <= len(text) else None
    return Why(str(reason["rule"]), where, start, end, quoted)
