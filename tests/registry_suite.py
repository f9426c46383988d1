"""What every registry of versions does, in memory and on MLflow: the tests subclass this."""

import pytest

from adapters.registry import UnknownVersion, VersionRegistry
from schemas.messages import CallConfiguration

SMALL = CallConfiguration(model="m-1")
WHOLE = CallConfiguration(
    model="ft:m-1:own:ключ/1",
    system_prompt="Be brief.\n" * 2_000,
    parameters={"temperature": 0.25, "max_tokens": 300, "store": False, "stop": "###"},
    tools=[{"type": "function", "function": {"name": "look_up", "parameters": {"type": "object"}}}],
)
HOSTILE = "'; DROP TABLE model_versions; -- /../" + "\u202e" + "x" * 300


class RegistrySuite:
    @pytest.fixture
    def registry(self) -> VersionRegistry:
        raise NotImplementedError

    def test_versions_of_an_app_count_from_one(self, registry: VersionRegistry) -> None:
        assert [registry.register("desk", "demo", SMALL) for _ in range(2)] == ["v1", "v2"]

    def test_apps_count_apart(self, registry: VersionRegistry) -> None:
        assert registry.register("desk", "demo", SMALL) == registry.register("desk", "production", SMALL) == "v1"

    def test_a_whole_configuration_is_read_back_as_it_was(self, registry: VersionRegistry) -> None:
        registry.register("desk", "demo", SMALL)
        version = registry.register("desk", "demo", WHOLE)
        assert registry.configuration("desk", "demo", version) == WHOLE

    def test_an_action_makes_one_version(self, registry: VersionRegistry) -> None:
        first = registry.register("desk", "demo", WHOLE, action="a-1")
        registry.register("desk", "demo", SMALL, action="a-2")
        assert registry.register("desk", "demo", WHOLE, action="a-1") == first == "v1"

    def test_what_nobody_registered_is_unknown(self, registry: VersionRegistry) -> None:
        registry.register("desk", "demo", SMALL)
        for app, version in (("desk", "v2"), ("other", "v1"), ("desk", "m-1"), ("desk", "v0")):
            with pytest.raises(UnknownVersion):
                registry.configuration(app, "demo", version)

    def test_an_app_without_versions_has_none(self, registry: VersionRegistry) -> None:
        assert registry.versions("desk", "demo") == []

    def test_a_hostile_name_is_a_name(self, registry: VersionRegistry) -> None:
        registry.register(HOSTILE, HOSTILE, SMALL)
        (version,) = registry.versions(HOSTILE, HOSTILE)
        assert (version.app, version.environment) == (HOSTILE, HOSTILE)

    def test_facts_are_kept_and_added_to(self, registry: VersionRegistry) -> None:
        version = registry.register("desk", "demo", SMALL, action="a", facts={"job": "j-1", "rows": 12}, manifest={"acts": 3})
        registry.note("desk", "demo", version, {"gate": "pass", "gate.improvement": 0.25})
        (read,) = registry.versions("desk", "demo")
        assert (read.action, read.facts) == ("a", {"job": "j-1", "rows": "12", "gate": "pass", "gate.improvement": "0.25"})

    def test_aliases_move_and_go(self, registry: VersionRegistry) -> None:
        for _ in range(3):
            registry.register("desk", "demo", SMALL)
        registry.set_aliases("desk", "demo", {"champion": "v1", "candidate": "v2"})
        registry.set_aliases("desk", "demo", {"champion": "v2", "previous": "v1", "candidate": None})
        assert {v.name: v.aliases for v in registry.versions("desk", "demo")} == {
            "v1": ("previous",),
            "v2": ("champion",),
            "v3": (),
        }

    def test_a_version_can_have_two_aliases(self, registry: VersionRegistry) -> None:
        registry.register("desk", "demo", SMALL)
        registry.set_aliases("desk", "demo", {"champion": "v1", "candidate": "v1"})
        assert [v.aliases for v in registry.versions("desk", "demo")] == [("champion", "candidate")]

    def test_an_alias_for_what_the_registry_does_not_have_is_passed_over(self, registry: VersionRegistry) -> None:
        registry.register("desk", "demo", SMALL)
        registry.set_aliases("desk", "demo", {"champion": "v7", "candidate": "v1"})
        registry.set_aliases("nowhere", "demo", {"champion": "v1"})
        assert [v.aliases for v in registry.versions("desk", "demo")] == [("candidate",)]
