"""How a process waits for Kafka, and with which code it ends when another one has taken its place."""

import logging
import threading
from collections.abc import Callable
from typing import Final, Protocol, TypeVar

from tenacity import RetryCallState, Retrying, retry_if_exception_type, stop_when_event_set, wait_exponential_jitter
from tenacity.nap import sleep_using_event

from adapters.shard_log import BrokerAway

log = logging.getLogger(__name__)
T = TypeVar("T")

EXIT_FENCED: Final = 75
"""Another process has taken over: the supervisor waits 30 s before it starts this one again."""
EXIT_CRASHED: Final = 1


class Readiness(Protocol):
    """Where the process says whether it is ready: None, or why not."""

    def set_ready(self, reason: str | None) -> None: ...


def patiently(step: Callable[[], T], stop: threading.Event, readiness: Readiness) -> T:
    """Run a step, again and again while no broker answers. Raises BrokerAway once told to stop."""

    def waiting(state: RetryCallState) -> None:
        error = state.outcome.exception() if state.outcome else None
        readiness.set_ready(f"waiting for Kafka: {error}")
        if state.attempt_number == 1 or state.attempt_number % 30 == 0:
            log.warning("waiting for Kafka: %s", error)

    return Retrying(
        retry=retry_if_exception_type(BrokerAway),
        wait=wait_exponential_jitter(multiplier=0.2, max=5.0, jitter=0.2),
        stop=stop_when_event_set(stop),
        sleep=sleep_using_event(stop),
        before_sleep=waiting,
        reraise=True,
    )(step)
