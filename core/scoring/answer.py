"""What is plain about an answer: empty, repeated, how long, an error, which model."""

from collections import Counter
from functools import lru_cache
from typing import Final

from core.redaction import Redacted
from core.scoring.batch import Batch, Reading, Scorer, Scores, unfired
from schemas.messages import FIXED_ONE, Reason, Score

VERSION: Final = 1
BY: Final = f"answer@{VERSION}"
UNFIRED: Final = unfired("answer", VERSION)

_READ: Final = 8_192
"""Characters of a response that are searched for repetition."""
_MIN_WORDS: Final = 24
_GRAM: Final = 4
_MIN_CHARACTERS: Final = 64
_READ_UNSPACED: Final = 1_024
_CHARACTER_GRAM: Final = 8
_MODEL_LENGTH: Final = 200

_EMPTY: Final = Score(scorer=BY, value=FIXED_ONE, reasons=[Reason(rule="empty")])
_ERROR: Final = Score(scorer=BY, value=FIXED_ONE, reasons=[Reason(rule="error_type")])


def score(batch: Batch) -> list[Scores]:
    """Scores of the response's form, of the error and of the response model."""
    return [_score(reading) for reading in batch.readings]


def _score(reading: Reading) -> Scores:
    scores: Scores = {}
    interaction = reading.interaction
    if reading.has("call"):
        scores["error"] = _ERROR if interaction.error_type else UNFIRED
        if interaction.response_model:
            scores["response.model"] = _model(interaction.response_model)
    response = reading.response
    if response is not None:
        scores["response.length"] = Score(scorer=BY, value=len(response.text))
        scores["response.empty"] = UNFIRED if response.text and not response.text.isspace() else _EMPTY
        scores["response.repeated"] = repeated(response)
    return scores


@lru_cache(1_024)
def _model(name: str) -> Score:
    return Score(scorer=BY, label=name[:_MODEL_LENGTH])


def repeated(response: Redacted) -> Score:
    """Fires when at least half of the word 4-grams (character 8-grams where there are no spaces) came before.

    Most texts are let off by their number of distinct words: with more than 5 of 8 distinct, half cannot be repeated.
    """
    text = response.text[:_READ]
    words = text.split()
    if len(words) >= _MIN_WORDS:
        if len(set(words)) * 8 > len(words) * 5:
            return UNFIRED
        grams = list(zip(words, words[1:], words[2:], words[3:], strict=False))
        distinct = len(set(grams))
        if distinct * 2 > len(grams):
            return UNFIRED
        unit = Counter(grams).most_common(1)[0][0]
        start = max(text.find(unit[0]), 0)
        return _fired(len(grams), distinct, "repeated_words", start, len(text))
    text = text[:_READ_UNSPACED]
    if len(text) < _MIN_CHARACTERS or len(set(text)) * 4 > len(text):
        return UNFIRED
    pieces = [text[i : i + _CHARACTER_GRAM] for i in range(len(text) - _CHARACTER_GRAM + 1)]
    distinct = len(set(pieces))
    if distinct * 2 > len(pieces):
        return UNFIRED
    return _fired(len(pieces), distinct, "repeated_characters", 0, len(text))


def _fired(total: int, distinct: int, rule: str, start: int, end: int) -> Score:
    share = (total - distinct) * FIXED_ONE // total
    return Score(scorer=BY, value=max(share, (FIXED_ONE + 1) // 2), reasons=[Reason(rule=rule, start=start, end=end)])


SCORER: Final = Scorer(
    "answer",
    VERSION,
    {
        "error": "call",
        "response.model": "call",
        "response.length": "response",
        "response.empty": "response",
        "response.repeated": "response",
    },
    score,
)
