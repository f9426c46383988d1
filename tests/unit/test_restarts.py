"""When a process that ended is started again."""

from bellbuoy.restarts import EXIT_FENCED, FENCED_DELAY_S, LONGEST_DELAY_S, Restarts

PLACE, OTHER = ("llm.interactions", 0), ("llm.interactions", 1)


def test_the_first_death_is_answered_at_once() -> None:
    assert Restarts().delay(-9, 100.0) == 0.0


def test_quick_deaths_are_answered_ever_later_up_to_a_limit() -> None:
    restarts = Restarts()
    delays = [restarts.delay(1, 0.5) for _ in range(12)]
    assert delays == sorted(delays)
    assert delays[:4] == [0.0, 0.2, 0.4, 0.8]
    assert delays[-1] == LONGEST_DELAY_S


def test_a_long_life_makes_up_for_quick_deaths() -> None:
    restarts = Restarts()
    for _ in range(8):
        restarts.delay(1, 0.5)
    assert restarts.delay(1, 60.0) == 0.0


def test_a_fenced_controller_waits() -> None:
    assert Restarts().delay(EXIT_FENCED, 100.0) == FENCED_DELAY_S


def test_the_third_death_at_one_offset_calls_for_care() -> None:
    restarts = Restarts()
    assert [restarts.must_be_careful({PLACE: 7, OTHER: n}) for n in range(3)] == [False, False, True]


def test_care_begins_to_count_anew_after_it_was_called_for() -> None:
    restarts = Restarts()
    seen = [restarts.must_be_careful({PLACE: 7}) for _ in range(6)]
    assert seen == [False, False, True, False, False, True]


def test_deaths_between_which_every_partition_moves_on_need_no_care() -> None:
    restarts = Restarts()
    assert not any(restarts.must_be_careful({PLACE: n, OTHER: 2 * n}) for n in range(10))


def test_deaths_while_no_broker_answers_do_not_count() -> None:
    restarts = Restarts()
    assert [restarts.must_be_careful(c) for c in ({PLACE: 7}, None, {PLACE: 7}, None, None)] == [False] * 5


def test_every_restart_is_counted() -> None:
    restarts = Restarts()
    for code in (1, -9, EXIT_FENCED):
        restarts.delay(code, 1.0)
    assert restarts.total == 3
