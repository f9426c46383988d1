"""Writes configs and activations: one writer at a time, each change made from what stands on the log."""

import logging
import random
import time
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import dataclass
from typing import Final

import kafka
import kafka.errors
import msgspec

from adapters.embedding import TABLE_SHA256
from adapters.heads import HEADS_SHA256
from adapters.kafka import LogOffsets, control_producer, read_all
from adapters.keys import receipt_key
from adapters.settings import Settings
from adapters.shard_log import is_fencing
from adapters.transaction import write_all
from bellbuoy.control import actor, new_id
from core.configs import ConfigLog
from core.prices import check_prices
from core.rules import check_rules, default_config
from core.scoring import SCORER_VERSIONS
from core.scoring.corrections import check_adapted
from schemas.codec import Outgoing, cloud_headers, digest, encode
from schemas.messages import Activation, Config
from schemas.topics import CONFIG, MAX_RECORD_BYTES, RAW_TOPICS, SUMMARIES

log = logging.getLogger(__name__)

WRITER: Final = "config-writer"
MAX_CONFIG_BYTES: Final = MAX_RECORD_BYTES - 64 * 1024
_ATTEMPTS: Final = 20


class ConfigConflict(RuntimeError):
    """The cluster and its active config contradict each other in a way that no new config can mend."""


@dataclass(frozen=True)
class Change:
    """A config to activate, and why."""

    config: Config
    reason: str


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
    reasons = []
    if current.scorers != here.scorers:
        old, new = current.scorers, here.scorers
        changed = [
            f"{name} {old.get(name, '-')} → {new.get(name, '-')}"
            for name in sorted(old.keys() | new.keys())
            if old.get(name) != new.get(name)
        ]
        reasons.append(f"scorer versions changed: {', '.join(changed)}")
    if current.embedding != here.embedding:
        reasons.append(f"the embedding table changed: {current.embedding[:12]} → {here.embedding[:12]}")
    if current.heads != here.heads:
        reasons.append(f"the learned heads changed: {current.heads[:12]} → {here.heads[:12]}")
    if current.partitions != here.partitions:
        reasons.append(f"partitions were added: {dict(here.partitions)}")
    if not here.receipt_keys.items() <= current.receipt_keys.items():
        reasons.append("a receipt key was added")
    if not reasons:
        return None
    config = msgspec.structs.replace(
        current,
        scorers=dict(here.scorers),
        embedding=here.embedding,
        heads=here.heads,
        partitions=dict(here.partitions),
        receipt_keys=current.receipt_keys | dict(here.receipt_keys),
    )
    return Change(config, "; ".join(reasons))


def check_change(current: Config | None, wanted: Config) -> None:
    """Raises ConfigConflict or ValueError for a config that must not follow the current one, since the fold could not go on."""
    check_rules(wanted.rules)
    check_prices(wanted.prices)
    check_adapted(wanted.adapted)
    size = len(encode(wanted))
    if size > MAX_CONFIG_BYTES:
        raise ConfigConflict(
            f"the config would have {size:,} bytes, {MAX_CONFIG_BYTES:,} is the most that a record holds: "
            f"{sum(len(head.weights) for head in wanted.adapted):,} of them are corrections of {len(wanted.adapted)} scores"
        )
    if current is None:
        return
    if current.shards != wanted.shards:
        raise ConfigConflict(f"the active config has {current.shards} shards: shards never change")
    fewer = [topic for topic, count in current.partitions.items() if wanted.partitions.get(topic, 0) < count]
    if fewer:
        raise ConfigConflict(f"{', '.join(fewer)}: fewer partitions than the active config waits for")


def installation(settings: Settings) -> Installation:
    """Look at the code, the keys and the cluster."""
    key = receipt_key(settings)
    with LogOffsets(settings) as offsets:
        partitions = {topic: len(offsets.partitions(topic)) for topic in RAW_TOPICS}
        shards = len(offsets.partitions(SUMMARIES))
    return Installation(SCORER_VERSIONS, TABLE_SHA256, HEADS_SHA256, partitions, shards, {key.id: key.public})


def read_configs(settings: Settings) -> ConfigLog:
    """llm.config from its beginning to its end."""
    configs = ConfigLog()
    for record in read_all(settings, CONFIG, 0):
        configs.add(record)
    return configs


def current_config(configs: ConfigLog) -> Config | None:
    """The config that was activated last, also where it does not hold yet."""
    return configs.config(configs.activations[-1][1].config) if configs.activations else None


def active_config(settings: Settings) -> Config:
    """The config that was activated last on the settings' cluster. Raises LookupError where there is none."""
    config = current_config(read_configs(settings))
    if config is None:
        raise LookupError("no config has been activated yet: `bellbuoy up` activates the first one")
    return config


def change_config(settings: Settings, change: Callable[[ConfigLog], Change | None], *, who: str | None = None) -> str:
    """Read llm.config, let `change` say what to activate, and write it in one transaction; the digest activated last.

    The transactional id makes writers wait for each other: the one that was overtaken reads again. Raises ValueError
    where there is nothing to change and no config at all.
    """
    for attempt in range(_ATTEMPTS):
        with closing(control_producer(settings, WRITER)) as producer:
            try:
                return _change_once(settings, producer, change, who or actor())
            except kafka.errors.KafkaError as error:
                if not is_fencing(error):
                    raise
        time.sleep(random.uniform(0.05, 0.3) * (attempt + 1))
    raise TimeoutError("another writer of llm.config was always faster; try again")


def _change_once(
    settings: Settings, producer: kafka.KafkaProducer, change: Callable[[ConfigLog], Change | None], who: str
) -> str:
    producer.init_transactions()
    configs = read_configs(settings)
    wanted = change(configs)
    if wanted is None:
        current = current_config(configs)
        if current is None:
            raise ValueError("there is no config yet: `bellbuoy up` activates the first one")
        return digest(current)
    check_change(current_config(configs), wanted.config)
    chosen = digest(wanted.config)
    activation = Activation(id=new_id(), config=chosen, actor=who, reason=wanted.reason)
    records = config_records(
        wanted.config if chosen not in configs.configs else None, activation, time_ms=int(time.time() * 1000)
    )
    write_all(producer, records)
    return chosen


def config_records(config: Config | None, activation: Activation, *, time_ms: int) -> list[Outgoing]:
    """The config, where it is not on the log yet, and its activation."""
    records = []
    if config is not None:
        key = f"config/{digest(config)}"
        headers = cloud_headers(Config, id_=key, time_ms=time_ms, source="bellbuoy.cli")
        records.append(Outgoing(CONFIG, key.encode(), encode(config), headers, 0))
    key = f"activation/{activation.id}"
    headers = cloud_headers(Activation, id_=key, time_ms=time_ms, source="bellbuoy.cli")
    records.append(Outgoing(CONFIG, key.encode(), encode(activation), headers, 0))
    return records
