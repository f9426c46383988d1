"""The controller as a process on a real broker: headers in; cuts, rows, alerts and actions out."""

import json
import random
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from adapters.broker import Broker
from adapters.kafka import HotProducer, end_offsets, ensure_topics, read_all
from adapters.settings import Settings
from schemas.codec import Outgoing, Record
from schemas.messages import WINDOW_MS, Command, Cut
from schemas.topics import ACTIONS, ALERTS, COMMANDS, CONFIG, SUMMARIES, WINDOWS
from services.controller import EXIT_FENCED, cell_names
from services.controller_recovery import load_cuts
from tests.conftest import ROOT, StartBroker, connected
from tests.controller_story import SHARDS, Story, app_of, command_out, config_outs, recomputed, story_config, written

pytestmark = pytest.mark.integration

_RUN = "import sys; from adapters.settings import Settings; from services.controller import main; sys.exit(main(Settings()))"


class Process:
    """A controller of its own process; its data folder (health file) is its own too."""

    def __init__(self, settings: Settings, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.log = folder / "log"
        environment = {
            "PATH": "/usr/bin:/bin",
            "PYTHONPATH": str(ROOT),
            "KAFKA_BOOTSTRAP_SERVERS": settings.bootstrap_servers(),
            "BELLBUOY_DATA_DIR": str(folder),
            "BELLBUOY_CACHE_DIR": str(settings.cache_dir),
        }
        with self.log.open("ab") as file:
            self.process = subprocess.Popen([sys.executable, "-c", _RUN], env=environment, stdout=file, stderr=file, cwd=folder)

    def ready(self) -> tuple[bool, str]:
        """Whether it is ready, and what it says otherwise."""
        try:
            url = json.loads((self.folder / "run" / "controller.health").read_text())["url"]
            with urllib.request.urlopen(f"{url}/ready", timeout=2) as answer:
                return True, answer.read().decode()
        except urllib.error.HTTPError as error:
            return False, error.read().decode()
        except (OSError, ValueError):
            return False, "no answer"

    def stop(self) -> int:
        self.process.terminate()
        return self.process.wait(30)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()


@contextmanager
def controllers(settings: Settings, folder: Path) -> Iterator[Callable[[], Process]]:
    """A function that starts controllers; whatever still runs is killed at the end."""
    started: list[Process] = []

    def start() -> Process:
        started.append(Process(settings, folder / f"controller-{len(started)}"))
        return started[-1]

    try:
        yield start
    finally:
        for one in started:
            if one.process.poll() is None:
                one.kill()


def until(true: Callable[[], bool], what: str, process: Process | None = None, timeout: float = 90) -> None:
    deadline = time.monotonic() + timeout
    while not true():
        if time.monotonic() > deadline:
            raise AssertionError(f"{what}: not within {timeout} s\n{process.log.read_text()[-4000:] if process else ''}")
        time.sleep(0.1)


def is_ready(process: Process) -> Callable[[], bool]:
    return lambda: process.ready()[0]


def produce(producer: HotProducer, outs: Sequence[Outgoing]) -> None:
    for out in outs:
        while True:
            try:
                producer.produce(out)
                break
            except BufferError:
                producer.poll()
                time.sleep(0.01)
    producer.flush(30)


def records(settings: Settings, topic: str, shard: int) -> list[Record]:
    return list(read_all(settings, topic, 0 if topic == CONFIG else shard))


def cuts(settings: Settings, shard: int) -> list[Cut]:
    return load_cuts(records(settings, WINDOWS, shard))


def folded_to(settings: Settings, window: int) -> Callable[[], bool]:
    """Whether the last cut of every shard ends at this window, by the tail of the log only."""

    def reached() -> bool:
        ends = end_offsets(settings, WINDOWS)
        tails = [load_cuts(read_all(settings, WINDOWS, shard, max(ends[shard] - 8, 0))) for shard in range(SHARDS)]
        return all(tail and tail[-1].last_window == window for tail in tails)

    return reached


def check_equal_to_the_recomputation(settings: Settings, shard: int, cells: Sequence[str]) -> None:
    topics = (CONFIG, SUMMARIES, COMMANDS, ACTIONS)
    logs = {topic: records(settings, topic, shard) for topic in topics}
    got = written(records(settings, WINDOWS, shard), records(settings, ALERTS, shard), logs[ACTIONS])
    want = recomputed(shard, logs, got.cuts, cell_names=cells)
    assert got.rows == want.rows
    assert got.detections == want.detections
    assert got.alerts == want.alerts
    assert got.actions == want.actions


def test_kill_9_at_any_time_changes_nothing_and_a_second_controller_shuts_the_first_one_out(
    fresh_broker: Settings, tmp_path: Path
) -> None:
    settings, chance = fresh_broker, random.Random(7)
    config = story_config()
    stories = [Story(shard, config, bad_from=60) for shard in range(SHARDS)]
    windows = 150
    producer = HotProducer(settings)
    produce(producer, config_outs(config))

    def traffic() -> None:
        for number in range(windows):
            produce(producer, [out for story in stories for out in story.blocks(number)])
            if number == 90:
                said = Command(id="c", kind="acknowledge", actor="ada", app=app_of(0), environment="production")
                produce(producer, [command_out(said, 0)])
            time.sleep(0.1)

    with controllers(settings, tmp_path) as start:
        flowing = threading.Thread(target=traffic)
        process = start()
        until(is_ready(process), "ready", process)
        flowing.start()
        kills = 0
        while flowing.is_alive():
            time.sleep(chance.uniform(0.3, 2.5))
            process.kill()
            kills += 1
            process = start()
            until(is_ready(process), "ready again", process)
        flowing.join()
        until(folded_to(settings, stories[0].window(windows - 1)), "all windows folded", process)
        second = start()
        until(is_ready(second), "the second is ready", second)
        produce(producer, [out for story in stories for out in story.blocks(windows)])
        until(folded_to(settings, stories[0].window(windows)), "the second folds", second)
        assert process.process.wait(60) == EXIT_FENCED
        assert second.stop() == 0
    print(f"{kills} kills in {windows} windows")
    cells = cell_names(settings)
    for shard, story in enumerate(stories):
        each = cuts(settings, shard)
        assert [c.first_window for c in each[1:]] == [c.last_window + WINDOW_MS for c in each[:-1]]
        assert sum(c.windows for c in each) == windows + 1
        check_equal_to_the_recomputation(settings, shard, cells)
        got = written(records(settings, WINDOWS, shard), records(settings, ALERTS, shard), records(settings, ACTIONS, shard))
        assert len({(r.app, r.version, r.metric, r.resolution, r.window) for r in got.rows}) == len(got.rows)
        assert [(s.kind, s.state, s.target.app) for s in got.actions] == [("rollback", "suggested", app_of(shard))]
        assert [a.slice for a in got.alerts if a.paged] == ["version=v2"]
        assert story.window(0) == each[0].first_window


def test_eight_hours_off_are_caught_up_with_and_page_once_for_what_still_fires(fresh_broker: Settings, tmp_path: Path) -> None:
    settings, windows = fresh_broker, 5_760
    config = story_config()
    stories = [Story(shard, config, bad_from=1_000, bad_until=2_000 if shard else None) for shard in range(SHARDS)]
    producer = HotProducer(settings)
    produce(producer, config_outs(config))
    for number in range(windows):
        for story in stories:
            for out in story.blocks(number):
                producer.produce(out)
        producer.poll()
    producer.flush(60)
    with controllers(settings, tmp_path) as start:
        began = time.monotonic()
        process = start()
        until(folded_to(settings, stories[0].window(windows - 1)), "caught up", process, timeout=300)
        seconds = time.monotonic() - began
        assert process.stop() == 0
    made = sum(len(cuts(settings, shard)) for shard in range(SHARDS))
    print(
        f"caught up with {windows} windows of {SHARDS} shards in {seconds:.1f} s and {made} transactions, start of the process included"
    )
    newest = stories[0].window(windows - 1)
    for shard in range(SHARDS):
        got = written(records(settings, WINDOWS, shard), records(settings, ALERTS, shard), records(settings, ACTIONS, shard))
        assert {c.catch_up_until for c in got.cuts} == {newest}
        assert [(a.slice, a.window) for a in got.alerts if a.paged] == ([("version=v2", newest)] if shard == 0 else [])
        assert [a.state for a in got.alerts if a.slice == "version=v2"][-1] == ("firing" if shard == 0 else "resolved")
        assert got.actions == []
    check_equal_to_the_recomputation(settings, 0, cell_names(settings))


def test_without_a_broker_the_controller_waits_and_says_so(start_broker: StartBroker, tmp_path: Path) -> None:
    broker: Broker = start_broker()
    settings = connected(tmp_path / "client", broker)
    ensure_topics(settings, embedded=True)
    config = story_config()
    story = [Story(shard, config) for shard in range(SHARDS)]
    producer = HotProducer(settings)
    produce(producer, [*config_outs(config), *(out for s in story for out in s.blocks(0))])
    with controllers(settings, tmp_path) as start:
        process = start()
        until(folded_to(settings, story[0].window(0)), "folded", process)
        broker.kill()
        until(lambda: "waiting for Kafka" in process.ready()[1], "it says what it waits for", process)
        broker.start()
        produce(producer, [out for s in story for out in s.blocks(1)])
        until(folded_to(settings, story[0].window(1)), "folded again", process)
        assert process.process.poll() is None
        until(is_ready(process), "ready again", process)
        assert process.stop() == 0


def test_a_new_installation_gets_one_config_from_two_that_ensure_it_at_once(fresh_broker: Settings, tmp_path: Path) -> None:
    from bellbuoy.cli.config import changed
    from bellbuoy.configuration import Change, active_config, change_config, ensure_config, read_configs

    digests: list[str] = []
    said: list[str] = []
    threads = [threading.Thread(target=lambda: digests.append(ensure_config(fresh_broker, said.append))) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(digests)) == 1
    assert len(digests) == 2
    assert len(read_configs(fresh_broker).activations) == 1
    assert ensure_config(fresh_broker, said.append) == digests[0]
    change_config(
        fresh_broker, lambda _: Change(changed(active_config(fresh_broker), reference_events=700), "smaller"), who="ada"
    )
    assert active_config(fresh_broker).rules.reference_events == 700
    assert ensure_config(fresh_broker) != digests[0]
    assert [a.reason for _, a in read_configs(fresh_broker).activations] == ["the first config", "smaller"]


def test_a_file_of_rules_is_looked_at_applied_and_shown(
    fresh_broker: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from typer.testing import CliRunner

    from bellbuoy.cli import rules
    from bellbuoy.configuration import active_config, ensure_config, read_configs
    from core.rule_file import read_rules
    from schemas.codec import digest

    ensure_config(fresh_broker, lambda _: None)
    monkeypatch.setattr(rules, "Settings", lambda: fresh_broker)
    file = tmp_path / "rules.yaml"
    file.write_text("false_pages: 1 per 7d\nrules: [{id: latency, enabled: false}]")
    wanted = read_rules(file.read_text())

    def ran(*words: str) -> str:
        result = CliRunner().invoke(rules.app, list(words))
        assert result.exit_code == 0, result.output
        return result.stdout

    assert "+false_pages: 1 per 7d" in ran("apply", str(file), "--dry-run")
    assert len(read_configs(fresh_broker).activations) == 1
    assert digest(wanted)[:12] in ran("apply", str(file), "--reason", "a stricter week")
    assert active_config(fresh_broker).rules == wanted
    assert read_configs(fresh_broker).activations[-1][1].reason == "a stricter week"
    assert "nothing was changed" in ran("apply", str(file), "--reason", "again")
    assert len(read_configs(fresh_broker).activations) == 2
    shown = ran("show")
    assert read_rules(shown) == wanted
    assert digest(active_config(fresh_broker).rules) in shown


def test_a_person_reads_alerts_and_actions_and_answers(fresh_broker: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    from typer.testing import CliRunner

    from adapters.shard_log import KafkaShardLog
    from bellbuoy.cli import actions, alerts
    from services.controller_shard import ShardRunner
    from tests.unit.test_controller import Silent

    settings = fresh_broker
    config = story_config(mode="approve")
    story = Story(0, config, bad_from=40)
    producer = HotProducer(settings)
    produce(producer, config_outs(config))
    monkeypatch.setenv("KAFKA_BOOTSTRAP_SERVERS", settings.bootstrap_servers())
    cli = CliRunner()
    runner = ShardRunner(0, KafkaShardLog(settings, 0), Silent(), cell_names=cell_names(settings))
    runner.recover()

    def fold(numbers: Sequence[int]) -> None:
        for number in numbers:
            produce(producer, story.blocks(number))
            until(lambda: runner.cycle(0.05), "a window is folded")

    with closing(runner):
        fold(range(60))
        action = json.loads(cli.invoke(actions.app, ["list", "--json"]).stdout)[0]
        assert (action["kind"], action["state"]) == ("rollback", "waiting")
        assert cli.invoke(actions.app, ["approve", action["id"][:10], "--reason", "go"]).exit_code == 0
        alert = json.loads(cli.invoke(alerts.app, ["list", "--json"]).stdout)[0]
        assert cli.invoke(alerts.app, ["silence", alert["id"], "--for", "10m"]).exit_code == 0
        fold([60])
        shown = json.loads(cli.invoke(actions.app, ["show", action["id"], "--json"]).stdout)
        assert [step["state"] for step in shown["steps"]] == ["waiting", "requested"]
        assert shown["alert"][-1]["state"] == "silenced"
        assert "approved by" in cli.invoke(actions.app, ["show", action["id"]]).stdout
        assert "silenced" in cli.invoke(alerts.app, ["show", alert["id"]]).stdout
        assert cli.invoke(actions.app, ["reject", "nonsense"]).exit_code == 1
