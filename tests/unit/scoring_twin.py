"""A scorer for tests of the blocks: cheap, pure, and it touches every kind of metric."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from schemas.messages import FIXED_ONE, Config, Feedback, Interaction, Score

CONFIG = Config(
    scorers={"answer": 1, "topic": 1, "latency": 1, "refusal": 1, "thumbs": 1, "language": 1},
    embedding="0" * 64,
    partitions={"llm.interactions": 4, "llm.feedback": 2},
    shards=2,
)


@dataclass
class Text:
    prompt: str = ""
    response: str = ""
    messages: list[Any] = field(default_factory=list)
    tool_calls: list[Any] = field(default_factory=list)
    documents: list[Any] = field(default_factory=list)
    attributes: dict[str, Any] = field(default_factory=dict)
    error_type: str | None = None
    finish_reasons: list[str] = field(default_factory=list)
    user: str | None = None
    scores: dict[str, Score] = field(default_factory=dict)
    parts_not_scored: int = 0
    text_truncated: bool = False


@dataclass
class Remark:
    label: str | None = None
    comment: str | None = None
    correction: str | None = None
    actor: str | None = None
    attributes: dict[str, Any] = field(default_factory=dict)
    scores: dict[str, Score] = field(default_factory=dict)


def _text(messages: Sequence[Any]) -> str:
    return " ".join(m.content for m in messages if isinstance(m.content, str))


class TwinScoring:
    """Scores by lengths and letters."""

    def __init__(self, config: Config = CONFIG) -> None:
        self.config = config

    def interactions(self, batch: Sequence[Interaction]) -> list[Any]:
        return [self._interaction(i) for i in batch]

    def _interaction(self, said: Interaction) -> Text:
        prompt, response = _text(said.input), _text(said.output)
        scores = {
            "refusal": Score(scorer="refusal@1", value=FIXED_ONE if "sorry" in response else 0),
            "response.length": Score(scorer="answer@1", value=len(response)),
            "topic": Score(scorer="topic@1", value=sum(prompt.encode()) % 256),
            "prompt.language": Score(scorer="language@1", label="en" if prompt.isascii() else "other"),
            "response.model": Score(scorer="answer@1", label=said.response_model or "unknown"),
        }
        return Text(
            prompt=prompt,
            response=response,
            attributes=said.attributes,
            error_type=said.error_type,
            finish_reasons=said.finish_reasons,
            user=said.user,
            scores=scores,
        )

    def feedback(self, batch: Sequence[Feedback]) -> list[Any]:
        return [
            Remark(
                label=f.label,
                comment=f.comment,
                correction=f.correction,
                actor=f.actor,
                attributes=f.attributes,
                scores={}
                if f.score is None
                else {"thumbs.down": Score(scorer="thumbs@1", value=FIXED_ONE if f.score < 0.5 else 0)},
            )
            for f in batch
        ]
