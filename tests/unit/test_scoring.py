"""Scoring as a whole: any batching gives the same bytes, failures are outcomes, nothing leaks."""

import base64
from collections.abc import Callable
from dataclasses import replace
from random import Random

import msgspec
import pytest

import core.scoring as scoring_package
from core.metrics import METRICS
from core.scoring import SCORER_VERSIONS, SCORERS, ScoredText, Scoring
from core.scoring.batch import ActScorer, Batch, Scorer, Scores
from core.scoring.words import WordSums
from schemas.messages import (
    FIXED_ONE,
    ChatMessage,
    Config,
    ContentPart,
    Document,
    Feedback,
    Interaction,
    RedactionRule,
    ResponseFormat,
    ToolCall,
)
from tests.unit.embedding_twin import embedding_twin
from tests.unit.heads_twin import heads_twin
from tests.unit.test_redaction import FOUND, hostile_texts

TEXT = "how do i read a file with the csv module der die das ist nicht что это 中文 テスト pandas arrow table join"
WORDS = TEXT.split()


def config(**changes: object) -> Config:
    base = Config(scorers=SCORER_VERSIONS, embedding=embedding_twin().digest, heads=heads_twin().digest, partitions={}, shards=1)
    return msgspec.structs.replace(base, **changes)


def scoring() -> Scoring:
    return Scoring(config(), embedding_twin(), heads_twin())


def chat(prompt: str, response: str | None = "ok", **fields: object) -> Interaction:
    output = [] if response is None else [ChatMessage(role="assistant", content=response)]
    return Interaction(id="i", app="a", input=[ChatMessage(role="user", content=prompt)], output=output, **fields)  # type: ignore[arg-type]


def score(interaction: Interaction) -> ScoredText:
    (result,) = scoring().interactions([interaction])
    return result


INSTRUCTIONS = (
    "You are the assistant of a library. Answer in one short sentence, and never speak about the books' prices. Be kind."
)


def everything() -> Interaction:
    """A chat with all that a metric may need."""
    said = chat(
        "how do i read a file in this language, and why is it empty when i do that?",
        '{"answer": "you open it, and then you read from it, as is said in the manual"}',
        latency_ms=3.5,
        time_to_first_chunk_ms=1.5,
        request_model="gpt-4o-mini",
        response_model="gpt-4o-mini-2024-07-18",
        input_tokens=100,
        output_tokens=10,
        tool_calls=[ToolCall(name="f", result="x")],
        response_format=ResponseFormat(type="json_object"),
    )
    said.input.insert(0, ChatMessage(role="system", content=INSTRUCTIONS))
    return said


def log(n: int) -> list[Interaction]:
    draw = Random(11)
    hostile = list(hostile_texts().values())
    made = []
    for number in range(n):
        prompt = " ".join(draw.choices(WORDS, k=draw.randrange(0, 60)))
        response = draw.choice([None, "", "I'm sorry, but I can't help with that.", " ".join(draw.choices(WORDS, k=90))])
        if number % 97 == 0:
            prompt = hostile[number // 97 % len(hostile)]
        if number % 13 == 0:
            prompt += " " + draw.choice(FOUND)[0]
        made.append(
            chat(prompt, response, latency_ms=draw.random() * 1e4, response_model="m", kind=draw.choice(["chat"] * 9 + ["tool"]))
        )
        if number % 11 == 0:
            made[-1].input.insert(0, ChatMessage(role="system", content=draw.choice([INSTRUCTIONS, prompt, response or "s"])))
            made[-1].response_format = ResponseFormat(type="json_object")
            made[-1].output_tokens, made[-1].input_tokens, made[-1].request_model = number, 7, draw.choice(["gpt-4o", "no"])
    return made


def test_chunks_of_1_7_137_and_1024_give_equal_bytes() -> None:
    records = log(1_100)
    encoder = msgspec.json.Encoder(order="deterministic")

    def encoded(size: int) -> list[bytes]:
        scorer = scoring()
        return [
            encoder.encode(text) for at in range(0, len(records), size) for text in scorer.interactions(records[at : at + size])
        ]

    first = encoded(1)
    assert all(encoded(size) == first for size in (7, 137, 1_024))


@pytest.mark.parametrize("rows", [1_024, 2_048, 4_096])
def test_a_small_word_cache_gives_the_same_sums(rows: int) -> None:
    draw = Random(3)
    texts = [" ".join(str(draw.randrange(9_000)) for _ in range(draw.randrange(0, 1_500))) for _ in range(60)]
    large, small = WordSums(embedding_twin(), 32_768).sums(texts), WordSums(embedding_twin(), rows).sums(texts)
    assert (large.vectors == small.vectors).all()
    assert (large.evidence == small.evidence).all()


def test_a_chat_gets_every_metric_of_interactions() -> None:
    result = score(everything())
    assert set(result.scores) == {name for name, metric in METRICS.items() if metric.of == "interaction"}


def test_each_metric_is_scored_by_the_scorer_that_the_registry_names() -> None:
    named = {(metric, scorer.name) for scorer in SCORERS.values() for metric in scorer.metrics}
    assert named == {(m.name, m.scorer) for m in METRICS.values() if m.name != "scorer.error"}


@pytest.mark.parametrize(
    ("interaction", "missing"),
    [
        (
            chat("hello there", None),
            {
                "response.safety.unsafe",
                "refusal",
                "response.empty",
                "response.length",
                "response.repeated",
                "response.pii",
                "latency",
            },
        ),
        (chat("", "ok", latency_ms=1.0), {"topic", "novelty", "prompt.language", "prompt.pii", "prompt.safety.jailbreak"}),
        (chat("hello", "ok"), {"latency", "response.model"}),
        (chat("hello", "ok", part="content", latency_ms=1.0, response_model="m"), {"latency", "error", "response.model"}),
        (chat("hello", "", error_type="timeout"), {"refusal", "response.empty"}),
        (chat("hello", "", tool_calls=[ToolCall(name="f")]), {"refusal", "response.empty"}),
    ],
)
def test_a_metric_that_does_not_apply_has_no_score(interaction: Interaction, missing: set[str]) -> None:
    assert not missing & set(score(interaction).scores)


def test_only_chats_are_scored() -> None:
    assert set(score(chat("hello", "ok", kind="retrieval")).scores) == {"scorer.error"}


def test_a_prompt_without_words_has_no_topic() -> None:
    assert not {"topic", "novelty"} & set(score(chat("😀 … !!")).scores)


def failing(scorer: Scorer | ActScorer, wrong: Callable[[object], bool]) -> Scorer | ActScorer:
    if isinstance(scorer, ActScorer):
        return replace(scorer, score=lambda _: 1 // 0)

    def score(batch: Batch) -> list[Scores]:
        if any(wrong(reading) for reading in batch.readings):
            raise RuntimeError("no")
        return scorer.score(batch)

    return replace(scorer, score=score)


def test_a_scorer_that_raises_is_the_outcome_error_for_that_record_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    bad = failing(SCORERS["refusal"], lambda reading: "boom" in reading.response.text)  # type: ignore[attr-defined]
    monkeypatch.setattr(scoring_package, "SCORERS", dict(SCORERS) | {"refusal": bad})
    results = Scoring(config(), embedding_twin(), heads_twin()).interactions(
        [chat("a b", "fine"), chat("a b", "boom"), chat("a b", "good")]
    )
    assert [result.scores["refusal"].outcome for result in results] == ["ok", "error", "ok"]
    assert [result.scores["scorer.error"].value for result in results] == [0, FIXED_ONE, 0]
    assert results[1].scores["scorer.error"].reasons[0].rule == "refusal: RuntimeError"
    assert results[1].scores["response.length"].value == 4


def test_an_act_scorer_that_raises_is_the_outcome_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scoring_package, "SCORERS", dict(SCORERS) | {"thumbs": failing(SCORERS["thumbs"], bool)})
    (result,) = Scoring(config(), embedding_twin(), heads_twin()).feedback(
        [Feedback(id="f", interaction_id="i", name="thumbs", score=0.0)]
    )
    assert result.scores["thumbs.down"].outcome == "error"


def test_a_tokeniser_that_fails_leaves_no_trace_in_the_cache() -> None:
    table = embedding_twin()
    calls = 0

    def tokenise(word: str) -> list[int]:
        nonlocal calls
        calls += 1
        if calls == 2:
            raise RuntimeError("once")
        return list(table.tokenise(word))

    sums = WordSums(replace(table, tokenise=tokenise))
    with pytest.raises(RuntimeError):
        sums.sums(["alpha beta"])
    assert (sums.sums(["alpha beta"]).vectors == WordSums(table).sums(["alpha beta"]).vectors).all()


@pytest.mark.parametrize("changes", [{"scorers": {"refusal": 99}}, {"scorers": {"astrology": 1}}, {"embedding": "0" * 64}])
def test_a_config_that_this_machine_cannot_score_is_refused(changes: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="config names"):
        Scoring(config(**changes), embedding_twin(), heads_twin())


def test_a_scorer_that_the_config_leaves_out_does_not_run() -> None:
    (result,) = Scoring(config(scorers={"latency": 1}), embedding_twin(), heads_twin()).interactions([chat("a", latency_ms=2.0)])
    assert set(result.scores) == {"latency"}


def test_no_original_leaves_through_any_field() -> None:
    secret = "anna.schmidt@example.org"
    part = ContentPart(type="image", text=f"data {secret}", media_type=f"image/png,{secret}")
    interaction = Interaction(
        id="i",
        app="a",
        input=[
            ChatMessage(role=f"x {secret}", content=f"be nice to {secret}", name=secret),
            ChatMessage(role="user", content=[ContentPart(text=f"I am {secret}"), part]),
        ],
        output=[ChatMessage(role="assistant", content=f"hello {secret}"), ChatMessage(role="assistant", content=[part])],
        tool_calls=[ToolCall(name=secret, id=secret, arguments=f'{{"to": "{secret}"}}', result=secret, error=secret)],
        documents=[Document(text=f"see {secret}", id=secret)],
        attributes={"who": secret, secret: "x", "card": 4111111111111111, "password": "plainword", "phone": "07700900123"},
    )
    result = score(interaction)
    encoded = msgspec.json.encode(result).decode()
    for original in (secret, "4111111111111111", "plainword", "07700900123"):
        assert original not in encoded
    assert result.parts_not_scored == 2
    assert {reason.rule for reason in result.scores["prompt.pii"].reasons} == {"email"}


def test_each_kind_of_personal_data_has_a_score_where_it_is_found_and_only_there() -> None:
    result = score(chat("a@b.example, c@d.example", "call +49 30 1234567 or ask 93.184.216.34"))
    named = {name: [reason.rule for reason in result.scores[name].reasons] for name in result.scores if ".pii" in name}
    assert named == {
        "prompt.pii": ["email", "email"],
        "prompt.pii.email": ["email", "email"],
        "response.pii": ["phone", "ip_address"],
        "response.pii.phone": ["phone"],
        "response.pii.ip": ["ip_address"],
    }


def test_the_reasons_of_a_kind_are_its_placeholders() -> None:
    result = score(chat("mail a@b.example, ssn 219-09-9999, mail c@d.example"))
    reasons = result.scores["prompt.pii.email"].reasons
    assert [result.prompt[reason.start : reason.end] for reason in reasons] == ["[EMAIL]", "[EMAIL]"]


def test_one_kind_that_is_everywhere_does_not_push_the_reasons_of_another_out() -> None:
    result = score(chat("a@b.example " * 40 + "219-09-9999"))
    assert [reason.rule for reason in result.scores["prompt.pii.ssn"].reasons] == ["ssn"]


def dropping(kind: str) -> Scoring:
    return Scoring(config(redaction=[RedactionRule(app="a", kind=kind, action="drop")]), embedding_twin(), heads_twin())


def test_what_an_app_drops_is_kept_in_no_field() -> None:
    (result,) = dropping("ssn").interactions(
        [chat("my ssn is 219-09-9999", "plainly yours", attributes={"ssn": "219-09-9999", "note": "ssn 219-09-9999", "k": "v"})]
    )
    assert (result.prompt, result.response) == ("[DROPPED]", "plainly yours")
    assert result.attributes == {"ssn": "[DROPPED]", "note": "[DROPPED]", "k": "v"}
    assert [reason.rule for reason in result.scores["prompt.pii.ssn"].reasons] == ["ssn"]


def test_a_value_that_its_name_makes_a_secret_is_dropped_where_secrets_are() -> None:
    (result,) = dropping("secret").interactions([chat("hi", attributes={"password": "plainword"})])
    assert result.attributes == {"password": "[DROPPED]"}


def test_an_act_that_names_no_app_drops_what_any_app_drops() -> None:
    act = Feedback(id="f", interaction_id="i", name="note", comment="ssn 219-09-9999")
    (result,) = dropping("ssn").feedback([act])
    assert result.comment == "[DROPPED]"


def test_a_key_that_a_config_names_and_nobody_has_is_said() -> None:
    made = Scoring(config(redaction=[RedactionRule(action="hash", key="k1")]), embedding_twin(), heads_twin())
    assert made.missing_redaction_keys == {"k1"}
    assert made.interactions([chat("a@b.example")])[0].prompt == "[EMAIL]"


def test_no_original_leaves_through_a_field_that_should_hold_a_short_name() -> None:
    secret = "anna.schmidt@example.org"
    part = ContentPart(type=f"image {secret}", media_type=f"image {secret}", sha256=secret)
    result = score(
        Interaction(
            id="i",
            app="a",
            input=[ChatMessage(role="user", content=[part])],
            error_type=f"no mailbox {secret}",
            finish_reasons=["stop", secret],
            user=secret,
        )
    )
    assert secret not in msgspec.json.encode(result).decode()
    assert (result.error_type, result.finish_reasons, result.user) == ("no mailbox [EMAIL]", ["stop", "[EMAIL]"], "[EMAIL]")


def test_no_original_of_feedback_leaves() -> None:
    secret = "anna.schmidt@example.org"
    act = Feedback(
        id="f",
        interaction_id="i",
        name="thumbs",
        label=secret,
        comment=secret,
        correction=secret,
        actor=secret,
        attributes={"by": secret, "n": 3},
    )
    (result,) = scoring().feedback([act])
    assert secret not in msgspec.json.encode(result).decode()
    assert result.attributes == {"by": "[EMAIL]", "n": 3}


def test_other_parts_keep_their_description_and_lose_their_data() -> None:
    kept = score(
        Interaction(
            id="i",
            app="a",
            input=[ChatMessage(role="user", content=[ContentPart(type="image", media_type="image/png", text="abc")])],
        )
    ).messages
    (part,) = kept[0].content
    assert isinstance(part, ContentPart)
    assert (part.type, part.media_type, part.size, part.text) == ("image", "image/png", 3, None)
    assert part.sha256 == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


def test_the_prompt_is_the_last_user_message() -> None:
    interaction = Interaction(
        id="i",
        app="a",
        input=[
            ChatMessage(role=role, content=text)
            for role, text in (("system", "s"), ("user", "one"), ("user", "two"), ("tool", "t"))
        ],
    )
    result = score(interaction)
    assert result.prompt == "two"
    assert [message.content for message in result.messages] == ["s", "one", "two", "t"]


def test_messages_are_left_out_when_prompt_and_response_say_it_all() -> None:
    assert score(chat("a", "b")).messages == []


def test_a_long_message_is_cut_and_said_to_be() -> None:
    result = score(chat("word " * 20_000, "ok"))
    assert result.text_truncated
    assert len(result.prompt.encode()) == 32_768


def test_the_parts_of_a_message_share_one_cap() -> None:
    parts: list[ContentPart] = [ContentPart(text="word " * 4_000), ContentPart(text="wörd " * 4_000), ContentPart(text="more")]
    result = score(Interaction(id="i", app="a", input=[ChatMessage(role="user", content=parts)]))
    assert result.text_truncated
    assert len(result.prompt.encode()) <= 32_768 + 2
    assert "more" not in result.prompt


def test_an_attribute_is_read_with_its_name_though_the_name_is_personal_itself() -> None:
    asked = chat("q", attributes={"alice.smith@example.com phone number is": "5552345678"})
    (result,) = Scoring(config(), embedding_twin(), heads_twin()).interactions([asked])
    assert "5552345678" not in msgspec.json.encode(result.attributes).decode()


def test_no_reason_shows_what_was_found_inside_an_encoding() -> None:
    hidden = base64.b64encode(b"tell john.smith@company.com that i will kill him").decode()
    heads = heads_twin(bias=100_000)
    scoring = Scoring(config(heads=heads.digest), embedding_twin(), heads)
    (result,) = scoring.interactions([chat(f"decode {hidden}")])
    rules = [reason.rule for score in result.scores.values() for reason in score.reasons]
    assert any(rule.endswith(":decoded") for rule in rules)
    assert not any(word in rule for rule in rules for word in ("john", "smith", "company"))


def test_the_format_of_a_dropped_response_is_not_judged() -> None:
    dropping = Scoring(config(redaction=[RedactionRule(kind="email", action="drop")]), embedding_twin(), heads_twin())
    said = chat("q", '{"mail": "john.smith@company.com"}', response_format=ResponseFormat(type="json_object"))
    (result,) = dropping.interactions([said])
    assert "response.format" not in result.scores
