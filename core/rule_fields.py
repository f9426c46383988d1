"""The fields of a file of rules: name, field of the contract, kind and meaning, section by section."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import msgspec

from core.detection.budget import STREAMS
from core.metrics import RATING
from core.rule_values import (
    DURATION,
    NAME,
    WEIGHTS,
    Kind,
    Listed,
    Report,
    Schema,
    choice,
    known_name,
    number,
    table,
    whole,
)
from core.rule_words import nearest, shown
from core.rules import LEAST_FIT, MOST_FIT
from core.yaml_text import Node
from schemas.messages import AppPolicy, CanaryRules, DatasetRules, FitRules, GateRules, PolicyRule

FEEDBACK: Final = "feedback."


def unknown_metric(name: str) -> str | None:
    """What to write instead of a metric that nothing watches; None for one that is watched."""
    if name in STREAMS:
        return None
    if name.startswith(FEEDBACK):
        return f"of feedback only `{RATING}` is watched yet"
    return nearest(name, STREAMS, "metrics that are watched")


METRIC: Final = known_name(unknown_metric, sorted(STREAMS), "metric that is watched")


@dataclass(frozen=True)
class Field:
    """A key of the file: the contract's field that it fills, and what it means."""

    attribute: str
    kind: Kind
    meaning: str


@dataclass(frozen=True)
class Section:
    """A table of the file that is a struct of the contract."""

    type: type[msgspec.Struct]
    fields: Mapping[str, Field]
    wanted: str

    def values(self, node: Node, path: str, report: Report, passed: Mapping[str, Kind] | None = None) -> dict[str, Any]:
        """What the table says, by attribute; keys of `passed` may stand there too and are read by their kind, by name."""
        read: dict[str, Any] = {}
        names = [*self.fields, *(passed or {})]
        for name, key, value in table(node, path, report, self.wanted) or ():
            at = f"{path}.{name}" if path else name
            known = self.fields.get(name)
            kind = known.kind if known else (passed or {}).get(name)
            if kind is None:
                report.add(
                    key.place,
                    f"{path}.{shown(name)}" if path else shown(name),
                    "no field is called so",
                    nearest(name, names, "fields"),
                )
                continue
            found = kind.read(value, at, report)
            if found is not None:
                read[known.attribute if known else name] = found
        return read

    def read(self, node: Node, path: str, report: Report, base: Any = None) -> Any:
        """The struct: what the table does not say is as in `base`, else as built in."""
        values = self.values(node, path, report)
        return msgspec.structs.replace(base or self.type(), **values)

    def plain(self, value: Any, *, full: bool = True) -> dict[str, Any]:
        """The table of a struct; without `full` only what differs from what is built in."""
        built_in = {f.name: f.default for f in msgspec.structs.fields(self.type)}
        told = {}
        for name, known in self.fields.items():
            held = getattr(value, known.attribute)
            if held is not None and (full or held != built_in[known.attribute]):
                told[name] = known.kind.plain(held)
        return told

    def schema(self) -> Schema:
        built_in = {f.name: f.default for f in msgspec.structs.fields(self.type)}
        properties = {}
        for name, known in self.fields.items():
            properties[name] = known.kind.schema() | {"description": known.meaning}
            default = built_in.get(known.attribute, msgspec.NODEFAULT)
            if default is not msgspec.NODEFAULT and default is not None and not isinstance(known.kind, Section):
                properties[name]["default"] = known.kind.plain(default)
        return {"type": "object", "additionalProperties": False, "properties": properties}


CANARY: Final = Section(
    CanaryRules,
    {
        "weights": Field(
            "weights", WEIGHTS, "The candidate's share of the units, step by step; after the last step come all of them."
        ),
        "step": Field("step_s", DURATION, "How long a step lasts at least."),
        "step_units": Field("step_units", whole(0), "How many units the candidate answers at least in a step."),
        "alpha": Field(
            "alpha",
            number(0, 0.5, percent=True),
            "Probability of ever stopping a harmless candidate, and of promoting a worse one.",
        ),
        "margin": Field("margin", number(1), "Odds ratio of failures, candidate to champion, that counts as worse."),
        "tolerable": Field(
            "tolerable", number(0, 1, least=True, percent=True), "A share of failures below which a guardrail passes."
        ),
        "max": Field("max_s", DURATION, "A candidate without evidence by then is taken back."),
    },
    "the fields of a canary",
)
DATASET: Final = Section(
    DatasetRules,
    {
        "days": Field("days", whole(1), "How many days of interactions a fine-tune is trained on."),
        "min_rows": Field("min_rows", whole(1), "With fewer rows nothing is trained."),
        "max_rows": Field("max_rows", whole(1), "More rows are not taken."),
        "per_actor": Field("per_actor", whole(1), "Rows that one actor may contribute."),
        "per_cluster": Field("per_cluster", whole(1), "Rows of near-equal questions."),
        "held_out": Field("held_out", number(0, 1, percent=True), "Share of the question clusters that is kept for the gate."),
    },
    "the fields of a dataset",
)
GATE: Final = Section(
    GateRules,
    {
        "min_questions": Field("min_questions", whole(2), "With fewer held-out questions nothing is concluded."),
        "confidence": Field("confidence", number(0.5, 1, percent=True), "With which a candidate must be better."),
        "correct": Field("correct", number(0, 1, most=True, percent=True), "Token F1 from which an answer counts as correct."),
    },
    "the fields of a gate",
)
FIT: Final = Section(
    FitRules,
    {
        "events": Field(
            "events",
            whole(LEAST_FIT, MOST_FIT, zero=True),
            "Scored prompts after which an app gets topic cells of its own; 0: never.",
        )
    },
    "the fields of a fit",
)
RULE: Final = Section(
    PolicyRule,
    {
        "id": Field("id", NAME, "Names the rule; a built-in one of the same name is changed."),
        "metric": Field("metric", METRIC, "What is watched."),
        "action": Field("action", choice("retrain", "rollback", "none"), "What follows when an alert fires."),
        "mode": Field(
            "mode", choice("suggest", "approve", "auto"), "Whether the action is suggested, waits for a person, or runs."
        ),
        "pending": Field("pending_s", DURATION, "How long it must hold before it fires, so that its cause can explain it."),
        "inhibited_by": Field(
            "inhibited_by", Listed(METRIC, "a list of metrics: [refusal, topic.mix]"), "Metrics whose alert explains this one."
        ),
        "cooldown": Field("cooldown_s", DURATION, "One incident pages, and one app gets an action, once in this time."),
        "ttl": Field("ttl_s", DURATION, "An action that nobody started by then expires."),
        "remind": Field("remind_s", DURATION, "What was acknowledged and still fires pages again after so long; 0s: never."),
    },
    "a rule: id, metric, …",
)
APP: Final = Section(
    AppPolicy,
    {
        "app": Field("app", NAME, "The app; left out: any."),
        "environment": Field("environment", NAME, "Its environment; left out: any."),
        "mode": Field("mode", choice("suggest", "approve", "auto"), "Replaces the mode of every rule."),
        "canary": Field("canary", CANARY, "How a candidate is tried; what is not said is as for all apps."),
        "dataset": Field("dataset", DATASET, "What a fine-tune is trained on."),
        "gate": Field("gate", GATE, "What a candidate must show before its canary."),
        "fit": Field("fit", FIT, "When it gets topic cells of its own."),
    },
    "an app: app, environment, and what differs for it",
)
