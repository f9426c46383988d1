"""Corrections on a real llm.config: activation, another app's left alone, rollback as a further version."""

from pathlib import Path

import msgspec
import pytest

from adapters.settings import Settings
from bellbuoy.configuration import ConfigConflict, active_config, ensure_config
from bellbuoy.corrections import read_corrections
from core.explanation import scorer_of
from tests.unit.adapted_twin import NAME, adapted_head

pytestmark = pytest.mark.integration


@pytest.fixture
def settings(fresh_broker: Settings, tmp_path: Path) -> Settings:
    own = fresh_broker.model_copy(update={"data_dir": tmp_path / "own"})
    ensure_config(own)
    return own


def test_an_activation_goes_through_the_log_and_a_rollback_too(settings: Settings) -> None:
    for version in (1, 2):
        known = read_corrections(settings, "desk", "production")
        assert known.next_version(NAME) == version
        known.activate([adapted_head(version=version)], "test")
    back = read_corrections(settings, "desk", "production").roll_back(NAME)
    assert (back.version, back.restores) == (3, 1)
    read_corrections(settings, "desk", "production").activate([back], "test")
    assert active_config(settings).adapted == [back]
    assert read_corrections(settings, "desk", "production").next_version(NAME) == 4


def test_another_apps_correction_stays(settings: Settings) -> None:
    first, second = adapted_head(app="a"), adapted_head(app="b")
    read_corrections(settings, "a", "production").activate([first], "test")
    read_corrections(settings, "b", "production").activate([second], "test")
    assert active_config(settings).adapted == [first, second]


def test_only_the_corrected_score_of_the_app_gets_a_new_identity(settings: Settings) -> None:
    before = active_config(settings)
    read_corrections(settings, "desk", "production").activate([adapted_head(version=7)], "test")
    now = active_config(settings)
    ours, theirs = scorer_of(now, "desk", "production"), scorer_of(now, "other", "production")
    assert theirs == scorer_of(before, "other", "production")
    assert {name for name in ours if ours[name] != theirs[name]} == {NAME}
    assert ours[NAME] == f"{theirs[NAME]}007"


def test_a_damaged_correction_is_refused_before_it_is_written(settings: Settings) -> None:
    before = active_config(settings)
    with pytest.raises((ConfigConflict, ValueError), match="correction"):
        read_corrections(settings, "desk", "production").activate([adapted_head(weights=b"nonsense")], "test")
    assert msgspec.json.encode(active_config(settings)) == msgspec.json.encode(before)
