"""Safety: what fires says why, a category never surer than the whole, no page in a language that was not measured."""

from random import Random

import numpy as np
import pytest

from adapters.heads import load_heads
from core.metrics import FIRES, HARMS
from core.scoring import Scoring
from core.scoring.heads import Heads
from core.scoring.safety import NOT_COVERED, PROMPT_NAMES, RESPONSE_NAMES, judged
from schemas.messages import ChatMessage, Config, Interaction, Score
from tests.unit.embedding_twin import embedding_twin
from tests.unit.heads_twin import heads_twin

WORDS = [
    "how",
    "do",
    "i",
    "read",
    "the",
    "file",
    "with",
    "this",
    "and",
    "kill",
    "bomb",
    "you",
    "are",
    "what",
    "is",
    "it",
    "for",
    "stupid",
    "please",
    "can",
    "we",
    "my",
]
GERMAN = "wie kann ich das machen und was ist nicht gut für mich bitte "


def scored(prompt: str, response: str | None = None) -> dict[str, Score]:
    table, heads = embedding_twin(), heads_twin()
    config = Config(scorers={"safety": 1}, embedding=table.digest, heads=heads.digest, partitions={}, shards=1)
    output = [] if response is None else [ChatMessage(role="assistant", content=response)]
    chat = Interaction(id="i", app="a", input=[ChatMessage(role="user", content=prompt)], output=output)
    return Scoring(config, table, heads).interactions([chat])[0].scores


def said(count: int = 60) -> list[str]:
    draw = Random(4)
    return [" ".join(draw.choices(WORDS, k=draw.randrange(4, 30))) for _ in range(count)]


def test_prompt_and_response_get_their_metrics() -> None:
    assert set(scored("how do i read it", "you do it")) == {*PROMPT_NAMES, *RESPONSE_NAMES}
    assert set(scored("how do i read it")) == set(PROMPT_NAMES)


def test_whatever_fires_has_a_reason_in_the_text() -> None:
    fired = 0
    for text in said():
        for score in scored(text).values():
            if score.value >= FIRES:
                fired += 1
                assert score.reasons
                assert all(text[reason.start : reason.end].strip() for reason in score.reasons)
    assert fired > 20


def test_a_category_is_never_surer_than_the_whole() -> None:
    for text in said():
        scores = scored(text, text)
        for part in ("prompt", "response"):
            whole = scores[f"{part}.safety.unsafe"].value
            assert all(scores[f"{part}.safety.{harm}"].value <= whole for harm in HARMS)


def test_a_text_in_a_language_that_was_not_measured_never_fires_and_says_so() -> None:
    draw = Random(6)
    fired_in_english = 0
    for text in said():
        german = scored(GERMAN * 3 + draw.choice(WORDS))
        fired_in_english += scored(text)["prompt.safety.unsafe"].value >= FIRES
        assert all(score.value < FIRES for score in german.values())
        assert all([reason.rule for reason in score.reasons] == [NOT_COVERED] for score in german.values())
    assert fired_in_english


def test_any_text_can_be_judged() -> None:
    heads = Heads(heads_twin(), embedding_twin())
    values = judged(heads.logits(["a tool's result", "a document"]), heads, "prompt")
    assert values.shape == (2, len(PROMPT_NAMES))


def test_unfired_scores_are_shared() -> None:
    one, other = scored("how do i read it"), scored("how do i read it")
    assert all(one[name] is other[name] for name in PROMPT_NAMES if one[name].value < FIRES)


@pytest.mark.parametrize("name", ["prompt_unsafe", "response_unsafe", "jailbreak"])
def test_the_shipped_curve_keeps_ranks_and_fires_from_its_middle_level_on(name: str) -> None:
    table = load_heads()
    assert (np.diff(table.values.astype(int)) >= 0).all()
    assert len(np.unique(table.values)) >= 1_000
    middle = len(table.values) // 2
    assert table.values[middle - 1] < FIRES <= table.values[middle]
    assert name in table.names
