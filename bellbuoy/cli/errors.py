"""Which errors are a user's matter, and the one sentence that each of them gets."""

import errno
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from adapters.settings import Settings

_WRONG_LOGIN: Final = frozenset({192, 193, 194, 516})
_NO_TABLES: Final = frozenset({60, 81})
_NOT_WRITABLE: Final = frozenset(
    {errno.EACCES, errno.EPERM, errno.ENOTDIR, errno.EEXIST, errno.EROFS, errno.ENOSPC, errno.EDQUOT}
)
_LOOK: Final = "is it there, and may this machine reach it? `bellbuoy doctor` looks"


def explain(error: BaseException) -> str | None:
    """What is wrong and what to do, in one sentence; None for what is a defect and keeps its traceback."""
    if isinstance(error, BaseExceptionGroup):
        said = list(dict.fromkeys(explain(part) for part in _leaves(error)))
        return None if None in said else "; ".join(text for text in said if text)
    return told_by_itself(error) or _folder(error) or _kafka(error) or _clickhouse(error) or _collector(error)


def _leaves(group: BaseExceptionGroup[BaseException]) -> Iterator[BaseException]:
    for part in group.exceptions:
        if isinstance(part, BaseExceptionGroup):
            yield from _leaves(part)
        else:
            yield part


def told_by_itself(error: BaseException) -> str | None:
    """The text of an error that says itself what to do, and that of a setting which cannot be read; None for any other."""
    from adapters.broker import BrokerFailed
    from adapters.clickhouse import BadDsn, MigrationError
    from adapters.corpus import InvalidCorpus
    from adapters.embedding import EmbeddingMismatch
    from adapters.heads import HeadsMismatch
    from adapters.java import NoJava
    from adapters.kafka_jars import JarsMissing
    from adapters.process import FolderInUse
    from adapters.shard_log import BrokerAway, Fenced, TransactionFailed
    from bellbuoy.configuration import ConfigConflict
    from bellbuoy.ledger import NotAtRest
    from bellbuoy.reach import NotReachable
    from bellbuoy.stack import StackFailed

    if isinstance(error, FolderInUse):
        return f"{error}: `bellbuoy status` shows what runs there, `bellbuoy down` stops it"
    if isinstance(error, NotAtRest):
        return f"{error}; `bellbuoy status` shows which process lags"
    if isinstance(error, TransactionFailed):
        return f"{error}: it may have been written or not; `bellbuoy routes show APP` shows what stands"
    if isinstance(error, Fenced):
        return f"{error}, again and again; `bellbuoy routes show APP` shows what stands"
    if isinstance(error, BrokerAway):
        return f"Kafka does not answer ({error}): {_LOOK}"
    plain = (
        BadDsn,
        BrokerFailed,
        ConfigConflict,
        EmbeddingMismatch,
        HeadsMismatch,
        InvalidCorpus,
        JarsMissing,
        MigrationError,
        NoJava,
    )
    return str(error) if isinstance(error, (*plain, NotReachable, StackFailed)) else _settings(error)


def _settings(error: BaseException) -> str | None:
    from pydantic import ValidationError

    if not isinstance(error, ValidationError) or error.title != "Settings":
        return None
    wrong = error.errors()[0]
    name = str(wrong["loc"][0])
    name = name if name.isupper() else f"BELLBUOY_{name.upper()}"
    return f"{name} is set to {wrong['input']!r}: {wrong['msg'][0].lower()}{wrong['msg'][1:]}"


def _folder(error: BaseException) -> str | None:
    if not isinstance(error, OSError) or not isinstance(error.filename, str):
        return None
    folder = Settings().data_dir.resolve()
    cannot_be_made = error.errno == errno.ENOENT and Path(error.filename).resolve() in (folder, *folder.parents)
    if error.errno not in _NOT_WRITABLE and not cannot_be_made:
        return None
    return f"{error.strerror}: {error.filename}; BELLBUOY_DATA_DIR chooses another data folder, which must be writable"


def _kafka(error: BaseException) -> str | None:
    from confluent_kafka import KafkaError, KafkaException
    from kafka.errors import KafkaConnectionError, KafkaTimeoutError

    from adapters.kafka_admin import NoTopic

    if isinstance(error, NoTopic):
        return f"the cluster has no topic {error.args[0]}; `bellbuoy topics ensure` makes what is missing"
    if isinstance(error, KafkaConnectionError | KafkaTimeoutError):
        return f"Kafka does not answer ({type(error).__name__}): {_LOOK}"
    if isinstance(error, KafkaException) and isinstance(error.args[0], KafkaError):
        away = (KafkaError._TRANSPORT, KafkaError._ALL_BROKERS_DOWN, KafkaError._TIMED_OUT, KafkaError._RESOLVE)
        if error.args[0].code() in away:
            return f"Kafka does not answer ({error.args[0].str()}): {_LOOK}"
    return None


def _clickhouse(error: BaseException) -> str | None:
    from clickhouse_connect.driver.exceptions import DatabaseError

    from adapters.clickhouse import UNAVAILABLE, address

    if isinstance(error, UNAVAILABLE):
        place = address(Settings())
        return f"ClickHouse does not answer at {place.host}:{place.port}: {_LOOK}"
    code = getattr(error, "code", None)
    if isinstance(error, DatabaseError) and code in _WRONG_LOGIN:
        return "ClickHouse refuses the user or the password; BELLBUOY_CLICKHOUSE_DSN holds them for a server of yours"
    if isinstance(error, DatabaseError) and code in _NO_TABLES:
        return "ClickHouse has no tables of Bellbuoy yet; `bellbuoy migrate` makes them"
    return None


def _collector(error: BaseException) -> str | None:
    from httpx import HTTPStatusError, TransportError

    from bellbuoy.traffic import CollectorBusy

    if isinstance(error, TransportError | CollectorBusy | HTTPStatusError):
        return f"the collector does not take traffic: {error or type(error).__name__}; `bellbuoy status` tells more"
    return None
