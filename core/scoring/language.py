"""The language of a prompt, by script and small words."""

from functools import cache
from typing import Final

from core.scoring.batch import Batch, Scorer, Scores
from core.scoring.languages import language
from schemas.messages import Score


@cache
def _score(label: str) -> Score:
    return Score(scorer="language@1", label=label)


def score(batch: Batch) -> list[Scores]:
    """Label: an ISO 639-1 code, or `und`."""
    return [
        {"prompt.language": _score(language(points))} if reading.prompt is not None else {}
        for reading, points in zip(batch.readings, batch.prompts.evidence, strict=True)
    ]


SCORER: Final = Scorer("language", 1, {"prompt.language": "prompt"}, score)
