"""Topic and novelty of a prompt: the nearest of the app's own cells, else of the fixed ones, and how far it is."""

from collections.abc import Mapping, Sequence
from typing import Final

from core.cells import scorer_version
from core.metrics import metric_key
from core.scoring.batch import Batch, Scorer, Scores
from core.scoring.nearest import Cells
from core.scoring.words import AppCells
from schemas.embedding import EmbeddingTable
from schemas.messages import Score

__all__ = ["SCORER", "EmbeddingTable"]

NAME: Final = "topic"
VERSION: Final = 2


def score(batch: Batch) -> list[Scores]:
    """Cell (value its index, label its name; ties to the lowest) and novelty in fixed point (`Cells.novelty`)."""
    own = batch.words.own
    if not own:
        return _scored(batch, range(len(batch.readings)), batch.words.fixed, VERSION)
    results: list[Scores] = [{} for _ in batch.readings]
    for cells, version, places in _by_cells(batch, own):
        for place, scores in zip(places, _scored(batch, places, cells, version), strict=True):
            results[place] = scores
    return results


def _by_cells(batch: Batch, own: Mapping[tuple[str, str], AppCells]) -> list[tuple[Cells, int, list[int]]]:
    """The places of the readings that are scored with the same cells."""
    places: dict[tuple[str, str] | None, list[int]] = {}
    for place, reading in enumerate(batch.readings):
        app = (reading.interaction.app, reading.interaction.environment)
        places.setdefault(app if app in own else None, []).append(place)
    return [
        (batch.words.fixed, VERSION, chosen)
        if app is None
        else (own[app].cells, scorer_version(VERSION, own[app].version), chosen)
        for app, chosen in places.items()
    ]


def _scored(batch: Batch, places: Sequence[int], cells: Cells, version: int) -> list[Scores]:
    vectors = batch.prompts.vectors
    found = cells.nearest(vectors if len(places) == len(vectors) else vectors[list(places)])
    by = metric_key(NAME, version)
    topics = cells.labelled(by)
    novelty = cells.novelty(found.distance)
    return [
        {"topic": topics[nearest], "novelty": Score(scorer=by, value=far)} if known else {}
        for nearest, far, known in zip(found.cell.tolist(), novelty.tolist(), found.known.tolist(), strict=True)
    ]


SCORER: Final = Scorer(NAME, VERSION, {"topic": "prompt", "novelty": "prompt"}, score)
