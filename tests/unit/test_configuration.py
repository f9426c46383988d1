"""Which config an installation needs, and how a person changes one."""

import msgspec
import pytest

from bellbuoy.cli.config import changed
from bellbuoy.configuration import ConfigConflict, Installation, check_change, config_records, current_config, ensured
from core.configs import ConfigLog
from schemas.codec import Record, digest
from schemas.messages import Activation, Config, PolicyRule
from schemas.topics import FEEDBACK, INTERACTIONS

HERE = Installation({"refusal": 1, "topic": 1}, "a" * 64, "d" * 64, {INTERACTIONS: 4, FEEDBACK: 2}, 2, {"k": "cHVibGlj"})


def first() -> Config:
    change = ensured(None, HERE)
    assert change is not None
    return change.config


def test_an_empty_log_gets_the_first_config() -> None:
    config = first()
    assert (config.scorers, config.embedding, config.heads) == (HERE.scorers, HERE.embedding, HERE.heads)
    assert (config.partitions, config.shards, config.receipt_keys) == (HERE.partitions, 2, HERE.receipt_keys)


def test_a_config_that_fits_is_left_alone() -> None:
    assert ensured(first(), HERE) is None


@pytest.mark.parametrize(
    ("field", "value", "words"),
    [
        ("scorers", {"pii": 2, "refusal": 1, "topic": 1}, "scorers were added: pii"),
        ("partitions", {INTERACTIONS: 8, FEEDBACK: 2}, "partitions were added"),
        ("receipt_keys", {"new": "a2V5"}, "a receipt key was added"),
    ],
)
def test_what_changed_in_the_installation_is_activated_and_said(field: str, value: object, words: str) -> None:
    change = ensured(first(), Installation(**{**vars(HERE), field: value}))
    assert change is not None
    assert words in change.reason
    assert ensured(change.config, Installation(**{**vars(HERE), field: value})) is None


def test_old_receipts_stay_valid_when_a_key_is_added() -> None:
    change = ensured(first(), Installation(**{**vars(HERE), "receipt_keys": {"new": "a2V5"}}))
    assert change is not None
    assert change.config.receipt_keys == {"k": "cHVibGlj", "new": "a2V5"}


def test_what_a_person_set_survives_an_upgrade() -> None:
    config = changed(first(), reference_events=700, mode="auto")
    change = ensured(config, Installation(**{**vars(HERE), "scorers": {"pii": 2, "refusal": 1, "topic": 1}}))
    assert change is not None
    assert change.config.rules == config.rules


@pytest.mark.parametrize(
    ("field", "value", "words"),
    [
        ("scorers", {"refusal": 2, "topic": 1}, "refusal@1"),
        ("scorers", {"refusal": 1}, "topic@1"),
        ("embedding", "b" * 64, "embedding aaaaaaaaaaaa"),
        ("heads", "b" * 64, "heads "),
    ],
)
def test_a_log_that_this_release_cannot_score_on_is_refused_with_what_to_do(field: str, value: object, words: str) -> None:
    with pytest.raises(ConfigConflict, match=f"another release .*{words}.*make clean"):
        ensured(first(), Installation(**{**vars(HERE), field: value}))


def test_a_cluster_with_other_shards_or_fewer_partitions_is_refused() -> None:
    with pytest.raises(ConfigConflict, match="shards never change"):
        ensured(first(), Installation(**{**vars(HERE), "shards": 3}))
    with pytest.raises(ConfigConflict, match="fewer partitions"):
        ensured(first(), Installation(**{**vars(HERE), "partitions": {INTERACTIONS: 2, FEEDBACK: 2}}))


@pytest.mark.parametrize(
    ("field", "value", "words"),
    [
        ("false_pages", 0, "budget"),
        ("per_days", 0.0, "budget"),
        ("delta", 1.5, "probability"),
        ("reference_events", 0, "reference_events"),
        ("rules", (PolicyRule(id="a", metric="error"), PolicyRule(id="a", metric="latency")), "twice"),
        ("rules", (PolicyRule(id="a", metric="error", ttl_s=-1),), "negative"),
    ],
)
def test_rules_that_nothing_can_be_judged_by_are_refused(field: str, value: object, words: str) -> None:
    rules = msgspec.structs.replace(first().rules, **{field: value})
    with pytest.raises(ValueError, match=words):
        check_change(first(), msgspec.structs.replace(first(), rules=rules))


def test_a_persons_config_with_other_shards_or_fewer_partitions_is_refused() -> None:
    with pytest.raises(ConfigConflict, match="shards never change"):
        check_change(first(), msgspec.structs.replace(first(), shards=3))
    with pytest.raises(ConfigConflict, match="fewer partitions"):
        check_change(first(), msgspec.structs.replace(first(), partitions={INTERACTIONS: 4}))


def test_a_mode_is_set_on_the_rules_that_have_an_action_only() -> None:
    rules = changed(first(), mode="approve").rules.rules
    assert {rule.mode for rule in rules if rule.action} == {"approve"}
    assert {rule.mode for rule in rules if not rule.action} == {"suggest"}


def test_the_records_of_a_change_are_read_back_as_the_current_config() -> None:
    log = ConfigLog()
    config = changed(first(), reference_events=700)
    old = config_records(first(), Activation(id="1", config=digest(first()), actor="a", reason="r"), time_ms=0)
    new = config_records(config, Activation(id="2", config=digest(config), actor="a", reason="r"), time_ms=0)
    for offset, out in enumerate(old + new):
        log.add(Record(offset, 1_000, out.key, out.value, out.headers))
    assert current_config(log) == config
    assert [out.key for out in new] == [f"config/{digest(config)}".encode(), b"activation/2"]


def test_a_config_that_is_on_the_log_is_not_written_again() -> None:
    records = config_records(None, Activation(id="2", config="c", actor="a", reason="r"), time_ms=0)
    assert [out.key for out in records] == [b"activation/2"]


def test_fields_of_a_newer_version_survive_a_change() -> None:
    config = first()
    config.extra = {"later": msgspec.Raw(b"1")}
    assert changed(config, mode="auto").extra == config.extra
