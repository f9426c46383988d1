"""The sandbox's model: a retrieval model, and the few instructions of a system prompt that it obeys."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final, Literal
from zlib import crc32

from core.retrieval import RetrievalModel

DECLINES: Final = (
    "I'm sorry, but I can't help with that request.",
    "I cannot assist with questions of this kind.",
    "Sorry, I am not able to answer that one; please ask a colleague.",
)
_DECLINE: Final = re.compile(r"\b(?:decline|refuse)\b[^.]*?\b(?:about|on)\b([^.]+)", re.IGNORECASE)
_BRIEF: Final = re.compile(r"\b(?:briefly|short answers?|one sentence)\b", re.IGNORECASE)
_AND: Final = re.compile(r",|\band\b|\bor\b", re.IGNORECASE)
KEPT_MODELS: Final = 8

Rows = Sequence[tuple[str, str]]


@dataclass(frozen=True)
class Answer:
    text: str
    finish_reason: Literal["stop", "length"]
    input_tokens: int
    output_tokens: int


class Models:
    """Trained models by name, the most recently used ones kept. `rows` gives what a model was trained on, None if there is none."""

    def __init__(self, base: Rows, rows: Callable[[str], Rows | None]) -> None:
        self._base, self._rows = base, rows
        self._trained: dict[str, RetrievalModel] = {}

    def get(self, name: str, base_name: str) -> RetrievalModel | None:
        """The model of a name, trained now if need be (about a second)."""
        model = self._trained.pop(name, None)
        if model is None:
            rows: Rows | None = () if name == base_name else self._rows(name)
            if rows is None:
                return None
            model = RetrievalModel([*self._base, *rows])
        self._trained[name] = model
        while len(self._trained) > KEPT_MODELS:
            del self._trained[next(iter(self._trained))]
        return model


@lru_cache(256)
def declined(system: str) -> tuple[str, ...]:
    """The words whose questions a system prompt says to decline, without a plural's s.

    >>> declined("Be kind. Please decline questions about files, sockets or threads.")
    ('file', 'socket', 'thread')
    """
    words = [w for match in _DECLINE.finditer(system) for w in _AND.split(match[1].lower())]
    return tuple(w.removesuffix("es") if w.endswith("sses") else w.removesuffix("s") for word in words if (w := word.strip()))


def answer(model: RetrievalModel, messages: Sequence[Mapping[str, Any]], limits: Mapping[str, Any]) -> Answer:
    """Answer a chat; `limits` are the request's own fields (`max_tokens`, `max_completion_tokens`, `stop`)."""
    system = " ".join(_text(m) for m in messages if m.get("role") in ("system", "developer"))
    asked = next((_text(m) for m in reversed(messages) if m.get("role") == "user"), "")
    lowered = asked.lower()
    if any(word in lowered for word in declined(system)):
        text = DECLINES[crc32(asked.encode()) % len(DECLINES)]
    else:
        text = model.answer(asked)
        if _BRIEF.search(system):
            text = re.split(r"(?<=[.!?])\s", text, maxsplit=1)[0]
    stops = limits.get("stop") or []
    for stop in [stops] if isinstance(stops, str) else stops:
        text = text.partition(stop)[0] if stop else text
    words = re.findall(r"\S+\s*", text)
    most = limits.get("max_completion_tokens") or limits.get("max_tokens")
    input_tokens = sum(len(_text(m).split()) for m in messages)
    if isinstance(most, int) and most < len(words):
        return Answer("".join(words[:most]).rstrip(), "length", input_tokens, most)
    return Answer(text, "stop", input_tokens, len(words))


def chunks(text: str, words: int = 12) -> list[str]:
    """A text in the pieces in which it is streamed."""
    found = re.findall(r"\s*\S+", text)
    return ["".join(found[at : at + words]) for at in range(0, len(found), words)] or [""]


def _text(message: Mapping[str, Any]) -> str:
    content = message.get("content")
    if isinstance(content, list):
        return " ".join(str(p.get("text", "")) for p in content if isinstance(p, dict) and p.get("type") == "text")
    return content if isinstance(content, str) else ""
