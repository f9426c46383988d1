"""Chat completions: what is read of a request, what a version makes of it, and the interaction that comes of it."""

import json
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.chat import Exchange, bare, configured, interaction_of, name_of, read_request, record_of
from schemas import codec
from schemas.codec import InvalidMessage
from schemas.limits import MAX_ITEM_BYTES, validate_interaction
from schemas.messages import CallConfiguration, ContentPart, Interaction, ToolCall

USER = {"role": "user", "content": "How?"}
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=10),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(
                [
                    "role",
                    "content",
                    "type",
                    "text",
                    "choices",
                    "delta",
                    "message",
                    "tool_calls",
                    "function",
                    "index",
                    "usage",
                    "x",
                ]
            ),
            inner,
            max_size=5,
        )
    ),
    max_leaves=12,
)


def body(**fields: Any) -> bytes:
    return json.dumps({"model": "desk", "messages": [USER]} | fields).encode()


def exchange(sent: bytes = b"", *, streamed: bool = False, status: int = 200, **fields: Any) -> Exchange:
    return Exchange(
        id="i", app="desk", environment="production", started_ms=0, turn=1, sent=sent, status=status, streamed=streamed, **fields
    )


def made(sent: bytes, configuration: CallConfiguration) -> dict[str, Any]:
    return dict(json.loads(configured(read_request(sent), configuration)))


def answer(message: dict[str, Any], **fields: Any) -> bytes:
    return json.dumps({"model": "m-1", "choices": [{"index": 0, "message": message, "finish_reason": "stop"}]} | fields).encode()


def stream(*values: Any, done: bool = True) -> bytes:
    lines = [b"data: " + json.dumps(value).encode() for value in values] + ([b"data: [DONE]"] if done else [])
    return b"\n\n".join(lines) + b"\n\n"


def delta(**said: Any) -> dict[str, Any]:
    return {"model": "m-1", "choices": [{"index": 0, "delta": said, "finish_reason": None}]}


def test_turn_is_the_number_of_user_messages() -> None:
    messages = [{"role": "system", "content": "s"}, USER, {"role": "assistant", "content": "a"}, USER]
    assert read_request(body(messages=messages)).turn == 2


@pytest.mark.parametrize("field", ["user", "safety_identifier"])
def test_the_user_is_read_from_either_field(field: str) -> None:
    assert read_request(body(**{field: "somebody"})).user == "somebody"


@pytest.mark.parametrize("sent", [b"", b"[]", b"1", b"{", b"\xff", b'{"a":' + b"[" * 10_000])
def test_what_is_no_json_object_is_invalid(sent: bytes) -> None:
    with pytest.raises(InvalidMessage):
        read_request(sent)


def test_a_version_replaces_model_and_parameters_and_leaves_the_rest() -> None:
    configuration = CallConfiguration(model="m-1", parameters={"temperature": 0.5})
    assert made(body(temperature=1, seed=3, odd={"a": [1]}), configuration) == {
        "model": "m-1",
        "messages": [USER],
        "temperature": 0.5,
        "seed": 3,
        "odd": {"a": [1]},
    }


def test_a_versions_prompt_stands_in_place_of_every_system_message() -> None:
    messages = [{"role": "system", "content": "a"}, USER, {"role": "developer", "content": "b"}]
    found = made(body(messages=messages), CallConfiguration(model="m-1", system_prompt="p"))
    assert found["messages"] == [{"role": "system", "content": "p"}, USER]


def test_without_a_prompt_of_the_version_the_requests_own_stands() -> None:
    messages = [{"role": "system", "content": "a"}, USER]
    assert made(body(messages=messages), CallConfiguration(model="m-1"))["messages"] == messages


def test_a_versions_tools_replace_those_of_the_request() -> None:
    assert made(body(tools=[{"a": 1}]), CallConfiguration(model="m-1", tools=[{"b": 2}]))["tools"] == [{"b": 2}]
    assert made(body(tools=[{"a": 1}]), CallConfiguration(model="m-1"))["tools"] == [{"a": 1}]


def test_a_versions_parameters_cannot_change_what_the_request_is() -> None:
    configuration = CallConfiguration(model="m-1", parameters={"stream": True, "messages": "x", "model": "y", "n": 9})
    assert made(body(), configuration) == {"model": "m-1", "messages": [USER]}


def test_what_is_not_touched_keeps_its_bytes() -> None:
    sent = b'{"model":"desk","messages":[{"role":"user","content":"\\u00e9" }],"top_p":1.50}'
    found = configured(read_request(sent), CallConfiguration(model="m-1", system_prompt="p"))
    assert b'{"role":"user","content":"\\u00e9" }' in found
    assert b'"top_p":1.50' in found


def test_messages_that_are_no_list_pass_as_they_are() -> None:
    assert made(body(messages="odd"), CallConfiguration(model="m-1"))["messages"] == "odd"


def test_an_answer_gives_output_model_tokens_and_reason() -> None:
    usage = {"prompt_tokens": 5, "completion_tokens": 6}
    found = interaction_of(exchange(body()), answer({"role": "assistant", "content": "So."}, usage=usage))
    assert (found.output[0].role, found.output[0].content) == ("assistant", "So.")
    assert (found.request_model, found.response_model, found.finish_reasons) == ("desk", "m-1", ["stop"])
    assert (found.input_tokens, found.output_tokens, found.error_type) == (5, 6, None)


def test_a_refusal_is_the_text_of_its_answer() -> None:
    assert interaction_of(exchange(), answer({"content": None, "refusal": "I cannot."})).output[0].content == "I cannot."


def test_a_stream_is_put_together() -> None:
    end = {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}
    usage = {"choices": [], "usage": {"prompt_tokens": 1, "completion_tokens": 2}}
    said = stream(delta(role="assistant", content="So "), delta(content="it is."), end, usage)
    found = interaction_of(exchange(body(), streamed=True), said)
    assert (found.output[0].content, found.response_model, found.finish_reasons) == ("So it is.", "m-1", ["stop"])
    assert (found.input_tokens, found.output_tokens, found.error_type) == (1, 2, None)


def test_tool_calls_of_a_stream_are_put_together_by_index() -> None:
    said = stream(
        delta(tool_calls=[{"index": 0, "id": "c0", "function": {"name": "a", "arguments": '{"x"'}}]),
        delta(tool_calls=[{"index": 1, "id": "c1", "function": {"name": "b", "arguments": "{}"}}]),
        delta(tool_calls=[{"index": 0, "function": {"arguments": ":1}"}}]),
    )
    assert interaction_of(exchange(streamed=True), said).tool_calls == [
        ToolCall(name="a", id="c0", arguments='{"x":1}'),
        ToolCall(name="b", id="c1", arguments="{}"),
    ]


def test_choices_of_a_stream_are_kept_apart() -> None:
    values = [{"choices": [{"index": index, "delta": {"content": text}}]} for index, text in ((1, "b"), (0, "a"), (1, "B"))]
    assert [m.content for m in interaction_of(exchange(streamed=True), stream(*values)).output] == ["a", "bB"]


@pytest.mark.parametrize(("status", "error"), [(429, "rate_limit"), (500, "http_500"), (404, "http_404"), (200, None)])
def test_a_status_gives_the_type_of_error(status: int, error: str | None) -> None:
    assert interaction_of(exchange(status=status), b"{}").error_type == error


def test_a_stream_that_stops_before_its_end_is_incomplete() -> None:
    assert interaction_of(exchange(streamed=True), stream(delta(content="So "), done=False)).error_type == "incomplete"


def test_an_error_inside_a_stream_is_one() -> None:
    assert interaction_of(exchange(streamed=True), stream({"error": {"message": "m"}})).error_type == "stream_error"


def test_what_the_gateway_saw_itself_comes_first() -> None:
    found = interaction_of(exchange(streamed=True, error_type="cancelled"), stream(delta(content="So "), done=False))
    assert (found.error_type, found.output[0].content) == ("cancelled", "So ")


def test_a_client_that_leaves_after_the_end_has_cancelled_nothing() -> None:
    end = {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}
    left = exchange(streamed=True, error_type="cancelled")
    assert interaction_of(left, stream(delta(content="So "), end, done=False)).error_type is None


def test_parts_that_are_no_text_keep_type_size_and_media_type() -> None:
    image = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}
    sent = body(messages=[{"role": "user", "content": [{"type": "text", "text": "t"}, image]}])
    text, part = cast(list[ContentPart], interaction_of(exchange(sent), b"{}").input[0].content)
    assert (text.text, part.type, part.text, part.media_type) == ("t", "image_url", None, "image/png")


@given(json_values, json_values, st.booleans())
def test_any_json_gives_an_interaction_within_the_limits(sent: Any, came: Any, streamed: bool) -> None:
    said = stream(came) if streamed else json.dumps(came).encode()
    asked = json.dumps({"messages": sent, "model": sent}).encode()
    interaction = interaction_of(exchange(asked, streamed=streamed), said)
    validate_interaction(interaction)
    assert codec.decode(Interaction, record_of(interaction, 0).value).id == "i"


@given(st.binary(max_size=200), st.binary(max_size=200), st.booleans())
def test_any_bytes_give_an_interaction(sent: bytes, came: bytes, streamed: bool) -> None:
    validate_interaction(interaction_of(exchange(sent, streamed=streamed), came))


@given(st.text(max_size=300))
def test_names_of_strangers_fit_into_the_log(name: str) -> None:
    interaction = Interaction(id="i", app=name_of(name) or "unnamed")
    validate_interaction(interaction)


def test_a_text_that_is_too_large_is_clipped() -> None:
    sent = body(messages=[{"role": "user", "content": "x" * 2_000_000}])
    found = codec.decode(Interaction, (value := record_of(interaction_of(exchange(sent), b"{}"), 0).value))
    assert value is not None
    assert len(value) <= MAX_ITEM_BYTES
    assert (len(found.input[0].content), found.attributes) == (100_000, {"text": "clipped"})


def test_many_messages_are_clipped_to_the_last_question_and_the_answer() -> None:
    messages = [{"role": "user", "content": f"{n} " + "x" * 1_000} for n in range(2_000)]
    found = codec.decode(
        Interaction, record_of(interaction_of(exchange(body(messages=messages)), answer({"content": "So."})), 0).value
    )
    assert (str(found.input[0].content)[:5], found.output[0].content) == ("1999 ", "So.")


def test_the_key_is_the_conversation_else_the_trace_else_the_id() -> None:
    trace = f"00-{'1' * 32}-{'2' * 16}-01"
    named: list[dict[str, Any]] = [{"conversation": "c", "traceparent": trace}, {"traceparent": trace}, {"traceparent": "odd"}]
    keys = [record_of(interaction_of(exchange(**fields), b"{}"), 0).key for fields in named]
    assert keys == [b"c", b"1" * 32, b"i"]


def test_without_its_texts_an_interaction_keeps_what_is_counted() -> None:
    found = bare(interaction_of(exchange(body(), version="v1"), answer({"content": "So."})))
    assert (found.version, found.finish_reasons, found.input, found.output) == ("v1", ["stop"], [], [])


def test_a_requests_metadata_become_attributes_and_odd_ones_are_left_out() -> None:
    sent = body(metadata={"story": "shift", "number": 7, "long": "x" * 1_000})
    assert interaction_of(exchange(sent), answer({"content": "hi"})).attributes == {"story": "shift", "long": "x" * 512}


def test_metadata_that_are_no_object_give_no_attributes() -> None:
    assert interaction_of(exchange(body(metadata=["a"])), answer({"content": "hi"})).attributes == {}
