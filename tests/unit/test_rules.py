"""The default rules name what exists."""

from core.detection.budget import STREAMS
from core.rules import DEFAULT_RULES, default_config


def test_every_stream_has_one_rule() -> None:
    assert sorted(rule.metric for rule in DEFAULT_RULES.rules) == sorted(STREAMS)


def test_rule_ids_are_unique() -> None:
    assert len({rule.id for rule in DEFAULT_RULES.rules}) == len(DEFAULT_RULES.rules)


def test_an_alert_is_explained_only_by_streams_that_exist_and_waits_for_them() -> None:
    for rule in DEFAULT_RULES.rules:
        assert set(rule.inhibited_by) <= STREAMS.keys() - {rule.metric}
        assert bool(rule.inhibited_by) == (rule.pending_s > 0)


def test_only_a_shift_of_topics_and_refusals_ask_for_something() -> None:
    assert {rule.metric: rule.action for rule in DEFAULT_RULES.rules if rule.action} == {
        "topic.mix": "retrain",
        "refusal": "rollback",
    }


def test_the_default_config_carries_the_rules() -> None:
    config = default_config(scorers={"topic": 1}, embedding="e", heads="h", partitions={"t": 2}, shards=2, receipt_keys={})
    assert config.rules == DEFAULT_RULES
