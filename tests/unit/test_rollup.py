"""Rows of minutes, hours and days: equal sums at every resolution, whatever was restarted in between."""

from collections import Counter
from collections.abc import Sequence

import msgspec
import numpy as np
import pytest

from core.rollup import DAY_MS, HOUR_MS, MINUTE_MS, Rollup, rows_of
from core.summary import MAX_NAMES
from schemas.messages import WINDOW_MS, Group, WindowRow
from tests.timeline import FIRST, Behaviour, Timeline, rules, traffic

MIDNIGHT = FIRST - FIRST % DAY_MS


def group(n: int, app: str = "desk", version: str = "v1", names: Sequence[str] = ()) -> Group:
    """n interactions without refusal, each name once more."""
    return Group(
        app=app, environment="e", version=version, n=n, bins={"refusal@1": [(0, n)]},
        names={"response.model@1": [(name, 1) for name in sorted(names)]} if names else {},
    )  # fmt: skip


def played(
    story: Sequence[tuple[int, Sequence[Group]]], restart_at: Sequence[int] = (), end: int = 3 * DAY_MS
) -> list[WindowRow]:
    """All rows of windows that begin so many ms after midnight, the fine ones too; the state is written out and read back
    before the windows in `restart_at`."""
    rollup, rows, kept = Rollup(), list[WindowRow](), dict[str, msgspec.Raw]()
    for time, groups in [*story, (end, ())]:
        window = MIDNIGHT + time
        if time in restart_at:
            kept |= rollup.sections(changed_only=bool(kept))
            rollup = Rollup()
            for section, data in kept.items():
                rollup.load(section, data)
        rows += rollup.advance(window)
        rollup.add(groups)
        rows += rows_of(window, 5, groups)
    return rows


def sums(rows: Sequence[WindowRow], resolution: int) -> Counter[tuple[str, ...]]:
    """Counts of a resolution by app, version, metric and bin or name; and the interactions."""
    counted: Counter[tuple[str, ...]] = Counter()
    for row in rows:
        if row.resolution == resolution:
            counted[row.app, row.version, row.metric] += row.n
            for label, count in zip([*map(str, row.bins), *row.names], row.counts, strict=True):
                counted[row.app, row.version, row.metric, label] += count
    return counted


def random_story(seed: int) -> list[tuple[int, Sequence[Group]]]:
    """Traffic of a few apps at random windows of two days."""
    rng = np.random.default_rng(seed)
    at = np.unique(rng.integers(0, 2 * DAY_MS // WINDOW_MS, 600)) * WINDOW_MS
    apps, versions = ("desk", "shop", "other"), ("v1", "v2")
    return [
        (
            int(time),
            [
                group(int(rng.integers(1, 50)), app, version, names=[f"m{rng.integers(0, 20)}"])
                for app in apps
                for version in versions
                if rng.random() < 0.5
            ],
        )
        for time in at
    ]


@pytest.mark.parametrize("seed", [1, 2])
def test_sums_are_equal_at_every_resolution(seed: int) -> None:
    rows = played(random_story(seed))
    fine = sums(rows, 5)
    assert len(fine) > 100
    assert all(sums(rows, resolution) == fine for resolution in (60, 3_600, 86_400))


@pytest.mark.parametrize("seed", [1, 2])
def test_a_restart_in_the_middle_of_an_hour_changes_nothing(seed: int) -> None:
    story = random_story(seed)
    times = [time for time, _ in story]
    assert any(time % HOUR_MS > MINUTE_MS for time in times[::7])
    assert played(story, restart_at=times[::7]) == played(story)


def test_a_row_begins_with_its_hour_or_day_and_comes_once() -> None:
    story = [(h * HOUR_MS + m * MINUTE_MS, [group(1)]) for h in range(30) for m in (0, 59)]
    rows = [row for row in played(story) if row.metric == "refusal@1"]
    assert [row.window - MIDNIGHT for row in rows if row.resolution == 3_600] == [h * HOUR_MS for h in range(30)]
    assert [(row.window - MIDNIGHT, row.n) for row in rows if row.resolution == 86_400] == [(0, 48), (DAY_MS, 12)]


def test_an_hours_row_waits_for_a_window_of_a_later_hour() -> None:
    rollup = Rollup()
    rollup.advance(MIDNIGHT)
    rollup.add([group(1)])
    assert {row.resolution for row in rollup.advance(MIDNIGHT + HOUR_MS - WINDOW_MS)} == {60}
    assert {row.resolution for row in rollup.advance(MIDNIGHT + HOUR_MS)} == {3_600}


def test_hours_without_traffic_have_no_rows() -> None:
    rows = played([(0, [group(1)]), (5 * HOUR_MS, [group(1)])])
    assert [row.window - MIDNIGHT for row in rows if row.resolution == 3_600] == [0, 5 * HOUR_MS]


def test_an_hour_and_a_day_of_ever_other_names_stay_bounded() -> None:
    rows = played([(m * MINUTE_MS, [group(1, names=[f"m{m}-{n}" for n in range(30)])]) for m in range(600)])
    named = [row for row in rows if row.metric == "response.model@1" and row.resolution >= 3_600]
    assert len(named) == 11
    assert all(len(row.names) <= MAX_NAMES + 1 for row in named)
    assert sum(sum(row.counts) for row in named if row.resolution == 86_400) == 600 * 30


def test_the_state_of_an_app_whose_day_is_over_is_taken_away() -> None:
    rollup = Rollup()
    rollup.advance(MIDNIGHT)
    rollup.add([group(1)])
    rollup.advance(MIDNIGHT + HOUR_MS)
    (name,) = (n for n in rollup.sections(changed_only=True) if n != "minute")
    assert rollup.sections(changed_only=True).keys() == {"minute"}
    rollup.advance(MIDNIGHT + DAY_MS)
    assert bytes(rollup.sections(changed_only=True)[name]) == b"null"


def test_a_state_of_before_there_were_hours_is_read_and_counts_them_from_there() -> None:
    old = Rollup()
    old.advance(MIDNIGHT)
    old.add([group(3)])
    rollup = Rollup()
    rollup.load("minute", old.sections(changed_only=False)["minute"])
    rollup.add([group(4)])
    assert [(row.resolution, row.n) for row in rollup.advance(MIDNIGHT + DAY_MS)] == [(60, 7), (3_600, 7), (86_400, 7)]


def test_the_fold_gives_rows_of_hours_and_days_and_a_restored_one_goes_on() -> None:
    from core.fold import Fold
    from tests.timeline import FixedConfigs, config

    def told(restart: bool) -> list[WindowRow]:
        it, rng = Timeline(rules=rules()), np.random.default_rng(3)
        for _ in range(30):
            it.at([[traffic(rng, 20, Behaviour())], *[[]] * 999])
            if restart:
                it.fold = Fold.restore(0, FixedConfigs(config(it.rules)), it.fold.sections())
        return [row for _, out in it.outputs for row in out.rows]

    rows = told(restart=False)
    assert rows == told(restart=True)
    fine = [row for row in rows if row.resolution == 5 and row.metric == "refusal@1"]
    for resolution in (3_600, 86_400):
        coarse = [row for row in rows if row.resolution == resolution and row.metric == "refusal@1"]
        end = coarse[-1].window + resolution * 1000
        assert len(coarse) > 0
        assert sum(row.n for row in coarse) == sum(row.n for row in fine if row.window < end)
