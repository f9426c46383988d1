"""Closing windows: when, with what, and what is wrong with the headers."""

import msgspec
import pytest

from core.groups import merge_groups
from core.windows import PACKED_AHEAD, REMEMBERED, ClosedWindow, WindowCloser
from schemas.messages import WINDOW_MS, BlockHeader, BlockSummary, Cohort, Command, Group, LedgerCounts

TOPIC = "llm.interactions"


def group(version: str = "v1", refused: int = 1, app: str = "desk") -> Group:
    return Group(app=app, environment="production", version=version, n=10, bins={"refusal@1": [(0, 10 - refused), (1, refused)]})


def block(
    partition: int, number: int, *groups: Group, part: int = 1, parts: int = 1, start: int | None = None, id_: str = "id"
) -> BlockSummary:
    """The block of window `number`; ten records each unless `start` says otherwise."""
    header = BlockHeader(
        topic=TOPIC,
        topic_id=id_,
        partition=partition,
        window=number * WINDOW_MS,
        start=number * 10 if start is None else start,
        end=number * 10 + 10,
        config="c",
        counts=LedgerCounts(scored=10),
    )
    return BlockSummary(header=header, shard=0, part=part, parts=parts, groups=list(groups))


def closer(*blocks: BlockSummary, partitions: int = 2) -> WindowCloser:
    out = WindowCloser(0, {TOPIC: partitions})
    for offset, summary in enumerate(blocks):
        out.add(summary, offset=offset)
    return out


def cohort(version: str = "v2", epoch: int = 7, refused: int = 1) -> Cohort:
    bins = {"refusal@1": [(0, 10 - refused), (1, refused)]}
    return Cohort(app="desk", environment="production", version=version, route_epoch=epoch, n=10, bins=bins)


def with_cohorts(summary: BlockSummary, *cohorts: Cohort) -> BlockSummary:
    return msgspec.structs.replace(summary, cohorts=list(cohorts))


def numbers(windows: list[ClosedWindow]) -> list[int]:
    return [w.window // WINDOW_MS for w in windows]


def problems(windows: list[ClosedWindow]) -> list[str]:
    return [problem.kind for w in windows for problem in w.problems]


def test_a_window_waits_for_every_partition() -> None:
    it = closer(block(0, 1), block(0, 2))
    assert it.closed() == []
    it.add(block(1, 1))
    assert numbers(it.closed()) == [1]


def test_a_header_of_a_later_window_closes_the_earlier_ones() -> None:
    it = closer(block(0, 1), block(0, 2), block(1, 5))
    assert numbers(it.closed()) == [1, 2]


def test_the_first_window_is_the_least_of_the_first_headers() -> None:
    assert numbers(closer(block(0, 7), block(1, 3), block(1, 8)).closed()) == [3, 7]


def test_a_window_without_headers_is_absent() -> None:
    assert numbers(closer(block(0, 1), block(1, 1), block(0, 9, start=20), block(1, 9, start=20)).closed()) == [1, 9]


def test_groups_of_partitions_are_summed() -> None:
    (window,) = closer(block(0, 1, group(), group("v2")), block(1, 1, group(refused=3))).closed()
    assert [(g.version, g.n, g.bins["refusal@1"]) for g in window.groups] == [
        ("v1", 20, [(0, 16), (1, 4)]),
        ("v2", 10, [(0, 9), (1, 1)]),
    ]


def test_merging_in_any_order_gives_the_same() -> None:
    groups = [group(), group("v2"), group(refused=4), group(app="a")]
    assert merge_groups(groups) == merge_groups(reversed(groups))


def test_a_block_in_parts_counts_when_its_last_part_has_come() -> None:
    it = closer(block(0, 1, group("a"), part=1, parts=2), partitions=1)
    assert it.closed() == []
    it.add(block(0, 1, group("b"), part=2, parts=2))
    assert [g.version for g in it.closed()[0].groups] == ["a", "b"]


def test_an_equal_repetition_changes_nothing() -> None:
    windows = closer(block(0, 1, group()), block(0, 1, group()), partitions=1).closed()
    assert [g.n for w in windows for g in w.groups] == [10]
    assert problems(windows) == []


def test_a_repetition_after_its_window_was_folded_changes_nothing() -> None:
    it = closer(block(0, 1, group()), partitions=1)
    it.closed()
    it.add(block(0, 1, group()))
    it.add(block(0, 2))
    windows = it.closed()
    assert (numbers(windows), problems(windows)) == ([2], [])


def test_of_an_unequal_repetition_the_first_counts_and_it_is_a_problem() -> None:
    it = closer(block(0, 1, group()), block(0, 1, group(refused=2)), partitions=1)
    windows = it.closed()
    assert windows[0].groups[0].bins["refusal@1"] == [(0, 9), (1, 1)]
    assert problems(windows) == ["unequal_repetition"]


def test_a_gap_in_the_chain_is_recorded() -> None:
    assert problems(closer(block(0, 1), block(0, 2, start=23), partitions=1).closed()) == ["gap"]


def test_a_topic_that_was_made_again_is_recorded() -> None:
    assert problems(closer(block(0, 1), block(0, 2, start=0, id_="new"), partitions=1).closed()) == ["recreated"]


def test_a_block_that_is_no_longer_remembered_is_dropped_and_recorded() -> None:
    it = closer(*(block(0, n) for n in range(REMEMBERED + 2)), partitions=1)
    it.closed()
    it.add(block(0, 0))
    it.add(block(0, REMEMBERED + 2))
    windows = it.closed()
    assert (numbers(windows), problems(windows)) == ([REMEMBERED + 2], ["old_repetition"])


def test_an_excluded_partition_is_neither_waited_for_nor_folded() -> None:
    it = closer(block(0, 1, group()), block(1, 1, group()), block(0, 2))
    command = Command(id="x", kind="exclude_partition", actor="watchdog", arguments={"topic": TOPIC, "partition": 1})
    assert it.apply(command)
    windows = it.closed()
    assert numbers(windows) == [1, 2]
    assert windows[0].groups[0].n == 10


def test_an_included_partition_is_waited_for_again() -> None:
    it = closer(block(0, 1), block(1, 1), block(0, 2))
    it.exclude(TOPIC, 1)
    assert numbers(it.closed()) == [1, 2]
    it.include(TOPIC, 1)
    it.add(block(0, 3))
    assert it.closed() == []
    it.add(block(1, 2, group()))  # late: its window was folded without it
    it.add(block(1, 3, group()))
    windows = it.closed()
    assert (numbers(windows), windows[0].groups[0].n) == ([3], 10)


def test_until_and_limit_bound_what_is_given_out() -> None:
    it = closer(*(block(0, n) for n in range(6)), partitions=1)
    assert numbers(it.closed(limit=2)) == [0, 1]
    assert numbers(it.closed(until=3 * WINDOW_MS)) == [2, 3]
    assert (it.behind, it.newest_closed) == (2, 5 * WINDOW_MS)


def test_costs_bound_what_is_given_out_before_it_is_taken() -> None:
    it = closer(*(block(0, n) for n in range(6)), partitions=1)
    costs = {n * WINDOW_MS: 0 if n == 1 else 4 for n in range(6)}
    assert [numbers(it.closed(costs=costs, most=8)) for _ in range(3)] == [[0, 1, 2], [3, 4], [5]]


def test_a_problem_that_was_met_before_the_state_was_written_is_told_after_a_restart() -> None:
    blocks = [block(0, 1, group()), block(0, 1, group(refused=2)), block(0, 2, group()), block(0, 3)]
    first = closer(blocks[0], partitions=1)
    first.closed()
    first.add(blocks[1], offset=1)
    second, offset = WindowCloser.restore({TOPIC: 1}, first.section())
    for at in range(offset, len(blocks)):
        second.add(blocks[at], offset=at)
    assert problems(second.closed()) == ["unequal_repetition"]


@pytest.mark.parametrize("stop", range(1, 12))
def test_a_restored_closer_goes_on_as_if_it_had_never_stopped(stop: int) -> None:
    blocks = [
        block(0, 1, group()), block(1, 1), block(0, 2), block(0, 3, group(), part=1, parts=2), block(1, 3, group("v2")),
        block(0, 3, part=2, parts=2), block(0, 1, group()), block(1, 3, group("v2")), block(0, 4, group()), block(1, 4), block(0, 4, group("x")),
        block(1, 6, group()), block(0, 6),
    ]  # fmt: skip
    whole = closer(*blocks).closed()
    first = closer(*blocks[:stop])
    given = first.closed()
    second, offset = WindowCloser.restore({TOPIC: 2}, first.section())
    for at in range(offset, len(blocks)):
        second.add(blocks[at], offset=at)
    together = given + second.closed()
    assert [(w.window, w.headers, w.groups) for w in together] == [(w.window, w.headers, w.groups) for w in whole]


def test_what_a_stuck_partition_holds_up_is_kept_deflated_and_folded_all_the_same() -> None:
    it = closer(block(0, 0), block(1, 0))
    for number in range(1, 400):
        it.add(block(0, number, *(group(f"v{n}") for n in range(20))))
    assert (it.behind, it.held, it.holding) == (1, 399, [(TOPIC, 1)])
    assert sum(len(b.groups) for w in it._waiting.values() for b in w.values()) <= 20 * (PACKED_AHEAD + 1)
    for number in range(1, 400):
        it.add(block(1, number))
    assert [len(w.groups) for w in it.closed()] == [0] + [20] * 399


def test_cohorts_of_partitions_are_summed_by_version_and_route_epoch() -> None:
    (window,) = closer(
        with_cohorts(block(0, 1), cohort(), cohort(epoch=8)), with_cohorts(block(1, 1), cohort(refused=3), cohort("v1"))
    ).closed()
    assert [(c.version, c.route_epoch, c.n, c.bins["refusal@1"]) for c in window.cohorts] == [
        ("v1", 7, 10, [(0, 9), (1, 1)]),
        ("v2", 7, 20, [(0, 16), (1, 4)]),
        ("v2", 8, 10, [(0, 9), (1, 1)]),
    ]


def test_cohorts_that_were_kept_deflated_are_folded_all_the_same() -> None:
    it = closer(block(0, 0), block(1, 0))
    for number in range(1, 400):
        it.add(with_cohorts(block(0, number), cohort()))
    assert sum(len(b.cohorts) for w in it._waiting.values() for b in w.values()) <= PACKED_AHEAD + 1
    for number in range(1, 400):
        it.add(block(1, number))
    assert [w.cohorts for w in it.closed()] == [(), *[(cohort(),)] * 399]
