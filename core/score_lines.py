"""Rows of a file that are to be scored: from one line to an interaction, and from its scores to one JSON object."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

import msgspec

from core.metrics import METRICS
from core.pii_rules import KINDS
from core.scoring import SCORERS, ScoredText
from core.scoring.batch import Scorer
from schemas.codec import InvalidMessage, decode
from schemas.messages import FIXED_ONE, ChatMessage, Interaction, Message, Reason, Score

Part = Literal["prompt", "response"]
NAMES: Final[Mapping[str, str]] = {"refusal": "response.refusal", "topic": "prompt.topic", "novelty": "prompt.novelty"}
"""Metrics whose name in a file says which text they judge; all others keep theirs."""
METRIC_OF: Final[Mapping[str, str]] = {name: metric for metric, name in NAMES.items()}


class ScoreLine(Message):
    """What a row may say: `text` (counts as the prompt), or `prompt` and/or `response`, or `messages`; the rest is ignored."""

    id: str | int | None = None
    text: str | None = None
    prompt: str | None = None
    response: str | None = None
    messages: list[ChatMessage] | None = None


class _Identified(Message):
    id: str | int | None = None


@dataclass(frozen=True)
class Row:
    """A row that can be scored. `given` are the texts that it has."""

    id: str | int
    interaction: Interaction
    given: frozenset[Part]


@dataclass(frozen=True)
class BadRow:
    """A row that cannot be scored, and why."""

    id: str | int
    error: str


def read_row(line: bytes, number: int, app: str, environment: str) -> Row | BadRow:
    """A line as the interaction that production would have been sent; the line's number where it has no id.

    Of `messages`, those of the assistant at the end are the response.

    >>> read_row(b'{"text": 1}', 7, "a", "production")
    BadRow(id=7, error='Expected `str | null`, got `int` (text)')
    """
    id_: str | int = number
    try:
        row = decode(ScoreLine, line, keep_unknown=False)
        id_ = number if row.id is None else row.id
        asked, answered = _messages(row)
    except InvalidMessage as error:
        return BadRow(_id_of(line, id_), f"{error.reason} ({error.field})" if error.field else error.reason)
    interaction = Interaction(id=str(number), app=app, environment=environment, input=asked, output=answered)
    given: set[Part] = set()
    if any(message.role == "user" for message in asked):
        given.add("prompt")
    if answered:
        given.add("response")
    return Row(id_, interaction, frozenset(given))


def _id_of(line: bytes, otherwise: str | int) -> str | int:
    """The id of a line of which another field is wrong."""
    try:
        found = decode(_Identified, line, keep_unknown=False).id
    except InvalidMessage:
        return otherwise
    return otherwise if found is None else found


def _messages(row: ScoreLine) -> tuple[list[ChatMessage], list[ChatMessage]]:
    if row.messages is not None:
        if row.text is not None or row.prompt is not None or row.response is not None:
            raise InvalidMessage("invalid", "stands beside text, prompt or response", "messages")
        if not row.messages:
            raise InvalidMessage("invalid", "there is no message", "messages")
        end = len(row.messages)
        while end and row.messages[end - 1].role == "assistant":
            end -= 1
        return row.messages[:end], row.messages[end:]
    if row.text is not None and row.prompt is not None:
        raise InvalidMessage("invalid", "stands beside prompt", "text")
    prompt = row.text if row.text is not None else row.prompt
    if prompt is None and row.response is None:
        raise InvalidMessage("invalid", "the row has none of text, prompt, response and messages")
    asked = [] if prompt is None else [ChatMessage(role="user", content=prompt)]
    answered = [] if row.response is None else [ChatMessage(role="assistant", content=row.response)]
    return asked, answered


class Results:
    """Scores as a file shows them: the same names for every row of a form, values between 0 and 1."""

    def __init__(self, scorers: Iterable[str]) -> None:
        """`scorers` are the names of those that run."""
        self._defaults: dict[Part, dict[str, Any]] = {"prompt": {}, "response": {}}
        self._wanted: set[str] = set()
        for name in scorers:
            scorer = SCORERS[name]
            if not isinstance(scorer, Scorer):
                continue
            for metric, need in scorer.metrics.items():
                if (need == "prompt" or need == "response") and not _is_number(metric):
                    self._wanted.add(metric)
                    self._defaults[need][NAMES.get(metric, metric)] = _NOTHING
        for part in ("prompt", "response"):
            if f"{part}.pii" in self._wanted:
                kinds = [f"{part}.pii.{kind}" for kind in KINDS]
                self._defaults[part] |= dict.fromkeys(kinds, _NOTHING)
                self._wanted.update(kinds)
        self._plain: dict[tuple[str, int, str | None], dict[str, Any]] = {}

    def scores(self, row: Row, text: ScoredText) -> dict[str, dict[str, Any]]:
        """NAME → value, label, reasons of everything that judges a text of the row; no value where the scorer failed."""
        shown: dict[str, dict[str, Any]] = {}
        for part in sorted(row.given):
            shown |= self._defaults[part]
        for metric, score in text.scores.items():
            if metric in self._wanted:
                shown[NAMES.get(metric, metric)] = self._one(metric, score, text)
        return shown

    def _one(self, metric: str, score: Score, text: ScoredText) -> dict[str, Any]:
        if score.outcome == "error":
            return {"value": None, "label": None, "reasons": [], "error": "the scorer failed"}
        value = _value(metric, score, text)
        if score.reasons:
            return {"value": value, "label": score.label, "reasons": _reasons(score)}
        key = (metric, round(value * FIXED_ONE), score.label)
        plain = self._plain.get(key)
        if plain is None:
            if len(self._plain) > 100_000:
                self._plain.clear()
            plain = self._plain[key] = {"value": value, "label": score.label, "reasons": []}
        return plain


_NOTHING: Final[dict[str, Any]] = {"value": 0.0, "label": None, "reasons": []}
UNKNOWN_LANGUAGE: Final = "und"


def probability(value: int) -> float:
    """A fixed-point value as a number between 0 and 1 with 6 digits.

    >>> probability(0), probability(32768), probability(65535)
    (0.0, 0.500008, 1.0)
    """
    return round(value / FIXED_ONE, 6)


def _value(metric: str, score: Score, text: ScoredText) -> float:
    """Of a category: 1 where it is known; of a topic: how near its cell is."""
    kind = METRICS[metric].kind if metric in METRICS else "rate"
    if kind == "category":
        return float(score.label not in (None, UNKNOWN_LANGUAGE))
    if kind == "cells":
        novelty = text.scores.get("novelty")
        return 0.0 if novelty is None else probability(FIXED_ONE - novelty.value)
    return probability(min(max(score.value, 0), FIXED_ONE))


def _is_number(metric: str) -> bool:
    return metric in METRICS and METRICS[metric].kind == "number"


def _reasons(score: Score) -> list[dict[str, Any]]:
    return [_reason(reason) for reason in score.reasons]


def _reason(reason: Reason) -> dict[str, Any]:
    """A learned scorer's reason is a feature, `head:words`; any other one is a rule."""
    kind = "feature" if ":" in reason.rule else "rule"
    return {kind: reason.rule, "start": reason.start, "end": reason.end}


def encode_result(row: Row, scores: Mapping[str, Any], text: ScoredText | None) -> bytes:
    """One JSON object; with the redacted texts that the spans refer to where `text` is given."""
    result: dict[str, Any] = {"id": row.id, "scores": scores}
    if text is not None:
        result |= {part: getattr(text, part) for part in sorted(row.given)}
    return msgspec.json.encode(result)


def encode_error(row: BadRow) -> bytes:
    """One JSON object that says why a row has no scores."""
    return msgspec.json.encode({"id": row.id, "error": row.error})
