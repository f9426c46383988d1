"""Learned heads: features are the same everywhere, sums do not depend on company, reasons lie in the text, hostile text is bounded."""

import base64
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from random import Random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from adapters.heads import HeadsMismatch, decode_heads, load_heads, save_heads
from core.scoring.cut import all_words
from core.scoring.features import (
    FINE,
    FINE_HOP,
    HEAD_CHARACTERS,
    HOP,
    TAIL_CHARACTERS,
    WINDOW,
    all_windows,
    extract,
    pairs,
    positions,
    read,
    windows,
    word_features,
    word_hashes,
)
from core.scoring.heads import Heads
from core.scoring.lanes import Lanes
from core.training.examples import HEADS, Example
from core.training.fit import Recipe
from core.training.train import train
from schemas.heads import FINE_LENGTHS, LENGTHS
from tests.unit.embedding_twin import embedding_twin
from tests.unit.heads_twin import heads_twin

VOCABULARY = [
    "how",
    "do",
    "i",
    "read",
    "write",
    "kill",
    "a",
    "process",
    "file",
    "bomb",
    "bake",
    "cake",
    "with",
    "the",
    "and",
    "of",
    "what",
    "is",
    "your",
    "name",
    "stupid",
    "idiot",
    "please",
]


def texts(count: int) -> list[str]:
    draw = Random(5)
    made = [" ".join(draw.choices(VOCABULARY, k=draw.randrange(0, 300))) for _ in range(count)]
    return [
        *made,
        "",
        "😀",
        "中文字符" * 50,
        "x" * 5_000,
        "k i l l " * 90,
        base64.b64encode(b"please kill a process " * 9).decode(),
    ]


def heads(cache_rows: int = 1_000) -> Heads:
    return Heads(heads_twin(), embedding_twin(), cache_rows)


def test_hashes_are_the_same_on_every_machine() -> None:
    assert word_hashes(["bomb", "中", ""]).tolist() == [11714221683449913885, 7749673754504281809, 16080163079616385819]
    assert word_features(["bomb"]).ids.tolist() == [70880, 81009, 85094, 90134, 5652, 106169, 227975, 260834, 39161, 207383]


def test_features_of_a_text_are_distinct_and_those_of_its_words_and_pairs() -> None:
    features = extract(["read a file, read a file"])
    expected = set(word_features(["read", "a", "file"]).ids.tolist())
    for pair in pairs(word_hashes(["read", "a", "file", "read", "a", "file"]), np.array([0, 6])):
        expected |= set(pair.ids.tolist())
    assert features.ids.tolist() == sorted(expected)


def test_features_of_a_text_do_not_depend_on_the_others() -> None:
    together = extract(["kill a process", "bake a cake", ""])
    alone = [extract([text]).ids.tolist() for text in ("kill a process", "bake a cake", "")]
    assert [together.ids[a:b].tolist() for a, b in pairwise(together.ends)] == alone


@given(st.integers(0, 5_000))
def test_windows_cover_every_word_and_none_is_longer_than_the_others(count: int) -> None:
    found = windows(count)
    assert found[0][0] == 0
    assert found[-1][1] == count
    assert all(later[0] <= earlier[1] for earlier, later in pairwise(found))


@given(st.text(st.sampled_from("ab1 _中ж.\n"), max_size=300))
def test_positions_are_those_of_the_words(text: str) -> None:
    assert [text[start:end].lower() for start, end in positions(text)] == all_words(text)


def test_positions_in_a_long_text_count_from_its_beginning() -> None:
    text = "first " + "filler " * ((HEAD_CHARACTERS + TAIL_CHARACTERS) // 5) + "last"
    (start, end) = positions(text)[-1]
    assert text[start:end] == "last"
    assert all_words(read(text))[-1] == "last"


def test_logits_are_the_same_alone_and_in_any_company() -> None:
    given_texts = texts(60)
    together = heads().logits(given_texts)
    alone = np.concatenate([heads().logits([text]) for text in given_texts])
    assert (together == alone).all()


def test_a_small_cache_gives_the_same_logits() -> None:
    draw = Random(3)
    given_texts = [" ".join(f"word{draw.randrange(900)}" for _ in range(draw.randrange(1, 200))) for _ in range(40)]
    assert (heads(cache_rows=4).logits(given_texts) == heads(cache_rows=5_000).logits(given_texts)).all()


def test_an_embedding_of_other_dimensions_is_refused() -> None:
    with pytest.raises(ValueError, match="dimensions"):
        Heads(heads_twin(8), embedding_twin())


@pytest.mark.parametrize("name", ["prompt_unsafe", "hate", "refusal"])
@settings(max_examples=30, deadline=None)
@given(text=st.text(st.sampled_from("abk il\u200bж4中=.\n"), max_size=400))
def test_reasons_lie_in_the_text_and_there_is_one_wherever_there_is_a_word(name: str, text: str) -> None:
    reasons = heads().reasons(text, (name,), "prompt")
    assert all(0 <= reason.start < reason.end <= len(text) for reason in reasons)
    assert reasons == heads().reasons(text, (name,), "prompt")


def test_an_attack_in_the_middle_of_padding_decides_the_logit() -> None:
    table = heads()
    padding = "the name of the cake is what you read " * 60
    attack = "kill bomb stupid idiot process"
    alone, padded, harmless = table.logits([attack, f"{padding} {attack} {padding}", padding + padding])
    column = int(np.argmax(alone - harmless))
    assert padded[column] > harmless[column]


@pytest.mark.parametrize("text", ["x" * 1_000_000, "\u200b" * 1_000_000, "%41" * 300_000, "a b " * 250_000, "中" * 400_000])
def test_what_is_read_of_a_hostile_text_is_bounded(text: str) -> None:
    assert len(all_words(read(text))) <= HEAD_CHARACTERS + TAIL_CHARACTERS + 1
    assert heads().logits([text[:200_000]]).shape == (1, len(heads_twin().names))


def generated(seed: int = 2) -> list[Example]:
    draw = Random(seed)
    made = []
    for number in range(400):
        harmful = number % 2
        text = " ".join(draw.choices(VOCABULARY + ["zorg"] * 9 * harmful, k=draw.randrange(4, 30)))
        made.append(Example(text, f"source-{number % 3}", dict.fromkeys(HEADS, harmful), {}, benign_traffic=not harmful))
    return made


def test_training_twice_gives_equal_tables_that_have_learned() -> None:
    one, other = (train(generated(), embedding_twin(), recipe=Recipe(steps=5)) for _ in range(2))
    assert one.digest == other.digest
    scored = Heads(one, embedding_twin())
    values = scored.values(scored.logits(["zorg read a zorg file zorg", "read a file with your name"]))[
        :, scored.column("prompt_unsafe")
    ]
    assert values[0] > values[1]


def test_a_head_without_rows_of_both_classes_cannot_be_trained() -> None:
    harmless = [one for one in generated() if not one.labels["hate"]]
    with pytest.raises(ValueError, match="both classes"):
        train(harmless, embedding_twin())


def test_a_table_survives_its_file_and_equal_tables_give_equal_files(tmp_path: Path) -> None:
    table = heads_twin()
    save_heads(table, tmp_path / "one.npz")
    save_heads(table, tmp_path / "two.npz")
    assert decode_heads((tmp_path / "one.npz").read_bytes()).digest == table.digest
    assert (tmp_path / "one.npz").read_bytes() == (tmp_path / "two.npz").read_bytes()


@pytest.mark.parametrize("damage", [b"", b"PK\x03\x04", b"x" * 99])
def test_a_damaged_file_is_named_as_such(damage: bytes) -> None:
    with pytest.raises(HeadsMismatch, match="damaged"):
        decode_heads(damage)


def test_the_shipped_table_is_the_one_that_configs_name() -> None:
    assert load_heads().names[:-2] == HEADS


def test_what_harmless_windows_reach_in_advance_is_taken_off_texts_of_several() -> None:
    table = replace(heads_twin(), fine_shift=np.full((len(heads_twin().names), FINE_LENGTHS), 1 << 20, np.int64))
    shifted = replace(table, length_shift=table.length_shift + np.arange(LENGTHS) * 10)
    plain, less = (Heads(one, embedding_twin()) for one in (table, shifted))
    one, two = "read a file", "read a file " * 17
    assert (plain.logits([one, two]) - less.logits([one, two])).tolist() == [[0] * len(table.names), [10] * len(table.names)]


@given(st.lists(st.integers(0, 300), max_size=20))
def test_windows_of_many_texts_are_those_of_each(counts: list[int]) -> None:
    found = all_windows(np.array(counts, np.int64))
    together = list(zip(found.text.tolist(), found.start.tolist(), found.end.tolist(), strict=True))
    assert together == [(number, *window) for number, count in enumerate(counts) for window in windows(count)]


@given(st.lists(st.lists(st.integers(-100, 100), min_size=5, max_size=5), min_size=1, max_size=12), st.data())
def test_sums_in_lanes_are_the_sums(values: list[list[int]], data: st.DataObject) -> None:
    lanes, rows = Lanes(columns=5, bits=16, bias=100), np.array(values, np.int64)
    border = st.integers(0, len(rows))
    spans = data.draw(st.lists(st.tuples(border, border), min_size=1))
    start, end = (np.array(one, np.int64) for one in zip(*spans, strict=True))
    expected = [rows[first:last].sum(axis=0).tolist() for first, last in spans]
    columns = data.draw(st.lists(st.integers(0, 4), min_size=1, unique=True))
    assert lanes.sums(lanes.packed(rows), start, end, columns).tolist() == [
        [line[column] for column in columns] for line in expected
    ]


def test_an_attack_in_one_sentence_counts_in_a_long_text_as_far_as_harmless_sentences_leave_room() -> None:
    attack, padding = "stupid idiot kill your bomb", "please read the file and write a cake with what i do " * 30
    text = f"{padding} {attack} {padding}"
    column = heads_twin().names.index("jailbreak")
    for shift, expected in ((0, True), (1 << 20, False)):
        table = replace(heads_twin(), fine_shift=np.full((len(heads_twin().names), FINE_LENGTHS), shift, np.int64))
        found = Heads(table, embedding_twin())
        (fine,), (whole,) = found.unshifted([text], FINE, FINE_HOP), found.unshifted([text], WINDOW, HOP)
        assert fine[column] > whole[column]
        (logits,) = found.logits([text])
        assert (logits[column] == fine[column]) is np.bool_(expected)
        assert np.delete(logits, column).tolist() == np.delete(whole, column).tolist()
