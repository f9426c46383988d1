"""Whatever bytes arrive, the codec gives a message that can be written again, or an InvalidMessage; never anything else."""

import json
import sys
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas import codec
from schemas import messages as m
from schemas.codec import InvalidMessage

TYPES = sorted(codec.TYPE_NAMES, key=lambda t: t.__name__)
KNOWN = {f.encode_name for f in msgspec.structs.fields(m.Interaction)}
MINIMAL = b'{"id":"a","app":"b",%s}'

json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)
unknown = st.dictionaries(st.text().filter(lambda name: name not in KNOWN), json_values, min_size=1, max_size=4)


def outcome(type_: type[m.Message], value: bytes) -> bytes | None:
    """Canonical bytes of what was read, None when it was refused; anything else fails the test that calls it."""
    try:
        message = codec.decode(type_, value)
    except InvalidMessage as error:
        refused = error.code
    else:
        refused = None
    if refused:
        assert refused in {"empty", "not_json", "invalid", "version"}
        return None
    written = codec.encode(message)
    written.decode()
    assert codec.encode(codec.decode(type_, written)) == written
    return written


@given(unknown)
@settings(deadline=None)
def test_unknown_fields_survive_decode_and_encode(extra: dict[str, Any]) -> None:
    value = {"id": "a", "app": "b", **extra}
    assert json.loads(codec.encode(codec.decode(m.Interaction, json.dumps(value).encode()))) == value


@given(unknown)
@settings(deadline=None)
def test_unknown_fields_do_not_change_the_order_of_bytes(extra: dict[str, Any]) -> None:
    names = list(extra)
    first = json.dumps({"id": "a", "app": "b"} | extra).encode()
    second = json.dumps({name: extra[name] for name in reversed(names)} | {"app": "b", "id": "a"}).encode()
    assert codec.encode(codec.decode(m.Interaction, first)) == codec.encode(codec.decode(m.Interaction, second))


@given(unknown)
@settings(deadline=None)
def test_the_hot_path_reads_the_same_but_for_unknown_fields(extra: dict[str, Any]) -> None:
    value = json.dumps({"id": "a", "app": "b"} | extra).encode()
    lean = codec.decode(m.Interaction, value, keep_unknown=False)
    full = codec.decode(m.Interaction, value)
    assert not lean.extra
    full.extra = {}
    assert lean == full


@given(st.integers(0, 10_000))
@settings(deadline=None)
def test_a_newer_minor_version_is_read_and_kept(minor: int) -> None:
    message = codec.decode(m.Tick, b'{"window":5,"schema_version":"1.%d"}' % minor)
    assert message.schema_version == f"1.{minor}"


@given(st.integers(-5, 10_000).filter(lambda major: major != 1))
@settings(deadline=None)
def test_another_major_version_is_refused(major: int) -> None:
    with pytest.raises(InvalidMessage) as refused:
        codec.decode(m.Tick, b'{"window":5,"schema_version":"%d.0"}' % major)
    assert (refused.value.code, refused.value.field) == ("version", "schema_version")


@pytest.mark.parametrize("type_", TYPES, ids=lambda t: t.__name__)
@given(value=st.binary(max_size=200))
@settings(max_examples=50, deadline=None)
def test_random_bytes_are_refused_in_words_or_read(type_: type[m.Message], value: bytes) -> None:
    outcome(type_, value)


@pytest.mark.parametrize("type_", TYPES, ids=lambda t: t.__name__)
@given(data=st.data())
@settings(max_examples=50, deadline=None)
def test_json_of_any_shape_under_known_names_is_refused_in_words_or_read(type_: type[m.Message], data: st.DataObject) -> None:
    names = [f.encode_name for f in msgspec.structs.fields(type_)]
    value = data.draw(st.dictionaries(st.sampled_from(names), json_values))
    outcome(type_, json.dumps(value).encode())


@given(st.data())
@settings(deadline=None)
def test_a_damaged_message_is_refused_in_words_or_read(data: st.DataObject) -> None:
    value = bytearray(
        codec.encode(m.Interaction(id="i-1", app="a", input=[m.ChatMessage(role="user", content="Größe \U0001f600")], turn=3))
    )
    for _ in range(data.draw(st.integers(1, 4))):
        value[data.draw(st.integers(0, len(value) - 1))] = data.draw(st.integers(0, 255))
    outcome(m.Interaction, bytes(value[: data.draw(st.integers(0, len(value)))]))


@given(
    st.builds(m.Tick, window=st.integers(), extra=st.just({}))
    | st.builds(m.Command, id=st.text(), kind=st.just("silence"), actor=st.text(), extra=st.just({}))
)
def test_a_written_message_is_read_as_it_was(message: m.Message) -> None:
    assert codec.decode(type(message), codec.encode(message)) == message


@pytest.mark.parametrize(
    "field",
    [
        b'"user":"\\ud800"',
        b'"user":"\\udc00\\ud800"',
        b'"attributes":{"a":"\\ud83d"}',
        b'"later":"\\ud800"',
        b'"later":{"\\ud800":1}',
        b'"\\udfff":1',
        b'"user":"\xed\xa0\x80"',
        b'"user":"\xff"',
        b'"later":"\xff"',
        b'"later":[{"\xc0\x80":1}]',
        b'"user":"\x00"',
        b'"latency_ms":NaN',
        b'"latency_ms":Infinity',
        b'"latency_ms":1e999',
        b'"later":NaN',
        b'"later":01',
        b'"later":' + b"[" * 100_000 + b"]" * 100_000,
        b'"later":' + b'{"a":' * 5_000 + b"1" + b"}" * 5_000,
        b'"latency_ms":' + b"9" * 5_000,
        b'"turn":' + b"9" * 5_000,
        b'"turn":1.5',
        b'"id":null',
        b'"__extra__":{"a":1}',
        b'"__extra__":null',
        b'"kind":"chatter"',
        b'"input":[{"role":"user","content":{"text":"x"}}]',
    ],
    ids=lambda field: repr(field[:40]),
)
def test_hostile_json_is_refused(field: bytes) -> None:
    assert outcome(m.Interaction, MINIMAL % field) is None


@pytest.mark.parametrize(
    "field",
    [
        b'"user":"\\ud83d\\ude00"',
        b'"user":"\\u0000"',
        b'"user":"x","user":"y"',
        b'"later":1,"later":2',
        b'"later":1e999',
        b'"later":' + b"9" * 5_000,
        b'"turn":' + b"9" * 4_000,
        b'"latency_ms":-0.0',
        b'"later": [ 1 ,\n2 ]',
        b'"__extra__":{}',
        b'"later":' + b"[" * 390 + b"]" * 390,
        b'"later":"' + b"[{" * 5_000 + b'"',
    ],
    ids=lambda field: repr(field[:40]),
)
def test_odd_json_that_is_read_can_be_written_and_read_again(field: bytes) -> None:
    assert outcome(m.Interaction, MINIMAL % field) is not None


def test_of_repeated_names_the_last_one_holds() -> None:
    written = outcome(m.Interaction, MINIMAL % b'"user":"x","later":1,"user":"y","later":2')
    assert written is not None
    assert json.loads(written) == {"id": "a", "app": "b", "user": "y", "later": 2}


def test_how_deep_json_may_nest_does_not_depend_on_the_callers_stack() -> None:
    near, over = MINIMAL % (b'"later":' + b"[" * 390 + b"]" * 390), MINIMAL % (b'"later":' + b"[" * 410 + b"]" * 410)

    def below(depth: int) -> tuple[bool, bool]:
        if depth:
            return below(depth - 1)
        return outcome(m.Interaction, near) is not None, outcome(m.Interaction, over) is not None

    assert below(0) == below(sys.getrecursionlimit() // 3) == (True, False)


@pytest.mark.parametrize("value", [None, b""])
def test_no_value_is_refused_as_empty(value: bytes | None) -> None:
    with pytest.raises(InvalidMessage) as refused:
        codec.decode(m.Tick, value)
    assert refused.value.code == "empty"


@pytest.mark.parametrize("secret", ["hunter2", "x - at `secret"])
def test_a_refusal_quotes_no_payload(secret: str) -> None:
    with pytest.raises(InvalidMessage) as refused:
        codec.decode(m.Interaction, json.dumps({"id": "a", "app": "b", "kind": secret}).encode())
    assert refused.value.field == "kind"
    assert secret not in refused.value.reason


def test_a_refusal_names_the_field() -> None:
    with pytest.raises(InvalidMessage) as refused:
        codec.decode(m.Interaction, b'{"id":"a","app":"b","input":[{"role":"user"},{"role":7}]}')
    assert (refused.value.code, refused.value.field) == ("invalid", "input[1].role")


@pytest.mark.parametrize(
    ("value", "field"), [(b'{"id":"a"}', "app"), (b'{"id":"a","app":"b","input":[{"role":"user"},{}]}', "input[1].role")]
)
def test_a_refusal_names_a_missing_field(value: bytes, field: str) -> None:
    with pytest.raises(InvalidMessage) as refused:
        codec.decode(m.Interaction, value)
    assert (refused.value.field, refused.value.reason) == (field, f"{field.rpartition('.')[2]} is missing")


@pytest.mark.parametrize("ms", [0, 999, 1_700_000_000_123, 8_600_000_000_123, 10_413_791_999_998])
def test_every_millisecond_up_to_the_year_2299_is_written_exactly(ms: int) -> None:
    assert codec.rfc3339(ms).endswith(f".{ms % 1000:03}Z")


def test_ce_type_names_the_message() -> None:
    headers = codec.cloud_headers(m.Tick, id_="x", time_ms=0)
    assert codec.message_type(headers) is m.Tick


@pytest.mark.parametrize("name", [b"bellbuoy.nothing.v1", b"\xff", b""])
def test_a_foreign_ce_type_is_refused(name: bytes) -> None:
    with pytest.raises(InvalidMessage) as refused:
        codec.message_type([("ce_type", name)])
    assert refused.value.code == "type"
