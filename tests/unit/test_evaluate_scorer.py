"""`bellbuoy evaluate-scorer`: labels in their forms, and what is printed."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from bellbuoy.cli.main import app
from core.labels import FIELDS, read_labels
from schemas.codec import InvalidMessage


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (b'{"label": {"response.refusal": 1, "prompt.pii": false}}', {"response.refusal": 1, "prompt.pii": 0}),
        (b'{"name": "response.refusal", "label": 1}', {"response.refusal": 1}),
        (b'{"refusal": 0}', {"response.refusal": 0}),
        (b'{"jailbreak": 1, "injection": 0}', {"prompt.safety.jailbreak": 1}),
        (b'{"toxic": 1}', {"prompt.safety.unsafe": 1}),
        (b'{"toxic": null}', {}),
        (b'{"text": "nothing said"}', {}),
    ],
)
def test_labels_are_read_in_every_form(line: bytes, said: dict[str, int]) -> None:
    assert read_labels(line, dict(FIELDS) | {"toxic": "prompt.safety.unsafe"})[0] == said


@pytest.mark.parametrize("line", [b'{"refusal": 2}', b'{"label": {"": 1}}', b'{"toxic": "yes"}', b'{"refusal": "1"}'])
def test_a_label_that_is_neither_0_nor_1_is_refused(line: bytes) -> None:
    with pytest.raises(InvalidMessage):
        read_labels(line, dict(FIELDS) | {"toxic": "prompt.safety.unsafe"})


def run(tmp_path: Path, rows: list[object], *options: str) -> Result:
    file = tmp_path / "rows.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return CliRunner().invoke(app, ["evaluate-scorer", str(file), *options])


ROWS = [
    {"response": "I'm sorry, but I can't help with that.", "refusal": 1, "source": "ours"},
    {"response": "Of course: press the button.", "refusal": 0, "source": "ours"},
    {"response": "Open the settings.", "refusal": 0, "source": "theirs"},
]


def test_figures_are_given_over_all_and_by_source(tmp_path: Path) -> None:
    results = json.loads(run(tmp_path, [*ROWS], "--json").stdout)
    assert [(r["part"], r["which"], r["rows"]) for r in results if r["part"] != "language"] == [
        ("all", "", 3),
        ("source", "ours", 2),
        ("source", "theirs", 1),
    ]
    assert results[0]["figures"]["auroc"]["value"] == 1.0


def test_a_part_of_one_class_has_null_figures(tmp_path: Path) -> None:
    results = json.loads(run(tmp_path, [*ROWS], "--json").stdout)
    (theirs,) = [r for r in results if r["which"] == "theirs"]
    assert theirs["figures"]["auprc"]["value"] is None


def test_a_label_without_its_score_is_counted(tmp_path: Path) -> None:
    result = run(tmp_path, [*ROWS, {"response": "hello", "harmful": 1}])
    assert "1 labels are of scores that their row does not have" in result.stderr


def test_a_file_without_a_label_is_an_error(tmp_path: Path) -> None:
    result = run(tmp_path, [{"text": "hello"}, "nonsense"])
    assert result.exit_code == 1
    assert "1 have no label, 1 cannot be read" in result.stderr
