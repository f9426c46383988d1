"""The loss ledger's arithmetic."""

from collections.abc import Sequence

from core.ledger import Block, Ledger, Log, Run, account, ranges

T = "llm.interactions"
NOW = 1_000_000


def run(start: int, end: int, *, window: int = 0, tick: int = 0, dead: int = 0, control: int = 0) -> Run:
    scored = end - start - tick - dead - control
    return Run(T, "id", 0, start, end, window, window, scored, dead, 0, tick, control)


def block(start: int, end: int, scored: int, held: int, *, deleted: int = 0, dead: int = 0, dead_held: int = 0) -> Block:
    return Block(T, "id", 0, 5_000, start, end, scored, held, dead, dead_held, deleted)


def settle(runs: Sequence[Run], blocks: Sequence[Block] = (), *, start: int = 0, end: int = 100) -> Ledger:
    return account(runs, blocks, [Log(T, "id", 0, start, end)], now_ms=NOW)


def adds_up(ledger: Ledger) -> bool:
    return ledger.received == ledger.stored + ledger.dead + ledger.missing


def test_a_whole_chain_has_nothing_missing() -> None:
    ledger = settle([run(0, 60, tick=2, dead=3), run(60, 100, control=1)])
    assert (ledger.received, ledger.stored, ledger.dead, ledger.missing, ledger.tick) == (97, 94, 3, 0, 2)
    assert adds_up(ledger)
    assert not ledger.problems


def test_offsets_behind_the_last_block_are_in_flight() -> None:
    ledger = settle([run(0, 60, window=NOW - 9_000)])
    assert (ledger.in_flight, ledger.received, ledger.missing) == (40, 60, 0)
    assert ledger.in_flight_age_s == 4.0


def test_the_frontier_is_the_end_of_the_last_block() -> None:
    assert settle([run(0, 60)]).frontier((T, 0)) == 60


def test_a_partition_without_blocks_has_its_frontier_at_the_logs_start() -> None:
    ledger = settle([], start=7)
    assert (ledger.frontier((T, 0)), ledger.in_flight, ledger.missing) == (7, 93, 0)


def test_a_deleted_header_is_missing_with_its_offsets() -> None:
    ledger = settle([run(0, 30), run(50, 100)])
    assert ledger.missing == 20
    assert [(g.start, g.end, g.what) for g in ledger.gaps] == [(30, 50, "header")]
    assert adds_up(ledger)


def test_a_deleted_first_header_is_missing() -> None:
    ledger = settle([run(30, 100)])
    assert [(g.start, g.end, g.records) for g in ledger.gaps] == [(0, 30, 30)]
    assert adds_up(ledger)


def test_a_head_that_retention_took_is_expired() -> None:
    ledger = settle([run(0, 30), run(50, 100)], start=50)
    assert (ledger.expired, ledger.missing, ledger.received) == (20, 0, 80)
    assert adds_up(ledger)


def test_a_gap_that_reaches_over_the_logs_start_is_expired_up_to_there() -> None:
    ledger = settle([run(0, 30), run(50, 100)], start=40)
    assert (ledger.expired, ledger.missing) == (10, 10)
    assert adds_up(ledger)


def test_a_chain_that_began_later_than_the_log_does_now_counts_from_its_own_start() -> None:
    assert settle([run(10, 100)], start=60).received == 90


def test_a_deleted_row_is_missing_in_its_block() -> None:
    ledger = settle([run(0, 100)], [block(20, 40, scored=20, held=19)])
    assert ledger.missing == 1
    assert [(g.start, g.end, g.records, g.what, g.window) for g in ledger.gaps] == [(20, 40, 1, "rows", 5_000)]
    assert adds_up(ledger)


def test_a_dead_letter_that_is_not_held_is_missing() -> None:
    ledger = settle([run(0, 100, dead=2)], [block(20, 40, scored=18, held=18, dead=2, dead_held=1)])
    assert (ledger.missing, ledger.dead) == (1, 1)
    assert adds_up(ledger)


def test_a_row_that_was_deleted_on_purpose_is_not_missing() -> None:
    ledger = settle([run(0, 100)], [block(20, 40, scored=20, held=19, deleted=1)])
    assert (ledger.missing, ledger.deleted) == (0, 1)
    assert adds_up(ledger)


def test_more_rows_than_scored_records_is_a_problem() -> None:
    assert "has 21 rows" in settle([run(0, 100)], [block(20, 40, scored=20, held=21)]).problems[0]


def test_two_headers_over_the_same_offsets_are_a_problem() -> None:
    assert "contradict" in settle([run(0, 60), run(40, 100)]).problems[0]


def test_counts_that_do_not_fill_their_offsets_are_a_problem() -> None:
    assert "do not add up" in settle([Run(T, "id", 0, 0, 100, 0, 0, scored=99)]).problems[0]


def test_blocks_beyond_the_logs_end_are_a_problem() -> None:
    assert "the log ends at 100" in settle([run(0, 120)]).problems[0]


def test_headers_of_a_topic_that_was_made_again_are_not_mixed_with_the_new_ones() -> None:
    old = Run(T, "old-id", 0, 0, 500, 0, 0, 500)
    ledger = account([old, run(0, 60)], [], [Log(T, "id", 0, 0, 60)], now_ms=NOW)
    assert (ledger.received, ledger.missing) == (60, 0)
    assert not ledger.problems


def test_the_same_loss_has_the_same_id() -> None:
    (first,), (second,) = settle([run(0, 30), run(50, 60)]).gaps, settle([run(0, 30), run(50, 100)]).gaps
    assert first.id == second.id


def test_another_record_missing_in_a_block_is_another_loss() -> None:
    (first,) = settle([run(0, 100)], [block(20, 40, scored=20, held=19)]).gaps
    (second,) = settle([run(0, 100)], [block(20, 40, scored=20, held=18)]).gaps
    assert first.id != second.id


def test_ranges_of_nothing_are_nothing() -> None:
    assert ranges([]) == []
