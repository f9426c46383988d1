"""A file of short lines: its windows, its dead lines, and that a change in it is found."""

import json
from collections.abc import Iterator
from random import Random
from typing import Any

import msgspec
import numpy as np
import pytest

from core.scoring import EmbeddingTable
from schemas.messages import FitRules, Rules
from streams.backtest_file import BacktestReport, backtest_file
from tests.unit.embedding_twin import FILLER, TOPICS, planted_twin
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


def _topics(fit: int, changed_from: int = 1_000_000) -> BacktestReport:
    """An app whose prompts get a topic more, after `fit` prompts have given it cells of its own (0: never)."""
    draw = Random(4)
    lines = []
    for n in range(3_000):
        known = ("bread", "travel") if n < changed_from else ("bread", "garden")
        said = draw.choices(TOPICS[draw.choice(known)], k=4) + draw.choices(FILLER, k=2)
        lines.append(line(id=str(n), time=1_700_000_000 + n, prompt=" ".join(said), user=f"u{n % 40}"))
    rules = msgspec.structs.replace(_rules(), reference_events=500, fit=FitRules(events=fit))
    return backtest_file(lines, planted_twin(), heads_twin(bias=-1_000), rules=rules)


def test_an_app_gets_cells_of_its_own_after_the_lines_that_the_rules_say() -> None:
    report = _topics(1_000)
    (fitted,) = report.fitted
    assert (fitted.app, fitted.environment, fitted.window) == ("desk", "production", 1_700_001_000_000)
    assert {word for name in fitted.cells for word in name.split("/")} & set(TOPICS["bread"])
    assert (report.detections, report.alerts) == ([], [])


def test_a_topic_that_is_new_to_the_apps_own_cells_is_found() -> None:
    report = _topics(1_000, changed_from=2_000)
    (cells,) = [fitted.cells for fitted in report.fitted]
    (found,) = [d for d in report.detections if d.metric == "topic.mix"]
    assert found.onset >= 1_700_001_950_000
    assert all(c.name in cells for c in found.contributions if c.bin.startswith("topic:"))


def test_no_app_gets_cells_where_the_rules_say_never() -> None:
    assert _topics(0).fitted == []


def test_an_app_that_always_says_the_same_gets_none(table: EmbeddingTable) -> None:
    rules = msgspec.structs.replace(_rules(), fit=FitRules(events=400))
    assert backtest_file([line(id=str(n)) for n in range(1_500)], table, heads_twin(8, bias=-1_000), rules=rules).fitted == []
