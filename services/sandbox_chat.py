"""The sandbox's model: a retrieval model, and the few instructions of a system prompt that it obeys.

It declines questions that name what the prompt says to decline ("decline questions about files or the network"), keeps to
one sentence where it is to be brief, and puts quoted words first or last ("end each answer with '…'").
"""

import re
import threading
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from random import Random
from typing import Any, Final, Literal
from zlib import crc32

import msgspec

from core.retrieval import RetrievalModel, Rows

DECLINES: Final = (
    "I'm sorry, but I can't help with that request.",
    "I cannot assist with questions of this kind.",
    "Sorry, I am not able to answer that one; please ask a colleague.",
)
_DECLINE: Final = re.compile(r"(?:\b(?:decline|refuse)|(?:\bnot|\bnever|n't) answer)\b", re.IGNORECASE)
_NEGATED: Final = re.compile(r"(?:\bnot|\bnever|n't)\s$", re.IGNORECASE)
_ABOUT: Final = re.compile(r"\b(?:about|on)\b", re.IGNORECASE)
_BRIEF: Final = re.compile(r"\b(?:briefly|be brief|short answers?|one sentence)\b", re.IGNORECASE)
_QUOTE: Final = re.compile(
    r"\b(begin|start|end)\b[^.\"“]{0,40}?\b(?:answers?|repl(?:y|ies))\b[^.\"“]{0,20}?[\"“]([^\"”]+)[\"”]", re.IGNORECASE
)
_AND: Final = re.compile(r"[,;:()\"“”]|\band\b|\bor\b", re.IGNORECASE)
_BEFORE_SUBJECT: Final = re.compile(
    r"^(?:(?:the|an?|any|anything|all|other|that|which|may|might|be|is|are|such|as|like|their|your)\s+)+", re.IGNORECASE
)
MAX_READ: Final = 4_000
"""Characters of a system prompt that are obeyed."""
KEPT_MODELS: Final = 16
MAX_STOPS: Final = 4
CHECKPOINT: Final = ":ckpt-step-"

_Stop = str | list[str]


class Message(msgspec.Struct):
    role: Literal["system", "developer", "user", "assistant", "tool", "function"]
    content: str | list[dict[str, Any]] | None = None

    def text(self) -> str:
        """The text of a message; other parts are not read."""
        if isinstance(self.content, list):
            return " ".join(part["text"] for part in self.content if isinstance(part.get("text"), str))
        return self.content or ""


class StreamOptions(msgspec.Struct):
    include_usage: bool = False


class ChatRequest(msgspec.Struct):
    """What the sandbox reads of a chat request; anything else is taken and ignored, tools among it."""

    model: str
    messages: list[Message]
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    n: int | None = None
    temperature: float | None = None
    seed: int | None = None
    max_tokens: int | None = None
    max_completion_tokens: int | None = None
    stop: _Stop | None = None

    def wrong(self) -> tuple[str, str] | None:
        """The field that cannot be taken, and why."""
        limits = (self.max_tokens, self.max_completion_tokens)
        if not self.messages:
            return "messages", "messages must not be empty"
        if self.n not in (None, 1):
            return "n", "the sandbox gives one answer"
        if not 0 <= (self.temperature or 0) <= 2:
            return "temperature", "temperature is a number from 0 to 2"
        if any(limit is not None and limit < 1 for limit in limits):
            return "max_tokens", "a limit of tokens is at least 1"
        if isinstance(self.stop, list) and len(self.stop) > MAX_STOPS:
            return "stop", f"there are up to {MAX_STOPS} stop sequences"
        return None

    def system(self) -> str:
        """The instructions: every system and developer message."""
        return " ".join(message.text() for message in self.messages if message.role in ("system", "developer"))


@dataclass(frozen=True)
class Answer:
    """A token is a word with the white space after it."""

    text: str
    finish_reason: Literal["stop", "length"]
    input_tokens: int
    output_tokens: int


class Models:
    """Trained models by name, the most recently used ones kept; safe for threads.

    `trained_on` gives the model that a fine-tuned one was trained on top of and its rows, None if there is none of the name.
    """

    def __init__(self, name: str, base: Rows, trained_on: Callable[[str], tuple[str, Rows] | None]) -> None:
        self._base_name, self._base, self._trained_on = name, RetrievalModel(base), trained_on
        self._kept: dict[str, RetrievalModel] = {}
        self._lock = threading.Lock()

    def kept(self, name: str) -> RetrievalModel | None:
        """The model if it needs no training now."""
        return self._base if name == self._base_name else self._kept.get(name)

    def get(self, name: str) -> RetrievalModel | None:
        """The model of a name, trained now if need be; a checkpoint's name ends in `:ckpt-step-<rows>`."""
        if name == self._base_name:
            return self._base
        with self._lock:
            return self._get(name)

    def _get(self, name: str) -> RetrievalModel | None:
        if name == self._base_name:
            return self._base
        model = self._kept.pop(name, None)
        if model is None:
            tuned, _, step = name.partition(CHECKPOINT)
            found = self._trained_on(tuned)
            if found is None or not (step.isdecimal() or tuned == name):
                return None
            below = self._get(found[0])
            if below is None:
                return None
            model = RetrievalModel(found[1] if tuned == name else found[1][: int(step[:9])], below)
        self._kept[name] = model
        while len(self._kept) > KEPT_MODELS:
            del self._kept[next(iter(self._kept))]
        return model


@lru_cache(64)
def declined(system: str) -> tuple[str, ...]:
    """The words whose questions a system prompt says to decline, without a plural's s.

    >>> declined("Be kind. Please decline questions about files, the network or threads. Never refuse questions about lists.")
    ('file', 'network', 'thread')
    """
    words: list[str] = []
    for sentence in system[:MAX_READ].split("."):
        verb = _DECLINE.search(sentence)
        about = _ABOUT.search(sentence, verb.end()) if verb is not None else None
        if verb is None or about is None or _NEGATED.search(sentence[: verb.start()]):
            continue
        words += (_BEFORE_SUBJECT.sub("", word.strip()) for word in _AND.split(sentence[about.end() :].lower()))
    return tuple(dict.fromkeys(_singular(word) for word in words if len(word) > 2))


def _singular(word: str) -> str:
    if word.endswith("sses"):
        return word.removesuffix("es")
    return word if len(word) == 3 else word.removesuffix("s")


@lru_cache(64)
def _around(system: str) -> tuple[str, str]:
    """What the prompt wants before and after each answer."""
    first = last = ""
    for match in _QUOTE.finditer(system):
        if match[1].lower() == "end":
            last = f" {match[2]}"
        else:
            first = f"{match[2]} "
    return first, last


def answer(model: RetrievalModel, request: ChatRequest) -> Answer:
    """Answer a chat: the last user message, under the instructions, within the request's limits."""
    system = request.system()[:MAX_READ]
    asked = next((message.text() for message in reversed(request.messages) if message.role == "user"), "")
    lowered = asked.lower()
    if any(word in lowered for word in declined(system)):
        text = DECLINES[crc32(asked.encode("utf-8", "replace")) % len(DECLINES)]
    else:
        draw = Random(request.seed) if request.temperature else None
        text = model.answer(asked, request.temperature or 0.0, draw)
        if _BRIEF.search(system):
            text = re.split(r"(?<=[.!?])\s", text, maxsplit=1)[0]
        first, last = _around(system)
        text = f"{first}{text}{last}"
    for stop in [request.stop] if isinstance(request.stop, str) else request.stop or []:
        text = text.partition(stop)[0] if stop else text
    words = re.findall(r"\S+\s*", text)
    most = request.max_completion_tokens or request.max_tokens
    input_tokens = sum(len(message.text().split()) for message in request.messages)
    if most is not None and most < len(words):
        return Answer("".join(words[:most]).rstrip(), "length", input_tokens, most)
    return Answer(text, "stop", input_tokens, len(words))


def chunks(text: str, words: int = 12) -> list[str]:
    """A text in the pieces in which it is streamed.

    >>> chunks("one two three ", 2)
    ['one two', ' three ']
    """
    found = re.findall(r"\s*\S+(?:\s+$)?", text)
    return ["".join(found[at : at + words]) for at in range(0, len(found), words)] or [text]
