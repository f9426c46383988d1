"""What a backtest says: places in the log, delays against a truth, rates; and that other batches and processes say the same."""

import json
from collections.abc import Iterator
from random import Random

import numpy as np
import pytest

from bellbuoy.backtest_printing import report_json
from core.configs import ConfigLog
from core.rules import DEFAULT_RULES, default_config
from core.scoring import SCORER_VERSIONS, EmbeddingTable, HeadTable
from schemas import codec
from schemas.codec import Record
from schemas.messages import WINDOW_MS, Activation, BlockHeader, BlockSummary, LedgerCounts, Rules
from schemas.topics import FEEDBACK, INTERACTIONS
from streams.backtest_file import BacktestReport, backtest_file, with_reference
from streams.backtest_report import Change, judged_by
from streams.backtest_scoring import InProcesses
from streams.backtest_summaries import backtest_summaries, with_rules
from tests.timeline import FIRST, Behaviour, traffic
from tests.unit.embedding_twin import FILLER, TOPICS, planted_twin
from tests.unit.heads_twin import heads_twin

CHANGED = 2_000
REFUSES = "I'm sorry, but I can't help with that."


def tables() -> tuple[EmbeddingTable, HeadTable]:
    return planted_twin(), heads_twin(bias=-1_000)


def history(lines: int = 4_000, changed: int = CHANGED) -> Iterator[bytes]:
    draw = Random(6)
    for n in range(lines):
        said = draw.choices(TOPICS[draw.choice(("bread", "travel"))], k=4) + draw.choices(FILLER, k=2)
        bad = draw.random() < (0.3 if n >= changed else 0.02)
        value = {"time": 1_700_000_000 + n, "app": "desk", "prompt": " ".join(said), "response": REFUSES if bad else "So."}
        if n % 3 == 0:
            value["feedback"] = {"name": "helpful", "score": float(not bad)}
        yield json.dumps(value).encode()


@pytest.fixture(scope="module")
def report() -> BacktestReport:
    return backtest_file(history(), *tables(), rules=with_reference(DEFAULT_RULES, 1_000))


def test_an_alarm_says_the_last_line_that_had_been_read_and_where_it_began(report: BacktestReport) -> None:
    alarm = next(a for a in report.alarms() if a.name == "refusal")
    assert CHANGED < alarm.event_index < CHANGED + 200
    assert abs(alarm.onset_index - CHANGED) < 60
    again = backtest_file(list(history())[: alarm.event_index + 1], *tables(), rules=with_reference(DEFAULT_RULES, 1_000))
    assert again.alarms()[0].json() == alarm.json()
    shorter = backtest_file(list(history())[: alarm.event_index], *tables(), rules=with_reference(DEFAULT_RULES, 1_000))
    assert "refusal" not in {a.name for a in shorter.alarms() if a.event_index < alarm.event_index}


def test_the_last_line_of_json_has_what_a_program_reads(report: BacktestReport) -> None:
    value = report_json(report, 1.5)
    assert (value["events"], value["seconds"], value["pages"]) == (4_000, 1.5, report.pages)
    alarm = next(a for a in value["alarms"] if a["metric"] == "refusal")
    assert alarm["slice"].startswith("version=")
    assert alarm["paged"]
    assert alarm["interval"][0] < alarm["effect"] < alarm["interval"][1]
    assert alarm["interval"][0] < 0.28 < alarm["interval"][1]
    assert alarm["contributions"][0]["name"] == "refusal"
    assert json.dumps(value)


def test_feedback_is_reported_under_the_name_that_the_log_gives_it(report: BacktestReport) -> None:
    assert report.stated("desk", "production", "thumbs.down") == "feedback.helpful"


def test_a_change_gets_its_delay_and_one_that_was_not_seen_is_missed(report: BacktestReport) -> None:
    alarm = next(a for a in report.alarms() if a.name == "refusal")
    truth = judged_by([Change(CHANGED, "refusal"), Change(CHANGED, "latency")], [alarm], report.lines)
    refusal, latency = truth["changes"]
    assert (refusal["missed"], refusal["delay"]) == (False, alarm.event_index - CHANGED)
    assert (latency["missed"], latency["delay"], truth["missed"], truth["false_alarms"]) == (True, None, 1, 0)


def test_an_alarm_that_no_change_explains_is_false(report: BacktestReport) -> None:
    alarm = next(a for a in report.alarms() if a.name == "refusal")
    late = judged_by([Change(3_999, "refusal")], [alarm], report.lines)
    other = judged_by([Change(CHANGED, "topic.mix")], [alarm], report.lines)
    assert (late["false_alarms"], late["before_any_change"], late["missed"]) == (1, 1, 1)
    assert (other["false_alarms"], other["before_any_change"], other["false_alarms_per_million_events"]) == (1, 0, 250.0)


def test_topic_novelty_and_topic_mix_are_one_stream(report: BacktestReport) -> None:
    alarm = next(iter(report.alarms()))
    moved = type(alarm)(alarm.detection, "topic.mix", 2_100, 2_000, paged=True)
    moved.detection.metric, before = "topic.mix", moved.detection.metric
    found = judged_by([Change(CHANGED, "topic.novelty")], [moved], report.lines)
    moved.detection.metric = before
    assert found["changes"][0]["delay"] == 100


@pytest.mark.parametrize("lines", [1, 300])
def test_how_many_windows_are_scored_together_changes_nothing(
    lines: int, report: BacktestReport, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("streams.backtest_file.BATCH_LINES", lines)
    again = backtest_file(history(), *tables(), rules=with_reference(DEFAULT_RULES, 1_000))
    assert report_json(again, 0) == report_json(report, 0)


def test_scoring_in_other_processes_changes_nothing(report: BacktestReport) -> None:
    with InProcesses(tables, 2) as scorer:
        again = backtest_file(history(), *tables(), rules=with_reference(DEFAULT_RULES, 1_000), scorer=scorer)
    assert report_json(again, 0) == report_json(report, 0)
    assert report.fitted


# --- recorded summaries -------------------------------------------------------------------------------------------


def recorded(windows: int, bad_from: int) -> tuple[dict[int, list[Record]], ConfigLog]:
    """One shard's summaries: 20 interactions a window in each of two partitions; from `bad_from` on many are refused."""
    rng = np.random.default_rng(3)
    rules = with_reference(DEFAULT_RULES, 1_000)
    partitions = {INTERACTIONS: 2, FEEDBACK: 1}
    config = default_config(
        scorers=SCORER_VERSIONS, embedding="e", heads="h", partitions=partitions, shards=1, receipt_keys={}, rules=rules
    )
    digest = codec.digest(config)
    configs = ConfigLog({digest: config}, [(None, Activation(id="1", config=digest, actor="test", reason=""))])
    records: list[Record] = []
    for number in range(windows):
        window = FIRST + number * WINDOW_MS
        for topic, partition in ((INTERACTIONS, 0), (INTERACTIONS, 1), (FEEDBACK, 0)):
            groups = [traffic(rng, 20, Behaviour(refusal=0.4 if number >= bad_from else 0.02))] if topic == INTERACTIONS else []
            header = BlockHeader(
                topic=topic, topic_id="t", partition=partition, window=window, start=20 * number, end=20 * number + 20,
                config=digest, counts=LedgerCounts(scored=20),
            )  # fmt: skip
            summary = BlockSummary(header=header, shard=0, groups=groups)
            headers = codec.cloud_headers(BlockSummary, id_=f"{topic}/t/{partition}/{window}/0/1", time_ms=window)
            records.append(Record(len(records), window, b"0", codec.encode(summary), headers))
    return {0: records}, configs


def span(first: int, last: int) -> tuple[int, int]:
    return FIRST + first * WINDOW_MS, FIRST + last * WINDOW_MS


def test_recorded_summaries_are_folded_again_and_places_count_events() -> None:
    shards, configs = recorded(100, bad_from=60)
    found = backtest_summaries(shards, configs, *span(0, 100))
    assert (found.scored, found.windows) == (4_000, 100)
    alarm = next(a for a in found.alarms() if a.name == "refusal")
    assert 60 * 40 <= alarm.event_index < 70 * 40
    assert alarm.event_index % 40 == 39
    assert abs(alarm.onset_index - 2_400) <= 40


def test_only_windows_of_the_span_count_and_their_first_events_are_the_reference() -> None:
    shards, configs = recorded(100, bad_from=40)
    found = backtest_summaries(shards, configs, *span(40, 90))
    assert (found.scored, found.first_time, found.last_time) == (2_000, *span(40, 90))
    assert found.detections == []  # what was bad from its beginning on is what the rest is compared with


def test_other_rules_hold_for_recorded_summaries() -> None:
    shards, configs = recorded(100, bad_from=60)
    none = with_rules(configs, lambda rules: Rules(reference_events=rules.reference_events, per_days=rules.per_days))
    found = backtest_summaries(shards, none, *span(0, 100))
    assert found.detections
    assert found.alerts == []
    later = with_rules(configs, lambda _: with_reference(DEFAULT_RULES, 5_000))
    assert backtest_summaries(shards, later, *span(0, 100)).detections == []


def test_a_partition_that_gave_nothing_is_not_waited_for() -> None:
    shards, configs = recorded(50, bad_from=99)
    kept = [record for record in shards[0] if b"llm.feedback" not in (codec.header(record.headers, "ce_id") or b"")]
    assert backtest_summaries({0: kept}, configs, *span(0, 50)).windows == 50
