"""What an interaction is monitored under where it names no version, and where counts go that have no name of their own."""

import hashlib
from functools import lru_cache
from typing import Final

import msgspec

from schemas.messages import Interaction

FIRST_TURN: Final = 1
OTHER: Final = "other"
"""Where counts go that a block has no room to name."""


@lru_cache(maxsize=4096)
def _call_digest(response_model: str | None, prompt_name: str | None, prompt_version: str | None) -> str:
    return hashlib.sha256(msgspec.json.encode([response_model, prompt_name, prompt_version])).hexdigest()[:12]


def is_first_turn(interaction: Interaction) -> bool:
    """Whether it opens its conversation: as gateway or client say, else when its input holds exactly one user message.

    >>> from schemas.messages import ChatMessage
    >>> is_first_turn(Interaction(id="1", app="desk", input=[ChatMessage(role="user", content="Hello")]))
    True
    """
    if interaction.turn is not None:
        return interaction.turn == FIRST_TURN
    return sum(message.role == "user" for message in interaction.input) == 1


def monitored_version(interaction: Interaction) -> str:
    """The version that client or gateway names, else 12 hex digits of the digest of (response model, prompt name, prompt version)."""
    return interaction.version or _call_digest(interaction.response_model, interaction.prompt_name, interaction.prompt_version)
