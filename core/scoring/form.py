"""Whether an answer has the form that it should: it is not cut off, and it is the JSON that the request asked for."""

from functools import lru_cache
from typing import Any, Final

import msgspec
import re2

from core.json_schema import GaveUp, mismatch
from core.redaction import Redacted
from core.scoring.batch import Batch, Scorer, Scores, unfired
from schemas.messages import FIXED_ONE, Interaction, Reason, Score

BY: Final = "form@1"
UNFIRED: Final = unfired("form", 1)

_CUT_REASONS: Final = frozenset(("length", "max_tokens", "max_output_tokens", "model_length", "model_context_window_exceeded"))
_PROBABLY: Final = 3 * FIXED_ONE // 4
"""The value where nothing but the text says that it is cut."""
_LONG: Final = 200
"""Characters from which a text that stops in mid-sentence was probably cut."""
_TAIL: Final = 80
_OPEN_END: Final = re2.compile(
    r"(?i)(?:[,(\[{]|(?:^|\s)(?:the|an|of|and|or|with|because|is|are|which|your|der|die|das|und|oder|mit|weil|ein|eine|le|la|les|"
    r"des|et|ou|une|avec|el|los|las|y|con|una|porque|il|di|che|per|o|os|um|uma|com|para))\s*$"
)
"""Ends no sentence: a comma, an open bracket, an article or a conjunction (en, de, fr, es, it, pt)."""
_FENCE: Final = "```"

_JSON: Final = frozenset(("json", "json_object", "json_schema"))
_OUTPUT_TYPE: Final = "gen_ai.output.type"
"""The attribute of OpenTelemetry's GenAI conventions that says what was asked for."""
_MAX_SCHEMA: Final = 65_536


def score(batch: Batch) -> list[Scores]:
    """Rates that apply to the response; `response.format` only where the request asked for JSON."""
    results: list[Scores] = []
    for reading in batch.readings:
        response = reading.response
        if response is None:
            results.append({})
            continue
        interaction = reading.interaction
        scores: Scores = {"response.cut_off": cut_off(interaction.finish_reasons, response)}
        asked = interaction.response_format
        if asked is not None or _OUTPUT_TYPE in interaction.attributes:
            form = _format(interaction, response)
            if form is not None:
                scores["response.format"] = form
        results.append(scores)
    return results


def cut_off(finish_reasons: list[str], response: Redacted) -> Score:
    """Fires where the provider says that the limit ended the answer; without any word of it, where the text says so itself."""
    text = response.text
    if finish_reasons:
        for reason in finish_reasons:
            if reason.lower() in _CUT_REASONS:
                return _fired("finish_reason", max(len(text) - 1, 0), len(text))
        return UNFIRED
    if _FENCE in text and _open_fence(text):
        return _fired("open_code_fence", text.rfind(_FENCE), len(text), _PROBABLY)
    if len(text) >= _LONG and (end := _OPEN_END.search(text[-_TAIL:])) is not None:
        before = len(text) - len(text[-_TAIL:])
        return _fired("open_sentence", before + end.start(), before + end.end(), _PROBABLY)
    return UNFIRED


def _open_fence(text: str) -> bool:
    """Whether an odd number of lines begins with a fence."""
    return sum(line.lstrip().startswith(_FENCE) for line in text.split("\n")) % 2 == 1


def _format(interaction: Interaction, response: Redacted) -> Score | None:
    """None where no JSON was asked for, or where it cannot be judged."""
    asked = interaction.response_format
    kind = asked.type if asked is not None else interaction.attributes[_OUTPUT_TYPE]
    if kind not in _JSON or response.truncated or response.dropped or len(interaction.output) != 1:
        return None
    text = response.text
    try:
        value = msgspec.json.decode(_without_placeholders(response))
    except msgspec.ValidationError:
        return None  # JSON, with a number that is too large to read
    except (msgspec.DecodeError, UnicodeEncodeError):
        return _fired("fenced_json" if text.lstrip().startswith(_FENCE) else "not_json", 0, len(text))
    except RecursionError:
        return None
    if asked is None or not asked.schema:
        return UNFIRED
    try:
        failed = mismatch(value, _schema(asked.schema))
    except (GaveUp, RecursionError):
        return None
    return UNFIRED if failed is None else _fired(f"schema_{failed}", 0, len(text))


def _without_placeholders(response: Redacted) -> str:
    """The text with digits where placeholders stand: a redacted number was JSON."""
    if not response.spans:
        return response.text
    pieces: list[str] = []
    position = 0
    for span in response.spans:
        pieces += (response.text[position : span.start], "1" * (span.end - span.start))
        position = span.end
    return "".join((*pieces, response.text[position:]))


@lru_cache(256)
def _schema(text: str) -> Any:
    """A schema's value; what is no JSON gives up when it is applied."""
    if len(text) > _MAX_SCHEMA:
        return None
    try:
        return msgspec.json.decode(text)
    except (msgspec.DecodeError, UnicodeEncodeError, RecursionError):
        return None


def _fired(rule: str, start: int, end: int, value: int = FIXED_ONE) -> Score:
    return Score(scorer=BY, value=value, reasons=[Reason(rule=rule, start=start, end=end)])


SCORER: Final = Scorer("form", 1, {"response.cut_off": "response", "response.format": "response"}, score)
