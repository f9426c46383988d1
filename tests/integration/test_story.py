"""The whole story through the command line: found and acted on, a second run that stays silent, and a log that decides all of it.

The tests follow each other on one running stack.
"""

import asyncio
import contextlib
import hashlib
import json
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest

from adapters import clickhouse
from adapters.clickhouse import Client
from adapters.corpus import help_desk
from adapters.embedding import load_embedding
from adapters.heads import load_heads
from adapters.keys import api_key
from adapters.recorded import RecordedLog, record_log
from adapters.settings import Settings
from bellbuoy.demo import ask_help_desk
from bellbuoy.story import DECLINING_PROMPT, events, plan
from bellbuoy.traffic import Traffic
from core.scoring import Scoring
from schemas.messages import WINDOW_MS
from schemas.topics import CONFIG, INTERACTIONS, RAW_TOPICS, SCORED, SUMMARIES
from tests.chaos.verdict import judge
from tests.conftest import CACHE
from tests.integration.test_processor import transactions
from tests.integration.test_up import Here
from tests.unit.log_variations import check_variation, inputs_of, recomputed

pytestmark = pytest.mark.integration

SEED = 99
VARIATIONS = 40
RECORDED_S, RECORDED_RATE = 11, 110
"""What is read again and again: some 1,300 records in three windows, with two transactions in between."""
ALERT_LIMIT_S = 120


@dataclass
class Told:
    """A demo that ended."""

    code: int
    report: dict[str, Any]
    said: str

    @staticmethod
    def of(run: "subprocess.CompletedProcess[str]") -> "Told":
        assert run.stdout, run.stderr
        return Told(run.returncode, json.loads(run.stdout.splitlines()[-1]), run.stderr)


@dataclass
class Played:
    """A running stack on which both stories were told, one after the other."""

    here: Here
    settings: Settings
    changed: Told
    calm: Told


@pytest.fixture(scope="module")
def played(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Played]:
    here = Here(tmp_path_factory.mktemp("story"))
    started = here.run("up", "--detach")
    assert started.returncode == 0, started.stderr
    try:
        settings = Settings(data_dir=here.data_dir, cache_dir=CACHE)
        asyncio.run(some_traffic(settings, here.status()["urls"]["collector"]))
        changed = Told.of(here.run("demo", "--json", "--exit", "--seed", str(SEED)))
        calm = Told.of(
            here.run("demo", "--json", "--exit", "--seed", str(SEED), "--no-shift", "--no-bad-version", "--no-feedback")
        )
        yield Played(here, settings, changed, calm)
    finally:
        here.run("down")


@pytest.fixture(scope="module")
def client(played: Played) -> Iterator[Client]:
    with contextlib.closing(clickhouse.connect(played.settings)) as client:
        yield client


async def some_traffic(settings: Settings, collector: str) -> None:
    """Ordinary requests and verdicts of an app of its own, and a committed and an aborted transaction among them."""
    story = events(plan(SEED), "recorded", ask_help_desk(help_desk(SEED)), frozenset)
    traffic = Traffic(collector, api_key(settings), story, RECORDED_RATE)
    stop = asyncio.Event()
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(traffic.run(stop))
        await asyncio.sleep(RECORDED_S / 2)
        await asyncio.to_thread(transactions, settings)
        await asyncio.sleep(RECORDED_S / 2)
        stop.set()


def adds_up(ledger: dict[str, int]) -> bool:
    return ledger["missing"] == 0 and ledger["received"] == ledger["stored"] + ledger["dead"] > 0


def left(data_dir: Path) -> list[psutil.Process]:
    """Whatever still runs for this data folder."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if process.environ().get("BELLBUOY_DATA_DIR") == str(data_dir):
                found.append(process)
    return found


def test_the_loop_is_closed_twice_a_better_version_is_promoted_and_a_bad_one_rolled_back(played: Played) -> None:
    told = played.changed
    assert told.code == 0, told.said
    report = told.report
    assert {(d["metric"], d["slice"]) for d in report["detections"]} == {("topic.mix", "all"), ("refusal", "version=v3")}
    assert all(d["opened_at"] and d["delay_events"] > 0 and d["delay_seconds"] > 0 for d in report["detections"])
    actions = {action["kind"]: action for action in report["actions"]}
    assert {kind: action["state"] for kind, action in actions.items()} == dict.fromkeys(
        ("retrain", "canary", "rollback"), "succeeded"
    )
    assert {action["target"]["app"] for action in actions.values()} == {"help-desk-1"}
    assert actions["canary"]["target"]["version"] == "v2"
    assert (actions["rollback"]["target"]["version"], actions["rollback"]["target"]["to_version"]) == ("v3", "v2")
    assert (report["promotion"]["promoted"], report["promotion"]["gate"]) == (True, "passed")
    assert report["rollback"]["verified"] is True
    assert adds_up(report["ledger"]), report["ledger"]
    for d in report["detections"]:
        print(f"{d['metric']} on {d['slice']}: {d['delay_seconds']:.1f} s and {d['delay_events']} requests after the first")
    print(f"promoted after {report['promotion']['seconds']} s, rolled back after {report['rollback']['seconds']} s")
    print(f"{report['events_per_second']} events/s")


def test_no_request_went_to_the_bad_version_after_the_rollback_was_verified(played: Played, client: Client) -> None:
    verified = next(a for a in played.changed.report["actions"] if a["kind"] == "rollback")
    (when,) = client.query(
        "SELECT min(arrival) FROM actions WHERE id = {id:String} AND phase = 'verified'", parameters={"id": verified["id"]}
    ).first_row
    log = (played.here.data_dir / "sandbox" / "requests.jsonl").read_text().splitlines()
    by_prompt: dict[str, list[int]] = {}
    for entry in map(json.loads, log):
        if entry["what"] == "chat":
            by_prompt.setdefault(entry["system"], []).append(entry["time"])
    bad = by_prompt[hashlib.sha256(DECLINING_PROMPT.encode()).hexdigest()[:16]]
    assert bad
    assert max(bad) <= when.timestamp() * 1000


def test_without_a_change_there_is_no_alert_and_no_action(played: Played) -> None:
    told = played.calm
    assert told.code == 0, told.said
    assert (told.report["detections"], told.report["actions"]) == ([], [])
    assert (told.report["promotion"]["promoted"], told.report["rollback"]["verified"]) == (False, False)
    assert adds_up(told.report["ledger"]), told.report["ledger"]


def test_a_second_run_goes_on_with_the_same_data_under_a_name_of_its_own(played: Played, client: Client) -> None:
    assert played.calm.report["ledger"]["received"] > played.changed.report["ledger"]["received"] + 5_000
    rows = client.query("SELECT app, count() FROM interactions WHERE app LIKE 'help-desk-%' GROUP BY app").result_rows
    assert {app for app, count in rows if count > 5_000} == {"help-desk-1", "help-desk-2"}


def test_what_stands_on_the_broker_and_in_the_store_equals_a_recomputation_of_the_log(played: Played, client: Client) -> None:
    verdict = judge(played.settings, client)
    assert verdict.problems == []
    assert (verdict.missing, verdict.duplicates, verdict.actions) == (0, 0, 5)


def verify(here: Here) -> tuple[int, dict[str, Any]]:
    run = here.run("ledger", "--verify", "--no-report", "--json")
    return run.returncode, json.loads(run.stdout)


def list_alerts(here: Here) -> list[dict[str, Any]]:
    alerts: list[dict[str, Any]] = json.loads(here.run("alerts", "list", "--json").stdout)
    return alerts


def test_a_deleted_row_fails_the_ledger_by_name(played: Played, client: Client) -> None:
    partition, offset = client.query(
        "SELECT partition, offset FROM interactions WHERE app = 'help-desk-2' ORDER BY arrival LIMIT 1 OFFSET 1000"
    ).first_row
    client.command(
        "ALTER TABLE interactions DELETE WHERE partition = {p:UInt32} AND offset = {o:Int64}",
        parameters={"p": partition, "o": offset},
        settings={"mutations_sync": 1},
    )
    code, said = verify(played.here)
    (gap,) = said["gaps"]
    assert (code, said["missing"], gap["what"], gap["topic"], gap["partition"], gap["offsets"]) == (
        1, 1, "rows", INTERACTIONS, partition, [[offset, offset + 1]],
    )  # fmt: skip


def beginning(log: RecordedLog) -> RecordedLog:
    """The config, and of each raw partition everything up to the first record after the windows of `some_traffic`."""
    sent = (
        record for place in log.places(INTERACTIONS) for record in log.of(*place) if record.value and b'"recorded' in record.value
    )
    end = max(record.timestamp for record in sent) // WINDOW_MS * WINDOW_MS + WINDOW_MS
    part = RecordedLog(topic_ids=log.topic_ids)
    for place, records in log.records.items():
        if place[0] in (*RAW_TOPICS, CONFIG):
            count = sum(record.timestamp < end for record in records) + 1 if place[0] != CONFIG else len(records)
            part.records[place] = records[:count]
            part.starts[place], part.ends[place] = log.starts[place], records[:count][-1].offset + 1
    return part


def test_the_recorded_log_gives_one_result_however_it_is_read(played: Played) -> None:
    table, heads = load_embedding(played.settings), load_heads()
    log = record_log(played.settings, (SCORED, SUMMARIES, CONFIG, *RAW_TOPICS))
    part = beginning(log)
    assert len(part.of(INTERACTIONS, 2)) < part.ends[INTERACTIONS, 2], "markers and an aborted record leave gaps in the offsets"
    wanted = recomputed(inputs_of(part), lambda config: Scoring(config, table, heads))
    published = {(r.key, r.value, tuple(r.headers)) for t in (SCORED, SUMMARIES) for _, p in log.places(t) for r in log.of(t, p)}
    said = {(out.key, out.value, tuple(out.headers)) for outs in wanted.values() for out in outs}
    assert len(said) > RECORDED_RATE * RECORDED_S / 2
    assert said <= published
    for seed in range(VARIATIONS):
        check_variation(inputs_of(part), wanted, seed, lambda config: Scoring(config, table, heads))


def test_the_sinks_own_check_opened_an_alert_for_the_deleted_row(played: Played) -> None:
    deadline = time.monotonic() + ALERT_LIMIT_S
    while not (alerts := [a for a in list_alerts(played.here) if a["metric"] == "ledger.missing"]):
        assert time.monotonic() < deadline, "no alert ledger.missing"
        time.sleep(1)
    (alert,) = alerts
    assert alert["app"] == "bellbuoy"
    assert alert["slice"].startswith(f"{INTERACTIONS}/")


def test_a_deleted_header_fails_the_ledger_by_name(played: Played, client: Client) -> None:
    partition, start, end = client.query(
        "SELECT partition, start_offset, end_offset FROM headers WHERE topic = 'llm.feedback' AND scored > 0 "
        "ORDER BY window LIMIT 1 OFFSET 3"
    ).first_row
    client.command(
        "ALTER TABLE headers DELETE WHERE topic = 'llm.feedback' AND partition = {p:UInt32} AND start_offset = {s:Int64}",
        parameters={"p": partition, "s": start},
        settings={"mutations_sync": 1},
    )
    code, said = verify(played.here)
    gaps = [gap for gap in said["gaps"] if gap["what"] == "header"]
    assert code == 1
    assert [(gap["topic"], gap["partition"], gap["start"], gap["end"]) for gap in gaps] == [
        ("llm.feedback", partition, start, end)
    ]


def test_down_leaves_no_process(played: Played) -> None:
    assert len(left(played.here.data_dir)) >= 8
    assert played.here.run("down").returncode == 0
    _, alive = psutil.wait_procs(left(played.here.data_dir), timeout=10)
    assert alive == []
