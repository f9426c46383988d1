"""An app's own cells: fitted the same on every machine, apart where the topics are, named by what several people say."""

from dataclasses import replace
from itertools import pairwise
from random import Random

import numpy as np
import pytest

from core.cells import EDGES
from core.clustering import cluster
from core.fitter import CannotFit, Prompt, edges, fit_cells, prompt_of
from core.scoring.nearest import Cells
from core.scoring.words import WordSums
from core.terms import Document, cell_terms
from schemas.messages import FIXED_ONE, Coordinates, OwnCells, Score, ScoredInteraction
from tests.unit.embedding_twin import DIMENSIONS, FILLER, TOPICS, planted_twin

HOSTILE = {
    "[COMPOST]": "compost",
    "[COMPOST:1f3a]": "compost",
    "zzqxkwvjj": "zzqxkwvjj",
    "hunter2": "hunter2",
    "4111": "4111",
    "\ufdfb\ufdfb\ufdfb": "\ufdfb\ufdfb\ufdfb",
    "\U0001d41b\U0001d428\U0001d425": "\U0001d41b\U0001d428\U0001d425",
    "\u202etsopmoc\u200b": "tsopmoc",
}
"""What is said, and the word that must not be shown."""


def prompts(n: int, *, topics: tuple[str, ...] = ("bread", "travel"), seed: int = 1, people: int = 60) -> list[Prompt]:
    draw = Random(seed)
    made = []
    for number in range(n):
        topic = draw.choice(topics)
        said = draw.choices(TOPICS[topic], k=4) + draw.choices(FILLER, k=3)
        made.append(Prompt(" ".join(said), f"user-{draw.randrange(people)}", f"thread-{number}"))
    return made


def fit(asked: list[Prompt]) -> OwnCells:
    return fit_cells("desk", "production", 1, asked, WordSums(planted_twin()))


def nearest(own: OwnCells, texts: list[str]) -> list[int]:
    cells = Cells.of_app(own, DIMENSIONS)
    return [int(cell) for cell in cells.nearest(WordSums(planted_twin()).sums(texts).vectors).cell]


def test_two_planted_topics_share_no_cell() -> None:
    own = fit(prompts(1_200))
    bread = nearest(own, [p.text for p in prompts(200, topics=("bread",), seed=2)])
    travel = nearest(own, [p.text for p in prompts(200, topics=("travel",), seed=3)])
    assert not set(bread) & set(travel)


def test_cells_are_named_by_the_words_of_their_topic() -> None:
    own = fit(prompts(1_200))
    for topic in ("bread", "travel"):
        for cell in set(nearest(own, [p.text for p in prompts(200, topics=(topic,), seed=4)])):
            assert set(own.names[cell].split("/")[:3]) <= set(TOPICS[topic]) | {str(cell)}


def test_the_same_prompts_give_equal_bytes_whatever_was_in_the_cache_before() -> None:
    asked = prompts(900)
    small = WordSums(planted_twin(), cache_rows=1_024)
    small.sums([" ".join(f"word{n}" for n in range(900))])
    assert fit_cells("desk", "production", 1, asked, small) == fit(asked)


def test_the_cells_do_not_depend_on_the_order_of_the_first_half() -> None:
    asked = prompts(900)
    assert fit([*reversed(asked[:450]), *asked[450:]]) == fit(asked)


def test_the_second_half_is_counted_and_makes_no_cell() -> None:
    own = fit([*prompts(600), *prompts(600, topics=("garden",), seed=9)])
    assert (sum(own.topics), sum(own.novelty)) == (600, 600)
    assert not {word for name in own.names for word in name.split("/")} & set(TOPICS["garden"])
    assert sum(own.novelty[-6:]) > 300


@pytest.mark.parametrize("word", ["compost", "xkqjzvtr"])
def test_what_one_user_repeats_ten_thousand_times_is_in_no_name(word: str) -> None:
    shouted = [Prompt(f"{word} {word} {number}", "user-x", f"thread-x{number}") for number in range(10_000)]
    own = fit([p for pair in zip(prompts(10_000), shouted, strict=True) for p in pair])
    assert not any(word in name for name in own.names)


def test_what_one_unknown_sender_repeats_is_in_no_name() -> None:
    shouted = [Prompt(f"the password is compost {number}", None, f"id-{number}") for number in range(2_000)]
    own = fit([p for pair in zip(prompts(2_000), shouted, strict=True) for p in pair])
    assert not any("compost" in name for name in own.names)


@pytest.mark.parametrize(("said", "shown"), HOSTILE.items())
def test_hostile_words_that_many_people_say_about_one_topic_are_in_no_name(said: str, shown: str) -> None:
    """Said of bread only, so that nothing but what they look like keeps them out."""
    asked = [
        Prompt(f"{p.text} {said}" if set(p.text.split()) & set(TOPICS["bread"]) else p.text, p.user, p.thread)
        for p in prompts(1_000)
    ]
    names = fit(asked).names
    assert not {word for name in names for word in name.split("/")} & {shown}
    assert all(name.isprintable() and 0 < len(name) <= 96 for name in names)


def test_a_term_needs_five_people_and_five_texts() -> None:
    def named(people: int, texts: int) -> str:
        said = [Document(f"dough {FILLER[n % texts]}", f"user {n % people}", 0) for n in range(40)]
        rest = [Document("ticket please", f"user {n}", 1) for n in range(40)]
        return cell_terms([*said, *rest], 2, planted_twin().tokenise, lambda _: "nothing")[0]

    assert "dough" in named(5, 5)
    assert "dough" not in named(4, 5)
    assert "dough" not in named(5, 4)


def test_a_frequent_noun_is_a_term_where_it_is_the_topic() -> None:
    said = [Document(f"ticket {FILLER[n % 7]}", f"user {n}", 0) for n in range(40)]
    rest = [Document("dough please", f"user {n}", 1) for n in range(40)]
    assert "ticket" in cell_terms([*said, *rest], 2, planted_twin().tokenise, lambda _: "nothing")[0]


def test_an_app_with_one_service_account_gets_terms_by_conversation() -> None:
    own = fit([Prompt(p.text, "service", p.thread) for p in prompts(900)])
    assert any(word in own.names[0] for topic in TOPICS.values() for word in topic)


def test_a_cell_without_terms_is_called_as_the_fixed_cell_that_it_is_nearest_to() -> None:
    own = fit([Prompt(p.text, f"user-{n % 3}", "one") for n, p in enumerate(prompts(900))])
    assert all(name.startswith("cell-") for name in own.names)


@pytest.mark.parametrize("text", ["", "always the same words", "\u200b" * 9_000])
def test_an_app_that_says_nearly_nothing_has_no_cells(text: str) -> None:
    with pytest.raises(CannotFit, match="distinct prompts"):
        fit([Prompt(text, "u", str(n)) for n in range(800)])


def test_too_few_prompts_have_no_cells() -> None:
    with pytest.raises(CannotFit):
        fit([])


@pytest.mark.parametrize("distances", [[0], [FIXED_ONE], [7, 7, 7, 7], list(range(0, FIXED_ONE, 13)), [0, FIXED_ONE]])
def test_edges_rise_strictly_inside_the_range(distances: list[int]) -> None:
    found = edges(np.array(distances))
    assert len(found) == EDGES
    assert all(0 < a < b <= FIXED_ONE for a, b in pairwise(found))


def test_clusters_of_points_in_two_directions_are_two() -> None:
    draw = np.random.default_rng(3)
    one, other = draw.integers(-90, 91, (2, 16))
    vectors = np.concatenate([one * 50 + draw.integers(-200, 201, (100, 16)), other * 50 + draw.integers(-200, 201, (100, 16))])
    cell = Cells(cluster(vectors.astype(np.int32), 2).centroids, ["a", "b"]).nearest(vectors.astype(np.int32)).cell
    assert len(set(cell[:100])) == len(set(cell[100:])) == 1
    assert cell[0] != cell[-1]


def test_fewer_points_than_clusters_are_clusters_each() -> None:
    vectors = np.eye(3, dtype=np.int32) * 500
    assert len(cluster(vectors, 16).centroids) == 3


def test_a_record_gives_its_redacted_prompt_and_who_asked() -> None:
    def scored(**fields: object) -> ScoredInteraction:
        place = Coordinates(topic="t", topic_id="i", partition=0, offset=1)
        base: dict[str, object] = {
            "scores": {"topic": Score(scorer="topic@2")},
            "prompt": "bake",
            "user": "u",
            "conversation": "c",
        }
        return ScoredInteraction(coordinates=place, append_time=0, config="c", id="x", app="a", version="v", **(base | fields))  # type: ignore[arg-type]

    assert prompt_of(scored()) == Prompt("bake", "u", "c")
    assert prompt_of(scored(user=None, conversation=None)) == Prompt("bake", None, "x")
    assert prompt_of(scored(scores={})) is None
    assert prompt_of(scored(scores={"topic": Score(scorer="topic@2", outcome="error")})) is None


def test_the_reference_on_own_cells_is_counted_on_openings_only() -> None:
    asked = [replace(prompt, opening=number % 3 == 0) for number, prompt in enumerate(prompts(1_200))]
    assert sum(fit(asked).topics) == 200
