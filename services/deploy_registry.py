"""The registry as the deploy worker asks it: in a thread of its own, so that no rollback ever waits for MLflow."""

import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Final

from adapters import registry as mlflow_registry
from adapters.settings import Settings
from core.deployment import Configuration, RegistryAway, UnknownVersion
from schemas.messages import CallConfiguration

RETRY_S: Final = 2.0
KEPT: Final = 256
"""Answers that are remembered: a version never changes."""

_Key = tuple[str, str, str]


class Lookup:
    """A Configuration that answers at once: what the one behind it has said, else RegistryAway while it is being asked."""

    def __init__(self, behind: Configuration, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._behind, self._monotonic = behind, monotonic
        self._pool = ThreadPoolExecutor(max_workers=2, thread_name_prefix="registry")
        self._asked: dict[_Key, tuple[Future[CallConfiguration], float]] = {}

    def __call__(self, app: str, environment: str, version: str) -> CallConfiguration:
        """Raises UnknownVersion where the registry has no such version, RegistryAway while it has not answered."""
        key = (app, environment, version)
        future, since = self._asked.get(key, (None, 0.0))
        if future is None or (future.done() and future.exception() and self._monotonic() - since > RETRY_S):
            while len(self._asked) >= KEPT:
                del self._asked[next(iter(self._asked))]
            future = self._pool.submit(self._behind, *key)
            self._asked[key] = (future, self._monotonic())
        if not future.done():
            raise RegistryAway("it is being asked")
        error = future.exception()
        if isinstance(error, LookupError):
            raise UnknownVersion(str(error)) from error
        if error is not None:
            raise RegistryAway(str(error) or type(error).__name__) from error
        return future.result()


def registry(settings: Settings) -> Configuration:
    """The MLflow registry of the settings."""

    def configuration(app: str, environment: str, version: str) -> CallConfiguration:
        try:
            return mlflow_registry.Registry(settings).configuration(app, environment, version)
        except mlflow_registry.UnknownVersion as error:
            raise UnknownVersion(str(error)) from error
        except mlflow_registry.RegistryAway as error:
            raise RegistryAway(str(error)) from error

    return configuration
