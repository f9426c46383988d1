"""Judging an app by its own cells: their activation is no drift, and a topic that comes later is, in the app's own words."""

import pytest

from core.blocks import ActiveConfig, Place, score_block
from core.cells import with_cells
from core.configs import ConfigLog
from core.fitter import fit_cells
from core.fold import ControlRecord, Fold, FoldOutput
from core.rules import DEFAULT_RULES
from core.scoring import SCORER_VERSIONS, Scoring
from core.scoring.words import WordSums
from core.windows import WindowCloser, cut_of
from schemas import codec
from schemas.messages import (
    WINDOW_MS,
    Activation,
    BlockSummary,
    ChatMessage,
    Command,
    Config,
    Interaction,
    OwnCells,
    Rules,
)
from schemas.topics import COMMANDS, INTERACTIONS
from tests.unit.embedding_twin import DIMENSIONS, planted_twin
from tests.unit.heads_twin import heads_twin
from tests.unit.test_fitter import prompts

TABLE = planted_twin()
HEADS = heads_twin(DIMENSIONS, bias=-1_000)
RULES = Rules(reference_events=1_000, rules=DEFAULT_RULES.rules)
PER_WINDOW = 50
CONFIG = Config(
    scorers={"topic": SCORER_VERSIONS["topic"]},
    embedding=TABLE.digest,
    heads=HEADS.digest,
    partitions={INTERACTIONS: 1},
    shards=1,
    rules=RULES,
)


def own_cells(n: int = 2_000, version: int = 1) -> OwnCells:
    return fit_cells("desk", "production", version, prompts(n, seed=77), WordSums(TABLE))


class Desk:
    """One app on one partition: windows of prompts, scored under the config that holds and folded at once."""

    def __init__(self) -> None:
        self.log = ConfigLog()
        self.window = 0
        self.fold = Fold(0, self.log, cell_names=TABLE.cells)
        self.closer = WindowCloser(0, CONFIG.partitions)
        self.offset = 0
        self.out = FoldOutput()
        self.draws = iter(range(1_000, 9_999))
        self.activate(CONFIG)

    def activate(self, config: Config) -> None:
        """From the next window on."""
        name = codec.digest(config)
        self.log.configs[name] = config
        self.log.activations.append(
            (self.window * WINDOW_MS if self.window else None, Activation(id=name, config=name, actor="fitter", reason="test"))
        )
        self.active = ActiveConfig(name, config, Scoring(config, TABLE, HEADS))

    def ask(
        self, windows: int, topics: tuple[str, ...] = ("bread", "travel"), *, commands: tuple[Command, ...] = ()
    ) -> FoldOutput:
        """What these windows brought."""
        out = FoldOutput()
        for _ in range(windows):
            records = [
                codec.Record(
                    self.offset + n,
                    self.window * WINDOW_MS,
                    None,
                    codec.encode(
                        Interaction(id=str(n), app="desk", version="v1", input=[ChatMessage(role="user", content=p.text)])
                    ),
                )
                for n, p in enumerate(prompts(PER_WINDOW, topics=topics, seed=next(self.draws)))
            ]
            end = self.offset + len(records)
            place = Place(INTERACTIONS, "t", 0)
            block = score_block(place, self.window * WINDOW_MS, self.offset, end, records, self.active)
            for summary in block.summaries:
                self.closer.add(codec.decode(BlockSummary, summary.value), value=summary.value)
            self.offset = end
            closed = self.closer.closed()
            control = [ControlRecord(COMMANDS, 0, n, 0, command) for n, command in enumerate(commands)]
            part = self.fold.fold(closed, control, cut_of(closed))
            out.detections += part.detections
            out.alerts += part.alerts
            commands = ()
            self.window += 1
        return out


@pytest.fixture
def desk() -> Desk:
    return Desk()


def test_the_activation_alone_raises_nothing(desk: Desk) -> None:
    desk.ask(30)
    desk.activate(with_cells(CONFIG, own_cells()))
    out = desk.ask(60)
    assert (out.detections, out.alerts) == ([], [])


def test_a_new_topic_after_the_activation_is_found_and_named_by_the_apps_own_terms(desk: Desk) -> None:
    desk.ask(25)
    own = own_cells()
    desk.activate(with_cells(CONFIG, own))
    desk.ask(5)
    out = desk.ask(20, ("bread", "travel", "garden"))
    (found,) = [d for d in out.detections if d.metric == "topic.mix"]
    names = {c.name for c in found.contributions}
    assert names <= set(own.names) | {n for n in names if n.startswith("distance to the nearest topic >= ")}


def test_a_change_of_the_mix_is_named_by_the_apps_cells(desk: Desk) -> None:
    own = own_cells()
    desk.activate(with_cells(CONFIG, own))
    desk.ask(5)
    out = desk.ask(30, ("travel",))
    (found,) = [d for d in out.detections if d.metric == "topic.mix"]
    moved = [c for c in found.contributions if c.bin.startswith("topic:")]
    assert moved
    assert all(c.name == own.names[int(c.bin.removeprefix("topic:"))] for c in moved)


def test_a_new_topic_is_found_in_the_window_after_the_activation(desk: Desk) -> None:
    """The reference begins with the second half of the prompts of the fit, so that nothing is unwatched."""
    desk.ask(25)
    desk.activate(with_cells(CONFIG, own_cells(2_400)))
    out = desk.ask(12, ("bread", "garden"))
    assert [d.metric for d in out.detections] == ["topic.mix"]


def test_what_held_an_alert_open_is_over_when_a_new_fit_holds(desk: Desk) -> None:
    desk.ask(25)
    assert desk.ask(20, ("garden",)).detections
    desk.activate(with_cells(CONFIG, own_cells()))
    resolved = [a for a in desk.ask(5).alerts if a.state == "resolved"]
    assert len(resolved) == 1
    assert "new version" in resolved[0].reason


def test_a_rebaselined_reference_begins_empty(desk: Desk) -> None:
    desk.activate(with_cells(CONFIG, own_cells()))
    desk.ask(3)
    rebaseline = Command(id="r", kind="rebaseline", actor="me", app="desk", environment="production")
    out = desk.ask(15, ("garden",), commands=(rebaseline,))
    assert out.detections == []


def test_a_restored_fold_judges_own_cells_as_one_that_never_stopped(desk: Desk) -> None:
    desk.activate(with_cells(CONFIG, own_cells()))
    desk.ask(4)
    sections = desk.fold.sections()
    restored = Fold.restore(0, desk.log, sections, cell_names=TABLE.cells)
    assert [s.data for s in restored.sections()] == [s.data for s in sections]
