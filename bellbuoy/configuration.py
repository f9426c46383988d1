"""Which config this installation needs: made from its code, its keys and its cluster."""

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import msgspec

from adapters.embedding import TABLE_SHA256
from adapters.heads import HEADS_SHA256
from adapters.kafka import LogOffsets
from adapters.keys import receipt_key
from adapters.settings import Settings
from bellbuoy.control import actor
from core.configs import ConfigLog
from core.rules import default_config
from core.scoring import SCORER_VERSIONS
from schemas.messages import Config
from schemas.topics import RAW_TOPICS, SUMMARIES
from services import config_writer as writer
from services.config_writer import Change, ConfigConflict, check_change, config_records, current_config, read_configs

__all__ = [
    "Change",
    "ConfigConflict",
    "Installation",
    "active_config",
    "change_config",
    "check_change",
    "config_records",
    "current_config",
    "ensure_config",
    "ensured",
    "installation",
    "read_configs",
]

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Installation:
    """What this code and this cluster are, as far as a config names it."""

    scorers: Mapping[str, int]
    embedding: str
    heads: str
    partitions: Mapping[str, int]
    shards: int
    receipt_keys: Mapping[str, str]


def ensure_config(settings: Settings, say: Callable[[str], None] = log.info) -> str:
    """Publish and activate the first config where there is none, a new one where code or cluster have changed.

    Says what it did; returns the digest of the config that was activated last. Safe to run twice, also at the same time.
    """
    here = installation(settings)

    def change(configs: ConfigLog) -> Change | None:
        wanted = ensured(current_config(configs), here)
        if wanted is not None:
            say(f"activating a config: {wanted.reason}")
        return wanted

    return change_config(settings, change, who="bellbuoy")


def ensured(current: Config | None, here: Installation) -> Change | None:
    """The change that makes the active config fit the installation; None where it fits. Raises ConfigConflict."""
    if current is None:
        first = default_config(
            scorers=here.scorers,
            embedding=here.embedding,
            heads=here.heads,
            partitions=here.partitions,
            shards=here.shards,
            receipt_keys=here.receipt_keys,
        )
        return Change(first, "the first config")
    if current.shards != here.shards:
        raise ConfigConflict(f"the active config has {current.shards} shards, the topics have {here.shards}: shards never change")
    fewer = [topic for topic, count in current.partitions.items() if here.partitions.get(topic, 0) < count]
    if fewer:
        raise ConfigConflict(f"{', '.join(fewer)}: fewer partitions than the active config waits for")
    if unknown := not_of_this_release(current, here):
        raise ConfigConflict(
            f"the log was scored by another release ({', '.join(unknown)}), and this one can neither finish what that one began nor "
            "repeat it: run that release on these data, or begin anew (`make clean` drops the embedded stack's data)"
        )
    reasons = []
    if added := sorted(here.scorers.keys() - current.scorers.keys()):
        reasons.append(f"scorers were added: {', '.join(added)}")
    if current.partitions != here.partitions:
        reasons.append(f"partitions were added: {dict(here.partitions)}")
    if not here.receipt_keys.items() <= current.receipt_keys.items():
        reasons.append("a receipt key was added")
    if not reasons:
        return None
    config = msgspec.structs.replace(
        current,
        scorers=dict(here.scorers),
        partitions=dict(here.partitions),
        receipt_keys=current.receipt_keys | dict(here.receipt_keys),
    )
    return Change(config, "; ".join(reasons))


def not_of_this_release(config: Config, here: Installation) -> list[str]:
    """What a config scores with that this code does not have: older versions of scorers and of their tables."""
    unknown = [f"{name}@{version}" for name, version in sorted(config.scorers.items()) if here.scorers.get(name) != version]
    if config.embedding != here.embedding:
        unknown.append(f"embedding {config.embedding[:12]}")
    if config.heads != here.heads:
        unknown.append(f"heads {config.heads[:12] or 'none'}")
    return unknown


def installation(settings: Settings) -> Installation:
    """Look at the code, the keys and the cluster."""
    key = receipt_key(settings)
    with LogOffsets(settings) as offsets:
        partitions = {topic: len(offsets.partitions(topic)) for topic in RAW_TOPICS}
        shards = len(offsets.partitions(SUMMARIES))
    return Installation(SCORER_VERSIONS, TABLE_SHA256, HEADS_SHA256, partitions, shards, {key.id: key.public})


def active_config(settings: Settings) -> Config:
    """The config that was activated last on the settings' cluster. Raises LookupError where there is none."""
    config = current_config(read_configs(settings))
    if config is None:
        raise LookupError("no config has been activated yet: `bellbuoy up` activates the first one")
    return config


def change_config(settings: Settings, change: Callable[[ConfigLog], Change | None], *, who: str | None = None) -> str:
    """`services.config_writer.change_config` on behalf of whoever is at the keyboard."""
    return writer.change_config(settings, change, who=who or actor())
