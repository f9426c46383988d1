"""One outcome per conversation: what a block tells apart, and how its counts add up."""

import random
from typing import Any

import msgspec
import pytest

from core.attribution import Attributed
from core.blocks import ActiveConfig, Place, begin
from core.groups import merge_groups
from core.identity import sampled_turn, turn_of, turns_of
from schemas import codec
from schemas.codec import Record
from schemas.messages import BlockSummary, ChatMessage, Counts, Group, Interaction
from schemas.topics import INTERACTIONS, SUMMARIES
from tests.unit.scoring_twin import CONFIG, TwinScoring

W = 1_700_000_000_000
ACTIVE = ActiveConfig("digest", msgspec.structs.replace(CONFIG, shards=1), TwinScoring())


def asked(*prompts: str, **fields: Any) -> Interaction:
    said = [ChatMessage(role="user", content=prompt) for prompt in prompts]
    return Interaction(
        **({"id": "i", "app": "desk", "version": "v", "input": said, "output": [ChatMessage(role="assistant")]} | fields)
    )


def turns(interaction: Interaction) -> str:
    return turns_of(interaction, turn_of(interaction))


def group_of(*interactions: Interaction) -> Group:
    block = begin(Place(INTERACTIONS, "t", 0), W, 0, ACTIVE)
    block.step([Record(at, W, None, codec.encode(one), []) for at, one in enumerate(interactions)])
    (out,) = (out for out in block.end(len(interactions)) if out.topic == SUMMARIES)
    (group,) = codec.decode(BlockSummary, out.value or b"").groups
    return group


def conversation(name: str, length: int) -> list[Interaction]:
    return [asked("Hi", id=f"{name}-{turn}", conversation=name, turn=turn) for turn in range(1, length + 1)]


def test_an_interaction_of_which_nobody_tells_the_turn_counts_as_a_first_one() -> None:
    assert turns(asked(conversation="c")) == "first"


@pytest.mark.parametrize("name", ["a", "b", "c", "d"])
def test_one_later_turn_of_a_conversation_speaks_for_it(name: str) -> None:
    counted = [turns(said) for said in conversation(name, 2_000)]
    assert counted[0] == "first"
    assert [turn for turn, as_ in enumerate(counted, 1) if as_ == "later"] == [t for t in [sampled_turn(name)] if t <= 2_000]


def test_without_a_name_what_was_said_first_stands_for_the_conversation() -> None:
    said = ["How do I open a file?", *(f"and then {n}?" for n in range(40))]
    counted = [turns(asked(*said[:length])) for length in range(1, len(said) + 1)]
    assert counted[0] == "first"
    assert counted.index("later") + 1 == sampled_turn(str(said[:2]))
    assert counted.count("later") == 1


def test_without_a_name_and_without_what_was_said_the_second_turn_speaks() -> None:
    assert [turns(asked("Hi", turn=turn)) for turn in (1, 2, 3, 4)] == ["first", "later", "rest", "rest"]


def test_single_messages_need_no_more_room_than_before() -> None:
    group = group_of(asked("a", id="1"), asked("b", id="2"))
    assert group.n == 2
    assert (group.first, group.later) == (msgspec.UNSET, msgspec.UNSET)
    assert b"first" not in msgspec.json.encode(group)


def test_a_conversation_of_any_length_brings_one_first_and_one_later_outcome() -> None:
    names = [f"conversation-{n}" for n in range(20)]
    group = group_of(*(said for name in names for said in conversation(name, 50)))
    assert group.n == 1_000
    assert isinstance(group.first, Counts)
    assert isinstance(group.later, Counts)
    assert group.first.n == 20
    assert group.later.n == sum(sampled_turn(name) <= 50 for name in names)
    assert sum(count for _, count in group.first.bins["refusal@1"]) == 20
    assert sum(count for _, count in group.bins["refusal@1"]) == 1_000


def test_a_record_that_is_sent_again_and_again_counts_once_in_a_block() -> None:
    group = group_of(*[asked("a", id="1")] * 500, asked("b", id="2"))
    assert group.n == 501
    assert isinstance(group.first, Counts)
    assert group.first.n == 2


def test_a_script_that_calls_every_turn_the_first_counts_once_in_a_block() -> None:
    group = group_of(*(asked("a", id=f"{n}", conversation="c") for n in range(500)))
    assert isinstance(group.first, Counts)
    assert group.first.n == 1


def test_one_name_in_two_environments_is_two_conversations() -> None:
    block = begin(Place(INTERACTIONS, "t", 0), W, 0, ACTIVE)
    said = [asked("a", id=where, conversation="c", environment=where) for where in ("production", "staging")]
    block.step([Record(at, W, None, codec.encode(one), []) for at, one in enumerate(said)])
    (out,) = block.end(2)
    assert [group.first for group in codec.decode(BlockSummary, out.value or b"").groups] == [msgspec.UNSET] * 2


def test_the_content_of_an_interaction_that_came_in_two_parts_is_counted_with_it() -> None:
    span, content = asked(id="1", part="span", conversation="c"), asked("a", id="1", part="content", conversation="c")
    group = group_of(span, content, asked("b", id="2", conversation="d", turn=9))
    assert isinstance(group.first, Counts)
    assert group.first.n == 1
    assert sum(count for _, count in group.first.bins["refusal@1"]) == 2


@pytest.mark.parametrize(("turn", "sampled", "counted"), [(None, False, "first"), (1, False, "first"), (3, True, "later")])
def test_an_act_counts_with_the_turn_that_its_receipt_tells(turn: int | None, sampled: bool, counted: str) -> None:
    assert Attributed("receipt", "a", "e", "v", turn, sampled=sampled).turns == counted
    assert Attributed("receipt", "a", "e", "v", 3).turns == "rest"


def test_sums_are_the_same_in_any_order_whether_or_not_turns_are_told_apart() -> None:
    one = Group(app="a", environment="e", version="v", n=3, bins={"error@1": [(0, 2), (1, 1)]}, names={"x@1": [("en", 3)]})
    two = msgspec.structs.replace(
        one, first=Counts(n=1, bins={"error@1": [(0, 1)]}), later=Counts(n=1, names={"x@1": [("en", 1)]})
    )
    groups = [one, two, one, two]
    (whole,) = merge_groups(groups)
    assert whole.n == 12
    assert whole.first == Counts(n=8, bins={"error@1": [(0, 6), (1, 2)]}, names={"x@1": [("en", 6)]})
    assert whole.later == Counts(n=2, names={"x@1": [("en", 2)]})
    random.Random(1).shuffle(groups)
    assert merge_groups([*merge_groups(groups[:2]), *merge_groups(groups[2:])]) == (whole,)


def test_conversations_that_open_alike_are_told_apart_by_the_first_answer() -> None:
    def later(answer: str) -> int:
        opening = [ChatMessage(role="user", content="Hi"), ChatMessage(role="assistant", content=answer)]
        asked_again = [ChatMessage(role="user", content="and then?")] * 60
        counted = [turns(asked(input=opening + asked_again[:more])) for more in range(1, 60)]
        return counted.index("later") if "later" in counted else -1

    assert len({later(f"Hello, I am number {n}") for n in range(20)}) > 3


def test_a_turn_that_goes_on_after_a_tools_result_is_judged_once() -> None:
    said = [ChatMessage(role="user", content="What is the weather?")]
    called = [*said, ChatMessage(role="assistant", content=""), ChatMessage(role="tool", content="rain")]
    assert [turns(asked(input=one)) for one in (said, called)] == ["first", "rest"]
