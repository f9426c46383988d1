"""The published contract: JSON Schema files, examples and the topic registry say the same as the structs."""

import json
from pathlib import Path
from typing import Any, get_args

import pytest

from schemas import codec, jsonschema, limits
from schemas import messages as m
from schemas.topics import DAY_MS, HOUR_MS, RAW_TOPICS, TOPICS, Topic
from tests.contract.json_schema import problems

EXAMPLES = Path(jsonschema.__file__).parent / "examples"
FILES = sorted(EXAMPLES.glob("*/*.json"))
SCHEMAS = jsonschema.schemas()


def name(path: Path) -> str:
    return str(path.relative_to(EXAMPLES))


def type_of(path: Path) -> type[m.Message]:
    return codec.MESSAGE_TYPES[f"bellbuoy.{path.name.split('.')[0]}.v1"]


def test_the_schema_files_are_current() -> None:
    assert jsonschema.stale(jsonschema.FOLDER) == []


def test_the_schemas_break_nothing_that_was_released() -> None:
    assert jsonschema.incompatible(jsonschema.read(jsonschema.BASELINE), SCHEMAS) == []


def test_a_released_snapshot_exists() -> None:
    assert jsonschema.read(jsonschema.BASELINE)


def test_every_message_has_a_schema_file() -> None:
    assert len(jsonschema.read(jsonschema.FOLDER)) == len(codec.MESSAGE_TYPES)


def test_the_internal_extra_field_is_in_no_schema() -> None:
    assert "__extra__" not in json.dumps(SCHEMAS)


def test_no_schema_forbids_unknown_fields() -> None:
    for schema in SCHEMAS.values():
        assert all(definition.get("additionalProperties") is not False for definition in schema["$defs"].values())


def test_field_docstrings_reach_the_schema() -> None:
    user = SCHEMAS["interaction.schema.json"]["$defs"]["Interaction"]["properties"]["user"]
    assert "Hashed" in user["description"]


def test_a_stale_a_missing_and_a_foreign_file_are_named(tmp_path: Path) -> None:
    jsonschema.write(tmp_path)
    (tmp_path / "tick.schema.json").write_text("{}")
    (tmp_path / "cut.schema.json").unlink()
    (tmp_path / "gone.schema.json").write_text("{}")
    assert jsonschema.stale(tmp_path) == ["cut.schema.json", "gone.schema.json", "tick.schema.json"]


def test_a_removed_message_is_a_break() -> None:
    assert jsonschema.incompatible({"gone.schema.json": {}}, {}) == ["gone.schema.json: the message was removed"]


@pytest.mark.parametrize("topic", TOPICS.values(), ids=lambda t: t.name)
def test_every_message_of_a_topic_has_an_example(topic: Topic) -> None:
    assert {type_of(path) for path in FILES if path.parent.name == topic.name} == set(topic.messages)


@pytest.mark.parametrize("path", FILES, ids=name)
def test_an_example_survives_decode_and_encode_whole(path: Path) -> None:
    written = json.loads(path.read_text())
    message = codec.decode(type_of(path), path.read_bytes())
    # A null for a required field stays, an example states no other default: so nothing may differ.
    assert json.loads(codec.encode(message)) == written


@pytest.mark.parametrize("path", FILES, ids=name)
def test_encoding_an_example_twice_gives_the_same_bytes(path: Path) -> None:
    first = codec.encode(codec.decode(type_of(path), path.read_bytes()))
    assert codec.encode(codec.decode(type_of(path), first)) == first


@pytest.mark.parametrize("path", FILES, ids=name)
def test_an_example_is_valid_by_its_schema(path: Path) -> None:
    schema = SCHEMAS[jsonschema.file_name(type_of(path))]
    assert list(problems(json.loads(path.read_text()), schema, schema)) == []


@pytest.mark.parametrize("path", FILES, ids=name)
def test_an_example_without_a_required_field_is_invalid_by_schema_and_codec(path: Path) -> None:
    type_ = type_of(path)
    schema = SCHEMAS[jsonschema.file_name(type_)]
    for field in schema["$defs"][type_.__name__]["required"]:
        value: dict[str, Any] = json.loads(path.read_text())
        del value[field]
        assert list(problems(value, schema, schema)) == [f"$.{field}: missing"]
        with pytest.raises(codec.InvalidMessage):
            codec.decode(type_, json.dumps(value).encode())


@pytest.mark.parametrize("path", [p for p in FILES if p.parent.name in RAW_TOPICS], ids=name)
def test_an_example_of_a_raw_topic_is_within_the_limits(path: Path) -> None:
    message = codec.decode(type_of(path), path.read_bytes())
    if isinstance(message, m.Interaction):
        limits.validate_interaction(message)
    elif isinstance(message, m.Feedback):
        limits.validate_feedback(message)


def test_every_message_type_belongs_to_a_topic() -> None:
    assert {type_ for topic in TOPICS.values() for type_ in topic.messages} == set(codec.TYPE_NAMES)


def test_every_message_struct_has_a_type_name() -> None:
    assert set(m.Message.__subclasses__()) >= set(codec.TYPE_NAMES)
    assert {type_ for type_ in m.Message.__subclasses__() if type_.__module__ == m.__name__} == set(codec.TYPE_NAMES)


def test_every_topic_has_messages_producers_and_consumers() -> None:
    for topic in TOPICS.values():
        assert topic.messages
        assert topic.producers
        assert topic.consumers


def test_every_topic_is_stamped_by_the_broker() -> None:
    for topic in TOPICS.values():
        assert topic.config(embedded=True)["message.timestamp.type"] == "LogAppendTime"


RETENTION = {
    "llm.interactions": 66 * HOUR_MS,
    "llm.feedback": 14 * DAY_MS - 6 * HOUR_MS,
    "llm.scored": 7 * DAY_MS,
    "llm.summaries": 30 * DAY_MS,
    "llm.deadletter": 30 * DAY_MS,
    "llm.config": None,
    "llm.commands": 400 * DAY_MS,
    "llm.windows": 30 * DAY_MS,
    "llm.alerts": 400 * DAY_MS,
    "llm.actions": 400 * DAY_MS,
    "llm.state": None,
    "llm.routes": None,
    "llm.gateways": None,
}


@pytest.mark.parametrize("topic", TOPICS.values(), ids=lambda t: t.name)
def test_a_topic_is_kept_as_long_as_it_is_stated(topic: Topic) -> None:
    kept = RETENTION[topic.name]
    config = topic.config(embedded=False)
    assert config["cleanup.policy"] == ("compact" if kept is None else "delete")
    assert config.get("retention.ms") == (None if kept is None else str(kept))


@pytest.mark.parametrize("topic", RAW_TOPICS)
def test_raw_text_lasts_no_longer_than_three_and_fourteen_days(topic: str) -> None:
    config = TOPICS[topic].config(embedded=True)
    longest = int(config["retention.ms"]) + int(config["segment.ms"])
    assert longest <= {"llm.interactions": 3 * DAY_MS, "llm.feedback": 14 * DAY_MS}[topic]


@pytest.mark.parametrize("topic", ["llm.config", "llm.state"])
def test_compacted_topics_roll_small_segments(topic: str) -> None:
    assert TOPICS[topic].config(embedded=True)["segment.bytes"] == str(64 * 1024 * 1024)


def test_sharded_topics_have_as_many_partitions_as_there_are_shards() -> None:
    assert {t.partitions(embedded=True) for t in TOPICS.values() if t.sharded} == {2}
    assert {t.partitions(embedded=False) for t in TOPICS.values() if t.sharded} == {16}


def test_a_cluster_keeps_three_replicas_and_needs_two() -> None:
    for topic in TOPICS.values():
        assert topic.replication(embedded=False) == 3
        assert topic.config(embedded=False)["min.insync.replicas"] == "2"


def test_kinds_are_those_that_applications_send() -> None:
    assert get_args(m.Kind) == ("chat", "embeddings", "retrieval", "tool", "agent", "workflow")
