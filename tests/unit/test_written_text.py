import json
import re
from collections import Counter
from pathlib import Path

import pytest

WRITTEN = Path(__file__).parents[2] / "core" / "training" / "written"
CATEGORIES = {"hate", "harassment", "sexual", "sexual_minors", "violence", "self_harm", "illicit"}
PROMPT_LABELS = CATEGORIES | {"unsafe", "jailbreak"}
ANSWER_LABELS = CATEGORIES | {"response_unsafe", "refusal"}
PRIVATE = {
    "e-mail address": r"[\w.+-]+@[\w-]+\.[a-z]{2,}",
    "phone number": r"(?<![\w.])\+?\d[\d ()./-]{8,}\d",
    "key": r"\b(?:sk|pk|ghp|xox[abp]|AKIA)[-_]?[A-Za-z0-9]{12,}|-----BEGIN",
    "long token": r"\b(?=\w*\d)(?=\w*[A-Za-z])\w{40,}\b",
}


def _rows(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


FILES = sorted(WRITTEN.glob("*.jsonl"))
ROWS = [(path.name, row) for path in FILES for row in _rows(path)]


def _texts(row: dict) -> list[str]:
    return [row[name] for name in ("text", "prompt", "response") if name in row]


def test_there_is_written_text() -> None:
    assert len(ROWS) >= 3000


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_a_file_is_at_most_one_megabyte(path: Path) -> None:
    assert path.stat().st_size <= 1_000_000


def test_a_row_is_a_prompt_or_an_answer_to_a_prompt() -> None:
    shapes = {frozenset(row) - {"labels", "theme"} for _, row in ROWS}
    assert shapes == {frozenset({"text"}), frozenset({"prompt", "response"})}


def test_a_row_has_a_theme_and_labels_of_its_kind() -> None:
    wrong = [
        (name, row)
        for name, row in ROWS
        if not row["theme"] or not row["labels"] or not set(row["labels"]) <= (PROMPT_LABELS if "text" in row else ANSWER_LABELS)
    ]
    assert wrong == []


def test_labels_are_zero_or_one() -> None:
    assert {value for _, row in ROWS for value in row["labels"].values()} == {0, 1}


def test_each_label_has_both_classes() -> None:
    seen = {(label, value) for _, row in ROWS for label, value in row["labels"].items()}
    assert seen == {(label, value) for label in PROMPT_LABELS | ANSWER_LABELS for value in (0, 1)}


def test_what_belongs_to_a_category_is_unsafe() -> None:
    wrong = [
        (name, row)
        for name, row in ROWS
        if any(row["labels"].get(category) for category in CATEGORIES)
        and not row["labels"].get("unsafe" if "text" in row else "response_unsafe", 1)
    ]
    assert wrong == []


def test_no_text_stands_twice() -> None:
    # The same answer may be given to two prompts, the same prompt may get two answers.
    counts = Counter(json.dumps(_texts(row)) for _, row in ROWS)
    assert [text for text, count in counts.items() if count > 1] == []


def test_no_text_is_empty_or_padded() -> None:
    assert [row for _, row in ROWS if any(not text or text != text.strip() for text in _texts(row))] == []


@pytest.mark.parametrize("kind", PRIVATE)
def test_no_text_holds_private_data(kind: str) -> None:
    pattern = re.compile(PRIVATE[kind], re.IGNORECASE)
    assert [found.group() for _, row in ROWS for text in _texts(row) for found in pattern.finditer(text)] == []
