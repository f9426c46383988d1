"""Where an app's corrections stand: in the data folder, and, where a stack runs, on llm.config."""

from collections.abc import Sequence
from dataclasses import dataclass

import msgspec

from adapters.adapted import KeptCorrections, load_corrections, save_corrections
from adapters.settings import Settings
from bellbuoy.configuration import Change, ConfigConflict, change_config, current_config, read_configs
from bellbuoy.reach import need_kafka
from core.configs import ConfigLog
from core.scoring.adapted import MAX_VERSION
from core.scoring.corrections import rolled_back
from schemas.messages import AdaptedHead


class TooManyVersions(ValueError):
    """A score was corrected more often than a version can say."""


@dataclass
class Corrections:
    """What is known of one app's corrections; `log` is None where no stack runs."""

    settings: Settings
    kept: KeptCorrections
    log: ConfigLog | None

    def history(self, name: str) -> list[AdaptedHead]:
        """The corrections of a score that were activated, in order: the log's where there is one."""
        return self.kept.history(name) if self.log is None else activated(self.log, self.kept.app, self.kept.environment, name)

    def next_version(self, name: str) -> int:
        """One more than any version of a score so far. Raises TooManyVersions."""
        known = [head.version for head in (*self.kept.learned, *self.kept.activated) if head.name == name]
        version = max([0, *known, *(head.version for head in self.history(name))]) + 1
        if version > MAX_VERSION:
            raise TooManyVersions(f"{name} of {self.kept.app} was corrected {MAX_VERSION} times")
        return version

    def keep(self, head: AdaptedHead) -> None:
        """Keep what was learned, without activating it."""
        self.kept.learned.append(head)
        save_corrections(self.settings, self.kept)

    def activate(self, heads: Sequence[AdaptedHead], reason: str) -> str | None:
        """Let corrections hold: on llm.config where a stack runs (the config's digest is returned), and in the data folder.

        Raises ConfigConflict for a config that gets too large.
        """
        digest = None
        if self.log is not None:
            digest = change_config(self.settings, lambda configs: with_corrections(configs, heads, reason))
        self.kept.activated.extend(heads)
        save_corrections(self.settings, self.kept)
        return digest

    def roll_back(self, name: str) -> AdaptedHead:
        """The correction that takes the place of the active one. Raises ValueError where none is active."""
        return rolled_back(self.history(name), self.next_version(name))

    def active_names(self) -> list[str]:
        """Scores with a correction that changes them."""
        names = {head.name for head in self.kept.activated}
        current = current_config(self.log) if self.log is not None else None
        place = (self.kept.app, self.kept.environment)
        names |= {head.name for head in (current.adapted if current else []) if (head.app, head.environment) == place}
        return sorted(name for name in names if (history := self.history(name)) and history[-1].weights)


def read_corrections(settings: Settings, app: str, environment: str) -> Corrections:
    """What stands. Raises NotReachable where a stack should answer and does not."""
    log = None
    if not settings.embedded_kafka or settings.stack() is not None:
        need_kafka(settings)
        log = read_configs(settings)
    return Corrections(settings, load_corrections(settings, app, environment), log)


def activated(log: ConfigLog, app: str, environment: str, name: str) -> list[AdaptedHead]:
    """A score's corrections as the activations of a log brought them, each once."""
    found: list[AdaptedHead] = []
    for _, activation in log.activations:
        config = log.configs.get(activation.config)
        for head in config.adapted if config is not None else []:
            if (head.app, head.environment, head.name) == (app, environment, name) and head not in found[-1:]:
                found.append(head)
    return found


def with_corrections(configs: ConfigLog, heads: Sequence[AdaptedHead], reason: str) -> Change | None:
    """The active config with these corrections in place of the scores' former ones. Raises ConfigConflict where another one has
    got the same version meanwhile."""
    current = current_config(configs)
    if current is None:
        return None
    places = {(head.app, head.environment, head.name) for head in heads}
    known = {
        (head.app, head.environment, head.name, head.version): head
        for config in configs.configs.values()
        for head in config.adapted
    }
    for head in heads:
        if known.get((head.app, head.environment, head.name, head.version), head) != head:
            raise ConfigConflict(
                f"{head.name} of {head.app} has got version {head.version} from elsewhere meanwhile: learn it again"
            )
    others = [head for head in current.adapted if (head.app, head.environment, head.name) not in places]
    ordered = sorted([*others, *heads], key=lambda head: (head.app, head.environment, head.name))
    return Change(msgspec.structs.replace(current, adapted=ordered), reason)
