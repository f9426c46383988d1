"""Scoring with an app's own cells: which apps, which version, which bins, in any batch; what a config may hold."""

import math
from random import Random

import msgspec
import numpy as np
import pytest

from core.cells import CellNames, cells_of, check_cells, scorer_version, with_cells
from core.configs import MAX_CONFIG_BYTES
from core.detection.reference import Reference, width
from core.fitter import fit_cells
from core.metrics import METRICS, NOVELTY_BINS, bin_of
from core.scoring import SCORER_VERSIONS, Scoring
from core.scoring.nearest import Cells
from core.scoring.words import WordSums
from core.summary import Tallies
from schemas.codec import decode, digest, encode
from schemas.messages import FIXED_ONE, ChatMessage, Config, Interaction, OwnCells, Score
from tests.unit.embedding_twin import DIMENSIONS, planted_twin
from tests.unit.heads_twin import heads_twin
from tests.unit.test_fitter import prompts

TABLE = planted_twin()
OWN = fit_cells("desk", "production", 3, prompts(900), WordSums(TABLE))
HEADS = heads_twin(DIMENSIONS, bias=-1_000)
BASE = SCORER_VERSIONS["topic"]


def config(*own: OwnCells) -> Config:
    return Config(scorers={"topic": BASE}, embedding=TABLE.digest, partitions={}, shards=1, heads=HEADS.digest, cells=list(own))


def asked(text: str, app: str = "desk", environment: str = "production") -> Interaction:
    return Interaction(id="i", app=app, environment=environment, input=[ChatMessage(role="user", content=text)])


def scores(interaction: Interaction, *own: OwnCells) -> dict[str, Score]:
    (result,) = Scoring(config(*own), TABLE, HEADS).interactions([interaction])
    return result.scores


def test_an_app_with_own_cells_is_scored_with_them() -> None:
    found = scores(asked("dough oven flour"), OWN)
    (cell,) = Cells.of_app(OWN, DIMENSIONS).nearest(WordSums(TABLE).sums(["dough oven flour"]).vectors).cell
    assert (found["topic"].value, found["topic"].label) == (cell, OWN.names[cell])
    assert found["topic"].scorer == found["novelty"].scorer == f"topic@{BASE * 1_000 + 3}"


@pytest.mark.parametrize("other", [asked("dough oven", app="shop"), asked("dough oven", environment="staging")])
def test_the_scores_of_other_apps_and_environments_do_not_change(other: Interaction) -> None:
    assert scores(other, OWN) == scores(other)


def test_a_new_fit_is_a_new_version() -> None:
    again = msgspec.structs.replace(OWN, version=4)
    assert scores(asked("dough"), again)["topic"].scorer == f"topic@{scorer_version(BASE, 4)}"


@pytest.mark.parametrize("size", [7, 137, 1_024])
def test_chunks_give_equal_bytes_with_own_cells(size: int) -> None:
    draw = Random(8)
    apps = ("desk", "shop", "desk", "bakery")
    records = [asked("" if n % 31 == 0 else p.text, app=draw.choice(apps)) for n, p in enumerate(prompts(1_100, seed=5))]
    second = msgspec.structs.replace(OWN, app="bakery", version=9)

    def encoded(size: int) -> list[bytes]:
        scorer = Scoring(config(OWN, second), TABLE, HEADS)
        return [msgspec.json.encode(t) for at in range(0, 1_100, size) for t in scorer.interactions(records[at : at + size])]

    assert encoded(size) == encoded(1)


def test_the_bins_of_novelty_lie_between_the_apps_own_edges() -> None:
    distances = np.array(sorted({0, FIXED_ONE, *OWN.edges, *(edge - 1 for edge in OWN.edges)}))
    values = Cells.of_app(OWN, DIMENSIONS).novelty(distances)
    bins = [bin_of(METRICS["novelty"], Score(scorer="topic@2003", value=value)) for value in values.tolist()]
    assert bins == np.searchsorted(OWN.edges, distances, side="right").tolist()
    assert values.min() == 0
    assert 0 <= values.max() <= FIXED_ONE
    assert (np.diff(values) >= 0).all()


def test_two_apps_with_cells_of_their_own_are_counted_apart_whatever_their_order() -> None:
    one, other = (Score(scorer=f"topic@{version}", value=2) for version in (2_001, 2))
    tallies = Tallies(1)
    for _ in range(3):
        tallies.interaction(("desk", "production", "v"), {"topic": one})
        tallies.interaction(("shop", "production", "v"), {"topic": other})
    found = {group.app: group.bins for group in tallies.groups(0, frozenset(), 10)}
    assert found == {"desk": {"topic@2001": [(2, 3)]}, "shop": {"topic@2": [(2, 3)]}}


def test_a_reference_of_own_cells_has_a_bin_for_each() -> None:
    assert [width(Reference(f"topic.mix@{version}"), "topic") for version in (2, 2_001)] == [256, 64]
    assert width(Reference("topic.mix@2001"), "novelty") == NOVELTY_BINS


def test_cells_of_another_embedding_are_refused() -> None:
    with pytest.raises(ValueError, match="belong to the embedding"):
        Scoring(config(msgspec.structs.replace(OWN, embedding="f" * 64)), TABLE, HEADS)


def test_cells_of_other_dimensions_are_refused() -> None:
    with pytest.raises(ValueError, match="dimensions"):
        Scoring(config(msgspec.structs.replace(OWN, centroids=OWN.centroids * 2)), TABLE, HEADS)


def test_a_config_keeps_its_cells_over_the_wire() -> None:
    there = decode(Config, encode(config(OWN)))
    assert cells_of(there, "desk", "production") == OWN
    assert digest(there) == digest(config(OWN))


def test_a_config_without_own_cells_has_the_bytes_that_it_had_before_there_were_any() -> None:
    assert b"cells" not in encode(config())


def test_a_new_fit_takes_the_place_of_the_former() -> None:
    changed = with_cells(with_cells(config(), OWN), msgspec.structs.replace(OWN, version=4))
    assert [own.version for own in changed.cells] == [4]


BAD = {
    "a version of 0": {"version": 0},
    "a version that would be another scorer's": {"version": 1_000},
    "no cells": {"names": (), "centroids": b""},
    "a name with a line break": {"names": ("a\nb", *OWN.names[1:])},
    "an empty name": {"names": ("", *OWN.names[1:])},
    "a long name": {"names": ("x" * 97, *OWN.names[1:])},
    "a centroid too short": {"centroids": OWN.centroids[:-1]},
    "too many cells": {"names": tuple(map(str, range(65))), "centroids": b"\1" * 65 * DIMENSIONS},
    "edges that fall": {"edges": (*OWN.edges[:-2], OWN.edges[-1], OWN.edges[-2])},
    "an edge at 0": {"edges": (0, *OWN.edges[1:])},
    "an edge above one": {"edges": (*OWN.edges[:-1], FIXED_ONE + 1)},
    "too few edges": {"edges": OWN.edges[:-1]},
    "counts of more cells": {"topics": (1,) * (len(OWN.names) + 1)},
    "a negative count": {"novelty": (-1,)},
}


@pytest.mark.parametrize("fields", BAD.values(), ids=BAD.keys())
def test_cells_out_of_bounds_are_refused(fields: dict[str, object]) -> None:
    check_cells(config(OWN))
    with pytest.raises(ValueError, match=r"cells of desk \(production\)"):
        check_cells(config(msgspec.structs.replace(OWN, **fields)))


def test_an_app_may_be_there_once() -> None:
    with pytest.raises(ValueError, match="twice"):
        check_cells(config(OWN, OWN))


def test_a_config_too_large_for_one_record_is_refused() -> None:
    many = math.ceil(MAX_CONFIG_BYTES / len(msgspec.json.encode(OWN)))
    full = config(*(msgspec.structs.replace(OWN, app=f"app-{n}") for n in range(many)))
    with pytest.raises(ValueError, match="own cells"):
        check_cells(full)


def test_bins_are_named_by_the_cells_that_they_were_counted_with() -> None:
    names = CellNames(TABLE.cells, OWN)
    assert names.topic(1, 2_003) == OWN.names[1]
    assert names.topic(1, 2) == "cell-1"
    assert names.topic(1, 2_002) == "topic 1"
    assert names.novelty(31, 2_003) == f"distance to the nearest topic >= {OWN.edges[30] / FIXED_ONE:.2f}"
    assert names.novelty(16, 2) == "distance to the nearest topic >= 0.50"
