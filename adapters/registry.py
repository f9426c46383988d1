"""The MLflow model registry: a version is a whole call configuration, with its lineage; aliases say which one answers."""

import hashlib
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Final

import msgspec

from adapters.settings import Settings
from schemas.messages import CallConfiguration
from schemas.topics import route_key

_CHUNK: Final = 4_000
"""MLflow's tag values are bounded."""
_PREFIX: Final = "bellbuoy."


class RegistryAway(RuntimeError):
    """MLflow does not answer, or none is known: worth trying again."""


@dataclass(frozen=True)
class Lineage:
    """Where a version comes from. `metrics` are the gate's, `manifest` the dataset's, JSON."""

    parameters: Mapping[str, str] = field(default_factory=dict)
    metrics: Mapping[str, float] = field(default_factory=dict)
    manifest: bytes | None = None


@dataclass(frozen=True)
class Registered:
    """A version as the registry knows it."""

    version: str
    configuration: CallConfiguration
    tags: dict[str, str]
    aliases: list[str]
    created: int
    """Milliseconds since 1970."""


class Registry:
    """MLflow as `settings.mlflow_tracking_uri` names it, else the embedded one. Methods raise RegistryAway."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._client: Any = None
        self._uri = ""

    def register(
        self,
        app: str,
        environment: str,
        configuration: CallConfiguration,
        *,
        reason: str,
        actor: str,
        action: str = "",
        lineage: Lineage | None = None,
    ) -> str:
        """Register a version and return its name, such as `v3`. With `action` given, one action registers one version."""
        name = model_name(app, environment)
        with self._mlflow() as client:
            if action:
                for known in client.search_model_versions(f"name='{name}'"):
                    if known.tags.get(f"{_PREFIX}action") == action:
                        return f"v{known.version}"
            self._ensure_model(client, name, app, environment)
            run = self._record_run(client, name, lineage) if lineage is not None else None
            encoded = msgspec.json.encode(configuration).decode()
            chunks = {
                f"{_PREFIX}configuration.{at // _CHUNK}": encoded[at : at + _CHUNK] for at in range(0, len(encoded), _CHUNK)
            }
            tags = {f"{_PREFIX}reason": reason[:_CHUNK], f"{_PREFIX}actor": actor, f"{_PREFIX}action": action, **chunks}
            made = client.create_model_version(name, source=f"bellbuoy:/{name}", run_id=run, tags=tags)
            return f"v{made.version}"

    def configuration(self, app: str, environment: str, version: str) -> CallConfiguration | None:
        """A version's call configuration; None where there is no such version."""
        return next((r.configuration for r in self.versions(app, environment) if r.version == version), None)

    def versions(self, app: str, environment: str) -> list[Registered]:
        """All versions of an app, the oldest first. A version that is none of ours is passed over."""
        name = model_name(app, environment)
        with self._mlflow() as client:
            found = client.search_model_versions(f"name='{name}'")
            aliases = self._aliases(client, name) if found else {}
        out = []
        for known in sorted(found, key=lambda v: int(v.version)):
            configuration = _configuration(known.tags)
            if configuration is not None:
                tags = {k.removeprefix(_PREFIX): v for k, v in known.tags.items() if ".configuration." not in k}
                names = sorted(alias for alias, version in aliases.items() if version == str(known.version))
                out.append(Registered(f"v{known.version}", configuration, tags, names, int(known.creation_timestamp)))
        return out

    def set_aliases(self, app: str, environment: str, aliases: Mapping[str, str | None]) -> None:
        """Let aliases (champion, previous, candidate) name these versions; None takes an alias away. Unknown versions are passed over."""
        name = model_name(app, environment)
        with self._mlflow() as client:
            known = {f"v{v.version}" for v in client.search_model_versions(f"name='{name}'")}
            present = self._aliases(client, name) if known else {}
            for alias, version in aliases.items():
                if version in known and present.get(alias) != version.removeprefix("v"):
                    client.set_registered_model_alias(name, alias, version.removeprefix("v"))
                elif version is None and alias in present:
                    client.delete_registered_model_alias(name, alias)

    def log_metrics(self, app: str, environment: str, version: str, metrics: Mapping[str, float]) -> None:
        """Put figures (the gate's) on a version."""
        name = model_name(app, environment)
        with self._mlflow() as client:
            for metric, value in metrics.items():
                client.set_model_version_tag(name, version.removeprefix("v"), f"{_PREFIX}gate.{metric}", f"{value:.6g}")

    def _record_run(self, client: Any, name: str, lineage: Lineage) -> str:
        experiment = client.get_experiment_by_name(name)
        id_ = experiment.experiment_id if experiment is not None else client.create_experiment(name)
        run = client.create_run(id_)
        for key, value in lineage.parameters.items():
            client.log_param(run.info.run_id, key, value[:500])
        for key, number in lineage.metrics.items():
            client.log_metric(run.info.run_id, key, number)
        if lineage.manifest is not None:
            client.log_text(run.info.run_id, lineage.manifest.decode(), "manifest.json")
        client.set_terminated(run.info.run_id)
        return str(run.info.run_id)

    def _ensure_model(self, client: Any, name: str, app: str, environment: str) -> None:
        from mlflow.exceptions import MlflowException

        try:
            client.create_registered_model(name, tags={f"{_PREFIX}app": app, f"{_PREFIX}environment": environment})
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise

    def _aliases(self, client: Any, name: str) -> dict[str, str]:
        return {alias: str(version) for alias, version in client.get_registered_model(name).aliases.items()}

    @contextmanager
    def _mlflow(self) -> Iterator[Any]:
        """The client. MLflow is imported at first use: it takes seconds."""
        uri = self._settings.mlflow_tracking_uri or self._settings.stack_urls().get("mlflow")
        if uri is None:
            raise RegistryAway("no MLflow is known; start the stack, or set MLFLOW_TRACKING_URI")
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "20")
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
        from mlflow import MlflowClient
        from mlflow.exceptions import MlflowException

        if self._client is None or uri != self._uri:
            self._client, self._uri = MlflowClient(tracking_uri=uri, registry_uri=uri), uri
        try:
            yield self._client
        except MlflowException as error:
            if error.error_code in ("INTERNAL_ERROR", "TEMPORARILY_UNAVAILABLE", "REQUEST_LIMIT_EXCEEDED"):
                raise RegistryAway(f"MLflow at {uri}: {str(error)[:300]}") from error
            raise


def model_name(app: str, environment: str) -> str:
    """An app's name in the registry: what is harmless of it, and a digest that tells it from every other.

    >>> model_name("help desk/1", "production")
    'help-desk-1.898aad01'
    """
    slug = re.sub(r"[^A-Za-z0-9_-]+", "-", app)[:60].strip("-") or "app"
    return f"{slug}.{hashlib.sha256(route_key(app, environment)).hexdigest()[:8]}"


def _configuration(tags: Mapping[str, str]) -> CallConfiguration | None:
    chunks = sorted((int(k.rpartition(".")[2]), v) for k, v in tags.items() if k.startswith(f"{_PREFIX}configuration."))
    try:
        return msgspec.json.decode("".join(chunk for _, chunk in chunks).encode(), type=CallConfiguration)
    except msgspec.DecodeError:
        return None
