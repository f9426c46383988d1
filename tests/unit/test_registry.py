"""The in-memory registry, and the names that MLflow is given."""

from pathlib import Path

import pytest

from adapters.memory_registry import MemoryRegistry
from adapters.registry import RegistryAway, VersionRegistry, model_name
from adapters.settings import Settings
from core.deployment import UnknownVersion
from services import deploy_registry
from tests.registry_suite import HOSTILE, SMALL, RegistrySuite


class TestMemoryRegistry(RegistrySuite):
    @pytest.fixture
    def registry(self) -> VersionRegistry:
        return MemoryRegistry()


def test_a_registry_that_is_away_says_so() -> None:
    registry = MemoryRegistry()
    registry.away = True
    with pytest.raises(RegistryAway):
        registry.register("desk", "demo", SMALL)


def test_no_two_apps_share_a_name() -> None:
    names = [("a b", "c"), ("a-b", "c"), ("a", "b c"), ("a", "b"), ("", ""), (HOSTILE, "x"), (HOSTILE + "y", "x")]
    assert len({model_name(*one) for one in names}) == len(names)


def test_a_name_has_harmless_characters_only() -> None:
    assert set(model_name(HOSTILE, HOSTILE)) <= set("abcdefghijklmnopqrstuvwxyz0123456789.-")


def test_who_asks_for_a_configuration_is_told_of_an_unknown_version(tmp_path: Path) -> None:
    with pytest.raises(UnknownVersion, match="'latest' is not a version"):
        deploy_registry.registry(Settings(data_dir=tmp_path))("desk", "demo", "latest")
