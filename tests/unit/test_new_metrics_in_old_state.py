"""What a release with more metrics makes of the state that an older one left."""

from collections.abc import MutableMapping
from dataclasses import replace
from typing import cast

import pytest

from core.cells import CellNames
from core.detection.application import AppMonitor
from core.detection.budget import STREAMS, Stream
from core.detection.state import dump, load
from schemas.messages import WINDOW_MS, Group, Rules

RULES = Rules(reference_events=500)


def watch(monitor: AppMonitor, windows: range, refusals: int, refusal: str = "refusal@1", more: bool = False) -> list[str]:
    alarms = []
    for number in windows:
        bins = {refusal: [(0, 100 - refusals), (1, refusals)]}
        if more:
            bins["response.cut_off@1"] = [(0, 99), (1, 1)]
        group = Group(app="a", environment="e", version="v", n=100, bins=bins)
        groups = monitor.admit([group], number)
        alarms += [alarm.key for alarm in monitor.observe(number * WINDOW_MS, number, groups, RULES, CellNames()).alarms]
    return alarms


@pytest.fixture
def older(monkeypatch: pytest.MonkeyPatch) -> AppMonitor:
    """As a release without the new metrics would have left it: other weights, fewer streams."""
    streams = cast(MutableMapping[str, Stream], STREAMS)
    with monkeypatch.context() as release:
        release.setitem(streams, "refusal", replace(STREAMS["refusal"], weight=0.25))
        monitor = AppMonitor("a", "e")
        assert watch(monitor, range(1, 40), 5) == []
        data = dump(monitor)
    return load(data)


def test_its_references_and_detectors_go_on(older: AppMonitor) -> None:
    assert older.references["refusal@1"].complete
    assert watch(older, range(40, 60), 30) == ["refusal@1"]


def test_a_new_metric_gets_a_reference_of_its_own_beside_them(older: AppMonitor) -> None:
    assert watch(older, range(40, 60), 5, more=True) == []
    assert older.references["response.cut_off@1"].complete
    assert older.references["refusal@1"].complete


def test_a_new_version_of_a_scorer_takes_over_when_its_reference_is_complete(older: AppMonitor) -> None:
    assert watch(older, range(40, 80), 12, refusal="refusal@2") == []
    assert set(older.references) == {"refusal@2"}
