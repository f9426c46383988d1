"""Asks before a command waits for it: is there a stack, does its Kafka answer?"""

import contextlib
import socket
from typing import Final

from adapters.broker import answers
from adapters.settings import Settings

ANSWER_S: Final = 5.0


class NotReachable(RuntimeError):
    """There is nothing to ask; the text says what to do."""


def need_kafka(settings: Settings) -> None:
    """Raise NotReachable unless Kafka answers. A default address is never tried: somebody else's broker may listen there."""
    if settings.embedded_kafka:
        _need_stack(settings, "KAFKA_BOOTSTRAP_SERVERS")
    servers = settings.bootstrap_servers()
    if not answers(servers, ANSWER_S):
        if settings.embedded_kafka:
            raise NotReachable(f"Kafka does not answer at {servers}; `bellbuoy status` tells more")
        raise NotReachable(
            f"Kafka does not answer at {servers}, which KAFKA_BOOTSTRAP_SERVERS names: is it there, and may this machine reach it?"
        )


def need_store(settings: Settings) -> None:
    """Raise NotReachable where there is no stack, no ClickHouse server to ask, and no store that runs by itself."""
    if settings.clickhouse_dsn is None and not _store_runs_by_itself(settings):
        _need_stack(settings, "BELLBUOY_CLICKHOUSE_DSN")


def _store_runs_by_itself(settings: Settings) -> bool:
    """Whether a store with this folder's key was started without a supervisor (`bellbuoy store`)."""
    if (settings.key_dir / "store").exists():
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", settings.store_port), 1):
            return True
    return False


def _need_stack(settings: Settings, instead: str) -> None:
    if settings.stack() is None:
        folder = settings.data_dir.resolve()
        raise NotReachable(
            f"no stack runs on {folder}; `bellbuoy up` starts one "
            f"(BELLBUOY_DATA_DIR chooses another folder, {instead} a server of yours)"
        )
