"""What an interaction is monitored under where it names no version, and where counts go that have no name of their own."""

import hashlib
import zlib
from collections.abc import Sequence
from functools import lru_cache
from typing import Final, Literal

import msgspec

from schemas.messages import ChatMessage, Interaction

FIRST_TURN: Final = 1
OTHER: Final = "other"
"""Where counts go that a block has no room to name."""
Turns = Literal["first", "later", "rest"]
"""First turns are one per conversation, `later` is one later turn of each, `rest` is shown and never judged."""
_HASHES: Final = 1 << 32
_SECOND: Final = 2
_KEY_LENGTH: Final = 1_000
_WITHIN: Final = ("tool", "function")
"""Roles of a last message after which a turn goes on."""


@lru_cache(maxsize=4096)
def _call_digest(response_model: str | None, prompt_name: str | None, prompt_version: str | None) -> str:
    return hashlib.sha256(msgspec.json.encode([response_model, prompt_name, prompt_version])).hexdigest()[:12]


def turn_of(interaction: Interaction) -> int | None:
    """Its place in its conversation, from 1: as gateway or client say, else the number of user messages in its input.

    >>> turn_of(Interaction(id="1", app="desk", input=[ChatMessage(role="user", content="Hello")]))
    1
    """
    return told_turn(interaction.turn, interaction.input)


def told_turn(stated: int | None, messages: Sequence[ChatMessage]) -> int | None:
    """The turn as stated, else as the messages of the conversation so far tell it; None where they do not."""
    return stated if stated is not None else sum(message.role == "user" for message in messages) or None


def sampled_turn(conversation: str) -> int:
    """The later turn that speaks for a conversation, by a hash: it is >= k for 1 in k - 1 conversations, for every k >= 2.

    >>> turns = [sampled_turn(f"conversation-{n}") for n in range(10_000)]
    >>> [round(sum(turn >= k for turn in turns) / 10_000, 1) for k in (2, 3, 6)]
    [1.0, 0.5, 0.2]
    """
    return 1 + _HASHES // (zlib.crc32(conversation.encode(errors="surrogatepass")) + 1)


def turns_of(interaction: Interaction, turn: int | None) -> Turns:
    """With which turns it is counted. Without a stated conversation what was said first in it, and what was answered, stands
    for it, where that is in the input; an interaction of which nobody tells the turn is taken for a first one (a span whose content
    comes apart should tell it). Of a turn that goes on after a tool's result nothing further is judged."""
    if interaction.input and interaction.input[-1].role in _WITHIN:
        return "rest"
    if turn is None or turn <= FIRST_TURN:
        return "first"
    key = interaction.conversation or None
    if key is None:
        said = [message.content for message in interaction.input if message.role in ("user", "assistant")]
        key = str(said[:2])[:_KEY_LENGTH] if len(said) > 1 else None
    return "later" if is_sampled(turn, key) else "rest"


def is_sampled(turn: int, conversation: str | None) -> bool:
    """Whether it is the later turn that speaks for its conversation: the second, where the conversation has no name."""
    return turn == (_SECOND if conversation is None else sampled_turn(conversation))


def monitored_version(interaction: Interaction) -> str:
    """The version that client or gateway names, else 12 hex digits of the digest of (response model, prompt name, prompt version)."""
    return interaction.version or _call_digest(interaction.response_model, interaction.prompt_name, interaction.prompt_version)
