"""An app's own topic cells as a config carries them: their bounds, their names, and the scorer version that they give.

A score by own cells is of the version `base * 1000 + fit`, so that its metrics are streams of their own with a reference of
their own: a new fit is never taken for drift, and no other app's metrics change.
"""

from collections.abc import Iterable, Sequence
from typing import Final, NamedTuple

import msgspec

from core.configs import check_size
from core.metrics import MAX_OWN_CELLS, NOVELTY_BINS, OWN
from schemas.messages import FIXED_ONE, Config, OwnCells

MAX_NAME: Final = 96
"""Characters of a cell's name."""
EDGES: Final = NOVELTY_BINS - 1
"""Edges between the bins of novelty."""


def scorer_version(base: int, fit: int) -> int:
    """Version of the scores that own cells of version `fit` give.

    >>> scorer_version(2, 1)
    2001
    """
    return base * OWN + fit


def cells_of(config: Config, app: str, environment: str) -> OwnCells | None:
    """The app's own cells; None where it has none."""
    return next((own for own in config.cells if (own.app, own.environment) == (app, environment)), None)


def with_cells(config: Config, own: OwnCells) -> Config:
    """The config with these cells in place of the app's former ones. Raises ValueError as `check_cells`."""
    others = [one for one in config.cells if (one.app, one.environment) != (own.app, own.environment)]
    cells = sorted((*others, own), key=lambda one: (one.app, one.environment))
    changed = msgspec.structs.replace(config, cells=cells)
    check_cells(changed)
    return changed


def check_cells(config: Config) -> None:
    """Raises ValueError for own cells that nothing can be scored with, or that make the config too large for one record."""
    apps = [(own.app, own.environment) for own in config.cells]
    if len(set(apps)) < len(apps):
        raise ValueError("cells: an app is there twice")
    for own in config.cells:
        _check(own)
    check_size(config)


def _check(own: OwnCells) -> None:
    said = f"cells of {own.app} ({own.environment})"
    cells = len(own.names)
    if not 1 <= own.version < OWN:
        raise ValueError(f"{said}: the version must lie between 1 and {OWN - 1}")
    if not 1 <= cells <= MAX_OWN_CELLS or not own.centroids or len(own.centroids) % cells:
        raise ValueError(f"{said}: there must be 1 to {MAX_OWN_CELLS} cells, each with a name and a centroid")
    if any(not 0 < len(name) <= MAX_NAME or not name.isprintable() for name in own.names):
        raise ValueError(f"{said}: a name must be printable, of 1 to {MAX_NAME} characters")
    rising = all(a < b for a, b in zip((0, *own.edges), (*own.edges, FIXED_ONE + 1), strict=True))
    if len(own.edges) != EDGES or not rising:
        raise ValueError(f"{said}: there must be {EDGES} rising edges between 1 and {FIXED_ONE}")
    if len(own.topics) > cells or len(own.novelty) > NOVELTY_BINS or min((*own.topics, *own.novelty, own.events), default=0) < 0:
        raise ValueError(f"{said}: its counts do not fit its bins")


class CellNames(NamedTuple):
    """What the bins of topic and novelty are called for one app."""

    fixed: Sequence[str] = ()
    """Names of the embedding's own cells."""
    own: OwnCells | None = None

    def by(self, version: int) -> OwnCells | None:
        """The own cells that scores of this version were given by; None for the fixed ones and for cells of another config."""
        return self.own if self.own is not None and 0 < version % OWN == self.own.version and version > OWN else None

    def topic(self, cell: int, version: int) -> str:
        """The name of a cell.

        >>> CellNames(("bread/oven",)).topic(0, 2), CellNames().topic(0, 2001)
        ('bread/oven', 'topic 0')
        """
        own = self.by(version)
        names: Sequence[str] = own.names if own is not None else self.fixed if version < OWN else ()
        return names[cell] if cell < len(names) else f"topic {cell}"

    def novelty(self, bin_: int, version: int) -> str:
        """From which distance on (1 - cosine) a bin of novelty and those above it count."""
        own = self.by(version)
        if own is not None and bin_ > 0:
            return f"distance to the nearest topic >= {own.edges[bin_ - 1] / FIXED_ONE:.2f}"
        if version > OWN:
            return f"novelty step >= {bin_}"
        return f"distance to the nearest topic >= {bin_ / NOVELTY_BINS:.2f}"


def names_by_app(cells: Iterable[OwnCells], fixed: Sequence[str]) -> dict[tuple[str, str], CellNames]:
    """(app, environment) → names, of the apps that have own cells."""
    return {(own.app, own.environment): CellNames(fixed, own) for own in cells}
