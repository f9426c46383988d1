"""Logs that no log should be: each has a stated outcome, none an exception, none an alarm."""

import json
from collections.abc import Iterator
from random import Random
from typing import Any

import pytest

from core.rules import DEFAULT_RULES
from core.scoring import EmbeddingTable
from streams.backtest_file import BacktestReport, backtest_file, with_reference
from tests.unit.embedding_twin import FILLER, TOPICS, planted_twin
from tests.unit.heads_twin import heads_twin

FIRST = 1_700_000_000
DAY = 86_400


@pytest.fixture(scope="module")
def table() -> EmbeddingTable:
    return planted_twin()


def log(lines: int, *, every_s: float = 1.0, **fields: Any) -> Iterator[bytes]:
    """Ordinary traffic that never changes: two topics, some refusals, thumbs on every second answer."""
    draw = Random(5)
    for n in range(lines):
        said = draw.choices(TOPICS[draw.choice(("bread", "travel"))], k=4) + draw.choices(FILLER, k=2)
        refused = draw.random() < 0.05
        own = {
            "id": str(n),
            "time": FIRST + n * every_s,
            "app": "desk",
            "prompt": " ".join(said),
            "response": "I'm sorry, but I can't help with that." if refused else "Call sorted on the list.",
            "latency_ms": draw.lognormvariate(6, 0.5),
            "model_version": "v1",
        }
        if n % 2:
            own["feedback"] = {"name": "thumbs", "score": float(draw.random() < 0.85)}
        yield json.dumps(own | {name: value(n) if callable(value) else value for name, value in fields.items()}).encode()


def played(table: EmbeddingTable, lines: Any, reference: int = 500) -> BacktestReport:
    report = backtest_file(lines, table, heads_twin(bias=-1_000), rules=with_reference(DEFAULT_RULES, reference))
    assert report.detections == []
    return report


def reasons(report: BacktestReport) -> dict[str, str]:
    return {one.metric: one.reason for one in report.unjudged}


def test_one_event_a_day_is_judged_slowly_and_does_not_alarm(table: EmbeddingTable) -> None:
    report = played(table, log(900, every_s=DAY))
    assert (report.scored, report.windows, report.pages_per_week()) == (900, 900, 0.0)
    assert "refusal" not in reasons(report)


def test_of_ten_thousand_versions_each_counts_and_none_alarms(table: EmbeddingTable) -> None:
    report = played(table, log(10_000, model_version=lambda n: f"v{n}"))
    assert report.scored == 10_000
    assert "refusal" not in reasons(report)


def test_events_of_one_second_are_a_window_for_each_thousand(table: EmbeddingTable) -> None:
    report = played(table, log(3_000, every_s=0.0))
    assert (report.scored, report.windows) == (3_000, 3)
    assert report.pages_per_week() == 0.0


def test_a_log_given_twice_counts_once(table: EmbeddingTable) -> None:
    lines = list(log(1_500))
    once, twice = played(table, lines), played(table, lines + lines)
    interleaved = played(table, [line for line in lines for _ in range(2)])
    for report in (twice, interleaved):
        assert (report.scored, report.acts, report.repeated) == (1_500, once.acts, 1_500)


def test_a_repeated_line_that_brings_new_feedback_brings_only_that(table: EmbeddingTable) -> None:
    first, again = ({"id": "1", "time": FIRST, "app": "desk", "prompt": "bread"} for _ in range(2))
    report = played(table, [json.dumps(first).encode(), json.dumps(again | {"time": FIRST + 9, "feedback": "down"}).encode()])
    assert (report.scored, report.acts, report.repeated, report.windows) == (1, 1, 1, 2)


def test_a_clock_that_jumps_ahead_for_good_is_no_alarm_and_loses_nothing(table: EmbeddingTable) -> None:
    report = played(table, log(1_800, time=lambda n: FIRST + n + (30 * DAY if n >= 900 else 0)))
    assert (report.scored, report.dead) == (1_800, 0)


def test_a_clock_that_is_set_back_for_good_stands_still_and_costs_one_line(table: EmbeddingTable) -> None:
    report = played(table, log(1_800, time=lambda n: FIRST + n - (30 * DAY if n >= 900 else 0)))
    assert [(dead.line, dead.code) for dead in report.dead_lines] == [(900, "time_ahead")]
    assert (report.scored, report.last_time) == (1_799, 1000 * (FIRST + 898))


def test_a_clock_that_is_ahead_for_one_line_makes_that_line_dead(table: EmbeddingTable) -> None:
    report = played(table, log(1_200, time=lambda n: FIRST + n + (30 * DAY if n == 700 else 0)))
    assert [(dead.line, dead.code) for dead in report.dead_lines] == [(701, "time_ahead")]
    assert (report.scored, report.last_time) == (1_199, 1000 * (FIRST + 1_199))


def test_scores_that_are_no_numbers_are_dead_lines(table: EmbeddingTable) -> None:
    lines = list(log(1_200))
    broken = [b'"score": NaN', b'"score": Infinity', b'"score": 1e999', b'"score": 7']
    for at, text in enumerate(broken, 601):
        lines[at] = (
            lines[at].replace(b'"score": 1.0', text).replace(b'"score": 0.0', text)
            if at % 2
            else lines[at][:-1] + (b', "feedback": {' + text + b"}}")
        )
    report = played(table, lines)
    assert [dead.line for dead in report.dead_lines] == [602, 603, 604, 605]
    assert report.scored == 1_196


def test_a_log_shorter_than_the_reference_is_not_judged_and_says_so(table: EmbeddingTable) -> None:
    report = played(table, log(400))
    assert reasons(report)["refusal"] == "its reference is not complete"
    assert {one.seen for one in report.unjudged if one.metric == "refusal"} == {400}


def test_a_metric_that_the_log_lacks_is_named(table: EmbeddingTable) -> None:
    report = played(
        table, (json.dumps({"time": FIRST + n, "app": "desk", "prompt": "bread oven flour"}).encode() for n in range(900))
    )
    assert reasons(report)["latency"] == "no data"
    assert reasons(report)["thumbs.down"] == "no data"


def test_a_metric_that_begins_late_gets_a_reference_of_its_own(table: EmbeddingTable) -> None:
    lines = []
    for n, line in enumerate(log(2_000)):
        value = json.loads(line)
        if n < 1_000:
            del value["latency_ms"]
        lines.append(json.dumps(value).encode())
    assert "latency" not in reasons(played(table, lines))


def test_a_metric_that_ends_is_no_alarm(table: EmbeddingTable) -> None:
    lines = []
    for n, line in enumerate(log(2_000)):
        value = json.loads(line)
        if n >= 1_000:
            value.pop("feedback", None)
        lines.append(json.dumps(value).encode())
    assert played(table, lines).acts == 500


def test_feedback_that_no_detector_takes_is_counted_and_named(table: EmbeddingTable) -> None:
    report = played(table, log(600, feedback={"name": "csat", "score": 0.2}))
    assert dict(report.unwatched_feedback) == {("desk", "production", "csat"): 600}
