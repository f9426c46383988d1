"""The embedded MLflow: tracking server and model registry on SQLite, in one process, without its job runner and its telemetry."""

import asyncio
import logging
import os
import shutil
import signal
import sys
import tempfile
from pathlib import Path
from typing import Any, Final

import httpx

from adapters.asgi import App, listen, run, serve
from adapters.process import FolderLock
from adapters.settings import Settings
from adapters.telemetry import Telemetry, set_up_logging

_ARTIFACTS: Final = "mlflow-artifacts:/"
"""Where experiments keep files, in MLflow's words: at the server, which has them in its own folder."""
_PROBE: Final = "/api/2.0/mlflow/registered-models/search?max_results=1"
_PROBE_S: Final = 5.0
_ALLOWED_HOSTS: Final = "MLFLOW_SERVER_ALLOWED_HOSTS"
_SWITCHED_OFF: Final = {
    "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
    "MLFLOW_ENABLE_WORKSPACES": "false",
    "MLFLOW_ENABLE_REMOTE_ASSISTANT": "false",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "DO_NOT_TRACK": "true",
    "MLFLOW_CONFIGURE_LOGGING": "false",
}


def home(settings: Settings) -> Path:
    """Where database and artifacts are."""
    return settings.data_dir.resolve() / "mlflow"


def make_database(folder: Path) -> Path:
    """The database of this folder, made where there is none: aside and renamed, since an interrupted migration is beyond repair."""
    database = folder / "mlflow.db"
    for old in folder.glob("new-*"):
        shutil.rmtree(old)
    if not database.exists():
        from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

        draft = Path(tempfile.mkdtemp(prefix="new-", dir=folder))
        store: Any = SqlAlchemyStore(_sqlite(draft / database.name), _ARTIFACTS)  # type: ignore[no-untyped-call]  # MLflow's
        store.engine.dispose()
        (draft / database.name).replace(database)
        draft.rmdir()
    return database


def build_server(database: Path, artifacts: Path) -> App:
    """MLflow's ASGI application on a database that `make_database` made. Once in a process: MLflow reads os.environ at import."""
    from mlflow.server import constants

    os.environ[constants.BACKEND_STORE_URI_ENV_VAR] = _sqlite(database)
    os.environ[constants.REGISTRY_STORE_URI_ENV_VAR] = _sqlite(database)
    os.environ[constants.ARTIFACT_ROOT_ENV_VAR] = _ARTIFACTS
    os.environ[constants.ARTIFACTS_DESTINATION_ENV_VAR] = artifacts.as_uri()
    os.environ[constants.SERVE_ARTIFACTS_ENV_VAR] = "true"
    from mlflow.server.fastapi_app import app
    from mlflow.server.handlers import initialize_backend_stores

    initialize_backend_stores(_sqlite(database), _sqlite(database), _ARTIFACTS)
    server: App = app
    return server


def main(settings: Settings) -> None:
    """Serve on `settings.host` and `settings.mlflow_port` until SIGTERM or SIGINT; ready while the registry answers.

    MLflow refuses requests for host names that are neither of this machine nor private addresses; MLFLOW_SERVER_ALLOWED_HOSTS
    names others. It has no users: whoever reaches the port may write.
    """
    set_up_logging("mlflow", settings)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, _leave)
    for library in ("mlflow", "alembic"):
        logging.getLogger(library).setLevel(logging.WARNING)
    folder = home(settings)
    folder.mkdir(parents=True, exist_ok=True)
    lock = FolderLock(folder / "lock")
    lock.acquire(f"the MLflow folder {folder}")
    listener = listen(settings.host, settings.mlflow_port)
    address = _address(settings.host, listener.getsockname()[1])
    os.environ.update(_SWITCHED_OFF)
    if given := os.environ.get(_ALLOWED_HOSTS):
        os.environ[_ALLOWED_HOSTS] = f"{given},{address}"
    with Telemetry("mlflow", settings) as telemetry:
        telemetry.set_ready("starting")
        app = build_server(make_database(folder), folder / "artifacts")
        run(lambda: serve(app, listener, graceful_s=5, beside=_watch(f"http://{address}", telemetry)))
    lock.release()


async def _watch(url: str, telemetry: Telemetry) -> None:
    async with httpx.AsyncClient(timeout=_PROBE_S) as client:
        while True:
            try:
                answer = await client.get(url + _PROBE)
                telemetry.set_ready(None if answer.status_code == 200 else f"the registry answers {answer.status_code}")
            except httpx.HTTPError as error:
                telemetry.set_ready(f"the registry does not answer: {type(error).__name__}")
            await asyncio.sleep(0.2 if not telemetry.is_ready() else _PROBE_S)


def _address(host: str, port: int) -> str:
    """Where this machine reaches what listens on `host`.

    >>> _address("0.0.0.0", 5000), _address("::1", 5000)
    ('127.0.0.1:5000', '[::1]:5000')
    """
    if host in ("0.0.0.0", "::", ""):  # noqa: S104  # compared with, not listened on
        host = "127.0.0.1"
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _sqlite(database: Path) -> str:
    return f"sqlite:///{database}"


def _leave(*_: Any) -> None:
    """Until the server handles signals itself there is nothing to finish."""
    sys.exit(0)
