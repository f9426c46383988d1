"""The controller on the in-memory log: crashes, fencing, cuts, catch-up, exclusions, growing topics."""

import itertools
import random
import threading
from collections.abc import Sequence

import msgspec
import pytest

from adapters.memory_shard_log import MemoryPartitions, MemoryShardLog
from adapters.shard_log import BrokerAway, Fenced, TransactionFailed
from core.fold import FoldOutput
from core.shard import Batch, RecoveryFailed, is_own
from schemas.codec import Outgoing, cloud_headers, encode
from schemas.messages import WINDOW_MS, ActionStep, Command, CommandKind, Scalar
from schemas.topics import ACTIONS, ALERTS, COMMANDS, CONFIG, FEEDBACK, INTERACTIONS, STATE, SUMMARIES, WINDOWS
from services.controller import EXIT_CRASHED, EXIT_FENCED, Controller, parse_shards
from services.controller_shard import ShardRunner
from tests.controller_story import Story, Written, app_of, command_out, config_outs, recomputed, story_config, written

SHARD = 1
CELLS = tuple(f"cell {n}" for n in range(256))


class Silent:
    """An observer that only counts."""

    def __init__(self) -> None:
        self.unreadables: list[tuple[str, str]] = []
        self.windows = 0
        self.open_alerts = 0

    def folded(self, batch: Batch, output: FoldOutput, seconds: float) -> None:
        self.windows += len(batch.windows)

    def committed(self, shard: int, seconds: float) -> None: ...

    def waiting(self, shard: int, windows: int, held: int) -> None: ...

    def standing(self, shard: int, open_alerts: int) -> None:
        self.open_alerts = open_alerts

    def unreadable(self, topic: str, code: str) -> None:
        self.unreadables.append((topic, code))


def started(partitions: MemoryPartitions, *, poll_records: int = 500) -> tuple[ShardRunner, MemoryShardLog]:
    log = MemoryShardLog(partitions, poll_records=poll_records)
    runner = ShardRunner(SHARD, log, Silent(), cell_names=CELLS)
    runner.recover()
    return runner, log


def drain(runner: ShardRunner) -> None:
    while runner.cycle(0):
        pass


def append(partitions: MemoryPartitions, outs: Sequence[Outgoing]) -> None:
    for out in outs:
        partitions.append(out)


def output_of(partitions: MemoryPartitions) -> Written:
    return written(partitions.records[WINDOWS], partitions.records[ALERTS], partitions.records[ACTIONS])


def recomputed_from(partitions: MemoryPartitions) -> FoldOutput:
    return recomputed(SHARD, dict(partitions.records), output_of(partitions).cuts, cell_names=CELLS)


def with_config(story: Story) -> MemoryPartitions:
    partitions = MemoryPartitions()
    append(partitions, config_outs(story.config))
    return partitions


def test_every_window_is_folded_once_and_the_bad_version_gets_its_alert_and_its_rollback() -> None:
    story = Story(SHARD, story_config(), bad_from=40)
    partitions = with_config(story)
    runner, _ = started(partitions)
    for number in range(60):
        partitions.now_ms = story.window(number + 1)
        append(partitions, story.blocks(number))
        drain(runner)
    out = output_of(partitions)
    refusals = [r for r in out.rows if r.metric == "refusal@1" and r.resolution == 5 and r.version == "v1"]
    assert [r.window for r in refusals] == [story.window(n) for n in range(60)]
    assert [(c.first_window, c.last_window, c.windows) for c in out.cuts] == [(story.window(n),) * 2 + (1,) for n in range(60)]
    assert ("refusal", "version=v2", "firing") in [(a.metric, a.slice, a.state) for a in out.alerts]
    assert [(s.kind, s.state, s.target.version, s.target.to_version) for s in out.actions] == [
        ("rollback", "suggested", "v2", "v1")
    ]


@pytest.mark.parametrize("seed", range(12))
def test_crashes_at_any_commit_change_nothing_of_what_is_written(seed: int) -> None:
    chance = random.Random(seed)
    story = Story(SHARD, story_config(), bad_from=40, bad_until=70)
    partitions = with_config(story)
    runner, log = started(partitions)
    crashes = 0
    for number in range(100):
        partitions.now_ms = story.window(number + 1)
        append(partitions, story.blocks(number))
        if number == 50:
            said = Command(id="c", kind="acknowledge", actor="ada", app=app_of(SHARD), environment="production")
            append(partitions, [command_out(said, SHARD)])
        if chance.random() < 0.3:
            continue  # several windows at once
        if chance.random() < 0.2:
            log.fail_commits = 1
        try:
            drain(runner)
        except TransactionFailed:
            crashes += 1
            runner, log = started(partitions, poll_records=chance.choice([3, 50, 500]))
    drain(runner)
    assert crashes > 0
    out = output_of(partitions)
    assert [c.first_window for c in out.cuts[1:]] == [c.last_window + WINDOW_MS for c in out.cuts[:-1]]
    assert out.decisions() == recomputed_from(partitions)
    assert {"acknowledged", "resolved"} <= {a.state for a in out.alerts}


def test_without_its_saved_state_a_shard_is_rebuilt_from_the_recorded_cuts() -> None:
    story = Story(SHARD, story_config(), bad_from=30)
    partitions = with_config(story)
    runner, _ = started(partitions)
    for number in range(35):
        append(partitions, story.blocks(number))
        drain(runner)
    partitions.records[STATE].clear()
    runner, _ = started(partitions)
    append(partitions, [out for number in range(35, 45) for out in story.blocks(number)])
    drain(runner)
    assert output_of(partitions).decisions() == recomputed_from(partitions)
    assert output_of(partitions).cuts[-1].last_window == story.window(44)


def test_a_clean_stop_saves_the_state_so_that_a_restart_folds_nothing_again() -> None:
    story = Story(SHARD, story_config())
    partitions = with_config(story)
    runner, _ = started(partitions)
    for number in range(5):
        append(partitions, story.blocks(number))
        drain(runner)
    runner.save()
    partitions.records[SUMMARIES].clear()
    partitions.starts[SUMMARIES] = partitions.ends[SUMMARIES]
    runner, _ = started(partitions)
    append(partitions, story.blocks(5))
    drain(runner)
    assert output_of(partitions).cuts[-1].first_window == story.window(5)


def test_a_log_that_lost_what_a_cut_was_made_of_stops_the_recovery_with_words() -> None:
    story = Story(SHARD, story_config())
    partitions = with_config(story)
    runner, _ = started(partitions)
    for number in range(5):
        append(partitions, story.blocks(number))
        drain(runner)
    del partitions.records[SUMMARIES][12:18]
    with pytest.raises(RecoveryFailed, match="a recorded cut folded 1 windows"):
        started(partitions)


def test_a_second_controller_shuts_the_first_one_out() -> None:
    story = Story(SHARD, story_config())
    partitions = with_config(story)
    first, _ = started(partitions)
    append(partitions, story.blocks(0))
    started(partitions)
    with pytest.raises(Fenced):
        drain(first)
    assert output_of(partitions).cuts == []


def test_a_thousand_windows_are_caught_up_with_in_one_transaction_and_judged_at_the_newest() -> None:
    story = Story(SHARD, story_config(), bad_from=100)
    partitions = with_config(story)
    for number in range(1_000):
        story.active = number < 300
        append(partitions, story.blocks(number))
    runner, _ = started(partitions, poll_records=2_000)
    drain(runner)
    out = output_of(partitions)
    assert [(c.windows, c.catch_up_until) for c in out.cuts] == [(1_000, story.window(999))]
    assert [(a.slice, a.window) for a in out.alerts if a.paged] == [("version=v2", story.window(999))]
    assert "no action: stale" in out.alerts[-1].reason
    assert out.actions == []


def test_a_batch_ends_at_its_bounds_and_the_next_one_goes_on_under_the_same_newest_window(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for module in ("core.shard", "services.controller_shard"):
        monkeypatch.setattr(f"{module}.MAX_WINDOWS", 40)
    story = Story(SHARD, story_config())
    partitions = with_config(story)
    for number in range(100):
        append(partitions, story.blocks(number))
    runner, _ = started(partitions, poll_records=60)
    drain(runner)
    cuts = output_of(partitions).cuts
    assert [c.windows for c in cuts] == [40, 40, 20]
    assert {c.catch_up_until for c in cuts} == {story.window(99)}
    assert output_of(partitions).decisions() == recomputed_from(partitions)


def test_busy_windows_after_a_long_time_off_do_not_share_a_transaction_that_is_full(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("core.shard", "services.controller_shard"):
        monkeypatch.setattr(f"{module}.MAX_OUTPUT_BYTES", 1)
    story = Story(SHARD, story_config())
    partitions = with_config(story)
    for number in range(30):
        story.active = number >= 20
        append(partitions, story.blocks(number))
    runner, _ = started(partitions)
    drain(runner)
    assert [c.windows for c in output_of(partitions).cuts] == [21] + [1] * 9
    assert output_of(partitions).decisions() == recomputed_from(partitions)


def test_twelve_windows_behind_is_not_catching_up() -> None:
    story = Story(SHARD, story_config())
    partitions = with_config(story)
    for number in range(12):
        append(partitions, story.blocks(number))
    runner, _ = started(partitions)
    drain(runner)
    assert [c.catch_up_until for c in output_of(partitions).cuts] == [None]


def test_a_command_counts_in_the_first_cut_that_includes_it() -> None:
    story = Story(SHARD, story_config())
    partitions = with_config(story)
    runner, _ = started(partitions)
    append(partitions, story.blocks(0))
    drain(runner)
    append(partitions, [command_out(Command(id="c", kind="kill_switch", actor="ada", arguments={"on": True}), SHARD)])
    append(partitions, story.blocks(1))
    drain(runner)
    assert [c.commands_end for c in output_of(partitions).cuts] == [0, 1]


def test_a_step_of_a_worker_is_an_input_and_the_controllers_own_are_not() -> None:
    story = Story(SHARD, story_config(mode="auto"), bad_from=40)
    partitions = with_config(story)
    runner, _ = started(partitions)
    for number in range(60):
        append(partitions, story.blocks(number))
        drain(runner)
    asked = output_of(partitions).actions
    assert [s.state for s in asked] == ["requested"]
    begun = msgspec.structs.replace(asked[0], sequence=2, state="started", actor="worker")
    headers = cloud_headers(ActionStep, id_=f"{begun.id}/2", time_ms=0)
    append(partitions, [Outgoing(ACTIONS, begun.id.encode(), encode(begun), headers, SHARD)])
    runner, _ = started(partitions)
    for number in range(60, 60 + 2 * 720):
        append(partitions, story.blocks(number))
    drain(runner)
    assert [(s.state, s.actor) for s in output_of(partitions).actions] == [("requested", "controller"), ("started", "worker")]


def test_a_stuck_partition_holds_everything_until_it_is_excluded() -> None:
    story, stuck = Story(SHARD, story_config()), (FEEDBACK, 1)
    partitions = with_config(story)
    runner, _ = started(partitions)
    append(partitions, story.blocks(0))
    for number in range(1, 8):
        append(partitions, story.blocks(number, without=[stuck]))
        drain(runner)
    assert output_of(partitions).cuts[-1].last_window == story.window(0)
    away = Command(id="c", kind="exclude_partition", actor="ada", arguments={"topic": FEEDBACK, "partition": 1})
    append(partitions, [command_out(away, SHARD)])
    drain(runner)
    assert output_of(partitions).cuts[-1].last_window == story.window(7)
    runner, _ = started(partitions)
    append(partitions, story.blocks(8, without=[stuck]))
    drain(runner)
    assert output_of(partitions).cuts[-1].last_window == story.window(8)
    assert output_of(partitions).decisions() == recomputed_from(partitions)


@pytest.mark.parametrize("restart_at", [None, 19, 20, 21])
def test_an_added_partition_joins_the_closing_set_where_its_activation_begins_to_hold(restart_at: int | None) -> None:
    story = Story(SHARD, story_config())
    partitions = with_config(story)
    runner, _ = started(partitions)
    wider = Story(SHARD, story_config(partitions={INTERACTIONS: 5, FEEDBACK: 2}), _starts=story._starts)
    for number in range(30):
        partitions.now_ms = story.window(number + 1)
        if number == 13:
            partitions.now_ms = story.window(14)
            append(partitions, config_outs(wider.config, 1))
        if number < 20:
            append(partitions, story.blocks(number))
        elif number < 22:
            append(partitions, wider.block(number, (INTERACTIONS, 4)))  # a processor that runs ahead
        if number == 22:
            for late in (20, 21):
                append(partitions, wider.blocks(late, without=[(INTERACTIONS, 4)]))
        if number >= 22:
            append(partitions, wider.blocks(number))
        if number == restart_at:
            runner, _ = started(partitions)
        drain(runner)
    rows = [r for r in output_of(partitions).rows if r.metric == "refusal@1" and r.resolution == 5]
    assert [r.n for r in rows] == [100] * 20 + [125] * 10
    assert output_of(partitions).decisions() == recomputed_from(partitions)


def test_an_activation_while_everything_was_off_changes_the_closing_set_when_work_goes_on() -> None:
    story = Story(SHARD, story_config())
    partitions = with_config(story)
    runner, _ = started(partitions)
    for number in range(5):
        partitions.now_ms = story.window(number + 1)
        append(partitions, story.blocks(number))
        drain(runner)
    partitions.now_ms = story.window(50)
    wider = Story(SHARD, story_config(partitions={INTERACTIONS: 5, FEEDBACK: 2}), _starts=story._starts)
    append(partitions, config_outs(wider.config, 1))
    for number in range(100, 103):
        append(partitions, wider.blocks(number, without=[(INTERACTIONS, 4)]))
        drain(runner)
    assert output_of(partitions).cuts[-1].last_window == story.window(4)
    for number in range(100, 103):
        append(partitions, wider.block(number, (INTERACTIONS, 4)))
    drain(runner)
    rows = [r for r in output_of(partitions).rows if r.metric == "refusal@1" and r.resolution == 5]
    assert [r.n for r in rows] == [100] * 5 + [125] * 3
    assert output_of(partitions).decisions() == recomputed_from(partitions)
    started(partitions)


def test_a_header_that_names_a_config_just_published_is_waited_for() -> None:
    story = Story(SHARD, story_config())
    partitions = MemoryPartitions()
    runner, log = started(partitions)
    assert not runner.active
    append(partitions, story.blocks(0))
    append(partitions, config_outs(story.config))
    log.follow({SUMMARIES: 0, COMMANDS: 0, ACTIONS: 0, CONFIG: 0})
    drain(runner)
    assert output_of(partitions).cuts[-1].last_window == story.window(0)


def test_records_that_cannot_be_read_are_counted_and_passed_over() -> None:
    story = Story(SHARD, story_config())
    partitions = with_config(story)
    log, observer = MemoryShardLog(partitions), Silent()
    runner = ShardRunner(SHARD, log, observer)
    runner.recover()
    append(partitions, [Outgoing(COMMANDS, b"1", b"\xff{", [], SHARD), Outgoing(SUMMARIES, b"1", b"{}", [], SHARD)])
    append(partitions, story.blocks(0))
    drain(runner)
    assert sorted(observer.unreadables) == [(COMMANDS, "type"), (SUMMARIES, "type")]
    assert output_of(partitions).cuts[-1].commands_end == 1


def test_the_words_of_a_command_are_cut_so_that_no_transition_is_too_large_to_write() -> None:
    story = Story(SHARD, story_config(), bad_from=40)
    partitions = with_config(story)
    runner, _ = started(partitions)
    for number in range(60):
        append(partitions, story.blocks(number))
    drain(runner)
    said = Command(id="c", kind="acknowledge", actor="e" * 100_000, app=app_of(SHARD), reason="why " * 250_000)
    append(partitions, [command_out(said, SHARD), *story.blocks(60)])
    drain(runner)
    told = output_of(partitions).alerts[-1]
    assert (told.state, len(told.actor), len(told.reason) < 10_000) == ("acknowledged", 200, True)


def test_a_rollback_by_a_person_that_names_no_app_is_said_to_be_impossible() -> None:
    partitions = with_config(Story(SHARD, story_config()))
    observer = Silent()
    runner = ShardRunner(SHARD, MemoryShardLog(partitions), observer)
    runner.recover()
    append(partitions, [command_out(Command(id="c", kind="roll_back", actor="eve"), SHARD)])
    runner.cycle(0)
    assert observer.unreadables == [(COMMANDS, "invalid")]


@pytest.mark.parametrize(
    ("kind", "arguments"),
    [
        ("silence", {"seconds": "long"}),
        ("silence", {"seconds": 1e300}),
        ("silence", {"seconds": True}),
        ("exclude_partition", {"topic": FEEDBACK, "partition": "first"}),
        ("exclude_partition", {"topic": FEEDBACK, "partition": 1.5}),
        ("include_partition", {"topic": "llm.other", "partition": 1}),
        ("exclude_partition", {}),
    ],
)
def test_a_command_with_impossible_arguments_stops_nothing(kind: CommandKind, arguments: dict[str, Scalar]) -> None:
    story = Story(SHARD, story_config())
    partitions = with_config(story)
    observer = Silent()
    runner = ShardRunner(SHARD, MemoryShardLog(partitions), observer)
    runner.recover()
    append(partitions, [command_out(Command(id="c", kind=kind, actor="eve", arguments=arguments), SHARD), *story.blocks(0)])
    drain(runner)
    assert observer.unreadables == [(COMMANDS, "invalid")]
    assert output_of(partitions).cuts[-1].commands_end == 1


class Ready:
    def __init__(self) -> None:
        self.said: list[str | None] = []

    def set_ready(self, reason: str | None) -> None:
        if not self.said or self.said[-1] != reason:
            self.said.append(reason)


class StoppingRunner(ShardRunner):
    """Runs a few cycles, with whatever each of them raises, then asks the controller to stop."""

    def __init__(self, source: MemoryShardLog, stop: threading.Event, outcomes: Sequence[Exception | None]) -> None:
        super().__init__(SHARD, source, Silent())
        self._stop, self._outcomes = stop, list(outcomes)

    def cycle(self, timeout: float) -> bool:
        if not self._outcomes:
            self._stop.set()
            return super().cycle(timeout)
        outcome = self._outcomes.pop(0)
        if outcome is not None:
            raise outcome
        return super().cycle(timeout)


def run_with(*outcomes: Exception | None, clock: Sequence[float] = ()) -> tuple[int, Ready]:
    partitions = with_config(Story(SHARD, story_config()))
    stop, ready = threading.Event(), Ready()
    times = iter([*clock, *[clock[-1] if clock else 0.0] * 100])
    controller = Controller([StoppingRunner(MemoryShardLog(partitions), stop, outcomes)], ready, stop, clock=lambda: next(times))
    return controller.run(), ready


def test_a_fenced_controller_ends_with_the_code_that_keeps_it_away_for_a_while() -> None:
    assert run_with(None, Fenced("another"))[0] == EXIT_FENCED == 75


def test_a_failed_transaction_ends_the_process() -> None:
    assert run_with(TransactionFailed("aborted"))[0] == EXIT_CRASHED


def test_a_broker_that_is_away_is_waited_for_and_said() -> None:
    code, ready = run_with(BrokerAway("no leader"))
    assert code == 0
    assert ready.said == ["waiting for Kafka: no leader", None]


def test_no_header_for_a_minute_means_that_the_pipeline_has_stopped() -> None:
    _, ready = run_with(None, None, clock=[0.0, 1.0, 62.0])
    assert ready.said == [None, "pipeline stopped: no block header for more than 60 s"]


def test_a_partition_without_headers_is_named_when_the_others_have_waited_for_a_minute() -> None:
    story = Story(SHARD, story_config())
    partitions = with_config(story)
    append(partitions, story.blocks(0))
    stop, ready, at = threading.Event(), Ready(), itertools.count(1)

    class WithOthers(StoppingRunner):
        def cycle(self, timeout: float) -> bool:
            append(partitions, story.blocks(next(at), without=[(FEEDBACK, 1)]))
            return super().cycle(timeout)

    runner = WithOthers(MemoryShardLog(partitions), stop, [None] * 30)
    times = itertools.count(0.0, 5.0)
    Controller([runner], ready, stop, clock=lambda: next(times)).run()
    assert "windows cannot close: no header of llm.feedback/1 for 60 s" in ready.said


def test_alerts_that_were_open_before_a_restart_are_counted_after_it() -> None:
    story = Story(SHARD, story_config(), bad_from=40)
    partitions = with_config(story)
    runner, _ = started(partitions)
    for number in range(60):
        append(partitions, story.blocks(number))
        drain(runner)
    observer = Silent()
    ShardRunner(SHARD, MemoryShardLog(partitions), observer).recover()
    assert observer.open_alerts == 1


def test_without_a_config_the_controller_is_not_ready() -> None:
    stop, ready = threading.Event(), Ready()
    Controller([StoppingRunner(MemoryShardLog(MemoryPartitions()), stop, [])], ready, stop).run()
    assert ready.said == ["no config has been activated yet (bellbuoy up does it)"]


@pytest.mark.parametrize("text", ["", "a", "1-", "0,5", "2"])
def test_shards_that_the_cluster_does_not_have_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match="shards"):
        parse_shards(text, 2)


def test_a_step_that_the_controller_wrote_for_a_person_is_not_read_as_the_persons_own() -> None:
    story = Story(SHARD, story_config(mode="approve"), bad_from=40)
    partitions = with_config(story)
    runner, _log = started(partitions)
    for number in range(60):
        append(partitions, story.blocks(number))
        drain(runner)
    asked = output_of(partitions).actions[0]
    yes = Command(id="c", kind="approve", actor="ada", action=asked.id, app=asked.target.app, environment="production")
    append(partitions, [command_out(yes, SHARD), *story.blocks(60)])
    drain(runner)
    append(partitions, story.blocks(61))
    assert [(s.state, s.actor) for s in output_of(partitions).actions] == [("waiting", "controller"), ("requested", "ada")]
    assert all(is_own(record) for record in partitions.records[ACTIONS])
