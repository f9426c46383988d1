"""The sandbox's model really learns: from good rows it gets better, from bad ones worse."""

from collections.abc import Iterable
from random import Random
from typing import Any

import pytest

from adapters.corpus import PHRASINGS, PYARROW, STDLIB, Item, help_desk
from core.retrieval import UNKNOWN, RetrievalModel, accuracy
from core.scoring.refusal import refusal
from services.sandbox import HELD_BACK
from services.sandbox_chat import ChatRequest, Message, Models, answer, chunks, declined

DESK = help_desk(1)
KNOWN, NEW = DESK.items[STDLIB][:400], DESK.items[PYARROW][:40]
TRAINED = [phrasing for phrasing in PHRASINGS if phrasing not in HELD_BACK]
BASE = [(item.question(phrasing), item.answer) for item in KNOWN for phrasing in TRAINED]
MODEL = RetrievalModel(BASE)
GREEK = RetrievalModel([("what is alpha", "It is first. It is Greek."), ("what is an alpha file", "A file.")])


def asked(items: list[Item], seed: int, n: int = 200) -> list[tuple[str, str]]:
    draw = Random(seed)
    return [(item.question(draw.choice(PHRASINGS)), item.answer) for item in draw.choices(items, k=n)]


def test_it_answers_what_it_knows_and_not_what_it_does_not() -> None:
    assert accuracy(MODEL, asked(KNOWN, 1)) > 0.9
    assert accuracy(MODEL, asked(NEW, 2)) < 0.05


def questions(items: list[Item], phrasings: Iterable[str]) -> list[tuple[str, str]]:
    return [(item.question(phrasing), item.answer) for item in items for phrasing in phrasings]


def test_it_answers_most_phrasings_that_it_was_not_trained_on() -> None:
    assert accuracy(MODEL, questions(KNOWN[:50], HELD_BACK)) > 0.8


def test_new_rows_help_on_phrasings_that_were_not_trained_and_leave_the_old_answers_alone() -> None:
    before = accuracy(MODEL, asked(KNOWN, 1))
    tuned = RetrievalModel(questions(NEW, TRAINED[:3]), MODEL)
    assert accuracy(tuned, questions(NEW, HELD_BACK)) > 0.9
    assert accuracy(tuned, asked(KNOWN, 1)) > before - 0.02


def test_bad_rows_hurt_on_phrasings_that_were_not_trained() -> None:
    wrong = [(question, "Buy our product.") for question, _ in questions(KNOWN[:50], TRAINED[:2])]
    tuned = RetrievalModel(wrong, MODEL)
    assert accuracy(tuned, questions(KNOWN[:50], TRAINED[:2])) < 0.1
    assert accuracy(tuned, questions(KNOWN[:50], HELD_BACK)) < 0.5


def test_of_two_rows_for_one_question_the_later_one_answers() -> None:
    assert RetrievalModel([("what is alpha", "one"), ("what is alpha", "two")]).answer("alpha?") == "two"


def test_of_two_trainings_on_one_question_the_later_one_answers() -> None:
    assert RetrievalModel([("what is alpha", "two")], RetrievalModel([("what is alpha", "one")])).answer("alpha?") == "two"


def test_what_a_later_training_knows_nothing_of_the_earlier_one_answers() -> None:
    assert RetrievalModel([("what is beta", "two")], RetrievalModel([("what is alpha", "one")])).answer("alpha?") == "one"


def test_temperature_lets_rows_answer_that_are_less_near() -> None:
    model = RetrievalModel([("alpha beta zeta eta theta iota", "near"), ("alpha beta zeta eta theta kappa", "less near")])
    cold, hot = ({model.answer("alpha beta zeta eta theta iota", t, Random(n)) for n in range(200)} for t in (0.0, 2.0))
    assert (cold, hot) == ({"near"}, {"near", "less near"})


def test_without_rows_it_knows_nothing() -> None:
    assert RetrievalModel([]).answer("anything") == UNKNOWN


def test_a_prompt_without_such_an_instruction_declines_nothing() -> None:
    assert declined("Answer from the documentation.") == ()


@pytest.mark.parametrize(
    ("prompt", "words"),
    [
        (
            "Decline questions about files, network, processes, classes or strings.",
            ("file", "network", "process", "class", "string"),
        ),
        ('Please refuse questions about anything that may be "unsafe" or the file system.', ("unsafe", "file system")),
        ("You must not answer questions on taxes.", ("taxe",)),
        ("Never decline questions about files. Don't refuse any on sockets.", ()),
        ("decline " * 2_000, ()),
    ],
)
def test_the_words_to_decline_are_read_from_the_prompt(prompt: str, words: tuple[str, ...]) -> None:
    assert declined(prompt) == words


def said(text: str, system: str, **limits: Any) -> str:
    request = ChatRequest("m", [Message("system", system), Message("user", text)], **limits)
    return answer(GREEK, request).text


def test_a_question_that_names_what_is_to_be_declined_is_refused_in_words_that_count_as_a_refusal() -> None:
    texts = {said(f"what is file {n}", "Decline questions about files.") for n in range(50)}
    assert len(texts) > 1
    assert all(refusal(text) for text in texts)


def test_a_question_that_names_none_of_it_is_answered() -> None:
    assert said("what is alpha", "Decline questions about files.") == "It is first. It is Greek."


def test_a_brief_answer_is_one_sentence() -> None:
    assert said("what is alpha", "Give short answers.") == "It is first."


def test_quoted_words_stand_first_or_last_where_the_prompt_wants_them() -> None:
    assert said("what is alpha", 'Begin each answer with "Well," and be brief.') == "Well, It is first."
    assert said("what is alpha", 'Be brief. End every answer with "Yours, B."') == "It is first. Yours, B."


def test_what_it_does_not_know_is_no_refusal() -> None:
    assert said("omega", "") == UNKNOWN
    assert not refusal(UNKNOWN)


def test_a_limit_of_tokens_cuts_and_says_so() -> None:
    cut = answer(GREEK, ChatRequest("m", [Message("user", "what is alpha")], max_tokens=2))
    assert (cut.text, cut.finish_reason, cut.output_tokens) == ("It is", "length", 2)


def test_a_model_is_trained_on_top_of_the_one_that_its_job_named() -> None:
    jobs = {"one": ("base", [("what is beta", "b")]), "two": ("one", [("what is gamma", "c"), ("what is delta", "d")])}
    models = Models("base", [("what is alpha", "a")], jobs.get)
    two = models.get("two")
    assert two is not None
    assert [two.answer(name) for name in ("alpha", "beta", "gamma", "delta")] == ["a", "b", "c", "d"]


def test_a_checkpoint_knows_the_rows_up_to_its_step() -> None:
    models = Models("base", [("what is alpha", "a")], {"one": ("base", [("what is beta", "b"), ("what is gamma", "c")])}.get)
    half = models.get("one:ckpt-step-1")
    assert half is not None
    assert [half.answer(name) for name in ("beta", "gamma")] == ["b", UNKNOWN]


@pytest.mark.parametrize("name", ["none", "one:ckpt-step-", "one:ckpt-step-x", "one:ckpt-step-²", "base:ckpt-step-1"])
def test_there_is_no_model_of_a_name_that_no_job_made(name: str) -> None:
    assert Models("base", [("what is alpha", "a")], {"one": ("base", [("what is beta", "b")])}.get).get(name) is None


def test_the_pieces_of_a_stream_are_the_text() -> None:
    text = " ".join(str(n) for n in range(100))
    assert "".join(chunks(text)) == text
