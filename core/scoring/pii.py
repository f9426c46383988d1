"""Whether prompt or response held structured personal data or secrets: what redaction replaced."""

from typing import Final, Literal

from core.redaction import Redacted
from core.scoring.batch import Batch, Scorer, Scores, unfired
from schemas.messages import FIXED_ONE, Reason, Score

MAX_REASONS: Final = 16
_UNFIRED: Final = unfired("pii", 1)


def score(batch: Batch) -> list[Scores]:
    """Fires where a placeholder stands; reasons are the rules with the placeholders' spans."""
    results: list[Scores] = []
    for reading in batch.readings:
        scores: Scores = {}
        if reading.prompt is not None:
            scores["prompt.pii"] = _score(reading.prompt, "prompt") if reading.prompt.spans else _UNFIRED
        if reading.response is not None:
            scores["response.pii"] = _score(reading.response, "response") if reading.response.spans else _UNFIRED
        results.append(scores)
    return results


def _score(redacted: Redacted, text: Literal["prompt", "response"]) -> Score:
    reasons = [Reason(rule=span.rule, text=text, start=span.start, end=span.end) for span in redacted.spans[:MAX_REASONS]]
    return Score(scorer="pii@1", value=FIXED_ONE, reasons=reasons)


SCORER: Final = Scorer("pii", 1, {"prompt.pii": "prompt", "response.pii": "response"}, score)
