"""From a file of an app's labels to corrections: read, score, learn, compare on a held-out part."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import msgspec
import numpy as np
from numpy.typing import NDArray

from adapters.embedding import load_embedding
from adapters.heads import load_heads
from adapters.settings import Settings
from bellbuoy.score_files import BLOCK, build_scoring, lines
from core.adaptation import MAX_ROWS, Learned, Rows, learn, recalibrated
from core.evaluation import Evaluation, Figure, difference, evaluate
from core.label_rows import distinct, sampled, split, too_few
from core.labels import Labelled, read_labelled
from core.metrics import FIRES
from core.score_lines import METRIC_OF, NAMES, BadRow, Row
from core.scoring.adapted import Correction, pack, with_frozen
from core.scoring.corrections import own_heads, part_of
from core.scoring.heads import Heads, Text
from core.scoring.languages import UNDETERMINED, language
from core.scoring.words import WordSums
from schemas.messages import FIXED_ONE, AdaptedHead

MAX_LABELS: Final = 100_000
MIN_LANGUAGE: Final = 50
"""Labelled rows in a language from which the correction counts as measured in it."""
_SURE: Final = 0.9
Say = Callable[[str], None]
Texts = list[tuple[str, int, int]]
"""Redacted texts with their label and the frozen score's value."""


class Refused(ValueError):
    """Nothing can be learned; the text says why."""


@dataclass(frozen=True)
class LabelFile:
    """The texts of a file by metric, redacted as production would, and what was left out."""

    texts: Mapping[str, Texts]
    rows: int
    dropped: Mapping[str, int]


@dataclass(frozen=True)
class Report:
    """How a correction does on rows that it was not learned from, beside the frozen score."""

    name: str
    rows: int
    positives: int
    held_out: int
    before: Evaluation
    after: Evaluation
    gain: Figure
    """Of AUPRC, on the held-out rows."""
    gain_of_all: Figure
    """Of AUPRC, on all rows, each judged by a correction that was learned without it."""
    dropped: Mapping[str, int]
    notes: Sequence[str] = ()

    @property
    def better(self) -> bool:
        """Whether it does better on the held-out rows, and on all rows by more than chance."""
        return self.gain.value > 0 and self.gain_of_all.low > 0


@dataclass
class Adapting:
    """What learning needs of this machine, loaded once."""

    settings: Settings
    say: Say
    heads: Heads = field(init=False)
    words: WordSums = field(init=False)

    def __post_init__(self) -> None:
        table = load_embedding(self.settings)
        self.heads, self.words = Heads(load_heads(), table), WordSums(table)

    def read(self, file: Path, fields: Mapping[str, str], only: str | None) -> LabelFile:
        """The labelled texts of a file. Raises Refused for one with too many rows, UnreadableFile for a damaged one."""
        scoring = build_scoring(self.settings)
        texts: dict[str, Texts] = {}
        dropped: Counter[str] = Counter()
        count = 0
        block: list[Labelled] = []

        def take() -> None:
            for labelled, scored in zip(block, scoring.interactions([one.row.interaction for one in block]), strict=True):
                for name, label in labelled.labels.items():
                    metric = METRIC_OF.get(name, name)
                    if only is not None and only not in (name, metric):
                        continue
                    text = scored.prompt if part_of(metric) == "prompt" else scored.response
                    score = scored.scores.get(metric)
                    if score is not None and score.outcome == "ok":
                        texts.setdefault(metric, []).append((text, label, score.value))
                    else:
                        dropped["of a score that the row does not have"] += 1
            block.clear()

        for number, line in lines(file):
            count += 1
            if count > MAX_LABELS:
                raise Refused(f"{file} has more than {MAX_LABELS:,} rows")
            read = None if line is None else read_labelled(line, number, "adapt", "production", fields)
            if read is None or isinstance(read, BadRow):
                dropped["cannot be read"] += 1
            elif not read.labels:
                dropped["without a label"] += 1
            else:
                block.append(read)
                if len(block) == BLOCK:
                    take()
        take()
        return LabelFile(texts, count, dropped)

    def benign(self, file: Path, name: str) -> Texts:
        """Harmless traffic for a score, with label 0. Raises UnreadableFile."""
        scoring = build_scoring(self.settings)
        found: Texts = []
        block: list[Row] = []
        part = part_of(name)

        def take() -> None:
            for scored in scoring.interactions([row.interaction for row in block]):
                text = scored.prompt if part == "prompt" else scored.response
                score = scored.scores.get(name)
                if score is not None and score.outcome == "ok":
                    found.append((text, 0, score.value))
            block.clear()

        for number, line in lines(file):
            read = None if line is None else read_labelled(line, number, "adapt", "production", {})
            if read is not None and isinstance(read, Labelled) and len(found) + len(block) < MAX_LABELS:
                block.append(read.row)
                if len(block) == BLOCK:
                    take()
        take()
        return found

    def rows(self, labelled: Texts, part: Text) -> Rows:
        """Texts with what the frozen model sees of them, as prompts or as responses."""
        texts = [text for text, _, _ in labelled]
        logits = np.zeros((len(texts), len(self.heads.names)), np.int64)
        vectors = np.zeros((len(texts), self.words.table.dimensions), np.int32)
        for at in range(0, len(texts), BLOCK):
            logits[at : at + BLOCK] = self.heads.logits(texts[at : at + BLOCK], part)
            vectors[at : at + BLOCK] = self.words.sums(texts[at : at + BLOCK]).vectors
        return Rows(texts, with_frozen(logits, [value for _, _, value in labelled]), vectors)

    def learn(
        self, place: tuple[str, str], name: str, labelled: Texts, version: int, seed: int, benign: Texts
    ) -> tuple[AdaptedHead, Report]:
        """The correction of one score and how it does on held-out rows. Raises Refused.

        The report is of a correction that was learned without the held-out rows; what is returned is learned from all.
        """
        try:
            own = [*(self.heads.column(head) for head in own_heads(name)), len(self.heads.names)]
        except ValueError as error:
            raise Refused(str(error)) from None
        kept = distinct([text for text, _, _ in labelled], [label for _, label, _ in labelled])
        reason = too_few(kept.labels)
        if reason is not None:
            raise Refused(f"{NAMES.get(name, name)}: {reason}")
        chosen = sampled(kept.labels, MAX_ROWS, seed)
        labels = kept.labels[chosen]
        used = [labelled[number] for number in kept.rows[chosen]]
        rows, frozen = self.rows(used, part_of(name)), np.array([value for _, _, value in used], np.int64)
        harmless = self.rows(benign, part_of(name))
        inside, outside = split(labels, seed)
        self.say(f"{NAMES.get(name, name)}: learning from {len(inside):,} rows, {len(outside):,} are held out")
        trial = learn(rows.take(inside), labels[inside], own, self.say)
        head = AdaptedHead(app=place[0], environment=place[1], name=name, version=version, heads=self.heads.table.digest)
        test = rows.take(outside)
        after = self._values(head, trial, test, inside, labels, harmless)
        before = frozen[outside]
        self.say(f"{NAMES.get(name, name)}: learning from all {len(labels):,} rows")
        whole = learn(rows, labels, own, lambda _: None, trial.fits)
        report = Report(
            name=NAMES.get(name, name),
            rows=len(labels),
            positives=int(labels.sum()),
            held_out=len(outside),
            before=_evaluation(labels[outside], before, seed),
            after=_evaluation(labels[outside], after, seed),
            gain=difference(labels[outside], before / FIXED_ONE, after / FIXED_ONE, seed=seed),
            gain_of_all=difference(labels, frozen.astype(np.float64), whole.left_out.astype(np.float64), seed=seed),
            dropped={
                "near-duplicates of another row": kept.duplicates,
                "near-duplicates with as many labels 1 as 0": kept.contradictory,
                f"more than {MAX_ROWS:,}": len(kept.labels) - len(chosen),
            },
            notes=_against(frozen, labels),
        )
        return self._head(head, whole, labels, harmless, self._languages(rows, labels)), report

    def _head(
        self, head: AdaptedHead, learned: Learned, labels: NDArray[np.int64], benign: Rows, languages: tuple[str, ...] = ()
    ) -> AdaptedHead:
        weights = learned.weights
        if len(benign.texts):
            margins = self._correction(head, pack(weights)).margins(benign.texts, benign.logits, benign.vectors)
            weights = recalibrated(learned, labels, margins)
        return msgspec.structs.replace(head, languages=languages, weights=pack(weights))

    def _values(
        self, head: AdaptedHead, trial: Learned, test: Rows, inside: NDArray[np.int64], labels: NDArray[np.int64], benign: Rows
    ) -> NDArray[np.int64]:
        correction = self._correction(head, self._head(head, trial, labels[inside], benign).weights)
        return correction.values(correction.margins(test.texts, test.logits, test.vectors)).astype(np.int64)

    def _correction(self, head: AdaptedHead, weights: bytes) -> Correction:
        return Correction(msgspec.structs.replace(head, weights=weights), len(self.heads.names), self.words.table.dimensions)

    def _languages(self, rows: Rows, labels: NDArray[np.int64]) -> tuple[str, ...]:
        """Languages with enough labels of both classes."""
        evidence = [language(points) for points in self.words.sums(rows.texts).evidence]
        counts = Counter(evidence)
        positive = Counter(code for code, label in zip(evidence, labels, strict=True) if label)
        return tuple(
            sorted(
                code
                for code, count in counts.items()
                if code != UNDETERMINED and count >= MIN_LANGUAGE and 5 <= positive[code] < count
            )
        )


def _evaluation(labels: NDArray[np.int64], values: NDArray[np.int64], seed: int) -> Evaluation:
    return evaluate(labels, values / FIXED_ONE, values >= FIRES, seed=seed)


def _against(frozen: NDArray[np.int64], labels: NDArray[np.int64]) -> list[str]:
    """Labels that say the opposite of what the frozen score is sure of: a person should look at them."""
    notes = []
    sure = int(((frozen >= _SURE * FIXED_ONE) & (labels == 0)).sum())
    if sure:
        notes.append(f"{sure:,} rows with label 0 have a frozen score of {_SURE:g} or more: are the labels right?")
    return notes
