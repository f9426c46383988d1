"""What an app's detectors are made of: banks of streams, slices with their open step, and what a window's judgement says."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, Literal

from core.detection.budget import stream_name
from core.detection.explain import Explanation
from core.detection.sr import SrState

Bank = tuple[Literal["app", "version"], Literal["interaction", "feedback", "later.interaction", "later.feedback"]]
BANKS: Final[tuple[Bank, ...]] = (
    ("app", "interaction"),
    ("version", "interaction"),
    ("version", "feedback"),
    ("app", "later.interaction"),
    ("version", "later.interaction"),
    ("version", "later.feedback"),
)
"""What is judged together. First turns and sampled later turns have detectors, references and thresholds of their own: given a
conversation's first turn, a later one is no fresh draw, so that their evidence must not be added."""
OTHER_TURNS: Final[Mapping[str, Literal["interaction", "feedback", "later.interaction", "later.feedback"]]] = {
    "interaction": "later.interaction",
    "feedback": "later.feedback",
    "later.interaction": "interaction",
    "later.feedback": "feedback",
}
"""First turns ↔ later ones."""


@dataclass(frozen=True)
class Alarm:
    """A stream (`metric@version` of its key) of a slice whose evidence reached its threshold."""

    key: str
    slice: str
    statistic: float
    threshold: float
    explanation: Explanation

    @property
    def metric(self) -> str:
        return stream_name(self.key)


@dataclass(frozen=True)
class Released:
    """A stream of a slice whose alarm is over, and why."""

    metric: str
    slice: str
    reason: str


@dataclass
class Judged:
    """What one window brought for an app."""

    alarms: list[Alarm] = field(default_factory=list)
    released: list[Released] = field(default_factory=list)


@dataclass
class Slice:
    """The detectors of one slice and bank, and its open step: counts by column, events, start in windows of the clock."""

    state: SrState
    weight: float
    start: int
    events: int = 0
    pending: dict[int, int] = field(default_factory=dict)
    absent: int = 0
    """While an alarm is held: windows with traffic of the app since the version's last record."""


def slice_name(version: str) -> str:
    """Name of a version's slice.

    >>> slice_name("v2")
    'version=v2'
    """
    return f"version={version}"


def slice_version(name: str) -> str | None:
    """The version of a slice, None for the whole app.

    >>> slice_version("version=v2"), slice_version("all")
    ('v2', None)
    """
    return name.removeprefix("version=") if name.startswith("version=") else None
