"""A file of short lines: its windows, its dead lines, and that a change in it is found."""

import json
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from core.scoring import EmbeddingTable
from schemas.messages import Rules
from streams.backtest_file import backtest_file
from tests.unit.heads_twin import heads_twin

WORDS = ["how", "do", "i", "sort", "a", "list", "please", "bake", "bread", "oven", "flour", "yeast"]
DAY = 86_400


@pytest.fixture(scope="module")
def table() -> EmbeddingTable:
    """A tiny table: twelve words, four cells."""
    rng = np.random.default_rng(1)
    vectors = rng.integers(-90, 90, (len(WORDS) + 1, 8)).astype(np.int8)
    weights = np.ones(len(WORDS) + 1, np.int8)
    centroids = rng.integers(-90, 90, (256, 8)).astype(np.int8)
    return EmbeddingTable(
        vectors, weights, centroids, tuple(str(n) for n in range(256)), lambda w: [WORDS.index(w) if w in WORDS else 12], "0" * 64
    )


def line(**fields: Any) -> bytes:
    return json.dumps({"time": 1_700_000_000, "app": "desk", "prompt": "how do i sort"} | fields).encode()


def test_lines_of_one_moment_are_one_window(table: EmbeddingTable) -> None:
    report = backtest_file([line(), line(), line()], table, heads_twin(8, bias=-1_000))
    assert (report.lines, report.scored, report.windows, report.dead) == (3, 3, 1, 0)


def test_a_window_ends_after_a_thousand_lines(table: EmbeddingTable) -> None:
    report = backtest_file([line(id=str(n)) for n in range(2_500)], table, heads_twin(8, bias=-1_000))
    assert (report.scored, report.windows) == (2_500, 3)


def test_a_time_that_steps_back_does_not_open_an_older_window(table: EmbeddingTable) -> None:
    report = backtest_file(
        [line(time=1_700_000_000), line(time=1_600_000_000), line(time=1_700_000_001)], table, heads_twin(8, bias=-1_000)
    )
    assert (report.windows, report.dead, report.first_time) == (1, 0, 1_700_000_000_000)


def test_a_time_a_day_ahead_of_the_next_hundred_lines_is_dead(table: EmbeddingTable) -> None:
    lines = [line(), line(time=1_700_000_000 + 2 * DAY), *(line() for _ in range(150))]
    report = backtest_file(lines, table, heads_twin(8, bias=-1_000))
    assert [(d.line, d.code, d.field) for d in report.dead_lines] == [(2, "time_ahead", "time")]
    assert report.scored == 151


def test_a_jump_in_time_that_lasts_is_no_dead_line(table: EmbeddingTable) -> None:
    report = backtest_file(
        [line(), line(time=1_700_000_000 + 2 * DAY), line(time=1_700_000_000 + 2 * DAY)], table, heads_twin(8, bias=-1_000)
    )
    assert (report.dead, report.windows) == (0, 2)


def test_bad_lines_are_named_and_the_rest_is_unharmed(table: EmbeddingTable) -> None:
    report = backtest_file([b"{", line(), b"\n", line(app=""), line(feedback="down")], table, heads_twin(8, bias=-1_000))
    assert [d.line for d in report.dead_lines] == [1, 4]
    assert (report.lines, report.scored, report.acts) == (4, 2, 1)


def test_an_empty_file_gives_an_empty_report(table: EmbeddingTable) -> None:
    report = backtest_file([], table, heads_twin(8, bias=-1_000))
    assert (report.lines, report.windows, report.alerts) == (0, 0, [])


def _history(changed_from: int) -> Iterator[bytes]:
    for n in range(6_000):
        bad = n >= changed_from and n % 3 == 0
        response = "I'm sorry, but I can't help with that." if bad else f"Call sorted on the list, {n} times."
        yield line(id=str(n), time=1_700_000_000 + n, response=response, model_version="v2" if n >= changed_from else "v1")


def test_a_version_that_refuses_is_found(table: EmbeddingTable) -> None:
    report = backtest_file(_history(4_000), table, heads_twin(8, bias=-1_000), rules=_rules())
    assert "refusal" in {d.metric for d in report.detections}
    assert "rollback" in {a.kind for a in report.actions}


def test_a_file_without_a_change_gives_no_alert(table: EmbeddingTable) -> None:
    report = backtest_file(_history(1_000_000), table, heads_twin(8, bias=-1_000), rules=_rules())
    assert (report.detections, report.alerts, report.actions) == ([], [], [])


def _rules() -> Rules:
    from core.rules import DEFAULT_RULES

    return Rules(reference_events=1_000, rules=DEFAULT_RULES.rules)
