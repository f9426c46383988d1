"""What the command line prints: text from outside made harmless, times, JSON."""

import json
import sys
from collections.abc import Iterable, Sequence
from typing import Any

import msgspec
import typer
from rich.cells import cell_len
from rich.console import Console
from rich.markup import escape

from schemas.codec import rfc3339
from schemas.messages import Message


def console() -> Console:
    """Stdout: wrapped at words on a terminal, never wrapped in a pipe."""
    return Console(highlight=False, soft_wrap=not sys.stdout.isatty())


def harmless(text: str) -> str:
    """Text that came over the log, without the control characters that a terminal would obey."""
    return "".join(c if c.isprintable() else "\ufffd" for c in text)


def safe(text: str) -> str:
    """Text that came over the log, for Rich: harmless, and without markup."""
    return escape(harmless(text))


def percent(rate: float) -> str:
    """A rate as it is written everywhere: three digits.

    >>> percent(0.018712), percent(0.449), percent(0.0)
    ('1.87 %', '44.9 %', '0 %')
    """
    return f"{100 * rate:.3g} %"


def table(header: Sequence[str], rows: Iterable[Sequence[str]], *, right: Iterable[int] = ()) -> str:
    """Columns as wide as their widest cell, cut nowhere; those in `right` hold numbers.

    >>> print(table(["topic", "n"], [["llm.x", "1,024"], ["y", "7"]], right=[1]))
    topic      n
    llm.x  1,024
    y          7
    """
    lines = [header, *rows]
    widths = [max(cell_len(line[at]) for line in lines) for at in range(len(header))]
    numbers = frozenset(right)

    def cell(at: int, text: str) -> str:
        space = " " * (widths[at] - cell_len(text))
        return space + text if at in numbers else text + space

    return "\n".join("  ".join(cell(at, text) for at, text in enumerate(line)).rstrip() for line in lines)


def place(app: str, environment: str) -> str:
    """An app, and its environment where that is not production.

    >>> place("desk", "production"), place("desk", "staging")
    ('desk', 'desk (staging)')
    """
    return app if environment == "production" else f"{app} ({environment})"


def when(ms: int) -> str:
    """A time for people, in UTC, to the second.

    >>> when(1_700_000_000_123)
    '2023-11-14 22:13:20'
    """
    return rfc3339(ms)[:19].replace("T", " ")


def as_json(message: Message) -> dict[str, Any]:
    """A message as it travels, for a program to read."""
    value: dict[str, Any] = msgspec.to_builtins(message)
    value.pop("__extra__", None)
    return value


def print_json(value: Any) -> None:
    typer.echo(json.dumps(value, ensure_ascii=False))


def fail(reason: str) -> typer.Exit:
    """Say what is wrong on stderr; to be raised."""
    typer.echo(reason, err=True)
    return typer.Exit(1)
