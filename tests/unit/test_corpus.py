"""The corpus of real text."""

from pathlib import Path
from random import Random

import pytest

from adapters.corpus import PHRASINGS, InvalidCorpus, chitchat, corpus_file, help_desk, long_texts
from core.scoring.refusal import refusal


def test_the_help_desk_is_the_same_for_the_same_seed() -> None:
    asked = [[help_desk(4).ask(rng, "stdlib") for _ in range(20)] for rng in (Random(1), Random(1))]
    assert asked[0] == asked[1]


def test_the_help_desk_knows_both_packages() -> None:
    items = help_desk(1).items
    assert len(items["stdlib"]) > 1_500
    assert len(items["pyarrow"]) > 300
    assert {item.name.partition(".")[0] for item in items["pyarrow"]} == {"pyarrow"}


def test_every_phrasing_fits_every_item() -> None:
    for items in help_desk(1).items.values():
        for item in items:
            assert all(item.question(phrasing).strip() for phrasing in PHRASINGS)


def test_no_answer_of_the_help_desk_is_a_refusal() -> None:
    answers = [item.answer for items in help_desk(1).items.values() for item in items]
    assert sum(bool(refusal(answer)) for answer in answers) == 0


def test_long_texts_are_distinct_and_about_as_long_as_asked() -> None:
    texts = list(long_texts(Random(2), 2_000, 1_300))
    assert len(set(texts)) == 2_000
    lengths = sorted(len(prompt) + len(response) for prompt, response in texts)
    assert lengths[0] > 1_200
    assert lengths[-1] < 1_500


def test_conversations_have_turns_and_some_have_ratings() -> None:
    conversations = chitchat()
    assert len(conversations) > 3_500
    assert all(turn.prompt and turn.response for conversation in conversations for turn in conversation.turns)
    assert all(0 <= c.rating <= 1 for c in conversations if c.rating is not None)


def test_a_corpus_file_gives_its_rows(tmp_path: Path) -> None:
    path = tmp_path / "c.jsonl"
    path.write_text('{"prompt": "a", "response": "b", "more": 1}\n\n{"prompt": "c"}\n')
    assert corpus_file(path) == [("a", "b"), ("c", None)]


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("{", "truncated"),
        ('{"response": "b"}', "prompt"),
        ('{"prompt": 3}', "str"),
        ('{"prompt": " "}', "empty"),
        ("[" * 5_000, ""),
    ],
)
def test_a_bad_line_is_named_by_its_number(tmp_path: Path, line: str, reason: str) -> None:
    path = tmp_path / "c.jsonl"
    path.write_text(f'{{"prompt": "a"}}\n{line}\n')
    with pytest.raises(InvalidCorpus, match=f":2: .*{reason}"):
        corpus_file(path)


def test_a_missing_or_empty_corpus_is_said_so(tmp_path: Path) -> None:
    with pytest.raises(InvalidCorpus, match="No such file"):
        corpus_file(tmp_path / "none.jsonl")
    (tmp_path / "empty.jsonl").write_text("\n")
    with pytest.raises(InvalidCorpus, match="no line"):
        corpus_file(tmp_path / "empty.jsonl")
