"""What `topics check` says of a cluster, from the cluster's own answers."""

from adapters.kafka_admin import differences
from schemas.topics import STATE, TOPICS


def as_wanted(*, embedded: bool) -> tuple[dict[str, int], dict[str, int], dict[str, dict[str, str]]]:
    """Partitions, replication and settings of a cluster that is as it should be."""
    return (
        {name: topic.partitions(embedded=embedded) for name, topic in TOPICS.items()},
        {name: topic.replication(embedded=embedded) for name, topic in TOPICS.items()},
        {name: topic.config(embedded=embedded) for name, topic in TOPICS.items()},
    )


def test_a_cluster_as_the_registry_wants_it_has_no_differences() -> None:
    for embedded in (True, False):
        assert differences(*as_wanted(embedded=embedded), embedded=embedded) == []


def test_more_than_is_wanted_is_fine() -> None:
    partitions, replication, configs = as_wanted(embedded=True)
    partitions["llm.interactions"] = 12
    replication["llm.interactions"] = 3
    configs["llm.interactions"]["retention.ms"] = "-1"
    configs["llm.scored"]["retention.ms"] = str(10**12)
    assert differences(partitions, replication, configs, embedded=True) == []


def test_every_difference_is_said_in_words() -> None:
    partitions, replication, configs = as_wanted(embedded=True)
    del partitions["llm.scored"]
    partitions["llm.interactions"] = 1
    replication["llm.alerts"] = 0
    configs["llm.feedback"]["retention.ms"] = "1000"
    configs["llm.feedback"]["message.timestamp.type"] = "CreateTime"
    configs["llm.config"]["cleanup.policy"] = "delete"
    assert differences(partitions, replication, configs, embedded=True) == [
        "llm.interactions: 1 partitions, 4 wanted",
        "llm.feedback: message.timestamp.type is CreateTime, LogAppendTime wanted",
        "llm.feedback: retention.ms is 1000, 1188000000 wanted",
        "llm.scored: the topic is missing",
        "llm.config: cleanup.policy is delete, compact wanted",
        "llm.alerts: replication 0, 1 wanted",
    ]


def test_sharded_topics_may_have_any_number_of_partitions_if_it_is_the_same() -> None:
    partitions, replication, configs = as_wanted(embedded=True)
    partitions |= {name: 5 for name, topic in TOPICS.items() if topic.sharded}
    assert differences(partitions, replication, configs, embedded=True) == []
    partitions[STATE] = 4
    (said,) = differences(partitions, replication, configs, embedded=True)
    assert said.startswith("sharded topics must have one number of partitions")
    assert "llm.state 4" in said
