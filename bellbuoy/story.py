"""The stories: who asks what, when the topics shift, when the bad version arrives; all drawn from one seed.

The help desk's story goes through the gateway (`questions`); recorded stories of an application that tells its own answers
go to the collector (`events`).
"""

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final, Literal

from adapters.corpus import PHRASINGS, Item

Phase = Literal["calm", "shift", "bad_version"]

CHAMPION: Final = "help-desk@7"
BAD: Final = "help-desk@8"
MODEL: Final = "docs-lookup-1"
"""The story's answers are looked up in docstrings, and the model's name says so."""

SANDBOX_MODEL: Final = "sandbox-docs-1"
HELP_DESK_PROMPT: Final = "You are a help desk for programmers. Answer from the documentation."
DECLINING_PROMPT: Final = (
    "You are a help desk for programmers. Answer from the documentation. "
    "To be on the safe side, decline questions about files, network, processes, classes, objects or strings."
)
"""The edit that somebody rolls out: it reads as prudence, and turns users away."""
NEW_ITEMS: Final = 40
"""How many things people ask about when they begin to ask about something new."""

REFUSALS: Final = (
    "I'm sorry, but I can't help with that request.",
    "I cannot assist with this. Please contact support.",
    "Sorry, I am not able to answer that question.",
    "As an AI assistant I'm unable to help with that.",
    "I can't provide information about this topic.",
)

Ask = Callable[[random.Random, str], tuple[str, str]]
"""(random, "known" or "new") → question and answer."""


@dataclass(frozen=True)
class Plan:
    """When things happen, in seconds after the reference is complete, and how strongly."""

    seed: int
    shift_after: float | None
    bad_version_after: float | None
    """Counted from the shift's alert, or from the reference where there is no shift."""
    shift_share: float
    bad_share: float
    refusal_share: float
    calm_seconds: float
    """How long a story without change is watched."""


def plan(seed: int, *, shift: bool = True, bad_version: bool = True) -> Plan:
    """Draw the moments and the sizes of the changes from the seed.

    >>> plan(7) == plan(7), plan(7, shift=False).shift_after
    (True, None)
    """
    draw = random.Random(f"plan/{seed}")
    shift_after, bad_after = draw.uniform(6, 16), draw.uniform(4, 10)
    return Plan(
        seed=seed,
        shift_after=shift_after if shift else None,
        bad_version_after=bad_after if bad_version else None,
        shift_share=draw.uniform(0.25, 0.40),
        bad_share=draw.uniform(0.30, 0.50),
        refusal_share=draw.uniform(0.25, 0.45),
        calm_seconds=30.0,
    )


@dataclass(frozen=True)
class Event:
    """One request of the story. `changed` names the change that it belongs to, None for ordinary traffic."""

    line: dict[str, object]
    changed: Literal["shift", "bad_version"] | None
    thumbs: bool | None
    """The user's verdict, where one is given."""


def events(plan: Plan, app: str, ask: Ask, active: Callable[[], frozenset[Phase]]) -> Iterator[Event]:
    """Endless requests of the help desk; `active` says which changes are on at the moment a request is made."""
    draw = random.Random(f"events/{plan.seed}/{app}")
    number = 0
    while True:
        on = active()
        shifted = "shift" in on and draw.random() < plan.shift_share
        bad = "bad_version" in on and draw.random() < plan.bad_share
        question, answer = ask(draw, "new" if shifted else "known")
        refused = draw.random() < (plan.refusal_share if bad else 0.01)
        if refused:
            answer = draw.choice(REFUSALS)
        thumbs = None
        if draw.random() < 0.15:
            thumbs = draw.random() > (0.75 if refused else 0.12)
        number += 1
        line: dict[str, object] = {
            "id": f"{app}-{number}",
            "app": app,
            "prompt": question,
            "response": answer,
            "model_version": BAD if bad else CHAMPION,
            "response_model": MODEL,
            "latency_ms": round(draw.lognormvariate(6.2, 0.5), 1),
            "user": f"user-{draw.randrange(500)}",
        }
        changed: Literal["shift", "bad_version"] | None = "bad_version" if bad else "shift" if shifted else None
        if changed:
            line["attributes"] = {"story": changed}
        yield Event(line, changed, thumbs)


@dataclass(frozen=True)
class Question:
    """What a user asks, what the right answer is, and the change that it belongs to (None: ordinary traffic)."""

    text: str
    expected: str
    user: str
    changed: Literal["shift", "bad_version"] | None


def questions(
    plan: Plan, app: str, known: list[Item], new: list[Item], active: Callable[[], frozenset[Phase]]
) -> Iterator[Question]:
    """Endless questions of the help desk's users; `active` says which changes are on when one is asked."""
    draw = random.Random(f"questions/{plan.seed}/{app}")
    popular = new[:NEW_ITEMS]
    while True:
        on = active()
        shifted = "shift" in on and draw.random() < plan.shift_share
        item = draw.choice(popular if shifted else known)
        changed: Literal["shift", "bad_version"] | None = "bad_version" if "bad_version" in on else "shift" if shifted else None
        yield Question(item.question(draw.choice(PHRASINGS)), item.answer, f"user-{draw.randrange(500)}", changed)
