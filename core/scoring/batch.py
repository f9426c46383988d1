"""What scorers see of a batch, and what a scorer is."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from core.redaction import Redacted
from core.scoring.cut import MAX_CHARACTERS, MAX_WORDS, all_words, words
from core.scoring.features import read
from core.scoring.heads import Heads
from core.scoring.languages import languages
from core.scoring.normalise import normalise
from core.scoring.words import TextSums, WordSums
from schemas.messages import Feedback, Interaction, Price, Score

Need = Literal["prompt", "response", "call", "act"]
Scores = dict[str, Score]


@dataclass(slots=True)
class Reading:
    """One chat interaction as scorers see it: redacted text only; None where there is no prompt or no response."""

    interaction: Interaction
    prompt: Redacted | None
    response: Redacted | None

    def has(self, need: Need) -> bool:
        """Whether a metric that needs this applies."""
        match need:
            case "prompt":
                return self.prompt is not None
            case "response":
                return self.response is not None
            case _:
                return self.interaction.part != "content"


class Batch:
    """Readings scored together. Nothing that a scorer computes for one may depend on another."""

    def __init__(self, readings: Sequence[Reading], words: WordSums, heads: Heads, prices: tuple[Price, ...] = ()) -> None:
        """`prices` are the config's own."""
        self.readings = readings
        self.words = words
        self.heads = heads
        self.prices = prices

    @cached_property
    def _cut_prompts(self) -> "_Cut":
        return _cut([reading.prompt.text if reading.prompt else "" for reading in self.readings])

    @cached_property
    def prompts(self) -> TextSums:
        """Word sums of each reading's prompt (zero where there is none), computed once for all scorers."""
        return self.words.of_words(self._cut_prompts.beginnings)

    @cached_property
    def prompt_languages(self) -> list[str]:
        """The language of each reading's prompt, `und` where there is none."""
        return languages(self.prompts.evidence)

    @cached_property
    def response_evidence(self) -> NDArray[np.int32]:
        """Evidence for the language of each reading's response (readings × EVIDENCE, zero where there is none)."""
        return self.words.languages.sums([reading.response.text if reading.response else "" for reading in self.readings])

    @cached_property
    def response_languages(self) -> list[str]:
        """The language of each reading's response, `und` where there is none."""
        return languages(self.response_evidence)

    @cached_property
    def prompt_logits(self) -> NDArray[np.int64]:
        """Logits of the heads for each reading's prompt (readings × heads; of the empty text where there is none)."""
        return self.heads.of_words(self._cut_prompts.normalised)

    @cached_property
    def response_logits(self) -> NDArray[np.int64]:
        """Logits of the heads for each reading's response."""
        return self.heads.logits([reading.response.text if reading.response else "" for reading in self.readings], "response")


@dataclass(frozen=True)
class _Cut:
    """The words of texts: of each as heads read it, and of the beginning of each as it is."""

    normalised: list[list[str]]
    beginnings: list[list[str]]


def _cut(texts: Sequence[str]) -> _Cut:
    """Most texts are normal as they are: those are cut once."""
    plain = [normalise(text) for text in texts]
    normalised = [all_words(read(one.text)) for one in plain]
    return _Cut(
        normalised,
        [
            line[:MAX_WORDS] if one.text is text and len(text) <= MAX_CHARACTERS else words(text)
            for line, one, text in zip(normalised, plain, texts, strict=True)
        ],
    )


@dataclass(frozen=True)
class Scorer:
    """A scorer of interactions: its version, what each of its metrics needs, and its function.

    `score` gives for each reading the scores of the metrics that apply; it may raise, which is the outcome `error`.
    """

    name: str
    version: int
    metrics: Mapping[str, Need]
    score: Callable[[Batch], list[Scores]]


@dataclass(frozen=True)
class ActScorer:
    """A scorer of feedback acts, one by one."""

    name: str
    version: int
    metrics: Mapping[str, Need]
    score: Callable[[Feedback], Scores]


def unfired(name: str, version: int) -> Score:
    """A rate that does not fire. It is shared between records: nobody changes a score."""
    return Score(scorer=f"{name}@{version}")
