"""The registry of versions: each a whole call configuration with where it came from, kept in MLflow's model registry."""

import contextlib
import hashlib
import logging
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final, Literal, Protocol
from urllib.parse import quote, urlsplit

import msgspec

from adapters.settings import Settings
from schemas.messages import CallConfiguration, Scalar

Alias = Literal["champion", "candidate", "previous"]
ALIASES: Final[tuple[Alias, ...]] = ("champion", "candidate", "previous")
_CHUNK: Final = 4_000
"""Characters per tag; every store that MLflow has takes 5,000."""
_TAG: Final = "bellbuoy."
_AWAY: Final = frozenset({"INTERNAL_ERROR", "TEMPORARILY_UNAVAILABLE", "REQUEST_LIMIT_EXCEEDED"})
"""Codes of MLflow's client where nothing answers; a refused connection is an internal error to it."""
_encode = msgspec.json.Encoder(order="deterministic").encode


class RegistryAway(ConnectionError):
    """The registry does not answer, or not as it should (no permission, an experiment that was deleted): worth trying again later."""


class UnknownVersion(LookupError):
    """The registry has no such version of the app."""


class Version(msgspec.Struct, kw_only=True, frozen=True):
    """A version as registered. `facts`: job, dataset, parent, actor and the gate's figures, as text."""

    name: str
    """`v<n>`, counted from 1 for each app."""
    app: str
    environment: str
    configuration: CallConfiguration
    action: str = ""
    created_ms: int = 0
    aliases: tuple[Alias, ...] = ()
    facts: dict[str, str] = {}


class VersionRegistry(Protocol):
    """Versions by app and environment. Every method raises RegistryAway; those that read, UnknownVersion."""

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
        """Make the next version and return its name; with an action that made one before, that one's name."""

    def note(self, app: str, environment: str, version: str, facts: Mapping[str, Scalar]) -> None:
        """Add facts to a version; numbers become metrics of its run as well."""

    def configuration(self, app: str, environment: str, version: str) -> CallConfiguration:
        """What a version is."""

    def versions(self, app: str, environment: str) -> list[Version]:
        """All versions of an app, oldest first; none for an app that has none."""

    def set_aliases(self, app: str, environment: str, aliases: Mapping[Alias, str | None]) -> None:
        """Move aliases; None takes one away. A version that the registry does not have is passed over."""


def model_name(app: str, environment: str) -> str:
    """The registered model's name: readable, harmless, and never the same for two apps.

    >>> model_name("help desk", "demo")
    'bellbuoy.help-desk.demo.ee382657fdf1'
    """
    digest = hashlib.sha256(f"{app}\0{environment}".encode()).hexdigest()[:12]
    return ".".join(("bellbuoy", _slug(app), _slug(environment), digest))


def version_number(version: str) -> int:
    """The number of a version's name. Raises UnknownVersion for what is no name of ours.

    >>> version_number("v12")
    12
    """
    if not re.fullmatch(r"v[1-9][0-9]{0,8}", version):
        raise UnknownVersion(f"{version!r} is not a version of the registry (they are v1, v2, …)")
    return int(version[1:])


class Registry:
    """`VersionRegistry` on MLflow; `adapters.memory_registry` has the in-memory twin. MLflow is imported at the first use."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._connected: Any = None

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
        name = model_name(app, environment)
        known = {key: str(value) for key, value in (facts or {}).items()}
        with self._client() as client:
            if action and (made := [v for v in self._read(client, name) if v.action == action]):
                return made[0].name
            run = client.create_run(self._experiment(client, name), run_name=action[:64] or None)
            for key, value in ({"model": configuration.model} | known).items():
                client.log_param(run.info.run_id, key, value[:500])
            if manifest:
                client.log_dict(run.info.run_id, dict(manifest), "manifest.json")
            client.set_terminated(run.info.run_id)
            if not _exists(client, name):
                with _unless("RESOURCE_ALREADY_EXISTS"):
                    client.create_registered_model(name, tags={f"{_TAG}app": app, f"{_TAG}environment": environment})
            tags = _tags(configuration, action) | {f"{_TAG}fact.{key}": value[:_CHUNK] for key, value in known.items()}
            tags |= {f"{_TAG}app": app[:_CHUNK], f"{_TAG}environment": environment[:_CHUNK]}
            source = f"openai:/{quote(configuration.model, safe='')[:400]}"
            made_now = client.create_model_version(name, source, run.info.run_id, tags=tags)
            if not action:
                return f"v{int(made_now.version)}"
            # Two workers that register the same action at once both go on with the lower number.
            return next(v.name for v in self._read(client, name) if v.action == action)

    def note(self, app: str, environment: str, version: str, facts: Mapping[str, Scalar]) -> None:
        name, number = model_name(app, environment), str(version_number(version))
        with self._client() as client:
            with _unknown(app, version):
                run = client.get_model_version(name, number).run_id
            for key, value in facts.items():
                client.set_model_version_tag(name, number, f"{_TAG}fact.{key}", str(value)[:_CHUNK])
                if run and isinstance(value, int | float):
                    client.log_metric(run, key, float(value))

    def configuration(self, app: str, environment: str, version: str) -> CallConfiguration:
        number = str(version_number(version))
        with self._client() as client, _unknown(app, version):
            return _configuration(client.get_model_version(model_name(app, environment), number).tags)

    def versions(self, app: str, environment: str) -> list[Version]:
        with self._client() as client:
            return self._read(client, model_name(app, environment))

    def set_aliases(self, app: str, environment: str, aliases: Mapping[Alias, str | None]) -> None:
        name = model_name(app, environment)
        with self._client() as client:
            numbers = {v.name: str(version_number(v.name)) for v in self._read(client, name)}
            if not numbers:
                return
            for alias, version in aliases.items():
                if version is None:
                    client.delete_registered_model_alias(name, alias)
                elif version in numbers:
                    client.set_registered_model_alias(name, alias, numbers[version])

    def _read(self, client: Any, name: str) -> list[Version]:
        if not _exists(client, name):
            return []
        by_version: dict[int, list[Alias]] = {}
        for alias, number in client.get_registered_model(name).aliases.items():
            by_version.setdefault(int(number), []).append(alias)
        found: list[Any] = []
        token: str | None = None
        while True:
            page = client.search_model_versions(f"name='{name}'", page_token=token, max_results=200)
            found += page
            token = page.token
            if not token:
                break
        return [_version(one, by_version.get(int(one.version), ())) for one in sorted(found, key=lambda one: int(one.version))]

    def _experiment(self, client: Any, name: str) -> str:
        location = None
        if _uri(self._settings).startswith("sqlite:"):
            location = (self._settings.data_dir / "mlflow" / "artifacts" / name).resolve().as_uri()
        if client.get_experiment_by_name(name) is None:
            with _unless("RESOURCE_ALREADY_EXISTS"):
                client.create_experiment(name, artifact_location=location)
        return str(client.get_experiment_by_name(name).experiment_id)

    @contextlib.contextmanager
    def _client(self) -> Iterator[Any]:
        """MLflow's client; whatever it fails with becomes RegistryAway."""
        for key, value in (
            ("MLFLOW_DISABLE_TELEMETRY", "true"),
            ("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1"),
            ("MLFLOW_HTTP_REQUEST_TIMEOUT", "20"),
            ("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true"),
        ):
            os.environ.setdefault(key, value)
        import requests
        from mlflow import MlflowClient
        from mlflow.exceptions import MlflowException

        logging.getLogger("mlflow").setLevel(logging.WARNING)
        try:
            if self._connected is None:
                self._connected = MlflowClient(_uri(self._settings))
            yield self._connected
        except MlflowException as error:
            said = "does not answer" if error.error_code in _AWAY else f"answers {error.error_code}"
            raise RegistryAway(f"MLflow {said} at {_place(self._settings)}") from error
        except (requests.RequestException, OSError) as error:
            raise RegistryAway(f"MLflow does not answer at {_place(self._settings)}") from error


def _uri(settings: Settings) -> str:
    """The setting's MLflow, else the embedded stack's."""
    return settings.mlflow_tracking_uri or settings.stack_urls().get("mlflow", f"http://127.0.0.1:{settings.mlflow_port}")


def _place(settings: Settings) -> str:
    """MLflow's address without the password that it may hold."""
    parts = urlsplit(_uri(settings))
    return f"{parts.scheme}://{parts.hostname}:{parts.port or ''}".rstrip(":") if parts.hostname else parts.scheme


def _slug(text: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", text.lower())[:40].strip("-") or "app"


def _tags(configuration: CallConfiguration, action: str) -> dict[str, str]:
    """A configuration as tags, in chunks, with its digest."""
    text = _encode(configuration).decode()
    chunks = [text[start : start + _CHUNK] for start in range(0, len(text), _CHUNK)]
    return {
        f"{_TAG}action": action,
        f"{_TAG}configuration.sha256": hashlib.sha256(text.encode()).hexdigest(),
        f"{_TAG}configuration.chunks": str(len(chunks)),
        **{f"{_TAG}configuration.{number}": chunk for number, chunk in enumerate(chunks)},
    }


def _configuration(tags: Mapping[str, str]) -> CallConfiguration:
    """The configuration that the tags hold. Raises UnknownVersion where somebody else made the version, or changed it."""
    try:
        text = "".join(tags[f"{_TAG}configuration.{n}"] for n in range(int(tags[f"{_TAG}configuration.chunks"])))
        if hashlib.sha256(text.encode()).hexdigest() != tags[f"{_TAG}configuration.sha256"]:
            raise UnknownVersion("the version's configuration was changed by hand")
        return msgspec.json.decode(text, type=CallConfiguration)
    except (KeyError, ValueError) as error:
        raise UnknownVersion("the version holds no call configuration of Bellbuoy's") from error


def _version(entity: Any, aliases: Iterable[Alias]) -> Version:
    tags = dict(entity.tags)
    try:
        configuration = _configuration(tags)
    except UnknownVersion:
        configuration = CallConfiguration(model="")
    return Version(
        name=f"v{int(entity.version)}",
        app=tags.get(f"{_TAG}app", ""),
        environment=tags.get(f"{_TAG}environment", ""),
        configuration=configuration,
        action=tags.get(f"{_TAG}action", ""),
        created_ms=int(entity.creation_timestamp or 0),
        aliases=tuple(alias for alias in ALIASES if alias in set(aliases)),
        facts={key.removeprefix(f"{_TAG}fact."): value for key, value in tags.items() if key.startswith(f"{_TAG}fact.")},
    )


def _exists(client: Any, name: str) -> bool:
    from mlflow.exceptions import MlflowException

    try:
        client.get_registered_model(name)
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
        return False
    return True


@contextlib.contextmanager
def _unless(code: str) -> Iterator[None]:
    """Passes over MLflow's error with this code."""
    from mlflow.exceptions import MlflowException

    try:
        yield
    except MlflowException as error:
        if error.error_code != code:
            raise


@contextlib.contextmanager
def _unknown(app: str, version: str) -> Iterator[None]:
    from mlflow.exceptions import MlflowException

    try:
        yield
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
        raise UnknownVersion(f"the registry has no {version} of {app!r}") from error
