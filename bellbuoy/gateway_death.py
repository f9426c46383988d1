"""What the supervisor says for a gateway that died: its lease need not run out before a rollback counts it as gone."""

import logging
import threading

from confluent_kafka import KafkaException
from kafka.errors import KafkaError

from adapters.gateways import mark_dead, read_gateways
from adapters.settings import Settings
from adapters.shard_log import BrokerAway

log = logging.getLogger(__name__)


def record_death(settings: Settings, instance: str, again: threading.Event) -> bool:
    """Record that the gateway `instance` is dead, unless it has been started again (`again`) meanwhile; whether that was recorded.

    A gateway that runs again speaks for itself: its new incarnation says that the old one is dead. So the incarnation that is
    marked is one that was read while none ran, and a report of a later one is left alone.
    """
    try:
        last, _ = read_gateways(settings).get(instance, (None, 0))
        if last is None or again.is_set():
            return False
        marked = mark_dead(settings, instance, "supervisor", incarnation=last.incarnation) is not None
    except (BrokerAway, KafkaException, KafkaError, TimeoutError) as error:
        log.warning("the death of a gateway is not recorded", extra={"fields": {"instance": instance, "reason": str(error)}})
        return False
    if marked:
        log.warning("a gateway is dead", extra={"fields": {"instance": instance, "incarnation": last.incarnation}})
    return marked
