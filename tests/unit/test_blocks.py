"""Blocks: borders, dead letters of every kind, counts, and the same bytes for any division into steps."""

import hashlib
import json
import random
from collections.abc import Sequence
from typing import Any

import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from core import receipts
from core.blocks import ActiveConfig, BlockCutter, Place, begin, score_block
from core.identity import monitored_version
from core.summary import MAX_COHORTS, summaries
from schemas import codec
from schemas.codec import Outgoing, Record
from schemas.messages import (
    FIXED_ONE,
    BlockHeader,
    BlockSummary,
    ChatMessage,
    Cohort,
    Coordinates,
    DeadLetter,
    Feedback,
    Group,
    Interaction,
    LedgerCounts,
    Message,
    Receipt,
    ScoredFeedback,
    ScoredInteraction,
    Tick,
)
from schemas.topics import DEADLETTER, FEEDBACK, INTERACTIONS, SCORED, SUMMARIES, shard_of
from tests.unit.scoring_twin import CONFIG, TwinScoring

PLACE = Place(INTERACTIONS, "topic-id", 1)
ACTS = Place(FEEDBACK, "topic-id-f", 0)
KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
KEYS = {receipts.key_id(KEY.public_key()): KEY.public_key()}
ACTIVE = ActiveConfig("digest", CONFIG, TwinScoring(), KEYS)
W = 1_700_000_000_000


def record(offset: int, message: Message | bytes | None, *, time: int = W, headers: Sequence[tuple[str, bytes]] = ()) -> Record:
    value = codec.encode(message) if isinstance(message, Message) else message
    return Record(offset, time, None, value, list(headers))


def tick(offset: int, time: int = W) -> Record:
    return record(offset, Tick(window=time), time=time, headers=[("ce_type", codec.TICK_TYPE)])


def chat(id_: str, *, app: str = "desk", prompt: str = "How?", response: str = "So.", **fields: Any) -> Interaction:
    return Interaction(
        id=id_,
        app=app,
        input=[ChatMessage(role="user", content=prompt)],
        output=[ChatMessage(role="assistant", content=response)],
        **fields,
    )


def read(outgoing: Outgoing) -> Any:
    return codec.read(Record(0, 0, outgoing.key, outgoing.value, outgoing.headers))


def dead(value: Message | bytes | None, *, place: Place = PLACE, headers: Sequence[tuple[str, bytes]] = ()) -> DeadLetter:
    (out,) = begin(place, W, 0, ACTIVE).step([record(0, value, headers=headers)])
    assert out.topic == DEADLETTER
    letter = read(out)
    assert isinstance(letter, DeadLetter)
    return letter


def scored(message: Message, *, place: Place = PLACE, active: ActiveConfig = ACTIVE) -> Any:
    (out,) = begin(place, W, 0, active).step([record(0, message)])
    assert out.topic == SCORED
    return read(out)


def groups_of(messages: Sequence[Message], *, place: Place = PLACE, active: ActiveConfig = ACTIVE) -> list[Group]:
    records = [record(offset, message) for offset, message in enumerate(messages)]
    block = score_block(place, W, 0, len(records), records, active)
    return [group for out in block.summaries for group in read(out).groups]


# --- borders --------------------------------------------------------------------------------------------------------


def test_records_are_cut_where_a_later_window_begins() -> None:
    cutter = BlockCutter()
    pieces = list(cutter.cut([record(o, b"", time=t) for o, t in enumerate((W, W + 4_999, W + 5_000, W + 20_000))]))
    assert [(w, [r.offset for r in rs]) for w, rs in pieces] == [(W, [0, 1]), (W + 5_000, [2]), (W + 20_000, [3])]


def test_a_record_stamped_earlier_stays_in_the_block_that_has_begun() -> None:
    cutter = BlockCutter()
    pieces = list(cutter.cut([record(o, b"", time=t) for o, t in enumerate((W + 5_000, W - 60_000, W + 6_000, W + 10_000))]))
    assert [(w, [r.offset for r in rs]) for w, rs in pieces] == [(W + 5_000, [0, 1, 2]), (W + 10_000, [3])]


def test_a_cutter_goes_on_in_the_window_in_which_the_last_fetch_ended() -> None:
    cutter = BlockCutter()
    assert [w for w, _ in cutter.cut([record(0, b"", time=W)])] == [W]
    assert [w for w, _ in cutter.cut([record(1, b"", time=W + 1), record(2, b"", time=W + 5_000)])] == [W, W + 5_000]


def test_offsets_without_a_record_are_counted_as_control() -> None:
    block = begin(PLACE, W, 10, ACTIVE)
    block.step([record(11, chat("a")), tick(14)])
    header = read(block.end(17)[0]).header
    assert (header.start, header.end, header.counts) == (10, 17, LedgerCounts(scored=1, tick=1, control=5))


def test_the_header_counts_every_offset_exactly_once() -> None:
    active = ActiveConfig(
        "digest",
        CONFIG,
        TwinScoring(),
        KEYS,
        frozenset({Coordinates(topic=PLACE.topic, topic_id=PLACE.topic_id, partition=1, offset=3)}),
    )
    block = begin(PLACE, W, 0, active)
    block.step([record(0, chat("a")), tick(1), record(2, b"{"), record(3, chat("b"))])
    header = read(block.end(6)[0]).header
    assert header.counts == LedgerCounts(scored=1, dead=2, poison=1, tick=1, control=2)
    assert header.dead_reasons == {"not_json": 1, "poison": 1}


def test_an_empty_block_still_gives_one_summary_per_shard() -> None:
    block = begin(PLACE, W, 0, ACTIVE)
    block.step([tick(0)])
    out = block.end(1)
    assert [(o.topic, o.key, o.partition) for o in out] == [(SUMMARIES, b"0", 0), (SUMMARIES, b"1", 1)]
    assert [read(o).groups for o in out] == [[], []]


def test_header_messages_carry_the_end_of_their_window_as_time() -> None:
    (first, _) = begin(PLACE, W, 0, ACTIVE).end(0)
    assert codec.header(first.headers, "ce_time") == codec.rfc3339(W + 5_000).encode()
    assert codec.header(first.headers, "ce_id") == f"{INTERACTIONS}/topic-id/1/{W}/0/1".encode()


# --- the same bytes -------------------------------------------------------------------------------------------------


def _mixed(n: int, seed: int = 1) -> list[Record]:
    rng = random.Random(seed)
    out = []
    for offset in range(n):
        kind = rng.random()
        message: Message | bytes | None
        if kind < 0.05:
            message = rng.choice([b"", None, b"{", b"[]", b'{"id":"x"}', b'{"id":"x","app":"' + b"y" * 300 + b'"}'])
        else:
            message = chat(
                f"i-{offset}",
                app=f"app-{int(rng.expovariate(0.02))}",
                prompt="q" * rng.randrange(40),
                version=rng.choice([None, "v1", "v2"]),
            )
        out.append(record(offset, message, time=W + offset))
    return out


@pytest.mark.parametrize("step", [1, 7, 137, 1024])
def test_a_block_gives_the_same_bytes_for_any_division_into_steps(step: int) -> None:
    records = _mixed(1_500)
    whole = score_block(PLACE, W, 0, 1_500, records, ACTIVE, step=10_000)
    assert score_block(PLACE, W, 0, 1_500, records, ACTIVE, step=step) == whole


def test_output_keeps_the_order_of_offsets() -> None:
    records = _mixed(300)
    out = begin(PLACE, W, 0, ACTIVE).step(records)
    assert [codec.header(o.headers, "ce_id") for o in out] == [f"{INTERACTIONS}/topic-id/1/{r.offset}".encode() for r in records]


def test_headers_are_written_as_the_codec_writes_them() -> None:
    trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    (out,) = begin(PLACE, W, 0, ACTIVE).step([record(5, chat("a"), headers=[("traceparent", trace.encode())])])
    wanted = codec.cloud_headers(ScoredInteraction, id_=f"{INTERACTIONS}/topic-id/1/5", time_ms=W, traceparent=trace)
    assert out.headers == wanted


def test_the_traceparent_of_the_value_is_used_where_the_record_has_none() -> None:
    trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    (out,) = begin(PLACE, W, 0, ACTIVE).step([record(5, chat("a", traceparent=trace))])
    assert codec.header(out.headers, "traceparent") == trace.encode()


def test_a_traceparent_that_is_none_is_dropped() -> None:
    (out,) = begin(PLACE, W, 0, ACTIVE).step([record(5, chat("a", traceparent="x" * 5_000))])
    assert codec.header(out.headers, "traceparent") is None


@pytest.mark.parametrize("nothing", [None, b""])
def test_a_header_without_a_value_is_none_however_a_client_spells_that(nothing: bytes | None) -> None:
    trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    headers: list[Any] = [("ce_type", nothing), ("traceparent", nothing)]
    (out,) = begin(PLACE, W, 0, ACTIVE).step([record(5, chat("a", traceparent=trace), headers=headers)])
    assert out.topic == SCORED
    assert codec.header(out.headers, "traceparent") == trace.encode()


# --- dead letters ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "code", "field"),
    [
        (None, "empty", None),
        (b"", "empty", None),
        (b"{", "not_json", None),
        (b"\xff\xfe", "not_json", None),
        (b'{"id":"\xff","app":"a"}', "not_json", None),
        (b"\x00\x00", "not_json", None),
        (b"[" * 100_000, "not_json", None),
        (b"[]", "invalid", None),
        (b'{"id":1,"app":"a"}', "invalid", "id"),
        (b'{"id":"i","app":"a","latency_ms":NaN}', "not_json", None),
        (b'{"id":"i","app":"a","latency_ms":"fast"}', "invalid", "latency_ms"),
        (b'{"id":"i","app":"a","schema_version":"2.0"}', "version", "schema_version"),
        (b'{"id":"i","app":"a","time":"yesterday"}', "invalid", "time"),
        (b'{"id":"","app":"a"}', "invalid", "id"),
        (b'{"id":"i","app":""}', "invalid", "app"),
        (b'{"id":"i","app":"a\\u0000"}', "invalid", "app"),
        (b'{"id":"i","app":"a","environment":"x\\ny"}', "invalid", "environment"),
        (b'{"id":"i","app":"a","version":""}', "invalid", "version"),
        (b'{"id":"i","app":"' + b"a" * 129 + b'"}', "too_long", "app"),
    ],
)
def test_what_cannot_be_read_becomes_a_dead_letter(value: bytes | None, code: str, field: str | None) -> None:
    letter = dead(value)
    assert (letter.code, letter.field) == (code, field)


@pytest.mark.parametrize(
    ("value", "code", "field"),
    [
        (b'{"id":"f","name":"thumbs"}', "invalid", "interaction_id"),
        (b'{"id":"f","interaction_id":"","name":"thumbs"}', "invalid", "interaction_id"),
        (b'{"id":"f","interaction_id":"i","name":"thumbs","score":1.5}', "invalid", "score"),
        (b'{"id":"f","interaction_id":"i","name":"thumbs","app":"\\u0007"}', "invalid", "app"),
    ],
)
def test_feedback_that_cannot_be_read_becomes_a_dead_letter(value: bytes, code: str, field: str | None) -> None:
    letter = dead(value, place=ACTS)
    assert (letter.code, letter.field) == (code, field)


def test_a_dead_letter_says_where_and_how_large_and_quotes_nothing() -> None:
    value = b'{"id":"i","app":"a","kind":"my secret"}'
    block = begin(PLACE, W, 40, ACTIVE)
    (out,) = block.step([record(41, value, time=W + 17)])
    letter = read(out)
    assert letter.coordinates == Coordinates(topic=INTERACTIONS, topic_id="topic-id", partition=1, offset=41)
    assert (letter.append_time, letter.size, letter.sha256) == (W + 17, len(value), hashlib.sha256(value).hexdigest())
    assert out.value is not None
    assert b"secret" not in out.value
    assert out.key == f"{INTERACTIONS}/topic-id/1/41".encode()


def test_a_type_of_another_topic_is_a_dead_letter() -> None:
    letter = dead(chat("a"), headers=[("ce_type", b"bellbuoy.feedback.v1")])
    assert (letter.code, letter.field) == ("type", "ce_type")


def test_the_topics_own_type_may_be_named() -> None:
    (out,) = begin(PLACE, W, 0, ACTIVE).step([record(0, chat("a"), headers=[("ce_type", b"bellbuoy.interaction.v1")])])
    assert out.topic == SCORED


def test_a_poison_record_is_not_even_read() -> None:
    at = Coordinates(topic=PLACE.topic, topic_id=PLACE.topic_id, partition=PLACE.partition, offset=7)
    active = ActiveConfig("digest", CONFIG, TwinScoring(), poison=frozenset({at}))
    (out,) = begin(PLACE, W, 7, active).step([record(7, chat("a"))])
    assert read(out).code == "poison"


def test_poison_of_another_incarnation_of_the_topic_does_not_count() -> None:
    at = Coordinates(topic=PLACE.topic, topic_id="older", partition=PLACE.partition, offset=7)
    active = ActiveConfig("digest", CONFIG, TwinScoring(), poison=frozenset({at}))
    (out,) = begin(PLACE, W, 7, active).step([record(7, chat("a"))])
    assert out.topic == SCORED


def test_a_scored_record_that_would_not_fit_its_topic_is_a_dead_letter() -> None:
    class Swelling(TwinScoring):
        def interactions(self, batch: Sequence[Interaction]) -> list[Any]:
            out = super().interactions(batch)
            out[0].response = "x" * 5_000_000
            return out

    (out,) = begin(PLACE, W, 0, ActiveConfig("d", CONFIG, Swelling())).step([record(0, chat("a"))])
    assert read(out).code == "too_large"


def test_unknown_apps_and_unknown_fields_are_fine() -> None:
    value = b'{"id":"i","app":"never seen","a_new_field":[1,2]}'
    (out,) = begin(PLACE, W, 0, ACTIVE).step([record(0, value)])
    assert read(out).app == "never seen"


# --- what is scored -------------------------------------------------------------------------------------------------


def test_an_interaction_is_monitored_under_the_version_that_it_names() -> None:
    assert scored(chat("a", version="v7", response_model="m")).version == "v7"


def test_an_interaction_without_version_is_monitored_under_a_digest_of_model_and_prompt() -> None:
    one = scored(chat("a", response_model="m", prompt_name="p", prompt_version="1")).version
    assert one == monitored_version(chat("b", response_model="m", prompt_name="p", prompt_version="1"))
    assert one != scored(chat("c", response_model="m", prompt_name="p", prompt_version="2")).version
    assert len(one) == 12


def test_measured_numbers_become_integers() -> None:
    said = scored(chat("a", latency_ms=12.3456, cost_usd=0.0000015, time_to_first_chunk_ms=0.5))
    assert (said.latency_us, said.cost_microusd, said.first_chunk_us) == (12_346, 2, 500)


@pytest.mark.parametrize("number", ["1e308", "1e999", "-1", "9" * 400])
def test_a_number_out_of_bounds_is_a_dead_letter(number: str) -> None:
    letter = dead(b'{"id":"i","app":"a","latency_ms":' + number.encode() + b"}")
    assert (letter.code, letter.field) == ("invalid", "latency_ms")


def test_a_client_time_is_written_in_utc() -> None:
    assert scored(chat("a", time="2100-01-01T01:00:00+01:00")).time == "2100-01-01T00:00:00.000Z"


def test_append_time_is_the_records_own_even_where_it_steps_back() -> None:
    (out,) = begin(PLACE, W, 0, ACTIVE).step([record(0, chat("a"), time=W - 9)])
    assert read(out).append_time == W - 9


# --- feedback -------------------------------------------------------------------------------------------------------


def _token(interaction_id: str = "i", version: str | None = "v1") -> str:
    return receipts.sign(
        Receipt(interaction_id=interaction_id, app="desk", environment="production", version=version, turn=3), KEY
    )


def act(**fields: Any) -> Feedback:
    return Feedback(**({"id": "f", "interaction_id": "i", "name": "thumbs", "score": 0.0} | fields))


def test_feedback_with_a_receipt_is_attributed_to_what_the_receipt_names() -> None:
    said = scored(act(receipt=_token(), app="liar", version="v9"), place=ACTS)
    assert isinstance(said, ScoredFeedback)
    assert (said.attribution, said.app, said.version, said.turn) == ("receipt", "desk", "v1", 3)


@pytest.mark.parametrize("stated", [{"app": "liar"}, {"version": "v9"}, {"environment": "staging"}])
def test_a_receipt_wins_over_what_contradicts_it_and_that_is_recorded(stated: dict[str, str]) -> None:
    said = scored(act(receipt=_token(), **stated), place=ACTS)
    assert (said.attribution, said.app, said.environment, said.version) == ("receipt", "desk", "production", "v1")
    assert said.receipt_error == "contradicts what is stated"


def test_a_receipt_that_says_the_same_as_the_sender_is_no_contradiction() -> None:
    said = scored(act(receipt=_token(), app="desk", environment="production", version="v1"), place=ACTS)
    assert (said.attribution, said.receipt_error) == ("receipt", None)


def test_feedback_with_app_and_version_is_attributed_as_stated() -> None:
    said = scored(act(app="desk", version="v2"), place=ACTS)
    assert (said.attribution, said.app, said.environment, said.version, said.score) == ("stated", "desk", "production", "v2", 0)


@pytest.mark.parametrize(
    ("token", "error"),
    [
        ("nonsense", "not a receipt"),
        (_token("another"), "names another interaction"),
        (_token()[:-8] + "AAAAAAAA", "wrong signature"),
    ],
)
def test_a_receipt_that_does_not_hold_is_recorded_and_proves_nothing(token: str, error: str) -> None:
    said = scored(act(receipt=token), place=ACTS)
    assert (said.attribution, said.receipt_error) == ("none", error)


def test_feedback_counts_with_a_receipt_or_as_stated_and_else_in_no_group() -> None:
    groups = groups_of(
        [act(receipt=_token()), act(app="desk", version="v1"), act(), act(app="desk"), act(version="v1")], place=ACTS
    )
    assert [(g.app, g.version, g.n, g.acts, g.bins) for g in groups] == [("desk", "v1", 0, 2, {"thumbs.down@1": [(1, 2)]})]


# --- counts ---------------------------------------------------------------------------------------------------------


def test_scores_are_counted_by_bin_and_labels_by_name() -> None:
    (group,) = groups_of([chat("a", version="v", response="sorry"), chat("b", version="v", response="yes", response_model="m")])
    assert (group.app, group.environment, group.version, group.n) == ("desk", "production", "v", 2)
    assert group.bins["refusal@1"] == [(0, 1), (1, 1)]
    assert group.names["response.model@1"] == [("m", 1), ("unknown", 1)]


def test_each_app_is_counted_in_its_own_shard_only() -> None:
    records = [record(o, chat(f"i{o}", app=f"app-{o}")) for o in range(50)]
    for out in score_block(PLACE, W, 0, 50, records, ACTIVE).summaries:
        summary = read(out)
        assert all(shard_of(g.app, g.environment, 2) == summary.shard for g in summary.groups)


def test_the_second_half_of_an_interaction_does_not_count_it_again() -> None:
    (group,) = groups_of([chat("a", version="v", part="span"), chat("a", version="v", part="content")])
    assert group.n == 1


def test_pairs_beyond_the_bound_are_summed_to_other_admitted_first_then_by_count_then_by_name() -> None:
    config = msgspec.structs.replace(CONFIG, shards=1, max_pairs_per_block=2, admitted=[("zz", "production")])
    active = ActiveConfig("d", config, TwinScoring(config))
    apps = ["zz", "b", "b", "a", "c"] + ["d"] * 2
    groups = groups_of([chat(str(i), app=app, version="v") for i, app in enumerate(apps)], active=active)
    assert [(g.app, g.environment, g.version, g.n) for g in groups] == [
        ("b", "production", "v", 2),
        ("other", "other", "other", 4),
        ("zz", "production", "v", 1),
    ]
    assert sum(count for g in groups for _, count in g.bins["refusal@1"]) == len(apps)


def test_a_hundred_thousand_app_names_give_a_bounded_summary() -> None:
    records = [record(o, chat(str(o), app=f"app-{o}", version="v")) for o in range(20_000)]
    block = score_block(PLACE, W, 0, 20_000, records, ACTIVE)
    by_shard = [read(out) for out in block.summaries]
    assert [sum(len(s.groups) for s in by_shard if s.shard == shard) for shard in (0, 1)] == [257, 257]
    assert sum(g.n for s in by_shard for g in s.groups) == 20_000


def test_labels_beyond_the_bound_are_summed_to_other() -> None:
    models = [f"m{i:02}" for i in range(40)] + ["m39", "other"]
    (group,) = groups_of([chat(str(i), version="v", response_model=m) for i, m in enumerate(models)])
    names = dict(group.names["response.model@1"])
    assert (len(names), names["m39"], names["other"], sum(names.values())) == (33, 2, 9, 42)


def test_a_summary_larger_than_the_limit_is_sent_in_parts_that_each_carry_the_header() -> None:
    header = BlockHeader(topic="t", topic_id="i", partition=0, window=W, start=0, end=9, config="c", counts=LedgerCounts())
    groups = [Group(app=f"app-{i}", environment="e", version="v", n=1, bins={"refusal@1": [(0, 1)]}) for i in range(500)]
    parts = summaries(header, 1, groups, max_bytes=4_096)
    assert [p.part for p in parts] == list(range(1, len(parts) + 1))
    assert {p.parts for p in parts} == {len(parts)}
    assert [g for p in parts for g in p.groups] == groups
    assert all(p.header == header and len(codec.encode(p)) <= 4_096 for p in parts)


def test_summaries_hold_no_floats() -> None:
    def numbers(value: Any) -> list[Any]:
        if isinstance(value, dict):
            return [n for v in value.values() for n in numbers(v)]
        if isinstance(value, list):
            return [n for v in value for n in numbers(v)]
        return [value] if isinstance(value, int | float) else []

    block = score_block(PLACE, W, 0, 300, _mixed(300), ACTIVE)
    values = [json.loads(out.value or b"") for out in block.summaries]
    assert all(isinstance(n, int) for value in values for n in numbers(value))


def test_a_scored_error_is_counted_in_no_bin() -> None:
    class Failing(TwinScoring):
        def interactions(self, batch: Sequence[Interaction]) -> list[Any]:
            out = super().interactions(batch)
            for text in out:
                text.scores["refusal"].outcome = "error"
            return out

    (group,) = groups_of([chat("a")], active=ActiveConfig("d", CONFIG, Failing()))
    assert "refusal@1" not in group.bins


def test_summary_messages_read_back_equal() -> None:
    block = score_block(PLACE, W, 0, 300, _mixed(300), ACTIVE)
    for out in block.summaries:
        summary = read(out)
        assert isinstance(summary, BlockSummary)
        assert codec.encode(summary) == out.value


def test_scores_are_fixed_point() -> None:
    assert scored(act(score=0.5, app="a", version="v"), place=ACTS).score == round(FIXED_ONE / 2)


# --- cohorts --------------------------------------------------------------------------------------------------------


def cohorts_of(messages: Sequence[Message], *, place: Place = PLACE, active: ActiveConfig = ACTIVE) -> list[Cohort]:
    records = [record(offset, message) for offset, message in enumerate(messages)]
    block = score_block(place, W, 0, len(records), records, active)
    return [cohort for out in block.summaries for cohort in read(out).cohorts]


def receipt(**fields: Any) -> str:
    named: dict[str, Any] = {
        "interaction_id": "i",
        "app": "desk",
        "environment": "production",
        "version": "v1",
        "turn": 1,
        "route_epoch": 7,
    }
    return receipts.sign(msgspec.convert(named | fields, Receipt), KEY)


def test_first_turns_under_a_route_epoch_are_counted_in_its_cohort() -> None:
    said = [chat("a", version="v1", route_epoch=7, turn=1, response="sorry"), chat("b", version="v1", route_epoch=7, turn=1)]
    said += [chat("c", version="v1", route_epoch=8, turn=1), chat("d", version="v2", route_epoch=8, turn=1)]
    assert [(c.version, c.route_epoch, c.n, c.acts, c.bins) for c in cohorts_of(said)] == [
        ("v1", 7, 2, 0, {"refusal@1": [(0, 1), (1, 1)]}),
        ("v1", 8, 1, 0, {"refusal@1": [(0, 1)]}),
        ("v2", 8, 1, 0, {"refusal@1": [(0, 1)]}),
    ]


def test_later_turns_are_counted_in_no_cohort() -> None:
    assert cohorts_of([chat("a", route_epoch=7, turn=2)]) == []


def test_without_a_stated_turn_one_user_message_is_a_first_turn_and_two_are_not() -> None:
    longer = chat("b", route_epoch=7)
    longer.input = [*longer.input, *longer.output, *longer.input]
    assert [c.n for c in cohorts_of([chat("a", route_epoch=7), longer])] == [1]


def test_a_feedback_act_is_counted_in_the_cohort_of_its_receipt() -> None:
    (cohort,) = cohorts_of([act(receipt=receipt())], place=ACTS)
    assert (cohort.version, cohort.route_epoch, cohort.n, cohort.acts) == ("v1", 7, 0, 1)
    assert cohort.bins == {"thumbs.down@1": [(1, 1)]}


def test_who_rates_the_same_answer_again_and_again_counts_once_in_a_block() -> None:
    (cohort,) = cohorts_of([act(id=f"f{n}", receipt=receipt()) for n in range(9)], place=ACTS)
    assert (cohort.acts, cohort.bins) == (1, {"thumbs.down@1": [(1, 1)]})


@pytest.mark.parametrize("fields", [{"turn": 2}, {"turn": None}, {"route_epoch": None}])
def test_an_act_on_a_later_turn_or_without_a_route_epoch_is_in_no_cohort(fields: dict[str, Any]) -> None:
    assert cohorts_of([act(receipt=receipt(**fields))], place=ACTS) == []


def test_an_act_that_only_states_its_version_is_in_no_cohort() -> None:
    assert cohorts_of([act(app="desk", version="v1")], place=ACTS) == []


def test_a_block_names_no_more_cohorts_than_it_has_room_for_and_admitted_apps_come_first() -> None:
    flood = [chat(f"f{n}-{i}", app="flood", route_epoch=n, turn=1) for n in range(MAX_COHORTS + 9) for i in range(2)]
    active = ActiveConfig("d", msgspec.structs.replace(CONFIG, shards=1, admitted=[("desk", "production")]), TwinScoring())
    kept = cohorts_of([*flood, chat("a", route_epoch=3, turn=1)], active=active)
    assert len(kept) == MAX_COHORTS
    assert [c.route_epoch for c in kept if c.app == "desk"] == [3]
    assert [c.route_epoch for c in kept if c.app == "flood"] == list(range(MAX_COHORTS - 1))


def test_a_summary_without_route_epochs_says_nothing_of_cohorts() -> None:
    block = score_block(PLACE, W, 0, 300, _mixed(300), ACTIVE)
    assert not any(b"cohorts" in (out.value or b"") for out in block.summaries)


def test_cohorts_are_split_into_parts_with_the_groups() -> None:
    header = BlockHeader(
        topic=INTERACTIONS, topic_id="t", partition=1, window=W, start=0, end=9, config="d", counts=LedgerCounts()
    )
    groups = [Group(app=f"app-{n}", environment="production", version="v", n=1) for n in range(40)]
    cohorts = [Cohort(app=f"app-{n}", environment="production", version="v", route_epoch=n, n=1) for n in range(40)]
    parts = summaries(header, 1, groups, cohorts, max_bytes=2_048)
    assert [g for p in parts for g in p.groups] == groups
    assert [c for p in parts for c in p.cohorts] == cohorts
    assert all(len(codec.encode(p)) <= 2_048 for p in parts)
