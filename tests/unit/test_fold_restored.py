"""A restored fold against one that never stopped, where state changes without an alert or a detection."""

from collections.abc import Sequence

import numpy as np
import pytest

from core.detection.application import SILENT_WINDOWS
from core.fold import SWEEP_WINDOWS, Fold
from schemas.messages import Command, Group, StateSection
from tests.timeline import Behaviour, FixedConfigs, Timeline, config, rules, traffic


def restored(it: Timeline, kept: dict[str, StateSection]) -> None:
    """Write the changed sections out and go on with a fold read back from all that was ever written."""
    kept |= {section.section: section for section in it.fold.sections(changed_only=True)}
    it.fold = Fold.restore(0, FixedConfigs(config(it.rules)), kept.values())


def state_of(it: Timeline) -> dict[str, bytes]:
    return {section.section: bytes(section.data) for section in it.fold.sections()}


def thin(version: str, *, n: int = 0, acts: int = 0) -> Group:
    bins = {"error@1": [(0, n)]} if n else {}
    if acts:
        bins["thumbs.down@1"] = [(0, acts)]
    return Group(app="desk", environment="production", version=version, n=n, acts=acts, bins=bins)


def told(batches: Sequence[tuple[Sequence[Sequence[Group]], Command | None]], restart_after: Sequence[int]) -> dict[str, bytes]:
    it, kept = Timeline(rules=rules(reference_events=2_000)), dict[str, StateSection]()
    for number, (windows, said) in enumerate(batches):
        it.at(windows, *([said] if said else []))
        if number in restart_after:
            restored(it, kept)
    return state_of(it)


@pytest.mark.parametrize("restart_after", [(2,), (3,)])
def test_a_step_that_is_due_ends_in_time_after_a_rebaseline_took_the_older_one_away(restart_after: Sequence[int]) -> None:
    rng = np.random.default_rng(1)
    rebaseline = Command(id="c", kind="rebaseline", actor="ann", app="desk", arguments={"metric": "thumbs.down"})
    story: list[tuple[Sequence[Sequence[Group]], Command | None]] = [
        ([[traffic(rng, 200, Behaviour())] for _ in range(20)], None),
        ([[thin("v1", acts=10)], *[[]] * 9], None),
        ([[thin("v1", n=100)], [thin("v1", n=50)], *[[]] * 8], None),
        ([[]] * 5, rebaseline),
        ([[]] * 70, None),
    ]
    assert told(story, restart_after) == told(story, [])


def test_a_version_that_left_without_an_alert_is_gone_after_a_restart_too() -> None:
    rng = np.random.default_rng(1)
    busy = [[traffic(rng, 200, Behaviour(), version=v) for v in ("v1", "v2")] for _ in range(20)]
    quiet: list[Sequence[Group]] = [[]] * SWEEP_WINDOWS
    story: list[tuple[Sequence[Sequence[Group]], Command | None]] = [
        (busy, None),
        ([[]] * (SILENT_WINDOWS - SWEEP_WINDOWS), None),
        ([[thin("v1", n=200)]], None),
        (quiet + quiet, None),
        ([[thin("v2", n=10)]], None),
    ]
    assert told(story, [2, 3]) == told(story, [])


def test_an_alert_ends_for_want_of_data_at_the_same_time_after_a_restart() -> None:
    rng = np.random.default_rng(1)
    usual = [[traffic(rng, 200, Behaviour())] for _ in range(30)]
    bad = [[traffic(rng, 200, Behaviour()), traffic(rng, 200, Behaviour(refusal=0.4), version="v2")] for _ in range(10)]
    story: list[tuple[Sequence[Sequence[Group]], Command | None]] = [
        (usual, None),
        (bad, None),
        (usual * 10, None),
        (usual * 20, None),
        (bad, None),
    ]
    assert told(story, [2, 3]) == told(story, [])
