"""Scoring: what a record becomes before anything but the raw topic holds it. Pure, in integers, the same in any batch."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Final

from core.redaction import Redactor
from core.scoring import answer, call, cost, form, language, latency, leak, pii, refusal, safety, thumbs, topic
from core.scoring.batch import ActScorer, Batch, Need, Reading, Scorer, Scores
from core.scoring.corrections import Corrections
from core.scoring.heads import Heads
from core.scoring.reading import RedactedInteraction, redact_act, redact_interaction
from core.scoring.words import WordSums
from schemas.embedding import EmbeddingTable
from schemas.heads import HeadTable
from schemas.messages import FIXED_ONE, ChatMessage, Config, Document, Feedback, Interaction, Reason, Scalar, Score, ToolCall

__all__ = ["SCORERS", "SCORER_VERSIONS", "EmbeddingTable", "HeadTable", "ScoredFeedbackText", "ScoredText", "Scoring"]

SCORERS: Final[Mapping[str, Scorer | ActScorer]] = {
    "topic": topic.SCORER,
    "language": language.SCORER,
    "safety": safety.SCORER,
    "pii": pii.SCORER,
    "refusal": refusal.SCORER,
    "answer": answer.SCORER,
    "form": form.SCORER,
    "leak": leak.SCORER,
    "latency": latency.SCORER,
    "call": call.SCORER,
    "cost": cost.SCORER,
    "thumbs": thumbs.SCORER,
}
SCORER_VERSIONS: Final[dict[str, int]] = {name: scorer.version for name, scorer in SCORERS.items()}

SCORER_ERROR: Final = "scorer.error"
_TOKENISED: Final = 16_384
"""Words whose tokens are kept."""


@dataclass(slots=True)
class ScoredText:
    """An interaction's redacted text and its scores by metric. Scores may be shared between records: never change one."""

    prompt: str
    response: str
    messages: list[ChatMessage]
    tool_calls: list[ToolCall]
    documents: list[Document]
    attributes: dict[str, Scalar]
    error_type: str | None
    finish_reasons: list[str]
    user: str | None
    scores: dict[str, Score]
    parts_not_scored: int
    text_truncated: bool


@dataclass(slots=True)
class ScoredFeedbackText:
    """A feedback act's redacted text and its scores by metric."""

    label: str | None
    comment: str | None
    correction: str | None
    actor: str | None
    attributes: dict[str, Scalar]
    scores: dict[str, Score]
    text_truncated: bool


class Scoring:
    """Scores records under one config. Holds caches only: what it returns depends on the record and the config."""

    def __init__(
        self,
        config: Config,
        embedding: EmbeddingTable,
        heads: HeadTable,
        *,
        redaction_keys: Mapping[str, bytes] | None = None,
    ) -> None:
        """`redaction_keys`: key id → key of the hashes that `config.redaction` asks for; what has none is masked.

        Raises ValueError for a scorer version, an embedding, heads or corrections that this code or machine does not have.
        """
        unknown = {name: version for name, version in config.scorers.items() if SCORER_VERSIONS.get(name) != version}
        if unknown:
            raise ValueError(f"the config names scorer versions that this code does not have: {unknown}")
        if config.embedding != embedding.digest:
            raise ValueError(f"the config names the embedding {config.embedding}, this machine has {embedding.digest}")
        if config.heads != heads.digest:
            raise ValueError(f"the config names the heads {config.heads}, this release has {heads.digest}")
        chosen = [scorer for name, scorer in SCORERS.items() if name in config.scorers]
        self._scorers = [scorer for scorer in chosen if isinstance(scorer, Scorer)]
        self._act_scorers = [scorer for scorer in chosen if isinstance(scorer, ActScorer)]
        self._counts_errors = answer.SCORER in chosen
        self._redactor = Redactor(config.max_text_bytes, policy=config.redaction, keys=redaction_keys)
        # Topic and heads both read a new word's tokens: the second one finds them here.
        embedding = replace(embedding, tokenise=lru_cache(_TOKENISED)(embedding.tokenise))
        self._words = WordSums(embedding, own=config.cells)
        self._prices = config.prices
        self._heads = Heads(heads, embedding)
        self._corrections = Corrections(config.adapted, self._heads, embedding.dimensions)

    @property
    def missing_redaction_keys(self) -> frozenset[str]:
        """Ids of keys that the config's redaction names and this machine does not have: to be said at start."""
        return self._redactor.missing_keys

    def interactions(self, batch: Sequence[Interaction]) -> list[ScoredText]:
        """Redact and score; only interactions of kind `chat` get scores other than `scorer.error`."""
        read = [redact_interaction(interaction, self._redactor) for interaction in batch]
        results = [_unscored(one) for one in read]
        chats = [number for number, interaction in enumerate(batch) if interaction.kind == "chat"]
        readings = [Reading(batch[number], read[number].scored_prompt, read[number].scored_response) for number in chats]
        failed: dict[int, list[str]] = {}
        if readings:
            shared = Batch(readings, self._words, self._heads, self._prices)
            for scorer in self._scorers:
                for number, scores in zip(chats, self._guarded(scorer, shared, chats, failed), strict=True):
                    results[number].scores.update(scores)
            self._corrections.apply(shared, [results[number].scores for number in chats])
        if self._counts_errors:
            for number, result in enumerate(results):
                result.scores[SCORER_ERROR] = _errors(failed[number]) if number in failed else answer.UNFIRED
        return results

    def feedback(self, batch: Sequence[Feedback]) -> list[ScoredFeedbackText]:
        """Redact and score acts of feedback."""
        results = []
        for act in batch:
            text = redact_act(act, self._redactor)
            scores: Scores = {}
            for scorer in self._act_scorers:
                try:
                    scores.update(scorer.score(act))
                except MemoryError:
                    raise
                except Exception:  # noqa: BLE001  # a scorer's exception is its outcome
                    scores.update(_error_scores(scorer, scorer.metrics))
            results.append(
                ScoredFeedbackText(text.label, text.comment, text.correction, text.actor, text.attributes, scores, text.truncated)
            )
        return results

    def _guarded(self, scorer: Scorer, batch: Batch, numbers: Sequence[int], failed: dict[int, list[str]]) -> list[Scores]:
        """A scorer's results; when it raises, each record is scored alone, and only those that fail get `error`."""
        try:
            return scorer.score(batch)
        except MemoryError:
            raise
        except Exception as error:  # noqa: BLE001  # a scorer's exception is its outcome
            if len(numbers) > 1:
                return [
                    self._guarded(scorer, Batch([reading], self._words, self._heads, self._prices), [number], failed)[0]
                    for reading, number in zip(batch.readings, numbers, strict=True)
                ]
            failed.setdefault(numbers[0], []).append(f"{scorer.name}: {type(error).__name__}")
            applying = {metric: need for metric, need in scorer.metrics.items() if batch.readings[0].has(need)}
            return [_error_scores(scorer, applying)]


def _unscored(read: RedactedInteraction) -> ScoredText:
    return ScoredText(
        prompt=read.prompt,
        response=read.response,
        messages=read.messages,
        tool_calls=read.tool_calls,
        documents=read.documents,
        attributes=read.attributes,
        error_type=read.error_type,
        finish_reasons=read.finish_reasons,
        user=read.user,
        scores={},
        parts_not_scored=read.parts_not_scored,
        text_truncated=read.truncated,
    )


def _error_scores(scorer: Scorer | ActScorer, metrics: Mapping[str, Need]) -> Scores:
    return {metric: Score(scorer=f"{scorer.name}@{scorer.version}", outcome="error") for metric in metrics}


def _errors(causes: Sequence[str]) -> Score:
    return Score(scorer=answer.BY, value=FIXED_ONE, reasons=[Reason(rule=cause) for cause in causes])
