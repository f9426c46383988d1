"""What an upstream answered to a chat completion, as one JSON object or as a stream of server-sent events."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Final

import msgspec

from schemas.limits import MAX_ID, MAX_NAME, MAX_NUMBER
from schemas.messages import ToolCall

_MAX_CHOICES: Final = 128


@dataclass
class Choice:
    """One choice's message, put together from as many pieces as came. A refusal counts as its text."""

    role: str = "assistant"
    pieces: list[str] = field(default_factory=list)
    calls: dict[int, dict[str, Any]] = field(default_factory=dict)
    """By index: `id`, `name` and the pieces of `arguments`."""

    @property
    def text(self) -> str:
        return "".join(self.pieces)


@dataclass
class Answer:
    """`ended`: the stream said that it was complete. `failed`: it carried an error."""

    model: str | None = None
    choices: list[Choice] = field(default_factory=list)
    finish_reasons: list[str] = field(default_factory=list)
    input_tokens: int | None = None
    output_tokens: int | None = None
    ended: bool = False
    failed: bool = False


def read_answer(body: bytes, *, streamed: bool) -> Answer:
    """Read what came; what is not in OpenAI's format is left out."""
    answer, choices = Answer(), dict[int, Choice]()
    for value in _events(body, answer) if streamed else _whole(body):
        _read(value, answer, choices)
    answer.choices = [choices[index] for index in sorted(choices)]
    return answer


def tool_calls(choice: Choice) -> Iterator[ToolCall]:
    """The choice's tool calls that have a name."""
    for _, call in sorted(choice.calls.items()):
        name = "".join(call["name"])[:MAX_NAME]
        if name and name.isprintable():
            id_ = call["id"]
            yield ToolCall(name=name, id=id_[:MAX_ID] if id_ else None, arguments="".join(call["arguments"]))


def _whole(body: bytes) -> Iterator[dict[str, Any]]:
    value = _decoded(body)
    if isinstance(value, dict):
        yield value


def _events(body: bytes, answer: Answer) -> Iterator[dict[str, Any]]:
    for line in body.splitlines():
        if not line.startswith(b"data:"):
            continue
        data = line[5:].strip()
        if data == b"[DONE]":
            answer.ended = True
        elif isinstance(value := _decoded(data), dict):
            yield value


def _read(value: dict[str, Any], answer: Answer, choices: dict[int, Choice]) -> None:
    if value.get("error"):
        answer.failed = True
    if isinstance(model := value.get("model"), str) and model:
        answer.model = model
    if isinstance(usage := value.get("usage"), dict):
        answer.input_tokens = _count(usage.get("prompt_tokens"))
        answer.output_tokens = _count(usage.get("completion_tokens"))
    found = value.get("choices")
    for position, said in enumerate(found if isinstance(found, list) else ()):
        if not isinstance(said, dict):
            continue
        index = said.get("index")
        index = index if type(index) is int and 0 <= index < _MAX_CHOICES else position % _MAX_CHOICES
        choice = choices.setdefault(index, Choice())
        message = said.get("delta") or said.get("message")
        if isinstance(message, dict):
            _add(message, choice)
        if isinstance(reason := said.get("finish_reason"), str) and reason:
            answer.finish_reasons.append(reason)
            answer.ended = True


def _add(message: dict[str, Any], choice: Choice) -> None:
    if isinstance(role := message.get("role"), str) and role:
        choice.role = role
    choice.pieces += [text for name in ("content", "refusal") if isinstance(text := message.get(name), str)]
    calls = message.get("tool_calls")
    for position, call in enumerate(calls if isinstance(calls, list) else ()):
        if isinstance(call, dict):
            index = call.get("index")
            _add_call(call.get("function") or call.get("custom"), call.get("id"), choice, index, position)
    if "function_call" in message:
        _add_call(message["function_call"], None, choice, 0, 0)


def _add_call(function: Any, id_: Any, choice: Choice, index: Any, position: int) -> None:
    if not isinstance(function, dict):
        return
    at = index if type(index) is int and 0 <= index < _MAX_CHOICES else position
    call = choice.calls.setdefault(at, {"id": None, "name": [], "arguments": []})
    if isinstance(id_, str) and id_.isprintable():
        call["id"] = id_
    if isinstance(name := function.get("name"), str):
        call["name"].append(name)
    for key in ("arguments", "input"):
        if isinstance(text := function.get(key), str):
            call["arguments"].append(text)


def _count(value: Any) -> int | None:
    return value if type(value) is int and 0 <= value <= MAX_NUMBER else None


def _decoded(raw: bytes) -> Any:
    try:
        return msgspec.json.decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
