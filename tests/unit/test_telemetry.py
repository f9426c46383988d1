"""What a process says of itself."""

import json
import logging
from pathlib import Path

from adapters.settings import Settings
from adapters.telemetry import JsonLines, Telemetry


def telemetry(tmp_path: Path) -> Telemetry:
    return Telemetry("sink", Settings(data_dir=tmp_path))


def test_a_process_is_not_ready_before_it_said_anything(tmp_path: Path) -> None:
    status, _, body = telemetry(tmp_path).answer("/ready", "")
    assert (status, json.loads(body)) == (503, {"ready": False, "reasons": {"sink": "starting"}})


def test_a_process_is_ready_when_every_condition_holds(tmp_path: Path) -> None:
    process = telemetry(tmp_path)
    process.ready("kafka", True)
    process.ready("clickhouse", False, "connection refused")
    status, _, body = process.answer("/ready", "")
    assert (status, json.loads(body)["reasons"]) == (503, {"clickhouse": "connection refused"})
    process.ready("clickhouse", True)
    assert process.answer("/ready", "")[0] == 200


def test_a_process_can_report_as_a_whole(tmp_path: Path) -> None:
    process = telemetry(tmp_path)
    process.set_ready("waiting for Kafka")
    assert process.reasons() == {"sink": "waiting for Kafka"}
    process.set_ready(None)
    assert process.is_ready()


def test_metrics_carry_the_projects_prefix(tmp_path: Path) -> None:
    process = telemetry(tmp_path)
    process.counter("rows", "rows written", ("table",)).labels("interactions").inc(3)
    body = process.answer("/metrics", "")[2].decode()
    assert 'bellbuoy_rows_total{table="interactions"} 3.0' in body
    assert "process_resident_memory_bytes" in body


def test_health_is_alive_whatever_is_ready(tmp_path: Path) -> None:
    assert telemetry(tmp_path).answer("/health", "")[0] == 200
    assert telemetry(tmp_path).answer("/nothing", "")[0] == 404


def test_a_log_line_is_one_json_object_with_its_fields() -> None:
    record = logging.LogRecord("bellbuoy.sink", logging.INFO, "x", 1, "stored %d\nrows", (3,), None)
    record.fields = {"rows": 3}
    line = JsonLines("sink", "local").format(record)
    assert "\n" not in line
    told = json.loads(line)
    assert (told["process"], told["level"], told["message"], told["rows"]) == ("sink", "INFO", "stored 3\nrows", 3)
