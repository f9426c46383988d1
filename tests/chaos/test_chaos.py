"""A few rounds of kill -9 under traffic, in every test run; `make chaos` plays many."""

from pathlib import Path

import pytest

from adapters.settings import Settings
from tests.chaos.harness import FREE_PORTS, VICTIMS, Chaos

pytestmark = pytest.mark.chaos


def test_nothing_is_lost_or_counted_twice_when_every_process_is_killed_in_turn(tmp_path: Path) -> None:
    settings = Settings(data_dir=tmp_path / "data", **FREE_PORTS)
    outcome = Chaos(settings, rounds=len(VICTIMS), seed=11, rate=400, say=print).run()
    assert outcome.problems() == []
    assert (outcome.verdict.missing, outcome.verdict.duplicates) == (0, 0)
    assert {r.victim for r in outcome.rounds} == set(VICTIMS)
    assert outcome.accepted > 5_000
