"""Looks at the machine, the downloads, Kafka, ClickHouse and the config, and says what is wrong and what to do."""

import platform
import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields, replace
from typing import Final, Literal

import httpx

from adapters.java import NoJava, find_java
from adapters.kafka_jars import verify_jars
from adapters.process import holder, port_is_free
from adapters.settings import Settings
from bellbuoy.addresses import LOOPBACK, Ports, listens_on, runs_here, shown

FREE_BYTES: Final = 5 * 10**9
_NO_BROKER_S: Final = 5.0


@dataclass(frozen=True)
class Check:
    """One line of the report."""

    name: str
    state: Literal["ok", "note", "problem"]
    found: str
    advice: str = ""


def examine(settings: Settings) -> list[Check]:
    """Every check, in the order of a start. A check that needs what an earlier one misses says so."""
    return [
        check
        for look in (_machine, _java, _jars, _embedding, _ports, _kafka, _store, _provider, _mlflow, _config)
        for check in look(settings)
    ]


def _machine(settings: Settings) -> Iterator[Check]:
    yield Check("python", "ok", f"{platform.python_version()} ({sys.executable})")
    system = f"{platform.system()} {platform.machine()}"
    if system == "Linux x86_64":
        yield Check("system", "ok", system)
    else:
        yield Check(
            "system",
            "problem",
            f"{system}; made for and tried on Linux x86-64 only",
            "use a Linux x86-64 machine, VM or container",
        )
    folder = next(path for path in (settings.data_dir.resolve(), *settings.data_dir.resolve().parents) if path.exists())
    free = shutil.disk_usage(folder).free
    if free >= FREE_BYTES:
        yield Check("disk", "ok", f"{free / 1e9:.0f} GB free at {folder}")
    else:
        yield Check(
            "disk",
            "problem",
            f"{free / 1e9:.1f} GB free at {folder}",
            f"free {FREE_BYTES / 1e9:.0f} GB, or set BELLBUOY_DATA_DIR",
        )


def _java(settings: Settings) -> Iterator[Check]:
    if not settings.embedded_kafka:
        return
    try:
        java = find_java(settings.java_runtime, settings.java_home)
    except NoJava as error:
        yield Check("java", "problem", str(error), "install a Java runtime 17+, or run `make setup`")
        return
    yield Check("java", "ok", f"{java.version} ({java.kind}, {java.path})")


def _jars(settings: Settings) -> Iterator[Check]:
    if not settings.embedded_kafka:
        return
    wrong = verify_jars(settings)
    if wrong:
        yield Check("jars", "problem", f"{len(wrong)} differ from the lock: {wrong[0]}", "run `bellbuoy setup`")
    else:
        yield Check("jars", "ok", "Kafka's jars are those of the lock, by sha256")


def _embedding(settings: Settings) -> Iterator[Check]:
    from adapters.embedding import EmbeddingMismatch, check_source, embedding_path

    try:
        check_source()
    except EmbeddingMismatch as error:
        yield Check("embedding", "problem", str(error), "run `make setup`, which installs what the lock names")
        return
    if embedding_path(settings).exists():
        yield Check("embedding", "ok", "the table is built")
    else:
        yield Check("embedding", "note", "the table is not built yet", "`bellbuoy setup` or `bellbuoy up` builds it")


def _ports(settings: Settings) -> Iterator[Check]:
    from bellbuoy.status import lock_path

    supervisor = holder(lock_path(settings))
    if supervisor is not None:
        yield Check("stack", "ok", f"runs here, supervised by process {supervisor}")
        return
    yield Check("stack", "note", f"none runs on {settings.data_dir.resolve()}", "`bellbuoy up` starts one")
    names = [port.name for port in fields(Ports) if runs_here(settings, port.name)]
    wanted = {name: getattr(settings, f"{name}_port") for name in names}
    taken = [f"{name} {port}" for name, port in wanted.items() if port and not port_is_free(listens_on(settings, name), port)]
    if settings.embedded_kafka:
        wanted["kafka"] = settings.kafka_port
        if settings.kafka_port and not port_is_free(LOOPBACK, settings.kafka_port):
            taken.append(f"kafka {settings.kafka_port}")
    if taken:
        yield Check("ports", "note", f"taken: {', '.join(taken)}", "the stack takes other ports; `bellbuoy status` tells them")
    else:
        yield Check("ports", "ok", ", ".join(f"{name} {port}" for name, port in wanted.items()) + " are free")


def _kafka(settings: Settings) -> Iterator[Check]:
    from adapters.broker import answers
    from adapters.kafka_admin import check_topics

    addresses = settings.bootstrap_servers()
    if settings.embedded_kafka and settings.stack() is None:
        return
    if not answers(addresses, _NO_BROKER_S):
        own = "see `bellbuoy status` and the logs in its data folder"
        other = "is it there, and may this machine reach it? KAFKA_BOOTSTRAP_SERVERS names it"
        yield Check("kafka", "problem", f"no broker answers at {addresses}", own if settings.embedded_kafka else other)
        return
    yield from _asked("kafka", "is it there, and may this machine reach it?", lambda: _topics(check_topics(settings), addresses))


def _topics(found: list[str], addresses: str) -> list[Check]:
    if not found:
        return [Check("kafka", "ok", f"{addresses}; the topics are as the registry says")]
    by_topic: dict[str, list[str]] = {}
    for line in found:
        topic, _, what = line.partition(": ")
        by_topic.setdefault(topic, []).append(what)
    missing = any(line.endswith("the topic is missing") for line in found)
    advice = "`bellbuoy topics ensure` makes the missing ones" if missing else "alter the topics with the cluster's own tools"
    problems = [Check("topics", "problem", f"{topic}: {'; '.join(what)}") for topic, what in by_topic.items()]
    return [*problems[:-1], replace(problems[-1], advice=advice)]


def _store(settings: Settings) -> Iterator[Check]:
    if settings.clickhouse_dsn is None and settings.stack() is None:
        return
    from adapters import clickhouse

    def ask() -> list[Check]:
        client = clickhouse.connect(settings)
        version = client.server_version
        client.close()
        return [Check("clickhouse", "ok", f"version {version}")]

    yield from _asked("clickhouse", "is it there, and are address, user and password right?", ask)


def _provider(settings: Settings) -> Iterator[Check]:
    if settings.upstream_url is None:
        yield Check("provider", "ok", "the bundled sandbox, which needs no key and costs nothing")
    elif settings.upstream_api_key is None:
        advice = "set BELLBUOY_UPSTREAM_API_KEY, unless the provider asks for none"
        yield Check("provider", "note", f"{shown(settings.upstream_url)}, without a key", advice)
    else:
        yield Check("provider", "ok", f"{shown(settings.upstream_url)}, with a key")


def _mlflow(settings: Settings) -> Iterator[Check]:
    uri = settings.mlflow_tracking_uri
    if uri is None or not uri.startswith(("http://", "https://")):
        return

    def ask() -> list[Check]:
        answer = httpx.get(f"{uri.rstrip('/')}/version", timeout=_NO_BROKER_S)
        if answer.status_code != 200:
            return [Check("mlflow", "problem", f"{shown(uri)} answers {answer.status_code}", "are user and password right?")]
        return [Check("mlflow", "ok", f"version {answer.text[:20]} at {shown(uri)}")]

    yield from _asked("mlflow", "is it there, and may this machine reach it? MLFLOW_TRACKING_URI names it", ask)


def _config(settings: Settings) -> Iterator[Check]:
    if settings.embedded_kafka and settings.stack() is None:
        return
    from adapters.broker import answers
    from bellbuoy.configuration import current_config, read_configs

    if not answers(settings.bootstrap_servers(), _NO_BROKER_S):
        return

    def ask() -> list[Check]:
        config = current_config(read_configs(settings))
        if config is None:
            return [Check("config", "problem", "none was activated yet", "`bellbuoy up` makes the first one")]
        return [Check("config", "ok", f"{len(config.scorers)} scorers, {len(config.rules.rules)} rules, {config.shards} shards")]

    yield from _asked("config", "`bellbuoy up` makes the first one", ask)


def _asked(name: str, advice: str, ask: Callable[[], list[Check]]) -> list[Check]:
    """A doctor reports whatever goes wrong while asking, and goes on."""
    try:
        return ask()
    except Exception as error:  # noqa: BLE001  # any failure is the finding
        return [Check(name, "problem", f"{type(error).__name__}: {error}", advice)]
