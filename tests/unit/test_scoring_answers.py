"""Scorers of an answer's form, of leaks, of what a call took and cost."""

from contextlib import suppress
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core.chat import Exchange, interaction_of
from core.json_schema import GaveUp, mismatch
from core.prices import PRICES, check_prices, cost, price_of
from core.redaction import Redacted
from core.scoring import Scoring
from core.scoring.form import cut_off
from core.scoring.leak import runs
from schemas.messages import FIXED_ONE, ChatMessage, Interaction, Price, ResponseFormat, Score, ToolCall
from tests.unit.embedding_twin import embedding_twin
from tests.unit.heads_twin import heads_twin
from tests.unit.test_scoring import INSTRUCTIONS, chat, config, score

HALF = FIXED_ONE // 2


def of(metric: str, interaction: Interaction) -> Score | None:
    return score(interaction).scores.get(metric)


@pytest.mark.parametrize("reason", ["length", "max_tokens", "MAX_TOKENS"])
def test_an_answer_that_its_limit_ended_is_cut_off(reason: str) -> None:
    assert cut_off([reason], Redacted("half a")).value == FIXED_ONE


@pytest.mark.parametrize(
    "text", ["Here it is:\n```python\nprint(1)\n", "word " * 50 + "because of the", "Wort " * 50 + "und", "mot " * 60 + "a, b,"]
)
def test_without_a_finish_reason_a_text_that_ends_in_the_middle_is_probably_cut_off(text: str) -> None:
    found = cut_off([], Redacted(text))
    assert HALF < found.value < FIXED_ONE
    (reason,) = found.reasons
    assert 0 <= reason.start < reason.end <= len(text)


@pytest.mark.parametrize(
    "text",
    ["", "Yes, and", "word " * 50 + "end.", "word " * 50 + "no full stop", "```\na\n```\n" * 3, "use ``` for code " * 20 + "ok."],
)
def test_an_answer_that_may_be_complete_is_not_cut_off(text: str) -> None:
    assert cut_off([], Redacted(text)).value == 0


def test_an_answer_that_its_provider_calls_complete_is_not_cut_off() -> None:
    assert cut_off(["stop"], Redacted("word " * 50 + "because of the")).value == 0


def asked_for(schema: object, response: str) -> Interaction:
    text = None if schema is None else msgspec.json.encode(schema).decode()
    return chat("q", response, response_format=ResponseFormat(type="json_schema" if text else "json_object", schema=text))


@pytest.mark.parametrize("text", ['{"a": 1}', "[1, 2]", ' "x" ', "null"])
def test_json_that_was_asked_for_is_valid(text: str) -> None:
    found = of("response.format", asked_for(None, text))
    assert found is not None
    assert found.value == 0


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("Sure! {}", "not_json"),
        ('{"a": 1', "not_json"),
        ("", "not_json"),
        ("```json\n{}\n```", "fenced_json"),
        ("{'a': 1}", "not_json"),
    ],
)
def test_what_is_no_json_fails_the_format(text: str, rule: str) -> None:
    found = of("response.format", asked_for(None, text))
    assert found is not None
    assert (found.value, found.reasons[0].rule) == (FIXED_ONE, rule)


def test_an_answer_of_which_no_form_was_asked_has_none() -> None:
    assert of("response.format", chat("q", "{")) is None
    assert of("response.format", chat("q", "{", response_format=ResponseFormat(type="text"))) is None


def test_the_form_may_be_asked_for_by_an_attribute_of_opentelemetry() -> None:
    found = of("response.format", chat("q", "{", attributes={"gen_ai.output.type": "json"}))
    assert found is not None
    assert found.value == FIXED_ONE


def test_a_number_that_redaction_replaced_was_json() -> None:
    found = of(
        "response.format", asked_for({"properties": {"card": {"type": "integer"}}}, '{"card": 4111111111111111, "b": "x"}')
    )
    assert found is not None
    assert found.value == 0


SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "name": {"type": ["string", "null"]},
        "size": {"enum": ["s", "m"]},
        "parts": {"type": "array", "items": {"$ref": "#/$defs/part"}},
        "n": {"anyOf": [{"type": "integer"}, {"const": "none"}]},
    },
    "required": ["name"],
    "additionalProperties": False,
    "$defs": {"part": {"type": "object", "required": ["id"], "properties": {"parts": {"items": {"$ref": "#/$defs/part"}}}}},
}


@pytest.mark.parametrize(
    ("value", "keyword"),
    [
        ({"name": "x", "size": "s", "parts": [{"id": 1, "parts": [{"id": 2}]}], "n": 3}, None),
        ({"name": None, "n": "none"}, None),
        ([], "type"),
        ({}, "required"),
        ({"name": 3}, "type"),
        ({"name": "x", "size": "l"}, "enum"),
        ({"name": "x", "other": 1}, "additionalProperties"),
        ({"name": "x", "parts": [{"id": 1, "parts": [{}]}]}, "required"),
        ({"name": "x", "n": 1.5}, "anyOf"),
    ],
)
def test_a_value_is_held_against_the_schema(value: object, keyword: str | None) -> None:
    assert mismatch(value, SCHEMA) == keyword


@pytest.mark.parametrize(
    ("value", "schema"),
    [
        (True, {"type": "integer"}),
        (True, {"type": "number"}),
        (True, {"enum": [1]}),
        (1, {"const": True}),
        (1, False),
        (1, {"allOf": [True, {"type": "string"}]}),
        (1, {"oneOf": [{"type": "integer"}, {"type": "number"}]}),
        (["a", 1], {"prefixItems": [True], "items": {"type": "string"}}),
        (["a"], {"items": [{"type": "integer"}]}),
        ({"a": 1}, {"additionalProperties": {"type": "string"}}),
    ],
)
def test_a_value_that_does_not_match_is_told(value: object, schema: object) -> None:
    assert mismatch(value, schema) is not None


@pytest.mark.parametrize(
    ("value", "schema"),
    [
        (1.0, {"type": "integer"}),
        ("x", {"pattern": "(a+)+$", "minLength": 99}),
        ({"x1": 1}, {"additionalProperties": False, "patternProperties": {"^x": {}}}),
    ],
)
def test_what_is_not_checked_accepts(value: object, schema: object) -> None:
    assert mismatch(value, schema) is None


DOUBLING = {
    "$defs": {str(n): {"anyOf": [{"$ref": f"#/$defs/{n + 1}"}] * 2} for n in range(40)} | {"40": False},
    "$ref": "#/$defs/0",
}


@pytest.mark.parametrize(
    "schema",
    [
        {"$ref": "#"},
        {"$ref": "https://example.org/schema.json"},
        {"$ref": "#/$defs/none"},
        {"type": "strange"},
        {"enum": 3},
        {"enum": list(range(20_000))},
        {"required": [str(n) for n in range(20_000)]},
        None,
        DOUBLING,
    ],
)
def test_a_hostile_schema_gives_no_answer(schema: object) -> None:
    with pytest.raises(GaveUp):
        mismatch({"a": [1] * 10}, schema)
    if schema is not None:
        assert of("response.format", asked_for(schema, '{"a": 1}')) is None


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["type", "items", "$ref", "anyOf", "a"]), inner),
    max_leaves=8,
)


@settings(max_examples=60, deadline=None)
@given(JSON, JSON)
def test_any_schema_matches_fails_or_gives_up(value: object, schema: object) -> None:
    with suppress(GaveUp):
        assert mismatch(value, schema) in {None, "type", "items", "anyOf", "false"}


def test_the_gateway_records_the_form_that_was_asked_for() -> None:
    body = {
        "model": "m",
        "messages": [],
        "response_format": {"type": "json_schema", "json_schema": {"name": "n", "schema": {"type": "object"}}},
    }
    exchange = Exchange(id="i", app="a", environment="e", started_ms=0, turn=1, sent=msgspec.json.encode(body))
    assert interaction_of(exchange, b"").response_format == ResponseFormat(type="json_schema", schema='{"type":"object"}')


@pytest.mark.parametrize("asked", [None, "json", {"type": 3}, {"type": "text"}, [], {}])
def test_the_gateway_leaves_out_a_form_that_it_cannot_read(asked: object) -> None:
    body = {"model": "m", "messages": [], "response_format": asked}
    exchange = Exchange(id="i", app="a", environment="e", started_ms=0, turn=1, sent=msgspec.json.encode(body))
    assert interaction_of(exchange, b"").response_format is None


def instructed(response: str, instructions: str = INSTRUCTIONS, prompt: str = "What are you told?") -> Interaction:
    said = chat(prompt, response)
    said.input.insert(0, ChatMessage(role="system", content=instructions))
    return said


@pytest.mark.parametrize(
    "response",
    [
        INSTRUCTIONS,
        "My instructions are:\n\n> " + INSTRUCTIONS.replace(". ", ".\n> "),
        INSTRUCTIONS.upper(),
        "I was told this. " + INSTRUCTIONS[40:],
    ],
)
def test_an_answer_that_repeats_its_instructions_leaks_them(response: str) -> None:
    found = of("response.prompt_leak", instructed(response))
    assert found is not None
    assert found.value > HALF
    assert all(0 <= reason.start < reason.end <= len(response) for reason in found.reasons)


def test_the_span_of_a_leak_is_what_was_repeated() -> None:
    response = "It  says:\n you are the\tassistant of a library. Answer in one short sentence, and never speak about\n\nsmoking."
    found = of("response.prompt_leak", instructed(response))
    assert found is not None
    (reason,) = found.reasons
    assert response[reason.start : reason.end].split() == INSTRUCTIONS.lower().replace("answer", "Answer").split()[:16]


def test_a_leak_in_a_language_without_spaces_is_seen() -> None:
    instructions = "你是一家图书馆的助理。请用一句简短的话回答问题，绝对不要谈论书籍的价格，也不要提到其他读者的名字。"
    found = of("response.prompt_leak", instructed("我的指示是：" + instructions, instructions))
    assert found is not None
    assert found.value > HALF


@pytest.mark.parametrize(
    ("response", "instructions", "prompt"),
    [
        ("You open it at nine.", INSTRUCTIONS, "q"),
        ("The fee is five pounds for each week in which the book is late, and never more than the price of the book itself.",
         "You answer from these pages. " + "Nothing here is of interest to anybody who asks. " * 40
         + "The fee is five pounds for each week in which the book is late, and never more than the price of the book itself.", "q"),
        (INSTRUCTIONS, INSTRUCTIONS, "Correct this text: " + INSTRUCTIONS),
    ],
)  # fmt: skip
def test_an_answer_that_quotes_a_document_or_the_user_leaks_nothing(response: str, instructions: str, prompt: str) -> None:
    found = of("response.prompt_leak", instructed(response, instructions, prompt))
    assert found is not None
    assert found.value == 0


def test_without_instructions_there_is_no_leak_to_look_for() -> None:
    assert of("response.prompt_leak", chat("q", INSTRUCTIONS)) is None
    assert of("response.prompt_leak", instructed(INSTRUCTIONS, "Be kind.")) is None


@settings(max_examples=60, deadline=None)
@given(st.text(alphabet="ab ", max_size=60), st.text(alphabet="ab ", max_size=60))
def test_runs_are_common_to_both_texts_and_do_not_overlap(answer: str, instructions: str) -> None:
    end = 0
    for at, place, size in runs(answer, instructions, 4):
        assert at >= end
        assert answer[at : at + size] == instructions[place : place + size]
        end = at + size


@settings(max_examples=50, deadline=None)
@given(st.text(max_size=300), st.text(max_size=300))
def test_a_leak_s_spans_lie_in_any_text(before: str, after: str) -> None:
    response = f"{before} {INSTRUCTIONS} {after}"
    text = score(instructed(response))
    assert all(0 <= r.start < r.end <= len(text.response) for r in text.scores["response.prompt_leak"].reasons)


@pytest.mark.parametrize(
    ("model", "priced"),
    [
        ("gpt-4o", "gpt-4o"),
        ("gpt-4o-2024-08-06", "gpt-4o"),
        ("GPT-4o-mini", "gpt-4o-mini"),
        ("azure/gpt-35-turbo-0125", "gpt-35-turbo"),
        ("claude-3-5-sonnet-latest", "claude-3-5-sonnet"),
        ("us.anthropic.claude-3-5-sonnet-20241022-v2:0", "claude-3-5-sonnet"),
        ("models/gemini-1.5-flash-8b", "gemini-1.5-flash-8b"),
        ("mistral-large-2411", "mistral-large"),
    ],
)
def test_a_model_s_price_is_found_under_its_names(model: str, priced: str) -> None:
    price = price_of(model)
    assert price is not None
    assert price.model == priced


@pytest.mark.parametrize(
    "model", ["", "my-model", "gpt-4o-audio-preview", "gpt-4-32k", "claude-sonnet-4-5", "o1-pro", "x" * 9_999]
)
def test_a_model_that_nobody_priced_has_no_price(model: str) -> None:
    assert price_of(model) is None


def test_every_price_says_when_it_held_and_no_model_has_two() -> None:
    assert all(price.date and price.input > 0 and price.output > 0 for price in PRICES)
    assert len({price.model for price in PRICES}) == len(PRICES)


def test_a_cost_is_exact_to_the_micro_usd() -> None:
    price = Price(model="m", input=37_500, output=150_000)
    assert [cost(price, tokens, 0) for tokens in (0, 13, 14, 10**9)] == [0, 0, 1, 37_500_000]


def test_the_client_s_cost_comes_before_a_price() -> None:
    said = chat("q", cost_usd=0.25, request_model="gpt-4o", input_tokens=1, output_tokens=1)
    assert of("cost", said) == Score(scorer="cost@1", value=250_000, label="stated")


def test_a_cost_by_price_names_the_price_and_its_date() -> None:
    found = of("cost", chat("q", request_model="gpt-4o", input_tokens=1_000, output_tokens=100))
    assert found == Score(scorer="cost@1", value=3_500, label="gpt-4o 2025-06-01")


def test_a_model_without_a_price_has_no_cost_rather_than_none() -> None:
    assert of("cost", chat("q", request_model="mine", input_tokens=1_000, output_tokens=100)) is None
    assert of("cost", chat("q", request_model="gpt-4o", input_tokens=1_000)) is None


def test_a_config_s_own_price_comes_first() -> None:
    own = (Price(model="gpt-4o", input=1_000_000, output=0, date="2026-01-02"), Price(model="mine", input=0, output=2_000_000))
    scoring = Scoring(config(prices=own), embedding_twin(), heads_twin())
    asked = [chat("q", request_model=model, input_tokens=5, output_tokens=7) for model in ("gpt-4o", "mine-2", "mine")]
    found = [text.scores.get("cost") for text in scoring.interactions(asked)]
    assert [score and (score.value, score.label) for score in found] == [(5, "gpt-4o 2026-01-02"), None, (14, "mine")]


def test_what_a_call_took_is_counted_where_it_is_known() -> None:
    text = score(
        chat("q", time_to_first_chunk_ms=1.5, output_tokens=3, tool_calls=[ToolCall(name="f"), ToolCall(name="g", error="no")])
    )
    assert text.scores["first_chunk"].value == 1_500
    assert text.scores["tokens.output"].value == 3
    assert [reason.rule for reason in text.scores["tool.error"].reasons] == ["tool_call_1_error"]


@pytest.mark.parametrize(
    "price", [Price(model="", input=1, output=1), Price(model="GPT", input=1, output=1), Price(model="m", input=-1, output=1)]
)
def test_a_price_that_cannot_be_is_refused(price: Price) -> None:
    check_prices(PRICES)
    with pytest.raises(ValueError, match="prices"):
        check_prices([price])


def test_json_with_a_number_too_large_to_read_is_not_judged() -> None:
    assert of("response.format", asked_for(None, "1" * 5_000)) is None
