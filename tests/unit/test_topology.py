"""The graph and the topic registry say the same."""

import importlib

import pytest

from schemas.topics import TOPICS
from streams.topology import TOPOLOGY


@pytest.mark.parametrize("topic", list(TOPICS))
def test_each_topic_is_written_by_the_producers_that_the_registry_names(topic: str) -> None:
    assert {node.process for node in TOPOLOGY if topic in node.writes} == set(TOPICS[topic].producers)


@pytest.mark.parametrize("topic", list(TOPICS))
def test_each_topic_is_read_by_the_consumers_that_the_registry_names(topic: str) -> None:
    assert {node.process for node in TOPOLOGY if topic in node.reads} == set(TOPICS[topic].consumers)


def test_the_graph_names_only_topics_of_the_registry() -> None:
    assert {topic for node in TOPOLOGY for topic in (*node.reads, *node.writes)} <= set(TOPICS)


@pytest.mark.parametrize("runs", sorted({node.runs for node in TOPOLOGY if " " not in node.runs}))
def test_what_a_process_runs_exists(runs: str) -> None:
    try:
        importlib.import_module(runs)
    except ModuleNotFoundError:
        module, _, name = runs.rpartition(".")
        assert hasattr(importlib.import_module(module), name)
