"""Writes configs and activations: one writer at a time, each change made from what stands on the log."""

import random
import time
import uuid
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from typing import Final

import kafka
import kafka.errors

from adapters.kafka import control_producer, read_all
from adapters.settings import Settings
from adapters.shard_log import is_fencing
from adapters.transaction import write_all
from core.cells import check_cells
from core.configs import ConfigLog
from core.prices import check_prices
from core.redaction_policy import check_redaction
from core.rules import check_rules
from core.scoring.corrections import check_adapted
from schemas.codec import Outgoing, cloud_headers, digest, encode
from schemas.messages import Activation, Config
from schemas.topics import CONFIG

WRITER: Final = "config-writer"
_ATTEMPTS: Final = 20


class ConfigConflict(RuntimeError):
    """The cluster and its active config contradict each other in a way that no new config can mend."""


@dataclass(frozen=True)
class Change:
    """A config to activate, and why."""

    config: Config
    reason: str


def check_change(current: Config | None, wanted: Config) -> None:
    """Raises ConfigConflict or ValueError for a config that must not follow the current one, since the fold could not go on."""
    check_rules(wanted.rules)
    check_prices(wanted.prices)
    check_redaction(wanted.redaction)
    check_adapted(wanted.adapted)
    check_cells(wanted)
    if current is None:
        return
    if current.shards != wanted.shards:
        raise ConfigConflict(f"the active config has {current.shards} shards: shards never change")
    fewer = [topic for topic, count in current.partitions.items() if wanted.partitions.get(topic, 0) < count]
    if fewer:
        raise ConfigConflict(f"{', '.join(fewer)}: fewer partitions than the active config waits for")


def read_configs(settings: Settings) -> ConfigLog:
    """llm.config from its beginning to its end."""
    configs = ConfigLog()
    for record in read_all(settings, CONFIG, 0):
        configs.add(record)
    return configs


def current_config(configs: ConfigLog) -> Config | None:
    """The config that was activated last, also where it does not hold yet."""
    return configs.config(configs.activations[-1][1].config) if configs.activations else None


def change_config(
    settings: Settings, change: Callable[[ConfigLog], Change | None], *, who: str, source: str = "bellbuoy.cli"
) -> str:
    """Read llm.config, let `change` say what to activate, and write it in one transaction; the digest activated last.

    The transactional id makes writers wait for each other: the one that was overtaken reads again. Raises ValueError
    where there is nothing to change and no config at all.
    """
    for attempt in range(_ATTEMPTS):
        with closing(control_producer(settings, WRITER)) as producer:
            try:
                return _change_once(settings, producer, change, who, source)
            except kafka.errors.KafkaError as error:
                if not is_fencing(error):
                    raise
        time.sleep(random.uniform(0.05, 0.3) * (attempt + 1))
    raise TimeoutError("another writer of llm.config was always faster; try again")


def _change_once(
    settings: Settings, producer: kafka.KafkaProducer, change: Callable[[ConfigLog], Change | None], who: str, source: str
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
    activation = Activation(id=str(uuid.uuid4()), config=chosen, actor=who, reason=wanted.reason)
    new = wanted.config if chosen not in configs.configs else None
    records = config_records(new, activation, time_ms=int(time.time() * 1000), source=source)
    write_all(producer, records)
    return chosen


def config_records(
    config: Config | None, activation: Activation, *, time_ms: int, source: str = "bellbuoy.cli"
) -> list[Outgoing]:
    """The config, where it is not on the log yet, and its activation."""
    records = []
    if config is not None:
        key = f"config/{digest(config)}"
        headers = cloud_headers(Config, id_=key, time_ms=time_ms, source=source)
        records.append(Outgoing(CONFIG, key.encode(), encode(config), headers, 0))
    key = f"activation/{activation.id}"
    headers = cloud_headers(Activation, id_=key, time_ms=time_ms, source=source)
    records.append(Outgoing(CONFIG, key.encode(), encode(activation), headers, 0))
    return records
