"""Applies apps' own corrections to the scores of their interactions, and to no other app's."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal

import msgspec
import numpy as np

from core.metrics import FIRES, METRICS
from core.scoring.adapted import MAX_VERSION, Correction, unpack, versioned, with_frozen
from core.scoring.batch import Batch, Scores
from core.scoring.heads import Heads
from core.scoring.languages import language
from core.scoring.normalise import normalise
from core.scoring.safety import JAILBREAK, NOT_COVERED, UNSAFE
from schemas.messages import AdaptedHead, Reason, Score

Part = Literal["prompt", "response"]
MAX_REASONS: Final = 4
CORRECTED: Final = "corrected:"
"""Begins a reason that comes from the app's own labels."""
_SCORERS: Final = frozenset(("safety", "refusal"))


def part_of(metric: str) -> Part:
    """Which text a metric judges."""
    return "prompt" if metric.startswith("prompt.") else "response"


def own_heads(metric: str) -> tuple[str, ...]:
    """The frozen heads that a metric is made of. Raises ValueError for one that cannot be corrected.

    >>> own_heads("response.safety.unsafe"), own_heads("prompt.safety.hate")
    (('response_unsafe',), ('hate',))
    """
    if metric not in METRICS or METRICS[metric].scorer not in _SCORERS or METRICS[metric].kind != "rate":
        raise ValueError(f"{metric} is no score that labels can correct")
    last = metric.rpartition(".")[2]
    if last == UNSAFE:
        return (f"{part_of(metric)}_{UNSAFE}",)
    if last == JAILBREAK or METRICS[metric].scorer == "safety" or last == "refusal":
        return (last,)
    raise ValueError(f"{metric} is no score that labels can correct")


@dataclass(frozen=True)
class _Entry:
    """One correction; None where it restores the frozen score, or was made for heads that this release does not have."""

    head: AdaptedHead
    part: Part
    correction: Correction | None


class Corrections:
    """The corrections of a config by (app, environment)."""

    def __init__(self, adapted: Sequence[AdaptedHead], heads: Heads, dimensions: int) -> None:
        """Raises ValueError for one that cannot be read, and for two of the same score."""
        check_adapted(adapted)
        self._heads = heads
        self._entries: dict[tuple[str, str], list[_Entry]] = {}
        for head in adapted:
            place = (head.app, head.environment)
            fits = head.heads == heads.table.digest and bool(head.weights)
            correction = Correction(head, len(heads.names), dimensions) if fits else None
            self._entries.setdefault(place, []).append(_Entry(head, part_of(head.name), correction))

    def apply(self, batch: Batch, scores: Sequence[Scores]) -> None:
        """Put corrected scores in the place of the frozen ones; `scores` are those of the batch's readings."""
        if not self._entries:
            return
        places: dict[tuple[str, str], list[int]] = {}
        for number, reading in enumerate(batch.readings):
            place = (reading.interaction.app, reading.interaction.environment)
            if place in self._entries:
                places.setdefault(place, []).append(number)
        for place, numbers in places.items():
            for entry in self._entries[place]:
                chosen = [number for number in numbers if _judged(scores[number].get(entry.head.name))]
                if chosen:
                    self._guarded(entry, batch, chosen, scores)

    def _guarded(self, entry: _Entry, batch: Batch, numbers: Sequence[int], scores: Sequence[Scores]) -> None:
        """Where it raises, each reading is tried alone, and only those that fail get the outcome `error`."""
        name = entry.head.name
        try:
            corrected = self._corrected(entry, batch, numbers, scores)
        except MemoryError:
            raise
        except Exception:  # noqa: BLE001  # a scorer's exception is its outcome
            if len(numbers) > 1:
                for number in numbers:
                    self._guarded(entry, batch, [number], scores)
            else:
                by = versioned(scores[numbers[0]][name].scorer, entry.head.version)
                scores[numbers[0]][name] = Score(scorer=by, outcome="error")
            return
        for number, score in zip(numbers, corrected, strict=True):
            scores[number][name] = score

    def _corrected(self, entry: _Entry, batch: Batch, numbers: Sequence[int], scores: Sequence[Scores]) -> list[Score]:
        head = entry.head
        frozen = [scores[number][head.name] for number in numbers]
        by = [versioned(score.scorer, head.version) for score in frozen]
        if entry.correction is None:
            return [
                Score(scorer=name, value=score.value, label=score.label, reasons=score.reasons)
                for name, score in zip(by, frozen, strict=True)
            ]
        prompt = entry.part == "prompt"
        texts = [reading.text for reading in (getattr(batch.readings[number], entry.part) for number in numbers)]
        chosen = np.array(numbers)
        logits = (batch.prompt_logits if prompt else batch.response_logits)[chosen]
        vectors = batch.prompts.vectors[chosen] if prompt else batch.words.sums(texts).vectors
        evidences = (batch.prompts.evidence if prompt else batch.response_evidence)[chosen]
        margins = entry.correction.margins(texts, with_frozen(logits, [score.value for score in frozen]), vectors)
        values = entry.correction.values(margins).tolist()
        results = []
        for name, score, text, value, evidence in zip(by, frozen, texts, values, evidences, strict=True):
            if any(reason.rule == NOT_COVERED for reason in score.reasons) and language(evidence) not in head.languages:
                results.append(Score(scorer=name, value=min(value, FIRES - 1), reasons=score.reasons))
            elif value < FIRES:
                results.append(Score(scorer=name, value=value))
            else:
                results.append(Score(scorer=name, value=value, reasons=self._reasons(entry, text, score)))
        return results

    def _reasons(self, entry: _Entry, text: str, frozen: Score) -> list[Reason]:
        """The words that the app's labels speak for most, then what the frozen heads say; at least one for a text with a word."""
        assert entry.correction is not None
        own = [
            Reason(rule=f"{CORRECTED}{word}", text=entry.part, start=start, end=end)
            for word, start, end in entry.correction.words(normalise(text))
        ]
        theirs = [reason for reason in frozen.reasons if reason.rule != NOT_COVERED]
        found = (own[: MAX_REASONS - min(len(theirs), 2)] + theirs)[:MAX_REASONS]
        return found or self._heads.reasons(text, own_heads(entry.head.name), entry.part) or [_whole(text, entry.part)]


def _judged(score: Score | None) -> bool:
    return score is not None and score.outcome == "ok"


def _whole(text: str, part: Part) -> Reason:
    return Reason(rule=f"{CORRECTED}text", text=part, start=0, end=len(text))


def rolled_back(history: Sequence[AdaptedHead], version: int) -> AdaptedHead:
    """The correction that takes the place of the last one of `history` (those of one score that were activated, in order):
    a further version with the weights of the one before it, or without weights, which is the frozen score.

    Raises ValueError where the frozen score holds already.
    """
    if not history or not history[-1].weights:
        raise ValueError("no correction is active")
    now = history[-1]
    origin = now.restores or now.version
    first = next((number for number, head in enumerate(history) if head.version == origin), 0)
    before = [head for head in history[:first] if head.weights and not head.restores]
    if not before:
        return AdaptedHead(app=now.app, environment=now.environment, name=now.name, version=version)
    return msgspec.structs.replace(before[-1], version=version, restores=before[-1].version)


def check_adapted(adapted: Sequence[AdaptedHead]) -> None:
    """Raise ValueError for corrections that no scoring could be built with."""
    places = Counter((head.app, head.environment, head.name) for head in adapted)
    for head in adapted:
        own_heads(head.name)
        if places[head.app, head.environment, head.name] > 1:
            raise ValueError(f"{head.name} of {head.app} is corrected twice")
        if not 0 < head.version <= MAX_VERSION:
            raise ValueError(f"the correction of {head.name} for {head.app} has the version {head.version}: 1 to {MAX_VERSION}")
        if head.weights:
            unpack(head.weights)
