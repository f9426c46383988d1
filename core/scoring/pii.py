"""Whether prompt or response held structured personal data or secrets, and of which kinds: what redaction replaced.

`prompt.pii` and `response.pii` say whether any was there and are counted. `prompt.pii.<kind>` and `response.pii.<kind>` stand
only where that kind was found, so that a text without any costs nothing; their absence means that there was none.
"""

from typing import Final, Literal

from core.pii_rules import KIND_OF, KINDS
from core.redaction import Redacted
from core.scoring.batch import Batch, Scorer, Scores, unfired
from schemas.messages import FIXED_ONE, Reason, Score

MAX_REASONS: Final = 16
"""Per score."""
_VERSION: Final = 2
_UNFIRED: Final = unfired("pii", _VERSION)


def kinds() -> tuple[str, ...]:
    """All kinds that `prompt.pii.<kind>` and `response.pii.<kind>` can name, sorted."""
    return KINDS


def score(batch: Batch) -> list[Scores]:
    """Fires where a placeholder stands; reasons are the rules with the placeholders' spans."""
    results: list[Scores] = []
    for reading in batch.readings:
        scores: Scores = {}
        if reading.prompt is not None:
            if reading.prompt.spans:
                _add(scores, reading.prompt, "prompt")
            else:
                scores["prompt.pii"] = _UNFIRED
        if reading.response is not None:
            if reading.response.spans:
                _add(scores, reading.response, "response")
            else:
                scores["response.pii"] = _UNFIRED
        results.append(scores)
    return results


def _add(scores: Scores, redacted: Redacted, text: Literal["prompt", "response"]) -> None:
    reasons = [Reason(rule=span.rule, text=text, start=span.start, end=span.end) for span in redacted.spans]
    scores[f"{text}.pii"] = _fired(reasons)
    for kind in sorted({KIND_OF[reason.rule] for reason in reasons}):
        scores[f"{text}.pii.{kind}"] = _fired([reason for reason in reasons if KIND_OF[reason.rule] == kind])


def _fired(reasons: list[Reason]) -> Score:
    return Score(scorer=f"pii@{_VERSION}", value=FIXED_ONE, reasons=reasons[:MAX_REASONS])


SCORER: Final = Scorer("pii", _VERSION, {"prompt.pii": "prompt", "response.pii": "response"}, score)
