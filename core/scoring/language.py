"""The languages of prompt and response: which one was asked in, and whether the answer is in another."""

from functools import cache
from typing import Final

import re2

from core.scoring.batch import Batch, Reading, Scorer, Scores, unfired
from core.scoring.evidence import EvidenceSums
from core.scoring.languages import OTHER_LANGUAGE, UNDETERMINED, languages
from schemas.messages import FIXED_ONE, Reason, Score

VERSION: Final = 2
BY: Final = f"language@{VERSION}"
UNFIRED: Final = unfired("language", VERSION)

_UNKNOWN: Final = frozenset((UNDETERMINED, OTHER_LANGUAGE))
_NEAR: Final = frozenset(
    frozenset(pair.split())
    for pair in ("da no", "da sv", "no sv", "es pt", "es ca", "ca pt", "fr ca", "it ca", "cs pl", "hr sr", "ru uk", "ja zh", "ar fa", "ar ur", "fa ur", "nl de")
)  # fmt: skip
"""Languages that short texts leave in doubt."""
_LEAST_ASKED: Final = 16
_LEAST_ANSWER: Final = 60
"""Characters of a question and of an answer whose languages are compared."""
_FENCE: Final = "```"
_ASKED_FOR: Final = re2.compile(
    r"(?i)translat|übersetz|tradu|vertaal|przet[łl]umacz|översätt|çevir|перев[еo]|переклад|翻译|翻譯|訳|번역|ترجم|अनुवाद"
    r"|\b(?:in|into|auf|ins|en|em|al|to|na|po)\s+(?:[a-z]+\s+)?(?:english|german|french|spanish|italian|portuguese|dutch|polish"
    r"|swedish|turkish|chinese|japanese|korean|russian|arabic|hindi|deutsch|englisch|französisch|spanisch|italienisch|anglais"
    r"|allemand|français|espagnol|inglés|alemán|francés|español|inglese|tedesco|francese|spagnolo|italiano|inglês|alemão|francês"
    r"|espanhol|português|engels|duits|frans|angielsk|niemieck|polsk|engelska|svenska|ingilizce|türkçe)"
    r"|\b(?:answer|reply|respond|write|speak) (?:only |always )?in\b|英语|英文|中文|日语|英語|日本語|по-английски|по-русски"
)
"""A prompt or an instruction that names another language than its own."""


@cache
def _score(label: str) -> Score:
    return Score(scorer=BY, label=label)


def score(batch: Batch) -> list[Scores]:
    """`prompt.language`: an ISO 639 code, `mis` for one that is in no list, `und` where there is too little to tell.

    `response.language_differs` applies where both languages are known.
    """
    results: list[Scores] = []
    for number, reading in enumerate(batch.readings):
        if reading.prompt is None:
            results.append({})
            continue
        asked = batch.prompt_languages[number]
        scores = {"prompt.language": _score(asked)}
        if reading.response is None or asked in _UNKNOWN:
            pass
        elif len(reading.prompt.text) >= _LEAST_ASKED and len(reading.response.text) >= _LEAST_ANSWER:
            answered = batch.response_languages[number]
            if answered == asked:
                scores["response.language_differs"] = UNFIRED
            elif answered not in _UNKNOWN and (differs := _differs(reading, batch.words.languages)) is not None:
                scores["response.language_differs"] = differs
        results.append(scores)
    return results


def _differs(reading: Reading, sums: EvidenceSums) -> Score | None:
    """Looks closer, at the texts without their code; None where one of the languages is no longer known."""
    assert reading.prompt is not None
    assert reading.response is not None
    text = reading.response.text
    without_code = [" ".join(one.split(_FENCE)[::2]) for one in (reading.prompt.text, text)]
    asked, answered = languages(sums.sums(without_code))
    if {asked, answered} & _UNKNOWN:
        return None
    if asked == answered or frozenset((asked, answered)) in _NEAR or _names_a_language(reading):
        return UNFIRED
    return Score(scorer=BY, value=FIXED_ONE, reasons=[Reason(rule=f"asked_in_{asked}_answered_in_{answered}", end=len(text))])


def _names_a_language(reading: Reading) -> bool:
    """Whether any message asks for a translation or for a language."""
    for message in reading.interaction.input:
        parts = [message.content] if isinstance(message.content, str) else [part.text or "" for part in message.content]
        if any(_ASKED_FOR.search(part) is not None for part in parts):
            return True
    return False


SCORER: Final = Scorer("language", VERSION, {"prompt.language": "prompt", "response.language_differs": "response"}, score)
