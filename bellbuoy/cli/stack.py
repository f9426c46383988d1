"""`bellbuoy up`, `down`, `status`, `setup`, `doctor`."""

import json as jsonlib
import signal
import subprocess
import sys
import time
from types import FrameType
from typing import Annotated, NoReturn

import typer

from adapters.settings import Settings

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for a program to read.")]


def up(
    detach: Annotated[
        bool, typer.Option("--detach", "-d", help="Return when everything is ready; `bellbuoy down` stops it.")
    ] = False,
) -> None:
    """Start Kafka, the ClickHouse engine and every process, and keep them running until Ctrl-C or SIGTERM.

    With KAFKA_BOOTSTRAP_SERVERS, BELLBUOY_CLICKHOUSE_DSN, BELLBUOY_UPSTREAM_URL or MLFLOW_TRACKING_URI set, that server is used
    instead of an embedded one.
    A port that is taken is replaced by a free one; `bellbuoy status` tells which. What dies is started again. Safe against kills
    of any process, not against power loss. Takes about 20 s; exits 1 when something does not come up.

    \b
    Examples:
      bellbuoy up --detach
      BELLBUOY_DATA_DIR=/data/bellbuoy bellbuoy up
      KAFKA_BOOTSTRAP_SERVERS=kafka-1:9092,kafka-2:9092 bellbuoy up
    """
    from bellbuoy.stack import Stack

    settings = Settings()
    if detach:
        _detach(settings)
        return
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, _interrupt)
    _log_to_file(settings)
    stack = Stack(settings)
    try:
        stack.start()
        for name, url in stack.urls().items():
            typer.echo(f"{name:<10} {url}")
        typer.echo(f"key        {(settings.key_dir / 'collector').resolve()}\nready; Ctrl-C stops every process")
        stack.join()
    except KeyboardInterrupt:
        typer.echo("stopping", err=True)
    finally:
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, signal.SIG_IGN)
        stack.stop()


def down() -> None:
    """Stop the stack that runs on this data folder, every process cleanly. Exits 0 also when none runs."""
    from bellbuoy.status import stop_running

    settings = Settings()
    typer.echo("stopped" if stop_running(settings) else f"no stack runs on {settings.data_dir}")


def status(json: AsJson = False) -> None:
    """Print addresses, the collector's key file and how each process is.

    Exits 0 when everything is ready, 1 when something is not (MLflow may be late: nothing waits for it), 3 when nothing runs on this
    data folder.
    """
    from bellbuoy.status import status as ask

    settings = Settings()
    found = ask(settings)
    if found is None:
        if json:
            typer.echo(
                jsonlib.dumps({"urls": {}, "key_file": None, "data_dir": str(settings.data_dir.resolve()), "processes": []})
            )
        else:
            typer.echo(f"no stack runs on {settings.data_dir}; `bellbuoy up` starts one", err=True)
        raise typer.Exit(3)
    if json:
        typer.echo(jsonlib.dumps(found))
    else:
        for name, url in found["urls"].items():
            typer.echo(f"{name:<15} {url}")
        typer.echo(f"{'key':<15} {found['key_file']}\n{'data':<15} {found['data_dir']}")
        for process in found["processes"]:
            again = f", restarted {process['restarts']} times" if process["restarts"] else ""
            typer.echo(
                f"{process['name']:<15} {'ready' if process['ready'] else process['reason']} (pid {process['pid']}{again})"
            )
    raise typer.Exit(0 if all(process["ready"] or not process["needed"] for process in found["processes"]) else 1)


def setup(
    write_lock: Annotated[
        bool, typer.Option("--write-lock", help="For maintainers: resolve Kafka's jars anew and write the lock.")
    ] = False,
) -> None:
    """Fetch and build what a first start needs, into .cache/: Kafka's jars (45 MB), the table that sorts texts into topics, and an
    archive that halves Kafka's start. What is there already is left alone."""
    from bellbuoy.prepare import prepare

    settings = Settings()
    if write_lock:
        from adapters import kafka_jars
        from adapters.java import find_java

        kafka_jars.write_lock(settings, find_java(settings.java_runtime, settings.java_home), typer.echo)
    prepare(settings, typer.echo)
    typer.echo(f"everything is there, in {settings.cache_dir.resolve()}")


def doctor(json: AsJson = False) -> None:
    """Check this machine, the downloads, Kafka, ClickHouse and the config, and say what to do.

    Each line is ok, a note (fine as it is) or a problem. Exits 1 when there is a problem.
    """
    from bellbuoy.doctor import examine

    checks = examine(Settings())
    if json:
        typer.echo(jsonlib.dumps([vars(check) for check in checks]))
    else:
        for check in checks:
            typer.echo(
                f"{check.state:<8} {check.name:<12} {check.found}" + (f"\n{'':<21} → {check.advice}" if check.advice else "")
            )
    raise typer.Exit(1 if any(check.state == "problem" for check in checks) else 0)


def _interrupt(_number: int, _frame: FrameType | None) -> NoReturn:
    raise KeyboardInterrupt


def _log_to_file(settings: Settings) -> None:
    """The supervisor's own log; the terminal shows progress only."""
    import logging

    from adapters.telemetry import JsonLines

    path = settings.run_dir / "logs" / "supervisor.log"
    path.parent.mkdir(parents=True, exist_ok=True)
    handler = logging.FileHandler(path)
    handler.setFormatter(JsonLines("supervisor", settings.instance))
    logging.basicConfig(level=settings.log_level.upper(), handlers=[handler], force=True)
    logging.getLogger("kafka").setLevel(logging.ERROR)


def _detach(settings: Settings) -> None:
    from bellbuoy.status import status as ask
    from bellbuoy.supervisor import last_lines

    settings.run_dir.mkdir(parents=True, exist_ok=True)
    output = settings.run_dir / "up.log"
    with output.open("wb") as file:
        supervisor = subprocess.Popen(
            [sys.executable, "-m", "bellbuoy", "up"], stdin=subprocess.DEVNULL, stdout=file, stderr=file, start_new_session=True
        )
    while b"ready; Ctrl-C" not in output.read_bytes():
        if supervisor.poll() is not None:
            typer.echo(last_lines(output), err=True)
            raise typer.Exit(1)
        time.sleep(0.2)
    found = ask(settings)
    for name, url in found["urls"].items() if found is not None else ():
        typer.echo(f"{name:<10} {url}")
    typer.echo(f"key        {(settings.key_dir / 'collector').resolve()}\nready; `bellbuoy down` stops it")
