"""Windows of a file as scored blocks: the texts of many windows are scored together, here or in other processes.

The blocks are those that `score_block` gives for each window alone, since scoring is the same in any batch.
"""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from multiprocessing import get_context
from typing import Final, Protocol, Self

import msgspec

from core.blocks import ActiveConfig, Place, ScoredBlock, score_block
from core.cells import cells_of
from core.fitter import AppKey, Prompt, fit_events, prompt_of
from core.scoring import EmbeddingTable, HeadTable, ScoredFeedbackText, ScoredText, Scoring
from schemas import codec
from schemas.codec import InvalidMessage
from schemas.limits import validate_interaction
from schemas.messages import Config, DeadLetter, Feedback, Interaction, ScoredInteraction
from schemas.topics import FEEDBACK, INTERACTIONS
from streams.backtest_windows import DeadLine, FileWindow

BATCH_LINES: Final = 1_024
"""Lines of windows that are scored together."""
_STEP: Final = 128
_ID: Final = "file"
Load = Callable[[], tuple[EmbeddingTable, HeadTable]]


@dataclass(frozen=True)
class ToScore:
    """Windows and the offsets (interactions, acts) at which they begin."""

    windows: tuple[FileWindow, ...]
    starts: tuple[int, int]


@dataclass
class BlocksOfWindow:
    """What one window became: its summaries (bytes), how many records were scored, what was not, and prompts for a fit."""

    summaries: list[bytes] = field(default_factory=list)
    interactions: int = 0
    acts: int = 0
    dead: list[DeadLine] = field(default_factory=list)
    prompts: dict[AppKey, list[Prompt]] = field(default_factory=dict)


class WindowScorer(Protocol):
    """Scores windows ahead: `submit` as many as `ahead` batches, then `take` the results in that order."""

    ahead: int

    def activate(self, digest: str, config: Config) -> None:
        """From the next `submit` on this config holds; what was submitted before and not taken is forgotten."""
        ...

    def submit(self, batch: ToScore) -> None: ...

    def take(self) -> list[BlocksOfWindow]: ...


class InProcess:
    """Scores in this process."""

    ahead = 1

    def __init__(self, embedding: EmbeddingTable, heads: HeadTable) -> None:
        self._tables = (embedding, heads)
        self._active: ActiveConfig | None = None
        self._waiting: list[ToScore] = []

    def activate(self, digest: str, config: Config) -> None:
        self._active = ActiveConfig(digest, config, Scoring(config, *self._tables))
        self._waiting = []

    def submit(self, batch: ToScore) -> None:
        self._waiting.append(batch)

    def take(self) -> list[BlocksOfWindow]:
        assert self._active is not None
        return score_windows(self._waiting.pop(0), self._active)


class InProcesses:
    """Scores in processes of its own, each with the tables that `load` gives (it must be importable)."""

    def __init__(self, load: Load, processes: int) -> None:
        self.ahead = 2 * processes
        self._pool = ProcessPoolExecutor(processes, get_context("spawn"), _begin, (load,))
        self._config = b""
        self._digest = ""
        self._waiting: list[Future[list[BlocksOfWindow]]] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown(cancel_futures=True)

    def activate(self, digest: str, config: Config) -> None:
        self._digest, self._config = digest, codec.encode(config)
        for future in self._waiting:
            future.cancel()
        self._waiting = []

    def submit(self, batch: ToScore) -> None:
        self._waiting.append(self._pool.submit(_score, self._digest, self._config, batch))

    def take(self) -> list[BlocksOfWindow]:
        return self._waiting.pop(0).result()


_process: dict[str, object] = {}
"""Of a scoring process: its tables and its active config."""


def _begin(load: Load) -> None:
    _process["tables"] = load()


def _score(digest: str, config: bytes, batch: ToScore) -> list[BlocksOfWindow]:
    active = _process.get("active")
    if not isinstance(active, ActiveConfig) or active.digest != digest:
        decoded = codec.decode(Config, config)
        tables: tuple[EmbeddingTable, HeadTable] = _process["tables"]  # type: ignore[assignment]  # `_begin` put them there
        active = _process["active"] = ActiveConfig(digest, decoded, Scoring(decoded, *tables))
    return score_windows(batch, active)


class _Ahead:
    """A scoring that has scored the texts of a batch already, in their order; what it was not given it scores when asked."""

    def __init__(self, scoring: Scoring, interactions: Sequence[Interaction]) -> None:
        self._scoring = scoring
        self._ready = {
            interaction.id: text
            for at in range(0, len(interactions), _STEP)
            for interaction, text in zip(
                interactions[at : at + _STEP], scoring.interactions(interactions[at : at + _STEP]), strict=True
            )
        }
        self._of = {interaction.id: interaction for interaction in interactions}

    def interactions(self, batch: Sequence[Interaction]) -> list[ScoredText]:
        if all(self._of.get(one.id) == one for one in batch):
            return [self._ready[one.id] for one in batch]
        return self._scoring.interactions(batch)

    def feedback(self, batch: Sequence[Feedback]) -> list[ScoredFeedbackText]:
        return self._scoring.feedback(batch)


def score_windows(batch: ToScore, active: ActiveConfig) -> list[BlocksOfWindow]:
    """Score a batch under one config."""
    assert isinstance(active.scoring, Scoring)
    ahead = ActiveConfig(active.digest, active.config, _Ahead(active.scoring, list(_texts(batch.windows))))
    starts = dict(zip((INTERACTIONS, FEEDBACK), batch.starts, strict=True))
    wants = partial(_wants_cells, active.config, {})
    return [_blocks_of(window, starts, ahead, wants) for window in batch.windows]


def _texts(windows: Sequence[FileWindow]) -> Iterator[Interaction]:
    for window in windows:
        for record in window.interactions:
            try:
                interaction = codec.decode(Interaction, record.value, keep_unknown=False)
                validate_interaction(interaction)
            except InvalidMessage:
                continue  # the block says so
            yield interaction


def _wants_cells(config: Config, known: dict[AppKey, bool], key: AppKey) -> bool:
    if key not in known:
        known[key] = fit_events(config, *key) > 0 and cells_of(config, *key) is None
    return known[key]


def _blocks_of(
    window: FileWindow, starts: dict[str, int], active: ActiveConfig, wants: Callable[[AppKey], bool]
) -> BlocksOfWindow:
    out = BlocksOfWindow()
    for topic, records in ((INTERACTIONS, window.interactions), (FEEDBACK, window.acts)):
        end = records[-1].offset + 1 if records else starts[topic]
        block = score_block(Place(topic, _ID, 0), window.start, starts[topic], end, records, active)
        starts[topic] = end
        out.summaries += [summary.value or b"" for summary in block.summaries]
        out.dead += _dead(block)
        if topic == INTERACTIONS:
            out.interactions = len(block.scored)
            _collect(block, wants, out.prompts)
        else:
            out.acts = len(block.scored)
    return out


def _dead(block: ScoredBlock) -> Iterator[DeadLine]:
    for letter in block.dead_letters:
        said = codec.decode(DeadLetter, letter.value)
        yield DeadLine(said.coordinates.offset, said.code, said.reason, said.field)


class _Who(msgspec.Struct):
    app: str
    environment: str = "production"


_WHO: Final = msgspec.json.Decoder(_Who)


def _collect(block: ScoredBlock, wants: Callable[[AppKey], bool], prompts: dict[AppKey, list[Prompt]]) -> None:
    """Keep the prompts of apps that have no cells of their own yet, as the fitter would."""
    for out in block.scored:
        who = _WHO.decode(out.value or b"")
        key = (who.app, who.environment)
        if wants(key) and (prompt := prompt_of(codec.decode(ScoredInteraction, out.value))) is not None:
            prompts.setdefault(key, []).append(prompt)
