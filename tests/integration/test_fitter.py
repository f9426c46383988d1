"""The fitter as a process on a real broker: one fit for an app, whoever else does it too; a new one only on command."""

import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random

import msgspec
import pytest

from adapters.corpus import PYARROW, STDLIB, help_desk
from adapters.embedding import load_embedding
from adapters.kafka import HotProducer
from adapters.settings import Settings
from bellbuoy.configuration import Change, active_config, change_config, ensure_config, read_configs
from core.blocks import ActiveConfig, Place, score_block
from core.cells import cells_of
from core.fitter import fit_cells
from core.scoring import SCORER_VERSIONS, Scoring
from core.scoring.words import WordSums
from schemas import codec
from schemas.codec import Outgoing, Record
from schemas.embedding import EmbeddingTable
from schemas.messages import WINDOW_MS, ChatMessage, Config, FitRules, Interaction, ScoredInteraction
from schemas.topics import INTERACTIONS
from services.fitter import collect, publish
from streams.active_configs import ActiveConfigs
from tests.conftest import ROOT
from tests.unit.heads_twin import heads_twin

pytestmark = pytest.mark.integration

EVENTS = 600
HEADS = heads_twin(256, bias=-1_000)
PER_BLOCK = 100
APP, ENVIRONMENT = "desk", "production"


@pytest.fixture(scope="module")
def table() -> EmbeddingTable:
    return load_embedding(Settings())


@pytest.fixture
def cluster(fresh_broker: Settings) -> Settings:
    """A broker with a config by which an app's first fit takes EVENTS prompts."""
    ensure_config(fresh_broker, lambda _: None)

    def sooner(_: object) -> Change:
        config = active_config(fresh_broker)
        rules = msgspec.structs.replace(config.rules, fit=FitRules(events=EVENTS))
        return Change(msgspec.structs.replace(config, rules=rules, heads=HEADS.digest), "a test's")

    change_config(fresh_broker, sooner)
    return fresh_broker


def asked(n: int, *, seed: int, app: str = APP, environment: str = ENVIRONMENT) -> Iterator[Interaction]:
    desk, draw = help_desk(1), Random(seed)
    for number in range(n):
        prompt, _ = desk.ask(draw, draw.choice((STDLIB, PYARROW)))
        yield Interaction(
            id=f"{seed}-{number}",
            app=app,
            environment=environment,
            version="v1",
            user=f"user-{draw.randrange(50)}",
            input=[ChatMessage(role="user", content=prompt)],
        )


class Partition:
    """One raw partition, whose blocks are scored here instead of by a processor."""

    def __init__(self, table: EmbeddingTable) -> None:
        self.table, self.offset, self.window = table, 0, 1_000_000 * WINDOW_MS

    def blocks(self, config: Config, interactions: Iterator[Interaction]) -> list[Outgoing]:
        values = [codec.encode(one) for one in interactions]
        active = ActiveConfig(codec.digest(config), config, Scoring(config, self.table, HEADS))
        out: list[Outgoing] = []
        for at in range(0, len(values), PER_BLOCK):
            part = [Record(n, self.window, None, value) for n, value in enumerate(values[at : at + PER_BLOCK], self.offset)]
            end = self.offset + len(part)
            block = score_block(Place(INTERACTIONS, "topic-id", 0), self.window, self.offset, end, part, active)
            out += [*block.scored, *block.summaries]
            self.offset, self.window = end, self.window + WINDOW_MS
        return out


def produce(settings: Settings, outs: list[Outgoing]) -> None:
    producer = HotProducer(settings)
    for out in outs:
        producer.produce(out)
    producer.flush(30)


def environment(settings: Settings, folder: Path) -> dict[str, str]:
    return {
        "PATH": "/usr/bin:/bin",
        "PYTHONPATH": str(ROOT),
        "KAFKA_BOOTSTRAP_SERVERS": settings.bootstrap_servers(),
        "BELLBUOY_DATA_DIR": str(folder),
        "BELLBUOY_CACHE_DIR": str(settings.cache_dir.resolve()),
        "BELLBUOY_HEALTH_PORT": "0",
    }


def until(true: Callable[[], bool], what: str, timeout: float = 90) -> None:
    deadline = time.monotonic() + timeout
    while not true():
        assert time.monotonic() < deadline, f"{what}: not within {timeout} s"
        time.sleep(0.2)


def by_fitters(settings: Settings) -> list[str]:
    return [a.reason for _, a in read_configs(settings).activations if a.actor == "fitter"]


def bellbuoy(settings: Settings, folder: Path, *arguments: str) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "bellbuoy", *arguments]
    return subprocess.run(command, env=environment(settings, folder), cwd=ROOT, capture_output=True, text=True, check=False)


def test_an_app_gets_its_cells_once_from_two_fitters_and_again_only_on_command(
    cluster: Settings, table: EmbeddingTable, tmp_path: Path
) -> None:
    partition = Partition(table)
    config = active_config(cluster)
    fitters = []
    for number in range(2):
        folder = tmp_path / f"fitter-{number}"
        folder.mkdir()
        with (folder / "log").open("wb") as log:
            fitters.append(
                subprocess.Popen(
                    [sys.executable, "-m", "bellbuoy", "fitter"],
                    env=environment(cluster, folder),
                    stdout=log,
                    stderr=log,
                    cwd=ROOT,
                )
            )
    try:
        until(lambda: all((tmp_path / f"fitter-{n}/run/fitter.health").exists() for n in range(2)), "both run")
        produce(cluster, partition.blocks(config, asked(EVENTS - 1, seed=1)))
        produce(cluster, partition.blocks(config, asked(EVENTS, seed=2, app="story", environment="demo")))
        time.sleep(6)  # more than one look of each
        assert by_fitters(cluster) == []
        produce(cluster, partition.blocks(config, asked(200, seed=3)))
        until(lambda: bool(by_fitters(cluster)), "fitted")
        produce(cluster, partition.blocks(config, asked(EVENTS, seed=4)))
        time.sleep(12)  # more than two looks of each
    finally:
        for fitter in fitters:
            fitter.terminate()
        codes = [fitter.wait(30) for fitter in fitters]
    assert codes == [0, 0]
    assert len(by_fitters(cluster)) == 1

    current = active_config(cluster)
    own = cells_of(current, APP, ENVIRONMENT)
    assert own is not None
    assert (own.version, own.events, sum(own.topics), len(current.cells)) == (1, EVENTS, EVENTS // 2, 1)
    assert own == fit_cells(APP, ENVIRONMENT, 1, collect(cluster, APP, ENVIRONMENT, EVENTS), WordSums(table))

    log = read_configs(cluster)
    (start, _) = log.activations[-1]
    assert start is not None
    configs = ActiveConfigs(log, lambda c: Scoring(c, table, HEADS))
    base = SCORER_VERSIONS["topic"]
    assert scorers(partition, configs.for_window(start - WINDOW_MS).config) == {f"topic@{base}"}
    assert scorers(partition, configs.for_window(start).config) == {f"topic@{base * 1_000 + 1}"}

    dry = bellbuoy(cluster, tmp_path, "fit", "--app", APP, "--dry-run")
    assert (dry.returncode, cells_of(active_config(cluster), APP, ENVIRONMENT)) == (0, own), dry.stderr
    assert "version 2" in dry.stdout
    assert "nothing was changed" in dry.stdout
    said = bellbuoy(cluster, tmp_path, "fit", "--app", APP, "--json")
    assert said.returncode == 0, said.stderr
    again = cells_of(active_config(cluster), APP, ENVIRONMENT)
    assert again is not None
    assert (again.version, json.loads(said.stdout)["former_version"]) == (2, 1)
    assert [cell["name"] for cell in json.loads(said.stdout)["cells"]] == list(again.names)


def scorers(partition: Partition, config: Config) -> set[str]:
    outs = partition.blocks(config, asked(20, seed=9))
    records = [codec.decode(ScoredInteraction, out.value) for out in outs if codec.message_type(out.headers) is ScoredInteraction]
    return {record.scores["topic"].scorer for record in records}


def test_of_two_that_publish_a_fit_at_the_same_time_one_does(cluster: Settings, table: EmbeddingTable) -> None:
    produce(cluster, Partition(table).blocks(active_config(cluster), asked(EVENTS, seed=5)))
    own = fit_cells(APP, ENVIRONMENT, 1, collect(cluster, APP, ENVIRONMENT, EVENTS), WordSums(table))
    written: list[object] = []
    threads = [threading.Thread(target=lambda: written.append(publish(cluster, own, again=False))) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(map(str, written)) == sorted((str(own), "None"))
    assert len(by_fitters(cluster)) == 1


def test_what_was_published_twice_counts_once(cluster: Settings, table: EmbeddingTable) -> None:
    outs = Partition(table).blocks(active_config(cluster), asked(50, seed=6))
    produce(cluster, outs)
    produce(cluster, outs)
    prompts = collect(cluster, APP, ENVIRONMENT, 40)
    assert len(prompts) == 40
    assert prompts == collect(cluster, APP, ENVIRONMENT, 50)[:40]
    assert prompts[10:] == collect(cluster, APP, ENVIRONMENT, 40, newest=True)[:30]


def test_an_app_without_prompts_cannot_be_fitted(cluster: Settings, tmp_path: Path) -> None:
    said = bellbuoy(cluster, tmp_path, "fit", "--app", "nobody")
    assert said.returncode == 1
    assert "nobody" in said.stderr
    assert "cannot be fitted" in said.stderr
