"""Which config holds for a window, and which records are poison: llm.config read in order."""

from dataclasses import dataclass, field
from typing import Final

from schemas.codec import InvalidMessage, Record, digest, encode, read
from schemas.messages import Activation, Config, Coordinates, Poison

ACTIVATION_DELAY_MS: Final = 30_000
MAX_CONFIG_BYTES: Final = 900_000
"""So much of a config fits into one record."""


class UnknownConfig(LookupError):
    """A window for which no config is active, or an activation of a digest that is not on llm.config."""


@dataclass
class ConfigLog:
    """Everything that llm.config said so far.

    The first activation holds from the beginning of every log; a later one, appended at t, from the first window that
    starts ≥ t + 30 s. Of those that hold, the last one in the log decides. Poison counts whatever its time.
    """

    configs: dict[str, Config] = field(default_factory=dict)
    activations: list[tuple[int | None, Activation]] = field(default_factory=list)
    """(first window from which it holds, activation); None for the first one."""
    poison: frozenset[Coordinates] = frozenset()
    end: int = 0
    """Offset after the last record read."""

    def add(self, record: Record) -> None:
        """Take the next record. Raises InvalidMessage for one that this code cannot read: it must not guess what holds."""
        message = read(record)
        match message:
            case Config():
                self.configs[digest(message)] = message
            case Activation():
                self.activations.append((record.timestamp + ACTIVATION_DELAY_MS if self.activations else None, message))
            case Poison():
                self.poison |= {message.coordinates}
            case _:
                raise InvalidMessage("type", "not a message of llm.config", "ce_type")
        self.end = record.offset + 1

    def activation_for(self, window: int) -> Activation:
        """The activation that holds for the block or window that starts at `window`. Raises UnknownConfig."""
        for start, activation in reversed(self.activations):
            if start is None or window >= start:
                return activation
        raise UnknownConfig("no config has been activated")

    def config_for(self, window: int) -> str:
        """Digest of the config that holds for a window. Raises UnknownConfig where it is not on llm.config."""
        chosen = self.activation_for(window).config
        if chosen not in self.configs:
            raise UnknownConfig(f"config {chosen} was activated, but is not on llm.config")
        return chosen

    def config(self, digest_: str) -> Config:
        """A config by its digest. Raises UnknownConfig."""
        try:
            return self.configs[digest_]
        except KeyError:
            raise UnknownConfig(f"config {digest_} is not on llm.config") from None


def check_size(config: Config) -> None:
    """Raises ValueError for a config that does not fit into one record."""
    size = len(encode(config))
    if size > MAX_CONFIG_BYTES:
        raise ValueError(
            f"the config would have {size:,} bytes, {MAX_CONFIG_BYTES:,} is the most that a record holds: it has the own cells of "
            f"{len(config.cells)} apps and {len(config.adapted)} corrections of scores"
        )
