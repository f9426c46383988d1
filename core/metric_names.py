"""The names under which a backtest reports what is watched, where they differ from a metric's own."""

from collections.abc import Collection, Mapping
from typing import Final

from core.metrics import HARMS, RATING, TOPIC_MIX

FEEDBACK: Final = "feedback."
TOPIC_NOVELTY: Final = "topic.novelty"
"""Judged together with `topic.mix`, of one weight."""
_STATED: Final[Mapping[str, str]] = {
    "prompt.language": "language",
    "response.length": "length",
    "response.model": "response_model",
    **{f"response.safety.{harm}": f"safety.{harm}" for harm in (*HARMS, "unsafe")},
}


def stated_name(metric: str, feedback: Collection[str] = ()) -> str:
    """The reported name of a metric; `feedback` are the names of the acts that its app's thumbs were counted from.

    >>> stated_name("response.length"), stated_name("response.safety.hate"), stated_name("refusal")
    ('length', 'safety.hate', 'refusal')
    >>> stated_name("thumbs.down", {"rating"}), stated_name("thumbs.down", {"rating", "like"})
    ('feedback.rating', 'feedback.thumbs')
    """
    if metric == RATING:
        return FEEDBACK + (next(iter(feedback)) if len(feedback) == 1 else "thumbs")
    return _STATED.get(metric, metric)


def is_named(wanted: str, metric: str, stated: str) -> bool:
    """Whether a name that a person wrote means a metric with this own and stated name.

    >>> is_named("topic.novelty", "topic.mix", "topic.mix"), is_named("thumbs.down", "thumbs.down", "feedback.rating")
    (True, True)
    """
    return wanted in (metric, stated) or {wanted, metric} == {TOPIC_NOVELTY, TOPIC_MIX}
