"""The controller: folds closed windows into alerts, actions and window rows, one fenced transaction per shard and cycle."""

import contextlib
import logging
import re
import signal
import threading
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Final, TypeVar

import numpy as np

from adapters.embedding import ensure_embedding
from adapters.patience import EXIT_CRASHED, EXIT_FENCED, Readiness, patiently
from adapters.settings import Settings
from adapters.shard_log import BrokerAway, Fenced, KafkaShardLog, TransactionFailed, shard_count
from adapters.telemetry import Telemetry, set_up_logging
from core.shard import RecoveryFailed
from services.controller_metrics import ControllerMetrics
from services.controller_shard import ShardRunner

log = logging.getLogger(__name__)
T = TypeVar("T")

STOPPED_AFTER_S: Final = 60.0
"""No block header for so long (wall clock) means that the pipeline has stopped."""
STUCK_AFTER_S: Final = 60.0
"""A shard that folds nothing for so long (wall clock) while windows wait for some partitions says that these are stuck."""
QUIET_S: Final = 6.0
"""After so long without a header the broker is asked whether it is there."""


class Controller:
    """Runs its shards one after the other until it is told to stop."""

    def __init__(
        self,
        runners: Sequence[ShardRunner],
        readiness: Readiness,
        stop: threading.Event,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._runners = runners
        self._readiness = readiness
        self._stop = stop
        self._clock = clock
        self._headers = 0
        self._last_header = self._last_probe = clock()
        self._stopped = False
        self._moved: dict[ShardRunner, tuple[int | None, float]] = dict.fromkeys(runners, (None, self._last_header))
        """By shard the last window folded and when it was first seen, by the wall clock."""
        self._stuck: list[str] = []

    def run(self) -> int:
        """The exit code: 0 after a clean stop, EXIT_FENCED, or EXIT_CRASHED when only a new start can help."""
        try:
            for runner in self._runners:
                self._patiently(runner.recover)
            while not self._stop.is_set():
                for runner in self._runners:
                    self._patiently(partial(runner.cycle, 0.25 / len(self._runners)))
                self._patiently(self.judge)
            for runner in self._runners:
                runner.save()
        except Fenced as error:
            log.warning("%s; ending", error)
            return EXIT_FENCED
        except (TransactionFailed, RecoveryFailed) as error:
            log.error("%s; ending, so that the next start begins from what is committed", error)
            return EXIT_CRASHED
        except BrokerAway as error:
            log.warning("told to stop while no broker answers (%s): the next start folds again what is not saved", error)
        finally:
            for runner in self._runners:
                runner.close()
        return 0

    def judge(self) -> None:
        """Say whether all is well: the watchdog over the pipeline, by the wall clock. Raises BrokerAway."""
        now = self._clock()
        headers = sum(runner.headers for runner in self._runners)
        if headers != self._headers:
            self._headers, self._last_header = headers, now
        quiet = now - self._last_header
        if quiet > QUIET_S and now - self._last_probe > QUIET_S:
            self._last_probe = now
            for runner in self._runners:
                runner.probe()
        if quiet > STOPPED_AFTER_S and not self._stopped:
            log.error("pipeline stopped: no block header for %.0f s; is a processor running?", quiet)
        self._stopped = quiet > STOPPED_AFTER_S
        stuck = self._stuck_partitions(now)
        if stuck != self._stuck and stuck:
            log.error(
                "windows cannot close: no header of %s for %.0f s; `exclude_partition` takes a partition out",
                ", ".join(stuck),
                STUCK_AFTER_S,
            )
        self._stuck = stuck
        if self._stopped:
            self._readiness.set_ready(f"pipeline stopped: no block header for more than {STOPPED_AFTER_S:.0f} s")
        elif not all(runner.active for runner in self._runners):
            self._readiness.set_ready("no config has been activated yet (bellbuoy up does it)")
        elif stuck:
            self._readiness.set_ready(f"windows cannot close: no header of {', '.join(stuck)} for {STUCK_AFTER_S:.0f} s")
        else:
            self._readiness.set_ready(None)

    def _stuck_partitions(self, now: float) -> list[str]:
        """Partitions for which shards have waited in vain, while others went on."""
        stuck: set[str] = set()
        for runner in self._runners:
            folded, holding = runner.held_up_by()
            if not holding or folded != self._moved[runner][0]:
                self._moved[runner] = (folded, now)
            elif now - self._moved[runner][1] > STUCK_AFTER_S:
                stuck.update(holding)
        return sorted(stuck)

    def _patiently(self, step: Callable[[], T]) -> T:
        return patiently(step, self._stop, self._readiness)


def parse_shards(text: str | None, total: int) -> list[int]:
    """Shards named by `0-1` or `0,2-3`; all of them by None. Raises ValueError for one that the cluster does not have.

    >>> parse_shards("0,2-3", 4), parse_shards(None, 2)
    ([0, 2, 3], [0, 1])
    """
    if text is None:
        return list(range(total))
    numbers: set[int] = set()
    for part in text.split(","):
        if not re.fullmatch(r"\d+(-\d+)?", part):
            raise ValueError(f"{text!r} names no shards: write 0-1 or 0,2")
        first, _, last = part.partition("-")
        numbers |= set(range(int(first), int(last or first) + 1))
    if not numbers or max(numbers) >= total:
        raise ValueError(f"shards are 0 to {total - 1}, not {text}")
    return sorted(numbers)


def build_controller(settings: Settings, shards: Sequence[int], telemetry: Telemetry, stop: threading.Event) -> Controller:
    """A controller of these shards on the settings' cluster."""
    observer = ControllerMetrics(telemetry)
    cells = cell_names(settings)
    runners = [ShardRunner(shard, KafkaShardLog(settings, shard), observer, cell_names=cells) for shard in shards]
    return Controller(runners, telemetry, stop)


def cell_names(settings: Settings) -> tuple[str, ...]:
    """The names of the topic cells; the rest of the embedding table stays on disk."""
    with np.load(ensure_embedding(settings)) as table:
        return tuple(str(name) for name in table["cells"])


def main(settings: Settings, shards: str | None = None) -> int:
    """Run until SIGTERM or SIGINT; returns the exit code."""
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    set_up_logging("controller", settings)
    with Telemetry("controller", settings) as telemetry:
        telemetry.set_ready("waiting for Kafka")
        with contextlib.suppress(BrokerAway):
            total = patiently(partial(shard_count, settings), stop, telemetry)
            return build_controller(settings, parse_shards(shards, total), telemetry, stop).run()
    return 0
