"""What the command line prints: text from outside made harmless, times, JSON."""

import json
from typing import Any

import msgspec
import typer
from rich.markup import escape

from schemas.codec import rfc3339
from schemas.messages import Message


def safe(text: str) -> str:
    """Text that came over the log, for Rich: no markup, and no control characters that a terminal would obey."""
    return escape("".join(c if c.isprintable() else "\ufffd" for c in text))


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
