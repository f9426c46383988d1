"""Safety of what is asked and of what is answered: harm by category, any harm, and attacks on the instructions.

`unsafe` combines heads for any harm, for toxic wording and for harmful asking (or a harmful answer); a category is at most
as sure as `unsafe`. The heads hold for the languages that they were measured in: in another one nothing fires, and the reason
says `not_covered`.
"""

from collections.abc import Sequence
from functools import cache
from typing import Final

import numpy as np
from numpy.typing import NDArray

from core.metrics import FIRES, HARMS
from core.scoring.batch import Batch, Need, Scorer, Scores
from core.scoring.heads import Heads, Text, text_reasons
from core.scoring.languages import UNDETERMINED
from schemas.messages import Reason, Score

VERSION: Final = 1
BY: Final = f"safety@{VERSION}"
UNSAFE: Final = "unsafe"
JAILBREAK: Final = "jailbreak"
NOT_COVERED: Final = "not_covered"
_STEP_BITS: Final = 5
"""Values are kept in steps of 1/2,048, so that unfired scores can be shared."""

PROMPT_NAMES: Final = tuple(f"prompt.safety.{name}" for name in (*HARMS, UNSAFE, JAILBREAK))
RESPONSE_NAMES: Final = tuple(f"response.safety.{name}" for name in (*HARMS, UNSAFE))


@cache
def _unfired(step: int) -> Score:
    return Score(scorer=BY, value=step << _STEP_BITS)


@cache
def _uncovered(step: int) -> Score:
    return Score(scorer=BY, value=min(step << _STEP_BITS, FIRES - 1), reasons=[Reason(rule=NOT_COVERED)])


def judged(logits: NDArray[np.int64], heads: Heads, of: Text) -> NDArray[np.int64]:
    """Fixed-point values (texts × (HARMS, UNSAFE, JAILBREAK)) from logits of any texts.

    Prompts and answers today; tool results and documents go through the same function.
    """
    values = heads.values(logits).astype(np.int64)
    unsafe = values[:, heads.column(f"{of}_{UNSAFE}")]
    categories = np.minimum(values[:, [heads.column(name) for name in HARMS]], unsafe[:, None])
    return np.column_stack((categories, unsafe, values[:, heads.column(JAILBREAK)])) >> _STEP_BITS << _STEP_BITS


def covered(label: str, heads: Heads) -> bool:
    """Whether the heads were measured in a language; a text too short to tell counts as covered."""
    return label == UNDETERMINED or label in heads.table.languages


def score(batch: Batch) -> list[Scores]:
    """Scores of the prompts and of the responses."""
    results: list[Scores] = [{} for _ in batch.readings]
    sides: tuple[Text, ...] = ("prompt", "response")
    for of in sides:
        texts = [reading.prompt if of == "prompt" else reading.response for reading in batch.readings]
        there = {number: text.text for number, text in enumerate(texts) if text is not None}
        if not there:
            continue
        languages = batch.prompt_languages if of == "prompt" else batch.response_languages
        logits = (batch.prompt_logits if of == "prompt" else batch.response_logits)[list(there)]
        found = _scores(list(there.values()), [languages[number] for number in there], batch.heads, logits, of)
        for number, scores in zip(there, found, strict=True):
            results[number].update(scores)
    return results


def _scores(texts: Sequence[str], labels: Sequence[str], heads: Heads, logits: NDArray[np.int64], of: Text) -> list[Scores]:
    names = PROMPT_NAMES if of == "prompt" else RESPONSE_NAMES
    values = judged(logits, heads, of)[:, : len(names)]
    known = [covered(label, heads) for label in labels]
    firing = [number for number in np.flatnonzero(values.max(axis=1) >= FIRES).tolist() if known[number]]
    why = dict(zip(firing, text_reasons(heads, [texts[number] for number in firing], of), strict=True)) if firing else {}
    results: list[Scores] = []
    for number, (line, is_known) in enumerate(zip(values.tolist(), known, strict=True)):
        made = _unfired if is_known else _uncovered
        scores = {name: made(value >> _STEP_BITS) for name, value in zip(names, line, strict=True)}
        if number in why:
            for name, value in zip(names, line, strict=True):
                if value >= FIRES:
                    head = name.rpartition(".")[2]
                    reasons = why[number].of((f"{of}_{UNSAFE}" if head == UNSAFE else head,))
                    scores[name] = Score(scorer=BY, value=value, reasons=reasons)
        results.append(scores)
    return results


_METRICS: Final[dict[str, Need]] = dict.fromkeys(PROMPT_NAMES, "prompt")
_METRICS.update(dict.fromkeys(RESPONSE_NAMES, "response"))
SCORER: Final = Scorer("safety", VERSION, _METRICS, score)
