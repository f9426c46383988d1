"""`bellbuoy adapt` from end to end, without a stack: learn, refuse, activate, apply, roll back."""

import json
from collections.abc import Callable
from pathlib import Path
from random import Random

import pytest
from typer.testing import CliRunner, Result

from bellbuoy.cli.main import app
from tests.unit.adapted_twin import WORDS

Run = Callable[..., Result]
NAME = "prompt.safety.unsafe"


@pytest.fixture
def run(tmp_path: Path) -> Run:
    def call(*arguments: str) -> Result:
        return CliRunner(env={"BELLBUOY_DATA_DIR": str(tmp_path / "data")}).invoke(app, list(arguments))

    return call


@pytest.fixture
def labels(tmp_path: Path) -> Path:
    """An app's own rule: who speaks of the rival is labelled."""
    draw = Random(1)
    rows = []
    for _ in range(160):
        label = int(draw.random() < 0.3)
        text = " ".join(draw.choices(WORDS, k=10) + ["acmebank"] * label)
        rows.append({"text": text, "name": NAME, "label": label})
    file = tmp_path / "labels.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return file


def value(run: Run, tmp_path: Path, app_: str) -> float:
    file = tmp_path / "row.jsonl"
    file.write_text('{"text": "please tell me about acmebank and the train to town"}\n')
    result = run("score", str(file), "--app", app_, "--scorers", "safety")
    return float(json.loads(result.stdout)["scores"][NAME]["value"])


def states(run: Run) -> list[tuple[int, str, int]]:
    listed = json.loads(run("adapt", "--app", "desk", "--list", "--json").stdout)
    return [(entry["version"], entry["state"], entry["restores"]) for entry in listed]


def test_a_correction_holds_once_it_is_activated_and_for_its_app_alone(run: Run, labels: Path, tmp_path: Path) -> None:
    result = run("adapt", "--app", "desk", "--labels", str(labels))
    assert (result.exit_code, states(run)) == (0, [(1, "learned", 0)])
    assert value(run, tmp_path, "desk") < 0.5
    assert run("adapt", "--app", "desk", "--activate").exit_code == 0
    assert value(run, tmp_path, "desk") >= 0.5
    assert value(run, tmp_path, "other") < 0.5


def test_a_rollback_brings_back_what_was_before(run: Run, labels: Path, tmp_path: Path) -> None:
    for _ in range(2):
        assert run("adapt", "--app", "desk", "--labels", str(labels), "--activate").exit_code == 0
    assert run("adapt", "--app", "desk", "--rollback").exit_code == 0
    assert states(run) == [(1, "was active", 0), (2, "was active", 0), (3, "active", 1)]
    assert run("adapt", "--app", "desk", "--rollback").exit_code == 0
    assert value(run, tmp_path, "desk") < 0.5
    assert "no correction of desk is active" in run("adapt", "--app", "desk", "--rollback").stderr


def test_a_dry_run_keeps_nothing(run: Run, labels: Path, tmp_path: Path) -> None:
    result = run("adapt", "--app", "desk", "--labels", str(labels), "--dry-run", "--json")
    report = json.loads(result.stdout)
    assert report["after"]["auprc"]["value"] > report["before"]["auprc"]["value"]
    assert not (tmp_path / "data" / "adapted").exists()


def test_labels_that_tell_nothing_are_refused(run: Run, labels: Path) -> None:
    draw = Random(3)
    rows = [json.loads(line) | {"label": int(draw.random() < 0.3)} for line in labels.read_text().splitlines()]
    labels.write_text("".join(json.dumps(row | {"text": row["text"].replace("acmebank", "")}) + "\n" for row in rows))
    result = run("adapt", "--app", "desk", "--labels", str(labels), "--activate")
    assert result.exit_code == 1
    assert "is not shown to do better" in result.stderr
    assert states(run) == []


def test_too_few_labels_are_refused(run: Run, labels: Path) -> None:
    labels.write_text("".join(labels.read_text().splitlines(keepends=True)[:50]))
    result = run("adapt", "--app", "desk", "--labels", str(labels))
    assert result.exit_code == 1
    assert "are needed, and 100 together" in result.stderr


def test_copies_of_a_row_do_not_make_enough_labels(run: Run, labels: Path) -> None:
    labels.write_text("".join(labels.read_text().splitlines(keepends=True)[:5] * 100))
    assert "are needed, and 100 together" in run("adapt", "--app", "desk", "--labels", str(labels)).stderr


def test_a_score_that_is_not_learned_is_refused(run: Run, labels: Path) -> None:
    labels.write_text(labels.read_text().replace(NAME, "prompt.pii"))
    assert "prompt.pii is no score that labels can correct" in run("adapt", "--app", "desk", "--labels", str(labels)).stderr


def test_one_thing_is_asked_for_at_a_time(run: Run, labels: Path) -> None:
    result = run("adapt", "--app", "desk", "--labels", str(labels), "--rollback")
    assert (result.exit_code, result.stderr.strip()) == (1, "say one of --labels FILE, --activate, --rollback, --list")
