"""The sandbox's own log: what is in it after a kill, and how large it grows."""

import json
from pathlib import Path
from typing import Any

import pytest

from services import sandbox_log
from services.sandbox_log import RequestLog


def entries(log: RequestLog, since: int = 0) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(log.since(since))["log"]
    return found


def complete(log: RequestLog, since: int = 0) -> bool:
    return bool(json.loads(log.since(since))["complete"])


def test_entries_are_told_from_a_moment_on(tmp_path: Path) -> None:
    log = RequestLog(tmp_path / "log")
    for time in (1, 2, 3):
        log.note("chat", time, 0.0, model="m")
    assert [entry["time"] for entry in entries(log, 2)] == [2, 3]


def test_entries_are_counted_by_kind_and_model(tmp_path: Path) -> None:
    log = RequestLog(tmp_path / "log")
    for model in ("a", "b", "a"):
        log.note("chat", 1, 0.0, model=model)
    log.note("job created", 1, 0.0, id="j")
    assert log.counts == {"chat a": 2, "chat b": 1, "job created": 1}


def test_counts_and_entries_go_on_after_a_kill(tmp_path: Path) -> None:
    RequestLog(tmp_path / "log").note("chat", 1, 0.0, model="m")
    after = RequestLog(tmp_path / "log")
    after.note("chat", 2, 0.0, model="m")
    assert [entry["time"] for entry in entries(after)] == [1, 2]
    assert after.counts == {"chat m": 2}


def test_a_line_that_a_kill_cut_short_spoils_no_other(tmp_path: Path) -> None:
    RequestLog(tmp_path / "log").note("chat", 1, 0.0, model="m")
    with (tmp_path / "log").open("ab") as file:
        file.write(b'{"time": 2, "wh')
    RequestLog(tmp_path / "log").note("chat", 3, 0.0, model="m")
    assert [entry["time"] for entry in entries(RequestLog(tmp_path / "log"))] == [1, 3]


def test_a_newline_in_a_field_does_not_make_a_second_entry(tmp_path: Path) -> None:
    RequestLog(tmp_path / "log").note("chat", 1, 0.0, model='a\n{"time": 9, "what": "chat"}')
    assert len(entries(RequestLog(tmp_path / "log"))) == 1


def test_memory_is_bounded_and_what_is_missing_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sandbox_log, "KEPT", 3)
    log = RequestLog(tmp_path / "log")
    for time in range(1, 6):
        log.note("chat", time, 0.0, model="m")
    assert [entry["time"] for entry in entries(log)] == [3, 4, 5]
    assert (complete(log), complete(log, 4)) == (False, True)


def test_the_file_is_bounded_and_the_one_before_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sandbox_log, "MAX_BYTES", 200)
    log = RequestLog(tmp_path / "log")
    for time in range(20):
        log.note("chat", time, 0.0, model="m")
    assert {path.name for path in tmp_path.iterdir()} == {"log", "log.1"}
    assert all(path.stat().st_size < 300 for path in tmp_path.iterdir())
