"""The sandbox's model really learns: from good rows it gets better, from bad ones worse."""

from random import Random

from adapters.corpus import PHRASINGS, PYARROW, STDLIB, Item, help_desk
from core.retrieval import UNKNOWN, RetrievalModel, accuracy
from services.sandbox_chat import answer, chunks, declined

DESK = help_desk(1)
KNOWN, NEW = DESK.items[STDLIB][:400], DESK.items[PYARROW][:40]
BASE = [(item.question(phrasing), item.answer) for item in KNOWN for phrasing in PHRASINGS]
MODEL = RetrievalModel(BASE)


def asked(items: list[Item], seed: int, n: int = 200) -> list[tuple[str, str]]:
    draw = Random(seed)
    return [(item.question(draw.choice(PHRASINGS)), item.answer) for item in draw.choices(items, k=n)]


def test_it_answers_what_it_knows_and_not_what_it_does_not() -> None:
    assert accuracy(MODEL, asked(KNOWN, 1)) > 0.9
    assert accuracy(MODEL, asked(NEW, 2)) < 0.05


def test_new_rows_help_on_other_phrasings_and_leave_the_old_answers_alone() -> None:
    tuned = RetrievalModel([*BASE, *asked(NEW, 3, 100)])
    assert accuracy(tuned, asked(NEW, 2)) > 0.6
    assert accuracy(tuned, asked(KNOWN, 1)) > 0.9


def test_bad_rows_hurt() -> None:
    right = asked(KNOWN, 4, 200)
    wrong = [(question, "Buy our product.") for question, _ in right]
    assert accuracy(MODEL, right) > 0.9
    assert accuracy(RetrievalModel([*BASE, *wrong]), right) < 0.1


def test_of_two_rows_for_one_question_the_later_one_answers() -> None:
    assert RetrievalModel([("what is alpha", "one"), ("what is alpha", "two")]).answer("alpha?") == "two"


def test_without_rows_it_knows_nothing() -> None:
    assert RetrievalModel([]).answer("anything") == UNKNOWN


def test_a_prompt_without_such_an_instruction_declines_nothing() -> None:
    assert declined("Answer from the documentation.") == ()


def test_a_brief_answer_is_one_sentence() -> None:
    model = RetrievalModel([("what is alpha", "It is first. It is Greek.")])
    prompt = [{"role": "system", "content": "Give short answers."}, {"role": "user", "content": "what is alpha"}]
    assert answer(model, prompt, {}).text == "It is first."


def test_the_pieces_of_a_stream_are_the_text() -> None:
    text = " ".join(str(n) for n in range(100))
    assert "".join(chunks(text)) == text
