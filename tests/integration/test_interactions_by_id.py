"""The view by interaction id: each group of columns from the last row of the part that owns it; and what counts as repeated."""

import contextlib
import time
import uuid
from collections.abc import Iterator
from typing import Any

import pytest

from adapters.clickhouse import Client, connect, migrate, rows
from schemas.messages import Coordinates, Reason, Score, ScoredInteraction
from services import sink_rows
from tests.fixtures_store import StoreProcess

pytestmark = pytest.mark.integration
NOW = int(time.time()) * 1000
"""Rows live for 90 days."""
CALL = {
    "latency": Score(scorer="latency@1", value=7),
    "error": Score(scorer="answer@1", value=65_535, reasons=[Reason(rule="error_type")]),
    "response.model": Score(scorer="answer@1", label="m-1"),
}
TEXT = {
    "refusal": Score(scorer="refusal@1", value=65_535, reasons=[Reason(rule="decline", end=3)]),
    "prompt.language": Score(scorer="language@1", label="en"),
    "topic": Score(scorer="topic@1", outcome="error"),
}


@pytest.fixture
def client(store: StoreProcess) -> Iterator[Client]:
    database = f"test_{uuid.uuid4().hex}"
    with contextlib.closing(connect(store.settings, database=database)) as client:
        migrate(client)
        yield client
        client.command(f"DROP DATABASE {database}", use_database=False)


def put(client: Client, *parts: dict[str, Any], id_: str = "i") -> None:
    """Store parts of one interaction, each a second after the one before it."""
    batch = [
        ScoredInteraction(
            coordinates=Coordinates(topic="llm.interactions", topic_id=id_, partition=0, offset=offset),
            append_time=NOW + offset * 1_000,
            config="c",
            id=id_,
            app="a",
            version="v",
            **part,
        )
        for offset, part in enumerate(parts)
    ]
    client.insert_arrow("interactions", sink_rows.table(sink_rows.interactions(batch, [])))


def seen(client: Client, *columns: str) -> tuple[Any, ...]:
    (row,) = client.query(f"SELECT {', '.join(columns)} FROM interactions_by_id").result_rows
    return tuple(row)


@pytest.mark.parametrize("content_first", [False, True])
def test_two_parts_make_one_interaction_with_the_scores_labels_reasons_and_errors_of_both(
    client: Client, content_first: bool
) -> None:
    parts = [{"part": "span", "provider": "p", "scores": CALL}, {"part": "content", "prompt": "q", "scores": TEXT}]
    put(client, *(reversed(parts) if content_first else parts))
    assert seen(client, "records", "provider", "prompt") == (2, "p", "q")
    scores, labels, reasons, errors = seen(client, "mapKeys(scores)", "labels", "JSONExtractKeys(reasons)", "score_errors")
    assert sorted(scores) == ["error", "latency", "prompt.language", "refusal", "response.model"]
    assert labels == {"response.model": "m-1", "prompt.language": "en"}
    assert sorted(reasons) == ["error", "refusal"]
    assert errors == ["topic"]


def test_a_part_that_comes_after_the_whole_replaces_what_it_owns(client: Client) -> None:
    later = {"latency": Score(scorer="latency@1", value=9)}
    put(client, {"prompt": "q", "provider": "p", "scores": CALL | TEXT}, {"part": "span", "provider": "p2", "scores": later})
    assert seen(client, "prompt", "provider", "scores['latency']", "scores['refusal']") == ("q", "p2", 9, 65_535)


def test_a_whole_that_comes_last_replaces_both_parts(client: Client) -> None:
    put(client, {"part": "span", "provider": "p"}, {"part": "content", "prompt": "q"}, {"prompt": "w", "provider": "pw"})
    assert seen(client, "prompt", "provider", "records") == ("w", "pw", 3)


def test_the_order_of_arrival_decides_and_not_the_order_of_writing(client: Client) -> None:
    put(client, {"prompt": "old"}, {"prompt": "new"})
    put(client, {"prompt": "old"})
    assert seen(client, "prompt", "records") == ("new", 2)


@pytest.mark.parametrize(
    ("parts", "repeated"),
    [
        (["whole"], 0),
        (["span", "content"], 0),
        (["whole", "whole", "whole"], 2),
        (["span", "content", "content"], 1),
        (["whole", "span"], 1),
        (["whole", "span", "content"], 2),
    ],
)
def test_a_record_is_repeated_unless_it_is_the_first_whole_or_the_first_of_its_half(
    client: Client, parts: list[str], repeated: int
) -> None:
    put(client, *({"part": part} for part in parts))
    put(client, *({"part": part} for part in parts))
    put(client, {"part": "whole"}, id_="another")
    assert rows(client, "ledger_repeated") == [{"repeated": repeated}]
