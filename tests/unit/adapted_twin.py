"""An app's labels with a rule that the frozen twin heads cannot know, and the correction that is learned from them."""

from functools import cache
from random import Random

import numpy as np

from core.adaptation import Learned, Rows, learn
from core.scoring.adapted import pack, with_frozen
from core.scoring.heads import Heads
from core.scoring.words import WordSums
from schemas.messages import AdaptedHead
from tests.unit.embedding_twin import embedding_twin
from tests.unit.heads_twin import heads_twin

WORDS = [
    "please",
    "tell",
    "me",
    "how",
    "the",
    "red",
    "green",
    "blue",
    "train",
    "plane",
    "bus",
    "goes",
    "to",
    "town",
    "now",
    "and",
    "then",
    "with",
    "my",
    "old",
    "new",
    "friend",
]
NAME = "prompt.safety.unsafe"


def labelled(count: int, seed: int = 0) -> tuple[list[str], np.ndarray]:
    """Texts of which those with `glorp` have label 1."""
    draw = Random(seed)
    labels = [int(draw.random() < 0.3) for _ in range(count)]
    texts = [" ".join(draw.choices(WORDS, k=12) + (["glorp"] if label else [])) for label in labels]
    return texts, np.array(labels, np.int64)


def rows(texts: list[str]) -> Rows:
    heads = Heads(heads_twin(), embedding_twin())
    return Rows(texts, with_frozen(heads.logits(texts), [0] * len(texts)), WordSums(embedding_twin()).sums(texts).vectors)


@cache
def learned() -> Learned:
    texts, labels = labelled(200)
    return learn(rows(texts), labels, [0, 1])


def adapted_head(**changes: object) -> AdaptedHead:
    fields = {"app": "desk", "environment": "production", "name": NAME, "version": 3, "heads": heads_twin().digest}
    return AdaptedHead(**(fields | {"weights": pack(learned().weights)} | changes))  # type: ignore[arg-type]
