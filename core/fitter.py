"""An app's own topic cells, fitted to its own prompts: the same bytes for the same prompts, live and in a backtest.

The first half of the prompts makes the cells and the edges of novelty; the second, which they were not made from, is scored
with them and is what the app's reference begins with, so that nothing is unwatched for as long as it takes to count one.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import msgspec
import numpy as np
from numpy.typing import NDArray

from core.cells import EDGES, cells_of
from core.clustering import Clusters, cluster
from core.identity import FIRST_TURN, OTHER, told_turn
from core.metrics import MAX_OWN_CELLS, NOVELTY_BINS
from core.rules import app_policy
from core.scoring.cut import MAX_CHARACTERS
from core.scoring.nearest import Cells
from core.scoring.words import WordSums
from core.terms import Document, cell_terms
from schemas.messages import FIXED_ONE, Config, Coordinates, FitRules, OwnCells, ScoredInteraction

AppKey = tuple[str, str]
OTHER_APP: Final[AppKey] = (OTHER, OTHER)
LEAST_CELLS: Final = 16
LEAST_DISTINCT: Final = 32
"""Distinct vectors below which an app has no topics to speak of."""
_PER_CELL: Final = 40
"""Distinct prompts for each cell …"""
_GAIN: Final = (95, 100)
"""… and doubling the cells must bring the spread below this share."""
_SHARES: Final = (
    *(100, 200, 300, 400, 500, 550, 600, 650, 700, 750, 800, 825, 850, 875, 900),
    *(920, 940, 950, 960, 970, 980, 985, 990, 995, 998, 999),
)
"""Thousandths of the prompts that lie below the edges of novelty; the edges after them are evenly spaced up to …"""
_FARTHEST: Final = 55_000
"""… this distance (1 - cosine, fixed-point)."""
_LEAST_USERS: Final = 20
_CHUNK: Final = 512


class CannotFit(ValueError):
    """The app's prompts have no cells; the text says why."""


@dataclass(frozen=True, slots=True)
class Prompt:
    """A scored prompt's redacted text, who asked it (None: nobody knows), in which conversation or interaction, and whether it
    opens that."""

    text: str
    user: str | None
    thread: str
    opening: bool = True


def prompt_of(scored: ScoredInteraction) -> Prompt | None:
    """What a scored interaction gives to a fit: None where its prompt was not scored for topic."""
    topic = scored.scores.get("topic")
    if topic is None or topic.outcome != "ok":
        return None
    turn = told_turn(scored.turn, scored.messages) or FIRST_TURN
    return Prompt(scored.prompt[:MAX_CHARACTERS], scored.user, scored.conversation or scored.id, turn <= FIRST_TURN)


def fit_cells(app: str, environment: str, version: int, prompts: Sequence[Prompt], words: WordSums) -> OwnCells:
    """Cells from the app's prompts, in the order in which they were appended. Raises CannotFit.

    The reference is counted on openings only, as those alone are judged by it.
    """
    half = len(prompts) // 2
    vectors = np.concatenate(
        [words.sums([prompt.text for prompt in prompts[at : at + _CHUNK]]).vectors for at in range(0, len(prompts), _CHUNK)]
        or [np.zeros((0, words.table.dimensions), np.int32)]
    )
    known: NDArray[np.bool_] = (vectors != 0).any(axis=1)
    first, second = vectors[:half][known[:half]], vectors[half:][known[half:]]
    distinct = np.unique(first, axis=0)
    if len(distinct) < LEAST_DISTINCT or not len(second):
        raise CannotFit(f"{len(distinct)} distinct prompts in the first half of {len(prompts)}: it takes {LEAST_DISTINCT}")
    centroids = _by_size(_cells(distinct).centroids, first)
    plain = Cells(centroids, [""] * len(centroids))
    found = plain.nearest(first)
    documents = _documents(_those(prompts[:half], known[:half]), found.cell)
    own = OwnCells(
        app=app,
        environment=environment,
        version=version,
        embedding=words.table.digest,
        centroids=centroids.tobytes(),
        names=cell_terms(documents, len(centroids), words.table.tokenise, _fallback(words, centroids)),
        edges=edges(found.distance),
        events=len(prompts),
    )
    opening = np.array([prompt.opening for prompt in prompts[half:]], np.bool_)
    return _with_reference(own, vectors[half:][known[half:] & opening], words.table.dimensions)


def edges(distances: NDArray[np.int64]) -> tuple[int, ...]:
    """Rising edges between the bins of novelty, from the distances (fixed-point) of the prompts that made the cells.

    >>> edges(np.arange(1_000))[:4], edges(np.arange(1_000))[-6:]
    ((100, 200, 300, 400), (999, 11799, 22599, 33399, 44199, 55000))
    """
    ranked = np.sort(distances)
    found = [int(ranked[min(share * len(ranked) // 1_000, len(ranked) - 1)]) for share in _SHARES]
    rest = EDGES - len(found)
    span = max(_FARTHEST - found[-1], 0)
    found += [found[-1] + span * number // rest for number in range(1, rest + 1)]
    for at in range(EDGES):
        found[at] = max(found[at], found[at - 1] + 1 if at else 1)
    for at in reversed(range(EDGES)):
        found[at] = min(found[at], FIXED_ONE - (EDGES - 1 - at))
    return tuple(found)


def _cells(distinct: NDArray[np.int32]) -> Clusters:
    """16, 32 or 64 cells: twice as many as long as there are prompts enough for each and they lie much closer to them."""
    chosen = cluster(distinct, LEAST_CELLS)
    k = LEAST_CELLS
    while k < MAX_OWN_CELLS and 2 * k * _PER_CELL <= len(distinct):
        k *= 2
        finer = cluster(distinct, k)
        if finer.spread * _GAIN[1] > chosen.spread * _GAIN[0]:
            break
        chosen = finer
    return chosen


def _by_size(centroids: NDArray[np.int8], vectors: NDArray[np.int32]) -> NDArray[np.int8]:
    """The cell of most prompts first; ties by the lowest index."""
    sizes = np.bincount(Cells(centroids, [""] * len(centroids)).nearest(vectors).cell, minlength=len(centroids))
    return np.ascontiguousarray(centroids[np.argsort(-sizes, kind="stable")])


def _with_reference(own: OwnCells, vectors: NDArray[np.int32], dimensions: int) -> OwnCells:
    cells = Cells.of_app(own, dimensions)
    found = cells.nearest(vectors)
    topics = np.bincount(found.cell, minlength=len(own.names))
    novelty = np.bincount(cells.novelty(found.distance) * NOVELTY_BINS >> 16, minlength=NOVELTY_BINS)
    return msgspec.structs.replace(own, topics=tuple(topics.tolist()), novelty=tuple(novelty.tolist()))


def _documents(prompts: Sequence[Prompt], cell: NDArray[np.int64]) -> list[Document]:
    """Prompts with who said them: the user, or, in an app that names few users (a service account), the conversation."""
    by_user = len({prompt.user for prompt in prompts if prompt.user}) >= _LEAST_USERS
    return [
        Document(prompt.text, f"user {prompt.user}" if by_user and prompt.user else f"thread {prompt.thread}", number)
        for prompt, number in zip(prompts, cell.tolist(), strict=True)
    ]


def _fallback(words: WordSums, centroids: NDArray[np.int8]) -> Callable[[int], str]:
    """The name of the fixed cell that a cell is nearest to, for one that no term tells from the others."""
    nearest = words.fixed.nearest(centroids.astype(np.int32)).cell
    return lambda cell: words.fixed.names[int(nearest[cell])]


def _those(prompts: Sequence[Prompt], known: NDArray[np.bool_]) -> list[Prompt]:
    return [prompt for prompt, is_known in zip(prompts, known.tolist(), strict=True) if is_known]


def fit_events(config: Config, app: str, environment: str) -> int:
    """How many scored prompts the app's first fit takes; 0: there is to be none."""
    return (app_policy(config.rules, app, environment).fit or FitRules()).events


def due(scored: Mapping[AppKey, int], config: Config, again: Mapping[AppKey, int]) -> list[AppKey]:
    """Apps (with environment) that have enough scored prompts for cells of their own and none yet; `again`: how many it takes
    where a fit has failed."""
    found = []
    for key, count in sorted(scored.items()):
        events = fit_events(config, *key)
        if events and key != OTHER_APP and count >= max(events, again.get(key, 0)) and cells_of(config, *key) is None:
            found.append(key)
    return found


def next_version(configs: Iterable[Config], app: str, environment: str) -> int:
    """The version of the app's next fit: after all that any config ever had, so that none has two meanings."""
    fits = (cells_of(config, app, environment) for config in configs)
    return 1 + max((own.version for own in fits if own is not None), default=0)


class Earliest:
    """The `events` prompts that were appended first (or, with `newest`, last), in order, of records that come in any order
    and more than once."""

    def __init__(self, events: int, *, newest: bool = False) -> None:
        self._events, self._newest = events, newest
        self._kept: dict[tuple[int, str, int, int], Prompt] = {}

    def add(self, append_time: int, at: Coordinates, prompt: Prompt) -> None:
        self._kept[append_time, at.topic_id, at.partition, at.offset] = prompt
        if len(self._kept) >= 2 * self._events:
            self._cut()

    def prompts(self) -> list[Prompt]:
        """At most `events` of them."""
        self._cut()
        return list(self._kept.values())

    def _cut(self) -> None:
        places = sorted(self._kept)
        chosen = places[-self._events :] if self._newest else places[: self._events]
        self._kept = {place: self._kept[place] for place in chosen}
