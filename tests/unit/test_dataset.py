"""What feedback becomes training rows, what is held out, and what is left out and why."""

import json
from collections.abc import Iterator
from itertools import count
from random import Random
from typing import Any

import pytest

from adapters.corpus import PHRASINGS, Item
from core.dataset import SAME_PHRASING, Act, Dataset, build_dataset, read_held_out
from core.near_duplicates import WordWeights, content_words
from schemas.messages import DatasetRules

RULES = DatasetRules(per_actor=5, per_cluster=10)
_numbers = count()


def act(question: str, *, correction: str = "", **values: Any) -> Act:
    number = next(_numbers)
    given = {"actor": f"actor-{number}", "interaction": f"i-{number}", "name": "thumbs", "by_receipt": True, "response": ""}
    return Act(
        id=f"f-{number}",
        source=f"t/0/{number:06}",
        arrival=number,
        question=question,
        correction=correction,
        **(given | values),
    )


def built(acts: list[Act], rules: DatasetRules = RULES) -> Dataset:
    return build_dataset(acts, rules, app="desk", environment="demo")


def rows(dataset: Dataset) -> dict[str, str]:
    return {row.question: row.answer for row in (*dataset.training, *dataset.held_out)}


def questions() -> Iterator[tuple[str, str]]:
    """Many phrasings of many questions, with their answers."""
    for number in range(60):
        name = f"lib{number % 7}.tool{number}.run{number}"
        item = Item(
            "x",
            name,
            name.rpartition(".")[0],
            f"sort pile {number}",
            f"Tool {number} sorts pile {number} by weight {number * 7}.",
        )
        for phrasing in PHRASINGS:
            yield item.question(phrasing), item.answer


def test_a_correction_is_learnt_in_place_of_the_answer() -> None:
    dataset = built([act("how to open the red valve", correction="Turn it left.", response="I do not know.")])
    assert rows(dataset) == {"how to open the red valve": "Turn it left."}


def test_an_answer_with_a_thumb_up_by_receipt_is_learnt() -> None:
    assert rows(built([act("q one", response="Turn it left.", thumbs_down=False)])) == {"q one": "Turn it left."}


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ({"thumbs_down": False, "response": "Fine answer.", "by_receipt": False}, "rating without receipt"),
        ({"response": "Fine answer."}, "neither correction nor rating"),
        ({"thumbs_down": False, "response": "Fine answer.", "flags": frozenset({"refusal"})}, "answer: refusal"),
        ({"thumbs_down": False, "response": "Fine answer.", "flags": frozenset({"pii"})}, "answer: pii"),
        ({"thumbs_down": False, "response": "Fine answer.", "flags": frozenset({"repeated"})}, "answer: repeated"),
        ({"thumbs_down": False, "response": " "}, "answer: empty"),
        ({"correction": "Sorry, I cannot help with that."}, "answer: refusal"),
        ({"correction": "Ask [EMAIL] for it."}, "answer: pii"),
        ({"correction": "buy now " * 40}, "answer: repeated"),
        ({"thumbs_down": False, "response": "Fine answer.", "flags": frozenset({"unsafe"})}, "answer: unsafe"),
        ({"correction": "Fine.", "flags": frozenset({"error"})}, "interaction: error"),
        ({"correction": "Fine.", "flags": frozenset({"attack"})}, "interaction: attack"),
        ({"correction": "Fine.", "flags": frozenset({"unsafe question"})}, "interaction: unsafe question"),
        ({"thumbs_down": True, "response": "Wrong answer."}, "thumbs down"),
    ],
)
def test_what_teaches_nothing_good_is_left_out_and_counted(values: dict[str, Any], reason: str) -> None:
    dataset = built([act("some question", **values)])
    assert (rows(dataset), dataset.manifest["left_out"]) == ({}, {reason: 1})


def test_an_actors_last_word_counts() -> None:
    same = {"actor": "ann", "interaction": "i"}
    dataset = built([act("q one", correction="First thought.", **same), act("q one", correction="Second thought.", **same)])
    assert rows(dataset) == {"q one": "Second thought."}


def test_the_majority_by_actors_wins_a_contradiction() -> None:
    acts = [act("where is the exit", correction="It is on the left.", actor=f"a{n}") for n in range(3)]
    acts += [act("Where is the exit?", correction="Send me money.", actor="bad") for _ in range(9)]
    dataset = built(acts)
    assert rows(dataset) == {"where is the exit": "It is on the left."}
    assert dataset.manifest["left_out"] == {"contradicted by more actors": 9, "near-duplicate": 2}


def test_without_a_majority_nothing_is_learnt() -> None:
    acts = [act("where is the exit", correction=text) for text in ("It is on the left.", "Go up two floors.")]
    assert built(acts).manifest["left_out"] == {"contradicted, and no majority": 2}


def test_an_answer_that_more_actors_reject_is_left_out() -> None:
    acts = [act("where is the exit", response="On the left.", thumbs_down=down) for down in (False, True, True)]
    assert rows(built(acts)) == {}


def test_one_actor_gets_in_no_more_rows_than_the_cap() -> None:
    acts = [act(q, correction=a, actor="busy") for q, a in questions()]
    dataset = built(acts)
    assert len(rows(dataset)) == RULES.per_actor
    assert dataset.manifest["left_out"]["over the cap of an actor"] > 100


def test_those_who_name_no_actor_count_as_one() -> None:
    assert len(rows(built([act(q, correction=a, actor="") for q, a in questions()]))) == RULES.per_actor


def test_a_campaign_of_fifty_actors_with_paraphrases_stays_under_the_cap() -> None:
    poison = "Send your savings to the account of the cheerful stranger and wait for a call."
    honest = [act(q, correction=a) for q, a in questions()]
    name = "lib3.tool3.run3"
    campaign = [
        act(f"{phrase} {name} {extra}", correction=poison, actor=f"bot-{number}")
        for number in range(50)
        for phrase, extra in [
            (PHRASINGS[number % 14].format(name="", short="", module="", package="", task=f"job{number}"), f"w{number}")
        ]
    ]
    dataset = built(honest + campaign)
    poisoned = [answer for answer in rows(dataset).values() if answer == poison]
    assert len(poisoned) <= RULES.per_cluster
    assert dataset.manifest["left_out"]["over the cap of a cluster"] >= 50 - RULES.per_cluster


def test_a_campaign_of_near_equal_questions_stays_under_the_cap_though_each_lie_is_another() -> None:
    verbs = ["open", "close", "sort", "fold", "split", "merge", "drain", "rinse", "paint"]
    campaign = [
        act(
            f"how do I {one} and {other} with lib3.tool3.run3",
            correction=" ".join(f"lie{one}{other}{word}" for word in range(12)),
        )
        for one in verbs
        for other in verbs
        if one != other
    ]
    dataset = built([act(q, correction=a) for q, a in questions()] + campaign)
    assert len(campaign) == 72
    assert sum(1 for answer in rows(dataset).values() if answer.startswith("lie")) <= RULES.per_cluster


def test_no_held_out_phrasing_is_near_one_that_is_trained_on() -> None:
    acts = [act(q + tail, correction=a) for q, a in questions() for tail in ("", "  ", "!", " ok")]
    dataset = built(acts)
    weights = WordWeights([content_words(a.question) for a in acts])
    trained = [content_words(row.question) for row in dataset.training]
    held_out = [content_words(row.question) for row in dataset.held_out]
    assert len(held_out) > 50
    nearest = max(weights.total(one & other) / weights.total(one | other) for one in held_out for other in trained)
    assert nearest < SAME_PHRASING


def test_about_the_stated_share_of_the_phrasings_is_held_out() -> None:
    dataset = built([act(q, correction=a) for q, a in questions()])
    share = len(dataset.held_out) / (len(dataset.held_out) + len(dataset.training))
    assert 0.12 < share < 0.28


def test_questions_of_one_template_stay_apart() -> None:
    acts = [act(q, correction=a) for q, a in questions()]
    assert len(set(rows(built(acts)).values())) == 60


def test_the_order_of_the_acts_changes_nothing() -> None:
    acts = [act(q, correction=a, actor=f"u{n % 40}") for n, (q, a) in enumerate(questions())]
    shuffled = list(acts)
    Random(5).shuffle(shuffled)
    assert built(shuffled).files == built(acts).files


def test_the_manifest_accounts_for_every_act() -> None:
    acts = [act(q, correction=a, actor=f"u{n % 40}") for n, (q, a) in enumerate(questions())]
    acts += [act("q", correction="Sorry, I cannot help with that."), act("!!", correction="A fine answer.")]
    manifest = built(acts).manifest
    assert manifest["acts"] == sum(manifest["left_out"].values()) + sum(manifest["rows"].values())


def test_lines_to_train_on_are_chats_that_begin_with_the_champions_prompt() -> None:
    acts = [act(q, correction=a) for q, a in questions()]
    dataset = build_dataset(acts, RULES, app="desk", environment="demo", system_prompt="Be brief.")
    line = json.loads(dataset.files["training.jsonl"].splitlines()[0])
    first = dataset.training[0]
    assert line == {
        "messages": [
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": first.question},
            {"role": "assistant", "content": first.answer},
        ]
    }


def test_the_conversation_before_the_question_is_kept() -> None:
    before = (("user", "I have two valves."), ("assistant", "Which colours?"))
    dataset = built([act("red and blue", correction="Open the red one first.", context=before)])
    assert [row.context for row in (*dataset.training, *dataset.held_out)] == [before]


def test_held_out_rows_are_read_back_as_written() -> None:
    dataset = built([act(q, correction=a) for q, a in questions()])
    assert read_held_out(dataset.files["held_out.jsonl"]) == dataset.held_out


def test_no_feedback_is_a_dataset_without_rows() -> None:
    assert built([]).manifest["rows"] == {"training": 0, "held_out": 0}


def test_ratings_beyond_fifty_are_no_more_than_the_corrections() -> None:
    asked = list(questions())
    acts = [act(q, response=a, thumbs_down=False) for q, a in asked[:400]] + [act(q, correction=a) for q, a in asked[400:470]]
    manifest = built(acts).manifest
    assert manifest["kinds"]["rating"] == 70
    assert manifest["left_out"]["more ratings than corrections"] > 100
