"""`bellbuoy rules`, as far as it needs no stack; and the committed schema for editors."""

import json
from pathlib import Path

import msgspec
import pytest
import yaml
from typer.testing import CliRunner

from bellbuoy import rules_schema
from bellbuoy.cli.rules import app, difference
from core.rule_file import read_rules, write_rules
from core.rules import DEFAULT_RULES
from core.yaml_text import MAX_BYTES
from schemas.codec import digest

RUN = CliRunner()


def saved(folder: Path, text: str | bytes) -> str:
    """The name of a file with this text."""
    path = folder / "rules.yaml"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return str(path)


def test_a_good_file_is_told_with_its_digest_and_exit_code_0(tmp_path: Path) -> None:
    result = RUN.invoke(app, ["check", saved(tmp_path, "false_pages: 1 per 7d")])
    assert result.exit_code == 0
    assert digest(read_rules("false_pages: 1 per 7d"))[:12] in result.stdout
    assert "1 time in 7 days" in result.stdout


def test_a_bad_file_is_told_line_by_line_with_exit_code_1(tmp_path: Path) -> None:
    name = saved(tmp_path, "delta: 3\nfit: {event: 1}")
    result = RUN.invoke(app, ["check", name])
    assert result.exit_code == 1
    assert [line.removeprefix(name).split(" ")[0] for line in result.stderr.splitlines()] == [":1:8:", ":2:7:"]


def test_for_a_program_the_problems_are_json(tmp_path: Path) -> None:
    result = RUN.invoke(app, ["check", saved(tmp_path, "delta: 3"), "--json"])
    (problem,) = json.loads(result.stdout)["problems"]
    assert (result.exit_code, problem["line"], problem["column"], problem["path"]) == (1, 1, 8, "delta")


def test_the_file_may_come_from_stdin() -> None:
    assert RUN.invoke(app, ["check", "-"], input="{}").exit_code == 0
    assert "stdin:1:1: " in RUN.invoke(app, ["check", "-"], input="[]").stderr


@pytest.mark.parametrize(
    ("value", "words"),
    [(b"\xff\xfe\x00", "not UTF-8"), (b"a" * (MAX_BYTES + 1), "which is the most"), (b"a: \xc2\x9b31m", "U+009B")],
)
def test_what_is_no_text_is_refused_in_one_sentence(tmp_path: Path, value: bytes, words: str) -> None:
    result = RUN.invoke(app, ["check", saved(tmp_path, value)])
    assert result.exit_code == 1
    assert words in result.stderr
    assert "Traceback" not in result.output


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    result = RUN.invoke(app, ["check", str(tmp_path / "no.yaml")])
    assert result.exit_code == 1
    assert "no.yaml: No such file" in result.stderr


def test_text_of_a_file_cannot_steer_the_terminal(tmp_path: Path) -> None:
    result = RUN.invoke(app, ["check", saved(tmp_path, '"\\e[31mred\\u202e": 1')])
    assert "\x1b" not in result.output
    assert "\u202e" not in result.output


def test_the_built_in_rules_are_shown_with_their_digest_and_check_again() -> None:
    shown = RUN.invoke(app, ["show", "--default"]).stdout
    assert shown.splitlines()[0] == f"# digest {digest(DEFAULT_RULES)}"
    assert read_rules(shown) == DEFAULT_RULES


def test_nothing_is_applied_without_a_reason(tmp_path: Path) -> None:
    result = RUN.invoke(app, ["apply", saved(tmp_path, "{}")])
    assert (result.exit_code, "--reason" in result.stderr) == (1, True)


def test_a_bad_file_is_refused_before_anything_is_asked(tmp_path: Path) -> None:
    result = RUN.invoke(app, ["apply", saved(tmp_path, "delta: 3"), "--reason", "r"])
    assert (result.exit_code, ":1:8: delta" in result.stderr) == (1, True)


def test_the_difference_is_in_the_words_of_the_file() -> None:
    wanted = msgspec.structs.replace(DEFAULT_RULES, per_days=7.0)
    lines = difference(DEFAULT_RULES, wanted)
    assert [line for line in lines if line[0] in "+-"][2:] == ["-false_pages: 1 per 30d", "+false_pages: 1 per 7d"]
    assert difference(wanted, wanted) == []


def test_the_committed_schema_is_current() -> None:
    assert rules_schema.main(["--check"]) == 0


def test_a_stale_schema_is_told_and_written_anew(tmp_path: Path) -> None:
    file = tmp_path / "editor" / "rules.schema.json"
    assert rules_schema.main(["--check"], file) == 1
    assert rules_schema.main(["--write"], file) == 0
    assert rules_schema.main(["--check"], file) == 0


def test_what_is_written_fits_the_schema_as_far_as_types_go() -> None:
    from core.json_schema import mismatch

    schema = json.loads(rules_schema.text())
    written = yaml.safe_load(write_rules(DEFAULT_RULES))
    assert mismatch(written, schema) is None
    assert mismatch(written | {"rules": [{"metric": "error"}]}, schema) == "required"
    assert mismatch(written | {"nonsense": 1}, schema) == "additionalProperties"
