"""The default rules name what exists."""

import pytest

from core.detection.budget import STREAMS
from core.rules import (
    DEFAULT_RULES,
    DEMO_ENVIRONMENT,
    LEAST_FIT,
    MOST_FIT,
    app_policy,
    check_rules,
    default_config,
)
from schemas.messages import AppPolicy, FitRules, Rules


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


@pytest.mark.parametrize("events", [1, LEAST_FIT - 1, MOST_FIT + 1, -1])
def test_a_fit_of_too_few_or_too_many_prompts_is_refused(events: int) -> None:
    check_rules(Rules(fit=FitRules(events=0)))
    with pytest.raises(ValueError, match=r"rules\.fit\.events"):
        check_rules(Rules(apps=(AppPolicy(app="desk", fit=FitRules(events=events)),)))


def test_only_apps_of_the_demo_get_no_cells_of_their_own() -> None:
    assert app_policy(DEFAULT_RULES, "desk", "production").fit == FitRules()
    assert app_policy(DEFAULT_RULES, "desk", DEMO_ENVIRONMENT).fit == FitRules(events=0)
