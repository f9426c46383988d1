"""Training of the sandbox's models: a file's examples, what is wrong with them, and how well a model has learnt them."""

import math
from collections.abc import Sequence
from typing import Final

import msgspec

from core.retrieval import RetrievalModel, Rows, accuracy

MIN_EXAMPLES: Final = 10
MAX_EXAMPLES: Final = 50_000
CHECKPOINTS: Final = 3
MEASURED: Final = 30
"""Rows that a checkpoint's accuracy is measured on."""


class _ExampleMessage(msgspec.Struct):
    role: str
    content: str | None = None
    weight: int = 1


class _Example(msgspec.Struct):
    messages: list[_ExampleMessage]


class InvalidExamples(ValueError):
    """A file that nothing can be trained on; the message names the line."""


class Course(msgspec.Struct, kw_only=True):
    """What becomes of a job: why its file is refused, or how the model learnt."""

    problem: str | None = None
    examples: int = 0
    tokens: int = 0
    curve: list[dict[str, float]] = []
    """Metrics by checkpoint in OpenAI's names: loss is the share of examples that are answered otherwise than trained."""


def parse_examples(content: bytes) -> list[tuple[str, str]]:
    """(question, answer) of each line of a training file: the last user and assistant messages. Raises InvalidExamples."""
    try:
        lines = content.decode("utf-8-sig").split("\n")
    except UnicodeDecodeError:
        raise InvalidExamples("the file is not UTF-8") from None
    rows = []
    decoder = msgspec.json.Decoder(_Example)
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            messages = decoder.decode(line).messages
        except (msgspec.DecodeError, RecursionError):
            messages = []
        asked = [m.content for m in messages if m.role == "user" and m.content is not None]
        answered = [m.content for m in messages if m.role == "assistant" and m.content is not None and m.weight]
        if not asked or not answered:
            raise InvalidExamples(f"line {number} is no chat example with a user and an assistant message")
        rows.append((asked[-1], answered[-1]))
    if not MIN_EXAMPLES <= len(rows) <= MAX_EXAMPLES:
        raise InvalidExamples(
            f"the file has {len(rows)} examples; at least {MIN_EXAMPLES} are needed, at most {MAX_EXAMPLES} taken"
        )
    return rows


def course(base: RetrievalModel, training: bytes, validation: bytes | None) -> Course:
    """Validate the files, and train and measure the checkpoints (about 25 µs a row and 0.2 ms a measured one)."""
    try:
        rows = parse_examples(training)
        held_out = parse_examples(validation) if validation is not None else []
    except InvalidExamples as error:
        return Course(problem=str(error))
    curve = []
    for number in range(1, CHECKPOINTS + 1):
        step = math.ceil(len(rows) * number / CHECKPOINTS)
        model = RetrievalModel(rows[:step], base)
        right = accuracy(model, _sample(rows))
        point = {"step": float(step), "train_loss": 1 - right, "train_mean_token_accuracy": right}
        if held_out:
            right = accuracy(model, _sample(held_out))
            point |= {"full_valid_loss": 1 - right, "full_valid_mean_token_accuracy": right}
        curve.append(point)
    tokens = sum(len(question.split()) + len(answer.split()) for question, answer in rows)
    return Course(examples=len(rows), tokens=tokens, curve=curve)


def _sample(rows: Rows) -> Sequence[tuple[str, str]]:
    return rows[:: math.ceil(len(rows) / MEASURED)]
