"""Timelines for tests of the fold: at(…) push traffic and commands, between(…) want what came out."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import msgspec
import numpy as np

from core.fold import ControlRecord, Fold, FoldOutput
from core.rules import DEFAULT_RULES, default_config
from core.windows import ClosedWindow, cut_of
from schemas.messages import WINDOW_MS, ActionStep, AlertTransition, Command, Config, Group, Mode, Rules
from schemas.topics import ACTIONS, COMMANDS

FIRST = 1_700_000_000_000
"""Start of the first window; a whole minute and a bit."""


def rules(*, reference_events: int = 2_000, mode: Mode = "suggest", **changes: object) -> Rules:
    """The default rules with a short reference; `changes` go to every rule."""
    own = tuple(msgspec.structs.replace(rule, mode=mode, **changes) for rule in DEFAULT_RULES.rules)
    return msgspec.structs.replace(DEFAULT_RULES, reference_events=reference_events, rules=own)


def config(own: Rules) -> Config:
    return default_config(
        scorers={}, embedding="0" * 64, heads="0" * 64, partitions={"llm.interactions": 1}, shards=1, receipt_keys={}, rules=own
    )


class FixedConfigs:
    """One config for all time."""

    def __init__(self, value: Config) -> None:
        self.value = value

    def config_for(self, window: int) -> str:
        return "the-config"

    def config(self, digest_: str) -> Config:
        return self.value


@dataclass(frozen=True)
class Behaviour:
    """How an app is used and answers: rates, share of questions on a new topic, version of all scorers."""

    refusal: float = 0.02
    new_topic: float = 0.0
    empty: float = 0.002
    thumbs_down: float = 0.2
    acts: float = 0.1
    scorer: int = 1


def traffic(
    rng: np.random.Generator,
    n: int,
    behaviour: Behaviour,
    app: str = "desk",
    version: str = "v1",
    environment: str = "production",
) -> Group:
    """Counts of n random interactions."""

    def counted(bins: np.ndarray) -> list[tuple[int, int]]:
        values, counts = np.unique(bins, return_counts=True)
        return list(zip(values.tolist(), counts.tolist(), strict=True))

    def rate(p: float, size: int = n) -> list[tuple[int, int]]:
        return counted((rng.random(size) < p).astype(int))

    new = rng.random(n) < behaviour.new_topic
    acts = int(n * behaviour.acts)
    v = behaviour.scorer
    bins = {
        f"topic@{v}": counted(np.where(new, 200, rng.integers(0, 40, n))),
        f"novelty@{v}": counted(np.where(new, rng.integers(18, 24, n), rng.integers(4, 18, n))),
        f"refusal@{v}": rate(behaviour.refusal),
        f"response.empty@{v}": rate(behaviour.empty),
        f"response.length@{v}": counted(rng.integers(8, 20, n)),
        f"error@{v}": rate(0.01),
        f"scorer.error@{v}": rate(0.0),
        f"thumbs.down@{v}": rate(behaviour.thumbs_down, acts),
    }
    return Group(
        app=app,
        environment=environment,
        version=version,
        n=n,
        acts=acts,
        bins={metric: pairs for metric, pairs in sorted(bins.items()) if pairs},
        names={f"prompt.language@{v}": [("en", n)]},
    )


@dataclass
class Timeline:
    """A fold that is told one window after the other; times are in windows from `FIRST`."""

    rules: Rules = field(default_factory=rules)
    fold: Fold = field(init=False)
    now: int = 0
    catch_up_until: int | None = None
    outputs: list[tuple[int, FoldOutput]] = field(default_factory=list)
    _offset: int = 0

    def __post_init__(self) -> None:
        self.fold = Fold(0, FixedConfigs(config(self.rules)))

    def at(self, windows: Sequence[Sequence[Group]], *said: Command | ActionStep) -> FoldOutput:
        """Push windows; what is said counts in the first of them. All output of the batch together."""
        closed = [ClosedWindow(FIRST + (self.now + i) * WINDOW_MS, (), tuple(groups)) for i, groups in enumerate(windows)]
        return self.push(closed, *said)

    def push(self, closed: Sequence[ClosedWindow], *said: Command | ActionStep) -> FoldOutput:
        control = []
        for message in said:
            self._offset += 1
            topic = COMMANDS if isinstance(message, Command) else ACTIONS
            control.append(ControlRecord(topic, 0, self._offset, 0, message))
        output = self.fold.fold(closed, control, cut_of(closed, self.catch_up_until))
        self.outputs.append((self.now, output))
        self.now = (closed[-1].window - FIRST) // WINDOW_MS + 1
        return output

    def between(self, first: int, last: int) -> list[AlertTransition]:
        """Alert transitions of windows [first, last)."""
        return [t for _, out in self.outputs for t in out.alerts if first <= (t.window - FIRST) // WINDOW_MS < last]

    @property
    def actions(self) -> list[ActionStep]:
        return [step for _, out in self.outputs for step in out.actions]
