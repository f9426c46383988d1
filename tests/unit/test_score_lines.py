"""`bellbuoy score`: rows of every form, bad rows, the names that come out."""

import gzip
import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from bellbuoy.cli.main import app
from bellbuoy.score_files import BLOCK, UnreadableFile, lines, read_rows, score_rows
from core.pii_rules import KINDS
from core.score_lines import BadRow, Results, Row, encode_result, read_row
from core.scoring import SCORERS
from tests.unit.test_scoring import scoring


def parsed(value: object) -> Row:
    row = read_row(json.dumps(value).encode(), 3, "a", "production")
    assert isinstance(row, Row)
    return row


def scored(*values: object) -> list[dict[str, Any]]:
    rows = [parsed(value) for value in values]
    texts = scoring().interactions([row.interaction for row in rows])
    results = Results(SCORERS)
    return [json.loads(encode_result(row, results.scores(row, text), text)) for row, text in zip(rows, texts, strict=True)]


def names(value: object) -> set[str]:
    return set(scored(value)[0]["scores"])


def test_text_counts_as_the_prompt() -> None:
    assert parsed({"text": "hello"}).interaction == parsed({"prompt": "hello"}).interaction


def test_the_assistants_last_messages_are_the_response() -> None:
    said = [("user", "a"), ("assistant", "b"), ("user", "c"), ("assistant", "d")]
    (result,) = scored({"messages": [{"role": role, "content": content} for role, content in said]})
    assert (result["prompt"], result["response"]) == ("c", "d")


def test_a_row_without_an_id_gets_its_line_number() -> None:
    assert parsed({"text": "a"}).id == 3


@pytest.mark.parametrize("id_", ["x", 17, ""])
def test_an_id_comes_back_as_it_was_given(id_: object) -> None:
    assert parsed({"id": id_, "text": "a"}).id == id_


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"nonsense",
        b"[]",
        b"null",
        b"{}",
        b'{"text": null}',
        b'{"text": 1}',
        b'{"text": "a", "prompt": "b"}',
        b'{"text": "a", "messages": []}',
        b'{"messages": []}',
        b'{"messages": [{"content": "a"}]}',
        b'{"text": "\\ud800"}',
        b'{"text": "\xff"}',
        b"[" * 100_000,
        b'{"id": {}, "text": "a"}',
    ],
)
def test_a_bad_row_is_an_error_with_the_lines_number(line: bytes) -> None:
    row = read_row(line, 3, "a", "production")
    assert isinstance(row, BadRow)
    assert row.id == 3
    assert row.error


def test_a_bad_row_keeps_its_id() -> None:
    assert read_row(b'{"id": "x", "text": 1}', 3, "a", "production").id == "x"


def test_every_row_of_a_form_has_the_same_names() -> None:
    texts = ["", " ", "hello there", "mail a@example.org", "x" * 100_000, "🙂", "\u202e\u200b"]
    assert len({frozenset(names({"prompt": text, "response": text})) for text in texts}) == 1


def test_a_prompt_alone_gets_names_of_prompts_only() -> None:
    assert {name.partition(".")[0] for name in names({"text": "hello"})} == {"prompt"}


def test_a_response_alone_gets_names_of_responses_only() -> None:
    assert {name.partition(".")[0] for name in names({"response": "hello"})} == {"response"}


def test_every_kind_of_personal_data_is_named() -> None:
    assert {f"prompt.pii.{kind}" for kind in KINDS} <= names({"text": "hello"})


def test_a_kind_that_fires_carries_its_spans_in_the_redacted_text() -> None:
    (result,) = scored({"text": "mail me at joe@example.org or at ann@example.org"})
    spans = [(r["start"], r["end"]) for r in result["scores"]["prompt.pii.email"]["reasons"]]
    assert [result["prompt"][start:end] for start, end in spans] == ["[EMAIL]", "[EMAIL]"]


def test_every_value_lies_between_0_and_1() -> None:
    (result,) = scored({"prompt": "how do i read a csv file", "response": "I'm sorry, but I can't help with that."})
    assert [name for name, score in result["scores"].items() if not 0 <= score["value"] <= 1] == []


def test_a_refusal_has_the_name_of_a_response() -> None:
    (result,) = scored({"response": "I'm sorry, but I can't help with that."})
    assert result["scores"]["response.refusal"]["value"] > 0.5


def test_lines_are_numbered_with_the_blank_ones(tmp_path: Path) -> None:
    file = tmp_path / "rows.jsonl"
    file.write_bytes(b"a\n\n  \nb")
    assert list(lines(file)) == [(1, b"a\n"), (4, b"b")]


def test_gzip_is_read_as_it_is(tmp_path: Path) -> None:
    file = tmp_path / "rows"
    file.write_bytes(gzip.compress(b"a\nb\n"))
    assert [line for _, line in lines(file)] == [b"a\n", b"b\n"]


def test_a_cut_gzip_file_says_so(tmp_path: Path) -> None:
    file = tmp_path / "rows.gz"
    file.write_bytes(gzip.compress(b"a\nb\n" * 1_000)[:-9])
    with pytest.raises(UnreadableFile, match="no whole gzip file"):
        list(lines(file))


def test_blocks_do_not_change_a_score(tmp_path: Path) -> None:
    file = tmp_path / "rows.jsonl"
    file.write_text("".join(json.dumps({"text": f"how do i sort {n}"}) + "\n" for n in range(BLOCK + 5)))
    together = [text for block in score_rows(scoring(), read_rows(file, "a", "production")) for _, text in block]
    alone = [scoring().interactions([row.interaction])[0] for row in read_rows(file, "a", "production") if isinstance(row, Row)]
    assert together == alone


def run(*arguments: str, stdin: str | None = None) -> Result:
    return CliRunner().invoke(app, ["score", *arguments], input=stdin)


def test_the_command_goes_on_after_a_bad_row_and_exits_1() -> None:
    result = run("-", "--scorers", "pii", stdin='{"text": "a"}\n{\n{"id": "z", "text": "b"}\n')
    printed = [json.loads(line) for line in result.stdout.splitlines()]
    assert result.exit_code == 1
    assert [(row["id"], "error" in row) for row in printed] == [(1, False), (2, True), ("z", False)]


def test_the_command_writes_a_file_only_when_it_is_whole(tmp_path: Path) -> None:
    file, out = tmp_path / "rows.gz", tmp_path / "out.jsonl"
    file.write_bytes(gzip.compress(b'{"text": "a"}\n' * 1_000)[:-9])
    result = run(str(file), "--out", str(out))
    assert result.exit_code == 1
    assert list(tmp_path.iterdir()) == [file]


def test_an_unknown_scorer_is_an_error_that_lists_those_there_are() -> None:
    result = run("-", "--scorers", "nonsense", stdin="")
    assert result.exit_code == 1
    assert "topic" in result.stderr
