"""What an item of a request becomes on the raw topics."""

import itertools
import json
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from core.intake import Intake, Request, Taken, id_seed
from core.receipts import key_id, sign, verify
from schemas import codec
from schemas.codec import InvalidMessage
from schemas.limits import MAX_ITEM_BYTES
from schemas.messages import Feedback, Interaction

KEY = Ed25519PrivateKey.from_private_bytes(bytes(32))
PUBLIC = {key_id(KEY.public_key()): KEY.public_key()}
NOW = 1_767_322_440_000
REQUEST = Request(NOW, None)
RETRIED = Request(NOW, id_seed("key", "retry-1"))


def intake() -> Intake:
    fresh, sequence = itertools.count(), itertools.count()
    return Intake(
        subject_key=b"k" * 32,
        sign=lambda receipt: sign(receipt, KEY),
        instance="collector-1",
        fresh_id=lambda: f"fresh-{next(fresh)}",
        next_sequence=lambda topic: next(sequence),
    )


def take(item: dict[str, Any], request: Request = REQUEST, index: int = 0) -> Taken:
    return intake().interaction(json.dumps(item).encode(), index, request)


def interaction(taken: Taken) -> Interaction:
    return codec.decode(Interaction, taken.records[0].value)


FULL = {
    "id": "i-1",
    "app": "help-desk",
    "input": [{"role": "user", "content": "q"}],
    "output": [{"role": "assistant", "content": "a"}],
}
LINE = {"app": "help-desk", "prompt": "q", "response": "a", "model_version": "v7", "time": "2026-01-02T03:04:05Z"}


def test_a_full_interaction_arrives_as_it_was_but_for_the_stamps() -> None:
    expected = FULL | {"producer_instance": "collector-1", "producer_sequence": 0}
    assert json.loads(take(FULL).records[0].value or b"") == expected


def test_unknown_fields_reach_the_raw_topic() -> None:
    assert json.loads(take(FULL | {"later": {"a": [1]}}).records[0].value or b"")["later"] == {"a": [1]}


def test_unknown_fields_of_a_short_line_reach_the_raw_topic() -> None:
    assert json.loads(take(LINE | {"later": {"a": [1]}}).records[0].value or b"")["later"] == {"a": [1]}


def test_a_prompt_without_input_makes_a_short_line() -> None:
    message = interaction(take(LINE))
    assert (message.input[0].content, message.output[0].content, message.version) == ("q", "a", "v7")


def test_an_input_makes_a_full_interaction_even_beside_a_prompt() -> None:
    assert interaction(take(FULL | {"prompt": "not this"})).input[0].content == "q"


def test_the_word_prompt_in_a_text_makes_no_short_line() -> None:
    item = FULL | {"output": [{"role": "assistant", "content": 'say "prompt"'}], "attributes": {"prompt": "x"}}
    assert interaction(take(item)).input[0].content == "q"


def test_a_short_line_without_time_gets_the_time_of_arrival() -> None:
    assert interaction(take({"app": "a", "prompt": "q"})).time == codec.rfc3339(NOW)


def test_the_feedback_of_a_short_line_follows_it_with_the_receipt() -> None:
    taken = take(LINE | {"id": "i-1", "feedback": "down"})
    act = codec.decode(Feedback, taken.records[1].value)
    assert taken.records[1].topic == "llm.feedback"
    assert (act.interaction_id, act.label, act.receipt) == ("i-1", "down", taken.receipt)


@pytest.mark.parametrize(
    ("fields", "id_"),
    [
        ({"id": "mine", "trace_id": "t", "span_id": "s"}, "mine"),
        ({"trace_id": "t", "span_id": "s"}, "t-s"),
        ({"trace_id": "t"}, "fresh-0"),
        ({}, "fresh-0"),
    ],
)
def test_the_id_is_the_clients_else_the_spans_else_fresh(fields: dict[str, str], id_: str) -> None:
    taken = take({"app": "a", "input": []} | fields)
    assert taken.id == interaction(taken).id == id_


def test_only_a_fresh_id_counts_twice_on_a_retry() -> None:
    item = {"app": "a", "input": []}
    assert take(item).retry_counts_twice
    assert take(LINE).retry_counts_twice
    assert not take(item, RETRIED).retry_counts_twice
    assert not take(LINE, RETRIED).retry_counts_twice
    assert not take(FULL).retry_counts_twice
    assert not take(item | {"trace_id": "t", "span_id": "s"}).retry_counts_twice


@pytest.mark.parametrize("item", [{"app": "a", "input": []}, LINE], ids=["full", "line"])
def test_an_idempotency_key_gives_the_same_id_again(item: dict[str, Any]) -> None:
    assert take(item, RETRIED, 3).id == take(item, RETRIED, 3).id


def test_ids_from_an_idempotency_key_differ_by_index_key_and_client() -> None:
    item = {"app": "a", "input": []}
    seeds = [id_seed("key", "one"), id_seed("key", "two"), id_seed("other", "one")]
    ids = {take(item, Request(NOW, seed), index).id for seed in seeds for index in (0, 1)}
    assert len(ids) == 6


def test_without_an_idempotency_key_there_is_no_seed() -> None:
    assert id_seed("key", None) is None


@pytest.mark.parametrize(
    ("fields", "key"),
    [({"conversation": "c", "trace_id": "t"}, b"c"), ({"trace_id": "t"}, b"t"), ({}, b"i-1")],
)
def test_the_records_key_is_the_conversation_else_the_trace_else_the_id(fields: dict[str, str], key: bytes) -> None:
    assert take(FULL | fields).records[0].key == key


def test_a_user_is_stored_as_a_keyed_hash() -> None:
    user = interaction(take(FULL | {"user": "ana@example.org"})).user
    assert user is not None
    assert len(user) == 32
    assert "ana" not in user


def test_user_and_actor_of_one_person_have_one_hash() -> None:
    taken = intake().feedback(b'{"interaction_id":"i-1","name":"thumbs","actor":"ana"}', 0, REQUEST)
    act = codec.decode(Feedback, taken.records[0].value)
    assert act.actor == interaction(take(FULL | {"user": "ana"})).user


def test_the_receipt_names_what_answered() -> None:
    receipt = verify(take(FULL | {"version": "v7", "turn": 2, "route_epoch": 5}).receipt or "", PUBLIC)
    assert (receipt.interaction_id, receipt.app, receipt.version, receipt.turn, receipt.route_epoch) == (
        "i-1",
        "help-desk",
        "v7",
        2,
        5,
    )


def test_receipts_can_be_switched_off() -> None:
    assert take(FULL, Request(NOW, None, receipts=False)).receipt is None


def test_headers_follow_cloudevents() -> None:
    headers = dict(take(FULL | {"traceparent": "00-1-2-01"}).records[0].headers)
    assert headers["ce_type"] == b"bellbuoy.interaction.v1"
    assert headers["ce_id"] == b"i-1"
    assert headers["traceparent"] == b"00-1-2-01"


def test_feedback_is_keyed_by_its_interaction() -> None:
    taken = intake().feedback(b'{"interaction_id":"i-1","name":"thumbs"}', 0, REQUEST)
    assert (taken.records[0].topic, taken.records[0].key, taken.id) == ("llm.feedback", b"i-1", "fresh-0")


def test_sequences_count_what_was_taken() -> None:
    into = intake()
    numbers = [interaction(into.interaction(json.dumps(FULL).encode(), n, REQUEST)).producer_sequence for n in range(3)]
    assert numbers == [0, 1, 2]


@pytest.mark.parametrize(
    ("item", "field"),
    [
        (FULL | {"app": ""}, "app"),
        (FULL | {"app": 7}, "app"),
        (FULL | {"kind": "sermon"}, "kind"),
        (FULL | {"time": "yesterday"}, "time"),
        (FULL | {"time": "1969-12-31T23:59:59Z"}, "time"),
        (FULL | {"id": "a\x00b"}, "id"),
        (FULL | {"input_tokens": 2**80}, "input_tokens"),
        (FULL | {"schema_version": "2.0"}, "schema_version"),
        ({"input": []}, "app"),
        (LINE | {"prompt": 7}, "prompt"),
        (LINE | {"response": ["x"]}, "response"),
        (LINE | {"time": {}}, "time"),
        ({"prompt": "q"}, "app"),
    ],
    ids=lambda value: repr(value)[-40:],
)
def test_a_bad_item_is_refused_with_its_field(item: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidMessage) as refused:
        take(item)
    assert refused.value.field == field


@pytest.mark.parametrize("time", ["1970-01-01T00:00:00Z", "2100-01-01T00:00:00+02:00"])
def test_event_times_far_away_are_taken(time: str) -> None:
    assert interaction(take(FULL | {"time": time})).time == time


@pytest.mark.parametrize("size", [MAX_ITEM_BYTES, 10_000_000])
def test_a_text_that_no_record_can_hold_is_too_large(size: int) -> None:
    with pytest.raises(InvalidMessage) as refused:
        take(FULL | {"input": [{"role": "user", "content": "x" * size}]})
    assert refused.value.code == "too_large"


def test_escapes_do_not_make_a_text_too_large() -> None:
    take(FULL | {"input": [{"role": "user", "content": "é" * (MAX_ITEM_BYTES // 4)}]})


@pytest.mark.parametrize(
    "item",
    [
        b"",
        b"null",
        b"[]",
        b'"x"',
        b"{",
        b"\xff",
        b'{"prompt":',
        b'{"app":"a","prompt":"\\ud800"}',
        b'{"app":"a","prompt":"\xff"}',
    ],
)
def test_what_is_no_object_is_refused(item: bytes) -> None:
    with pytest.raises(InvalidMessage):
        intake().interaction(item, 0, REQUEST)
    with pytest.raises(InvalidMessage):
        intake().feedback(item, 0, REQUEST)
