"""Gives each app with enough scored prompts topic cells of its own: fitted once, published once, whoever else does it too.

What it reads from llm.summaries only tells it that a fit may be due; the prompts come from llm.scored, and what is done
stands on llm.config: an app that has cells there gets no others from here. The reference of the new cells begins with the
second half of the prompts (`core.fitter`), so that detection goes on from the activation. It holds no offsets: a restart counts
again.
"""

import contextlib
import logging
import os
import signal
import threading
import time
from collections import Counter
from collections.abc import Iterator
from typing import Final

import kafka.errors
import msgspec

from adapters.configs import ConfigReader
from adapters.embedding import load_embedding
from adapters.follow import Follower, reading
from adapters.kafka import LogOffsets, read_all
from adapters.patience import patiently
from adapters.settings import Settings
from adapters.shard_log import BrokerAway
from adapters.telemetry import Telemetry, set_up_logging
from core.cells import cells_of, with_cells
from core.configs import ConfigLog
from core.fitter import AppKey, CannotFit, Earliest, Prompt, due, fit_cells, fit_events, next_version, prompt_of
from core.metrics import OWN, split_metric_key
from core.scoring.words import WordSums
from schemas import codec
from schemas.codec import InvalidMessage, Record
from schemas.messages import BlockSummary, OwnCells, ScoredInteraction
from schemas.topics import SCORED, SUMMARIES
from services.config_writer import Change, change_config, current_config

log = logging.getLogger(__name__)

PROCESS: Final = "fitter"
ACTOR: Final = "fitter"
EVERY_S: Final = 5.0
"""How often it looks whether a fit is due."""
_NICE: Final = 10
MAX_APPS: Final = 100_000
"""Apps counted; further ones wait until it starts again."""


class _Counts(msgspec.Struct):
    """What is read of a summary's group."""

    app: str
    environment: str
    bins: dict[str, list[tuple[int, int]]] = {}


class _Summary(msgspec.Struct):
    groups: list[_Counts] = []


class _Whose(msgspec.Struct):
    app: str
    environment: str = "production"


class Fitter:
    """Counts scored prompts by app, and fits when enough have come. `stop` ends it between two fits."""

    def __init__(self, settings: Settings, telemetry: Telemetry, stop: threading.Event, *, every_s: float = EVERY_S) -> None:
        self._settings, self._telemetry, self._stop, self._every_s = settings, telemetry, stop, every_s
        self._fits = telemetry.counter("fitter_fits", "Fits by what became of them", ["outcome"])
        self._configs = ConfigLog()
        self._scored: Counter[AppKey] = Counter()
        self._again: dict[AppKey, int] = {}
        """Scored prompts from which on an app is tried again that could not be fitted, then with its newest."""

    def run(self) -> None:
        """Until stopped."""
        with (
            contextlib.closing(patiently(self._reader, self._stop, self._telemetry)) as configs,
            patiently(lambda: Follower(self._settings, (SUMMARIES,)), self._stop, self._telemetry) as follower,
        ):
            while not self._stop.is_set():
                self._telemetry.set_ready(None)
                patiently(lambda: self.step(follower, configs), self._stop, self._telemetry)
                self._stop.wait(self._every_s)

    def step(self, follower: Follower, configs: ConfigReader) -> None:
        """Count what came, and fit where that is due. Raises BrokerAway."""
        for _, record in follower.read_to_end():
            self._count(record)
        with writing():
            configs.refresh()
        config = current_config(self._configs)
        if config is None:
            return
        for key in due(self._scored, config, self._again):
            if self._stop.is_set():
                return
            self._fit(key, fit_events(config, *key))

    def _reader(self) -> ConfigReader:
        with writing():
            return ConfigReader(self._settings, self._configs, max_age=0.0)

    def _count(self, record: Record) -> None:
        if codec.message_type(record.headers) is not BlockSummary:
            return
        try:
            summary = msgspec.json.decode(record.value or b"", type=_Summary)
        except msgspec.DecodeError:
            return  # the controller says so
        for group in summary.groups:
            key = (group.app, group.environment)
            if key not in self._scored and len(self._scored) >= MAX_APPS:
                continue
            for name, bins in group.bins.items():
                metric, version = split_metric_key(name)
                if metric == "topic" and version < OWN:
                    self._scored[key] += sum(count for _, count in bins)

    def _fit(self, key: AppKey, events: int) -> None:
        began = time.monotonic()
        try:
            prompts = collect(self._settings, *key, events, newest=key in self._again)
            if len(prompts) < events:
                missing = events - len(prompts)
                raise CannotFit(f"{missing} of {events} prompts are not on {SCORED}: they are gone, or were counted twice")
            words = WordSums(load_embedding(self._settings))
            written = publish(self._settings, fit_cells(*key, 1, prompts, words), again=False)
        except ValueError as error:
            self._again[key] = self._scored[key] + events // 10
            self._fits.labels("impossible").inc()
            self._telemetry.event("an app cannot be fitted", app=key[0], environment=key[1], reason=str(error))
            return
        self._fits.labels("published" if written is not None else "already there").inc()
        if written is not None:
            self._telemetry.event("an app has topic cells of its own", app=key[0], environment=key[1], version=written.version,
                                  cells=len(written.names), prompts=written.events, seconds=round(time.monotonic() - began, 1))  # fmt: skip


def collect(settings: Settings, app: str, environment: str, events: int, *, newest: bool = False) -> list[Prompt]:
    """The app's first (or newest) `events` prompts on llm.scored, in the order in which they were appended to the raw topic.

    Raises BrokerAway.
    """
    chosen = Earliest(events, newest=newest)
    with writing(), LogOffsets(settings) as offsets:
        ends = offsets.end(SCORED)
    for partition, end in ends.items():
        with writing():
            for record in read_all(settings, SCORED, partition, end=end):
                if codec.message_type(record.headers) is not ScoredInteraction or record.value is None:
                    continue
                with contextlib.suppress(msgspec.DecodeError, InvalidMessage):  # the sink says so
                    whose = msgspec.json.decode(record.value, type=_Whose)
                    if (whose.app, whose.environment) == (app, environment):
                        _take(chosen, codec.decode(ScoredInteraction, record.value, keep_unknown=False))
    return chosen.prompts()


def _take(chosen: Earliest, scored: ScoredInteraction) -> None:
    prompt = prompt_of(scored)
    if prompt is not None:
        chosen.add(scored.append_time, scored.coordinates, prompt)


def publish(settings: Settings, own: OwnCells, *, again: bool, who: str = ACTOR) -> OwnCells | None:
    """Activate cells as the app's next version; None where the app has cells already, unless `again`.

    The config's writers wait for each other, and each decides on what stands on the log: of two that fit the same app at the
    same time, one publishes. Raises BrokerAway, CannotFit, and ValueError for a config that would be too large.
    """
    written: list[OwnCells] = []

    def change(configs: ConfigLog) -> Change | None:
        written.clear()
        current = current_config(configs)
        if current is None or (not again and cells_of(current, own.app, own.environment) is not None):
            return None
        if own.embedding != current.embedding:
            raise CannotFit("the active config names another embedding than this machine has")
        version = next_version(configs.configs.values(), own.app, own.environment)
        written.append(msgspec.structs.replace(own, version=version))
        said = f"own topic cells of {own.app} ({own.environment}), version {version}: {len(own.names)}, from {own.events} prompts"
        return Change(with_cells(current, written[0]), said)

    with writing():
        change_config(settings, change, who=who, source="bellbuoy.fitter")
    return written[0] if written else None


@contextlib.contextmanager
def writing() -> Iterator[None]:
    """Turn what a later try can cure into BrokerAway; what was half done is read from the log by then."""
    try:
        with reading():
            yield
    except (TimeoutError, kafka.errors.KafkaError) as error:
        raise BrokerAway(f"{type(error).__name__}: {error}") from error


def main(settings: Settings) -> int:
    """Run until SIGTERM or SIGINT; returns the exit code."""
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    os.nice(_NICE)
    set_up_logging(PROCESS, settings)
    with Telemetry(PROCESS, settings) as telemetry:
        telemetry.set_ready("waiting for Kafka")
        with contextlib.suppress(BrokerAway):
            Fitter(settings, telemetry, stop).run()
    return 0
