"""The in-memory twin of the registry of versions; it passes the same tests as the one on MLflow."""

from collections.abc import Mapping
from typing import Any

import msgspec

from adapters.registry import ALIASES, Alias, RegistryAway, UnknownVersion, Version, version_number
from schemas.messages import CallConfiguration, Scalar


class MemoryRegistry:
    """`adapters.registry.VersionRegistry`; while `away` is true, every method raises RegistryAway."""

    def __init__(self) -> None:
        self.away = False
        self.manifests: dict[tuple[str, str, str], dict[str, Any]] = {}
        self._versions: dict[tuple[str, str], list[Version]] = {}
        self._aliases: dict[tuple[str, str], dict[Alias, str]] = {}

    def register(
        self,
        app: str,
        environment: str,
        configuration: CallConfiguration,
        *,
        action: str = "",
        facts: Mapping[str, Scalar] | None = None,
        manifest: Mapping[str, Any] | None = None,
    ) -> str:
        made = self._of(app, environment)
        if action and (found := [version.name for version in made if version.action == action]):
            return found[0]
        name = f"v{len(made) + 1}"
        self._versions[app, environment] = [
            *made,
            Version(
                name=name,
                app=app,
                environment=environment,
                configuration=configuration,
                action=action,
                created_ms=len(made) + 1,
                facts={key: str(value) for key, value in (facts or {}).items()},
            ),
        ]
        if manifest:
            self.manifests[app, environment, name] = dict(manifest)
        return name

    def note(self, app: str, environment: str, version: str, facts: Mapping[str, Scalar]) -> None:
        place = self._place(app, environment, version)
        known = self._versions[app, environment]
        added = {key: str(value) for key, value in facts.items()}
        known[place] = msgspec.structs.replace(known[place], facts=known[place].facts | added)

    def configuration(self, app: str, environment: str, version: str) -> CallConfiguration:
        place = self._place(app, environment, version)
        return self._versions[app, environment][place].configuration

    def versions(self, app: str, environment: str) -> list[Version]:
        aliases = self._aliases.get((app, environment), {})
        return [
            msgspec.structs.replace(version, aliases=tuple(a for a in ALIASES if aliases.get(a) == version.name))
            for version in self._of(app, environment)
        ]

    def set_aliases(self, app: str, environment: str, aliases: Mapping[Alias, str | None]) -> None:
        names = {version.name for version in self._of(app, environment)}
        present = self._aliases.setdefault((app, environment), {})
        for alias, version in aliases.items():
            if version is None:
                present.pop(alias, None)
            elif version in names:
                present[alias] = version

    def _of(self, app: str, environment: str) -> list[Version]:
        if self.away:
            raise RegistryAway("the registry does not answer")
        return self._versions.get((app, environment), [])

    def _place(self, app: str, environment: str, version: str) -> int:
        place = version_number(version) - 1
        if place >= len(self._of(app, environment)):
            raise UnknownVersion(f"the registry has no {version} of {app!r}")
        return place
