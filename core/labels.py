"""Labels of rows: which names a row says are so, or are not so."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import msgspec

from core.score_lines import METRIC_OF, BadRow, Row, read_row
from schemas.codec import InvalidMessage, decode
from schemas.messages import ChatMessage, Message

MAX_NAME: Final = 128
FIELDS: Final[Mapping[str, str]] = {
    "harmful": "prompt.safety.unsafe",
    "jailbreak": "prompt.safety.jailbreak",
    "injection": "prompt.safety.jailbreak",
    "response_harmful": "response.safety.unsafe",
    "refusal": "response.refusal",
}
"""Fields of 0 or 1 that public data sets have, and the name of the score that they label."""


class LabelledLine(Message):
    """What a row may say of its labels; `weak` marks one that was made by a machine or from afar."""

    label: dict[str, int | bool] | int | bool | None = None
    name: str | None = None
    source: str | None = None
    language: str | None = None
    lang: str | None = None
    harmful: int | bool | None = None
    jailbreak: int | bool | None = None
    injection: int | bool | None = None
    response_harmful: int | bool | None = None
    refusal: int | bool | None = None


@dataclass(frozen=True)
class Labelled:
    """A row that can be scored, with its labels by name."""

    row: Row
    labels: dict[str, int]
    source: str | None
    language: str | None


def read_labelled(line: bytes, number: int, app: str, environment: str, fields: Mapping[str, str]) -> Labelled | BadRow:
    """A labelled row; the `text` of one whose labels are all of responses is the response."""
    row = read_row(line, number, app, environment)
    if isinstance(row, BadRow):
        return row
    try:
        labels, given = read_labels(line, fields)
    except InvalidMessage as error:
        return BadRow(row.id, f"{error.reason} ({error.field})")
    said = row.interaction
    if labels and row.given == {"prompt"} and len(said.input) == 1 and all(_of_response(name) for name in labels):
        answer = ChatMessage(role="assistant", content=said.input[0].content)
        row = Row(row.id, msgspec.structs.replace(said, input=[], output=[answer]), frozenset({"response"}))
    return Labelled(row, labels, given.source, given.language or given.lang)


def _of_response(name: str) -> bool:
    return name.startswith("response.") or METRIC_OF.get(name, name) == "refusal"


def read_labels(line: bytes, fields: Mapping[str, str] = FIELDS) -> tuple[dict[str, int], LabelledLine]:
    """(name → 0 or 1, the row): `{"label": {NAME: 0 or 1}}`, `{"name": NAME, "label": 0 or 1}`, or `fields`.

    Of several fields for one name the largest counts. Raises InvalidMessage.

    >>> read_labels(b'{"jailbreak": 0, "injection": 1}')[0]
    {'prompt.safety.jailbreak': 1}
    """
    row = decode(LabelledLine, line)
    said: dict[str, int] = {}
    if isinstance(row.label, dict):
        said = {name: _checked(name, value) for name, value in row.label.items()}
    elif row.label is not None and row.name is not None:
        said = {row.name: _checked(row.name, row.label)}
    for field, name in fields.items():
        value = getattr(row, field, None) if field in FIELDS else _unknown(row, field)
        if value is not None:
            said[name] = max(said.get(name, 0), _checked(field, value))
    if any(not name or len(name) > MAX_NAME for name in said):
        raise InvalidMessage("invalid", f"a name is empty or longer than {MAX_NAME} characters", "label")
    return said, row


def _unknown(row: LabelledLine, field: str) -> int | bool | None:
    raw = row.extra.get(field)
    if raw is None:
        return None
    return {b"0": 0, b"1": 1, b"false": 0, b"true": 1, b"null": None}.get(bytes(raw).strip(), -1)


def _checked(name: str, value: int | bool) -> int:
    if value not in (0, 1):
        raise InvalidMessage("invalid", "a label is 0 or 1", name[:MAX_NAME])
    return int(value)
