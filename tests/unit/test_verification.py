"""When a rollback counts as verified, who is waited for, and what nobody can say."""

from bellbuoy.routing import bad_champion_since, rolled_back
from core.routing import first_table, with_candidate, with_champion
from core.verification import FORGOTTEN_MS, NAMED, UNVERIFIED_AFTER_MS, Fleet, Heard, Question, Routes, Verdict, verify
from schemas.messages import CallConfiguration, GatewayReport, RouteReport, RouteTable

T = 1_700_000_000_000
"""When the table of epoch 5 was committed."""
LEASE, GRACE = 3_000, 10_000
CANDIDATE = Question("desk", "production", 5, frozenset({"v2"}), T)
CHAMPION = Question("desk", "production", 5, frozenset({"v2"}), T, champion_since=T - 600_000)


def route(epoch: int, champion: str = "v1", **more: dict[str, int]) -> RouteReport:
    return RouteReport(app="desk", environment="production", epoch=epoch, champion=champion, **more)


def heard(
    at: int, *routes: RouteReport, name: str = "g1", incarnation: str = "a", stopped: bool = False, dead: str | None = None
) -> Heard:
    report = GatewayReport(
        instance=name, incarnation=incarnation, sequence=1, stopped=stopped, known_dead=dead, routes=list(routes)
    )
    return Heard(report, at)


def verdict(question: Question, *fleet: Heard, after: int = 1_000) -> Verdict:
    return verify(question, fleet, T + after)


def test_a_gateway_that_confirms_the_epoch_verifies() -> None:
    got = verdict(CHAMPION, heard(T + 500, route(5)))
    assert (got.outcome, got.confirmed) == ("verified", ("g1",))


def test_a_later_epoch_confirms_as_well() -> None:
    assert verdict(CHAMPION, heard(T + 500, route(6))).outcome == "verified"


def test_a_live_gateway_at_an_older_epoch_is_waited_for_and_named() -> None:
    got = verdict(CHAMPION, heard(T + 500, route(5)), heard(T + 500, route(4, "v2"), name="g2"))
    assert (got.outcome, got.waiting, got.confirmed) == ("not yet", ("g2",), ("g1",))
    assert "g2: alive, at epoch 4" in got.reason


def test_a_live_gateway_that_has_not_named_the_app_yet_is_waited_for() -> None:
    assert verdict(CHAMPION, heard(T + 500)).waiting == ("g1",)


def test_the_route_of_another_environment_confirms_nothing() -> None:
    elsewhere = RouteReport(app="desk", environment="staging", epoch=9, champion="v1")
    assert verdict(CHAMPION, heard(T + 500, elsewhere)).outcome == "not yet"


def test_a_request_started_on_the_bad_version_since_is_no_confirmation() -> None:
    got = verdict(CHAMPION, heard(T + 500, route(5, started={"v2": 1, "v1": 7})))
    assert (got.outcome, got.waiting) == ("not yet", ("g1",))


def test_requests_started_on_other_versions_do_not_matter() -> None:
    assert verdict(CHAMPION, heard(T + 500, route(5, started={"v1": 7}))).outcome == "verified"


def test_running_answers_are_counted_and_never_block() -> None:
    got = verdict(CHAMPION, heard(T + 500, route(5, running={"v2": 3, "v1": 9})))
    assert (got.outcome, got.running) == ("verified", 3)


def test_after_thirty_seconds_what_is_waited_for_makes_it_unverified() -> None:
    fleet = heard(T - 5_000, route(4, "v2"))
    outcomes = [verdict(CHAMPION, fleet, after=after).outcome for after in (UNVERIFIED_AFTER_MS - 1, UNVERIFIED_AFTER_MS)]
    assert outcomes == ["not yet", "unverified"]


def test_a_gateway_that_stopped_or_is_known_dead_is_done() -> None:
    stopped, dead = heard(T - 5_000, route(4, "v2"), stopped=True), heard(T, route(4, "v2"), name="g2", dead="the supervisor")
    got = verdict(CHAMPION, stopped, dead)
    assert (got.outcome, got.confirmed) == ("verified", ())


def test_a_lease_is_live_until_it_is_over() -> None:
    live = [heard(T, route(4)).live(T + after) for after in (LEASE, LEASE + 1)]
    assert live == [True, False]


def test_a_cut_off_gateway_with_the_bad_candidate_is_done_after_its_grace() -> None:
    fleet = heard(T, route(4, "v1"))
    outcomes = [verdict(CANDIDATE, fleet, after=LEASE + GRACE + extra).outcome for extra in (0, 1)]
    assert outcomes == ["not yet", "verified"]


def test_a_cut_off_gateway_with_the_bad_champion_is_never_done_by_itself() -> None:
    assert verdict(CHAMPION, heard(T, route(4, "v2")), after=86_000_000).waiting == ("g1",)


def test_a_cut_off_gateway_that_may_have_got_the_bad_champion_unconfirmed_is_waited_for() -> None:
    cut_after_the_promotion = heard(T - 500_000, route(3, "v1"))
    assert verdict(CHAMPION, cut_after_the_promotion, after=60_000).outcome == "unverified"


def test_a_gateway_that_was_gone_before_the_bad_version_became_champion_is_done() -> None:
    gone = heard(T - 600_000 - LEASE - GRACE, route(3, "v1"))
    assert verdict(CHAMPION, gone).outcome == "verified"


def test_where_the_log_does_not_tell_since_when_it_was_champion_every_silent_gateway_is_waited_for() -> None:
    unknown = Question("desk", "production", 5, frozenset({"v2"}), T, champion_since=0)
    assert verdict(unknown, heard(T - 80_000_000, route(3, "v1"))).waiting == ("g1",)


def test_a_gateway_that_never_had_the_app_is_done_after_its_grace() -> None:
    assert verdict(CANDIDATE, heard(T, name="g2"), after=LEASE + GRACE + 1).outcome == "verified"


def test_one_that_confirmed_and_then_fell_silent_has_confirmed() -> None:
    assert verdict(CHAMPION, heard(T + 100, route(5)), after=25_000).outcome == "verified"


def test_without_any_gateway_nothing_verifies_it() -> None:
    got = verdict(CHAMPION)
    assert (got.outcome, "nothing can verify it" in got.reason) == ("no gateway", True)


def test_gateways_that_ended_more_than_a_day_ago_are_no_gateways() -> None:
    ended = heard(T - FORGOTTEN_MS, route(4, "v2"), stopped=True)
    assert verdict(CHAMPION, ended).outcome == "no gateway"


def test_one_that_fell_silent_a_day_ago_without_an_end_still_matters() -> None:
    assert verdict(CHAMPION, heard(T - 2 * FORGOTTEN_MS, route(4, "v2"))).waiting == ("g1",)


def test_a_reason_names_some_and_counts_the_rest() -> None:
    fleet = [heard(T, route(4), name=f"g{n:02}" + "x" * 1_000) for n in range(NAMED + 5)]
    got = verdict(CHAMPION, *fleet)
    assert (len(got.waiting), got.reason.endswith("; and 5 more"), len(got.reason) < 2_000) == (NAMED + 5, True, True)


def test_a_new_incarnation_speaks_for_the_instance() -> None:
    fleet = Fleet()
    fleet.take(heard(T, route(4, "v2")).report, T)
    fleet.take(heard(T + 100, route(5), incarnation="b").report, T + 100)
    assert verdict(CHAMPION, *fleet.instances.values()).outcome == "verified"


def test_that_an_old_incarnation_is_dead_says_nothing_about_the_new_one() -> None:
    fleet = Fleet()
    fleet.take(heard(T, route(4, "v2"), incarnation="b").report, T)
    fleet.take(heard(T, route(4, "v2"), incarnation="a", dead="the supervisor").report, T + 100)
    assert verdict(CHAMPION, *fleet.instances.values()).waiting == ("g1",)


def two_of_one_name() -> Fleet:
    """Process `a` with the bad champion, `b` that has confirmed, and `a` again."""
    fleet = Fleet()
    for at, epoch, champion, incarnation in ((0, 4, "v2", "a"), (100, 5, "v1", "b"), (200, 4, "v2", "a"), (300, 5, "v1", "b")):
        fleet.take(heard(T, route(epoch, champion), incarnation=incarnation).report, T + at)
    return fleet


def test_two_processes_of_one_name_are_both_waited_for() -> None:
    assert verdict(CHAMPION, *two_of_one_name().instances.values()).waiting == ("g1",)


def test_of_two_processes_of_one_name_the_dead_one_is_done() -> None:
    fleet = two_of_one_name()
    fleet.take(heard(T, route(4, "v2"), incarnation="a", dead="ada").report, T + 400)
    assert verdict(CHAMPION, *fleet.instances.values()).outcome == "verified"


def test_an_instance_whose_key_was_deleted_is_forgotten() -> None:
    fleet = Fleet()
    fleet.take(heard(T, route(4, "v2")).report, T)
    fleet.remove("g1")
    assert verdict(CHAMPION, *fleet.instances.values()).outcome == "no gateway"
    both = two_of_one_name()
    both.remove("g1")
    assert both.instances == {}


# --- since when a version is champion -------------------------------------------------------------------------------


def tables(*champions: str) -> list[RouteTable]:
    made = [first_table("desk", "production", champions[0], CallConfiguration(model="m"), actor="ada", reason="")]
    for champion in champions[1:]:
        made.append(with_champion(made[-1], champion, CallConfiguration(model="m"), actor="ada", reason=""))
    return made


def since(version: str, *taken: RouteTable) -> int | None:
    routes = Routes()
    for table in taken:
        routes.take(table, T + table.epoch)
    return routes.champion_since("desk", "production", version)


def test_a_champion_is_one_since_its_first_table_in_a_row() -> None:
    assert since("v2", *tables("v1", "v2", "v2", "v2")) == T + 2


def test_who_is_not_the_present_champion_has_no_since() -> None:
    assert since("v1", *tables("v1", "v2")) is None


def test_the_first_table_of_an_app_tells_since_when() -> None:
    assert since("v1", *tables("v1")) == T + 1


def test_a_log_that_begins_with_a_later_table_does_not_tell_since_when() -> None:
    assert since("v2", *tables("v1", "v2")[1:]) == 0


def test_an_older_table_that_comes_again_changes_nothing() -> None:
    routes, (first, second) = Routes(), tables("v1", "v2")
    for table in (first, second, first):
        routes.take(table, T + table.epoch)
    assert routes.table("desk", "production") == second


def test_a_table_comes_again_with_its_true_append_time() -> None:
    routes, (first,) = Routes(), tables("v1")
    routes.take(first, T)
    routes.take(first, T + 7)
    assert routes.append_time("desk", "production", 1) == T + 7


# --- a person's rollback --------------------------------------------------------------------------------------------


def rolled(before: RouteTable, to: str, *read: RouteTable) -> int | None:
    """Since when a bad version was champion, for a rollback from `before`; the log was read up to `read`."""
    routes = Routes()
    for table in read:
        routes.take(table, T + table.epoch)
    return bad_champion_since(routes, before, rolled_back(before, "desk", "production", to, "ada", "wrong prices"))


def test_a_persons_rollback_of_the_champion_knows_since_when_it_was_one() -> None:
    first, second = tables("v1", "v2")
    assert rolled(second, "v1", first, second) == T + 2


def test_a_persons_rollback_of_a_candidate_alone_takes_no_champion_off() -> None:
    (first,) = tables("v1")
    trying = with_candidate(first, "v2", CallConfiguration(model="m"), 500, experiment="c", actor="ada", reason="")
    assert rolled(trying, "v1", first, trying) is None


def test_a_champion_that_was_promoted_after_the_log_was_read_has_been_one_for_an_unknown_time() -> None:
    first, second = tables("v1", "v2")
    assert rolled(second, "v1", first) == 0
