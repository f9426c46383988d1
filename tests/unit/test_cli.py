"""The table of sub-commands."""

import errno
import gzip
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import confluent_kafka as ck
import pytest
from clickhouse_connect.driver.exceptions import OperationalError
from rich.cells import cell_len
from typer.testing import CliRunner

from adapters.clickhouse import BadDsn, address
from adapters.corpus import InvalidCorpus
from adapters.process import FolderInUse
from adapters.settings import Settings
from bellbuoy.cli import demo, ledger, main
from bellbuoy.cli.errors import explain, told_by_itself
from bellbuoy.cli.main import COMMANDS, app, load
from bellbuoy.cli.printing import table
from bellbuoy.ledger import NotAtRest
from bellbuoy.reach import NotReachable, need_kafka
from bellbuoy.story import plan
from core.ledger import Ledger, PartitionLedger
from tests.conftest import ROOT


@pytest.mark.parametrize("name", COMMANDS)
def test_every_sub_command_of_the_table_exists_and_has_help(name: str) -> None:
    command = load(name)
    assert command.name == name
    assert command.help


def test_help_lists_every_sub_command() -> None:
    shown = CliRunner().invoke(app, ["--help"]).stdout
    assert [name for name in COMMANDS if f" {name} " not in shown] == []


def test_help_imports_nothing_heavy() -> None:
    program = (
        "import sys\nfrom bellbuoy.cli.main import app\n"
        "try: app(['--help'])\nexcept SystemExit: pass\n"
        "print(sorted({'numpy', 'confluent_kafka', 'kafka', 'faust', 'chdb', 'clickhouse_connect'} & sys.modules.keys()))"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


def test_an_unknown_sub_command_is_an_error() -> None:
    result = CliRunner().invoke(app, ["nonsense"])
    assert result.exit_code == 2
    assert "No such command 'nonsense'" in result.output


def commands(command: Any) -> Iterator[Any]:
    yield command
    for inner in getattr(command, "commands", {}).values():
        yield from commands(inner)


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_and_option_says_what_it_is_for(name: str) -> None:
    silent = [c.name for c in commands(load(name)) if not c.help]
    silent += [f"{c.name} {p.name}" for c in commands(load(name)) for p in c.params if not p.help and p.name != "help"]
    assert silent == []


@pytest.mark.parametrize("name", COMMANDS)
def test_paragraphs_of_a_help_flow_and_examples_keep_their_lines(name: str) -> None:
    for command in commands(load(name)):
        for paragraph in command.help.split("\n\n"):
            assert "\n" not in paragraph or paragraph.startswith("\b\n")
            assert all(len(line) <= 78 for line in paragraph.splitlines()[1:])


def test_where_no_stack_runs_the_default_address_is_not_asked(tmp_path: Path) -> None:
    with pytest.raises(NotReachable, match=r"no stack runs on .*; `bellbuoy up` starts one"):
        need_kafka(Settings(data_dir=tmp_path))


@pytest.mark.parametrize(
    "arguments",
    ["alerts list", "actions list", "actions show x", "config show", "topics check", "topics ensure", "ledger", "migrate",
     "backtest --verify", "alerts list --json", "ledger --json"],
)  # fmt: skip
def test_without_a_stack_every_command_says_so_and_prints_nothing_on_stdout(
    arguments: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("BELLBUOY_DATA_DIR", str(tmp_path))
    monkeypatch.setattr(sys, "argv", ["bellbuoy", *arguments.split()])
    with pytest.raises(SystemExit) as ended:
        main.main()
    said = capsys.readouterr()
    assert (ended.value.code, said.out) == (1, "")
    assert said.err.startswith("bellbuoy: no stack runs on ")
    assert said.err.count("\n") == 1


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (FolderInUse("the data folder x is in use by process 7"), "`bellbuoy down` stops it"),
        (NotAtRest("not at rest after 90 s"), "`bellbuoy status` shows which process lags"),
        (InvalidCorpus("x.jsonl:3: prompt is empty"), "x.jsonl:3: prompt is empty"),
        (PermissionError(13, "Permission denied", "/data"), "Permission denied: /data; BELLBUOY_DATA_DIR chooses another"),
        (OSError(errno.EROFS, "Read-only file system", "/data/run"), "Read-only file system: /data/run"),
        (OperationalError("nothing listens"), "ClickHouse does not answer at 127.0.0.1:8123: is it there"),
        (ck.KafkaException(ck.KafkaError(ck.KafkaError._TRANSPORT)), "Kafka does not answer"),
        (ExceptionGroup("tasks", [NotReachable("a"), ExceptionGroup("", [NotReachable("b")])]), "a; b"),
    ],
)
def test_what_is_a_users_matter_gets_one_sentence(error: Exception, said: str) -> None:
    told = explain(error)
    assert told is not None
    assert said in told
    assert "\n" not in told


@pytest.mark.parametrize("error", [KeyError("x"), ValueError("x"), ExceptionGroup("", [NotReachable("a"), KeyError("x")])])
def test_a_defect_keeps_its_traceback(error: Exception) -> None:
    assert explain(error) is None


def test_a_process_that_loses_clickhouse_leaves_its_traceback_and_one_whose_folder_is_taken_a_sentence() -> None:
    assert told_by_itself(OperationalError("nothing listens")) is None
    assert told_by_itself(FolderInUse("x is in use"))


def test_a_setting_that_cannot_be_read_is_named_as_it_is_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BELLBUOY_PAGE_PORT", "many")
    with pytest.raises(ValueError, match="page_port") as raised:
        Settings()
    assert (explain(raised.value) or "").startswith("BELLBUOY_PAGE_PORT is set to 'many': input should be a valid integer")


@pytest.mark.parametrize("dsn", ["localhost:8123", "http://", "http://host:port/x", "http://[::1"])
def test_a_dsn_that_cannot_be_read_is_refused_with_its_form(dsn: str, tmp_path: Path) -> None:
    with pytest.raises(BadDsn, match="http\\(s\\)://user:password@host:port/database"):
        address(Settings(data_dir=tmp_path, clickhouse_dsn=dsn))  # type: ignore[arg-type]  # pydantic wraps it


def backtest(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr(sys, "argv", ["bellbuoy", "backtest", *arguments])
    with pytest.raises(SystemExit) as ended:
        main.main()
    return int(ended.value.code or 0)


def test_a_backtest_of_a_missing_file_is_a_wrong_option(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert backtest(monkeypatch, "--log", str(tmp_path / "none")) == 2


def test_a_gzip_file_that_is_cut_is_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "log.gz"
    file.write_bytes(gzip.compress(b'{"time": 1, "app": "a", "prompt": "x"}\n' * 1000)[:-20])
    monkeypatch.setattr("bellbuoy.cli.backtest.load_embedding", lambda _: None)
    monkeypatch.setattr("bellbuoy.cli.backtest.load_heads", lambda: None)
    monkeypatch.setattr("bellbuoy.cli.backtest.backtest_file", lambda lines, *_, **__: list(lines))
    assert backtest(monkeypatch, "--log", str(file)) == 1
    assert "is no whole gzip file" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "code", "said"),
    [
        ("", 1, "say --log FILE, or --from T --to T, or --verify"),
        ("--log LOG --verify", 1, "say --log FILE, or --from T --to T, or --verify"),
        ("--from 2026-11-01", 2, "--from and --to go together"),
        ("--from 2026-11-02 --to 2026-11-01", 2, "--from must lie before --to"),
        ("--from soon --to 2026-11-01", 2, "time must be RFC 3339"),
        ("--from 2026-11-01 --to 2026-11-02", 1, "no stack runs on"),
        ("--log LOG --reference-events 0", 2, "reference-events"),
        ("--log LOG --truth LOG", 1, 'is not {"changes": [{"event_index", "metric"}]}'),
    ],
)
def test_a_backtest_that_cannot_begin_says_why(
    options: str, code: int, said: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("BELLBUOY_DATA_DIR", str(tmp_path))
    (tmp_path / "log").write_text('{"time": 1, "app": "a", "prompt": "x"}\n')
    arguments = options.replace("LOG", str(tmp_path / "log")).split()
    assert backtest(monkeypatch, *arguments) == code
    assert said in " ".join(capsys.readouterr().err.replace("│", " ").split())


def test_columns_are_as_wide_as_their_widest_cell_and_cut_nowhere() -> None:
    lines = table(["id", "n"], [["x" * 90, "1"], ["話", "1,000"]], right=[1]).splitlines()
    assert {cell_len(line) for line in lines} == {97}
    assert lines[2].endswith("  1,000")


def test_the_ledgers_table_fits_eighty_columns_with_whole_topic_names() -> None:
    nothing = dict.fromkeys(
        ("start", "log_start", "scored", "dead", "poison", "tick", "control", "expired", "missing", "deleted"), 0
    )
    full = {"frontier": 9_999_999, "log_end": 9_999_999, "stored": 9_999_999, "in_flight_age_s": None}
    partition = PartitionLedger(topic="llm.interactions", topic_id="t", partition=0, **nothing, **full)  # type: ignore[arg-type]
    text = ledger.partitions(Ledger([partition]))
    assert "llm.interactions/0" in text
    assert max(map(len, text.splitlines())) <= 80


@pytest.mark.parametrize(
    ("shift", "bad", "opinions", "words", "minutes"),
    [
        (True, True, True, "verified", "4"),
        (True, False, True, "a promotion", "3.5"),
        (True, False, False, "nothing can be learned", "2.5"),
        (False, False, True, "nothing may fire", "2"),
    ],
)
def test_the_demo_says_what_will_happen_and_how_long_it_takes(
    shift: bool, bad: bool, opinions: bool, words: str, minutes: str
) -> None:
    told = demo.outline(plan(7, shift=shift, bad_version=bad), 120, opinions=opinions)
    assert told.startswith(f"the story takes about {minutes} minutes")
    assert words in told


def test_after_the_story_three_commands_are_worth_trying(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", [".venv/bin/bellbuoy", "demo"])
    lines = demo.worth_trying(Settings(data_dir=tmp_path), ["de0920ba2f83f5910d70c7f88dcaa79c"])
    program = f"BELLBUOY_DATA_DIR={tmp_path} .venv/bin/bellbuoy"
    assert lines == [f"{program} alerts list --all", f"{program} actions show de0920ba", f"{program} ledger --verify"]


def test_topics_are_listed_in_eighty_columns_and_as_json() -> None:
    shown = CliRunner().invoke(load_app("topics"), ["list"]).stdout
    assert max(map(len, shown.splitlines())) <= 80
    assert json.loads(CliRunner().invoke(load_app("topics"), ["list", "--json"]).stdout)


def load_app(name: str) -> Any:
    return getattr(__import__(COMMANDS[name].module, fromlist=["app"]), COMMANDS[name].attribute)
