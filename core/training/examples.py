"""Which head learns what from a row of training data: labels by head, and how much the row counts."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from core.metrics import HARMS

HEADS: Final = (*HARMS, "harmful", "toxic", "asking", "jailbreak", "reply", "refusal")
"""`harmful` is any harm, `toxic` wording, `asking` what is asked for, `reply` a harmful answer, `refusal` an answer that declines."""
ANSWER_HEADS: Final = ("reply", "refusal")
FILES: Final = ("prompts_harm", "content", "jailbreak_injection", "benign_instructions", "responses", "intents")
WRITTEN: Final = "written"
ORDINARY: Final = "ordinary"
"""The file of our own texts that are everyday traffic."""

_CATEGORY_OF: Final = {
    "illegal": "illicit",
    "fraud": "illicit",
    "cyber": "illicit",
    "privacy": "illicit",
    "misinfo": "illicit",
    "hate_threat": "hate",
    "extremism": "violence",
}
_WEAK: Final = 0.3
_SIDE: Final = 0.3
"""Weight of rows that are only a background for a head."""


@dataclass(frozen=True)
class Example:
    """A text with labels of the heads that may learn from it, and how much it counts for each."""

    text: str
    source: str
    labels: Mapping[str, int]
    weights: Mapping[str, float]
    benign_traffic: bool = False
    answer: bool = False


def example(file: str, row: Mapping[str, Any]) -> Example | None:
    """The example that a row of one of FILES (or of our own texts: WRITTEN) gives; None for a row that teaches nothing."""
    match file:
        case "content":
            return _content(row)
        case "prompts_harm":
            return _asked(row)
        case "jailbreak_injection":
            return _attack(row)
        case "benign_instructions" | "intents":
            harmless = dict.fromkeys((*HARMS, "harmful", "toxic", "asking", "jailbreak"), 0)
            return Example(row["text"], row["source"], harmless, {}, benign_traffic=True)
        case "responses":
            return _answer(row)
        case _:
            return _written(row)


def _categories(row: Mapping[str, Any]) -> set[str]:
    return {_CATEGORY_OF.get(name, name) for name in row.get("categories", ())} & set(HARMS)


def _of_categories(row: Mapping[str, Any]) -> dict[str, int]:
    """Labels of the categories: known ones of a harmful row with any, all 0 for a harmless row."""
    found = _categories(row)
    if row["harmful"] and not found:
        return {}
    return {name: int(name in found) for name in HARMS}


def _content(row: Mapping[str, Any]) -> Example:
    harmful = int(row["harmful"])
    labels = _of_categories(row) | {"harmful": harmful, "toxic": harmful}
    weights = dict.fromkeys(labels, _WEAK) if row.get("weak") else {}
    if not harmful:
        labels |= {"asking": 0, "jailbreak": 0}
        weights = dict(weights) | {"asking": _SIDE, "jailbreak": _SIDE}
    return Example(row["text"], row["source"], labels, weights)


def _asked(row: Mapping[str, Any]) -> Example:
    harmful = int(row["harmful"])
    labels = _of_categories(row) | {"harmful": harmful, "asking": harmful}
    weights = dict.fromkeys(labels, _WEAK) if row.get("weak") else {}
    if not harmful:
        labels |= {"toxic": 0}
    if not row.get("attack"):
        labels |= {"jailbreak": 0}
        weights = dict(weights) | {"jailbreak": _SIDE}
    return Example(row["text"], row["source"], labels, weights)


def _attack(row: Mapping[str, Any]) -> Example:
    attack = int(row.get("jailbreak", 0) or row.get("injection", 0))
    labels = {"jailbreak": attack}
    if not attack:
        labels |= dict.fromkeys((*HARMS, "harmful", "toxic", "asking"), 0)
    return Example(row["text"], row["source"], labels, {})


def _answer(row: Mapping[str, Any]) -> Example:
    labels = {}
    if "refusal" in row:
        labels["refusal"] = int(row["refusal"])
    if "response_harmful" in row:
        labels["reply"] = int(row["response_harmful"])
    ordinary = labels.get("reply", 1) == 0 and labels.get("refusal", 1) == 0
    return Example(row["response"], row["source"], labels, {}, benign_traffic=ordinary, answer=True)


def _written(row: Mapping[str, Any]) -> Example | None:
    given: dict[str, int] = dict(row["labels"])
    labels = {name: given[name] for name in (*HARMS, "jailbreak", "refusal") if name in given}
    if "response" in row:
        if "response_unsafe" in given:
            labels["reply"] = given["response_unsafe"]
        labels.pop("jailbreak", None)
        return Example(row["response"], WRITTEN, labels, {}, answer=True)
    unsafe = given.get("unsafe")
    if unsafe is not None:
        worded = any(labels.get(name) for name in ("hate", "harassment"))
        labels["harmful"] = unsafe
        if not unsafe:
            labels |= dict.fromkeys((*HARMS, "toxic", "asking"), 0)
        else:
            labels["toxic" if worded else "asking"] = 1
    ordinary = unsafe == 0 and row["file"] == ORDINARY
    return Example(row["text"], WRITTEN, labels, {}, benign_traffic=ordinary) if labels else None
