"""The ClickHouse client as this project uses it: stock clickhouse-connect, SQL from files, migrations with checksums."""

import hashlib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any, Final, TypeVar
from urllib.parse import unquote, urlsplit

import clickhouse_connect
import tenacity
from clickhouse_connect.driver.client import Client
from clickhouse_connect.driver.exceptions import DatabaseError, OperationalError

from adapters.keys import ensure_key_file
from adapters.settings import Settings

__all__ = [
    "DATABASE",
    "UNAVAILABLE",
    "BadDsn",
    "Client",
    "Migration",
    "MigrationError",
    "connect",
    "is_away",
    "migrate",
    "named_query",
    "patiently",
    "pending",
    "rows",
]

DATABASE: Final = "bellbuoy"
UNAVAILABLE: Final = (OperationalError, ConnectionError)
"""What a client raises while ClickHouse is away or just coming back."""
_T = TypeVar("_T")
_LOCK_S: Final = 120
_SQL = resources.files("schemas") / "clickhouse"
_BUSY: Final = frozenset({202, 210, 241, 252})
"""Codes that pass by themselves: too many statements, network, memory, too many parts."""


class MigrationError(RuntimeError):
    """The migrations in this code and those that the database has applied do not fit."""


class BadDsn(ValueError):
    """The setting for ClickHouse's address cannot be read; the text says how it is written."""


@dataclass(frozen=True)
class Migration:
    """One frozen file: statements that are separated by a line with a single semicolon."""

    number: int
    name: str
    text: str

    @property
    def checksum(self) -> str:
        return hashlib.sha256(self.text.encode()).hexdigest()

    @property
    def statements(self) -> list[str]:
        return [s for part in self.text.split("\n;\n") if (s := part.strip().rstrip(";").strip())]


@dataclass(frozen=True)
class Address:
    """Where ClickHouse is and how it is asked."""

    host: str
    port: int
    user: str
    password: str
    database: str
    secure: bool


def address(settings: Settings) -> Address:
    """The DSN's parts, or the embedded store's. Raises BadDsn."""
    if settings.clickhouse_dsn is None:
        stack = settings.stack()
        url = stack["urls"]["store"] if stack else f"http://127.0.0.1:{settings.store_port}"
        user, password = "default", ensure_key_file(settings.key_dir / "store")
    else:
        url = settings.clickhouse_dsn.get_secret_value()
        user, password = "default", ""
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        port, parts = None, urlsplit("")
    if not parts.hostname:
        raise BadDsn("BELLBUOY_CLICKHOUSE_DSN is written http(s)://user:password@host:port/database")
    secure = parts.scheme in ("https", "clickhouses")
    return Address(
        host=parts.hostname,
        port=port or (8443 if secure else 8123),
        user=unquote(parts.username) if parts.username else user,
        password=unquote(parts.password) if parts.password else password,
        database=parts.path.strip("/") or DATABASE,
        secure=secure,
    )


def connect(settings: Settings, *, database: str | None = None, timeout_s: int = 60) -> Client:
    """A client for any thread (no session). Raises OperationalError when nothing answers.

    The database is not created and need not be there: `migrate` makes it.
    """
    place = address(settings)
    client: Client = clickhouse_connect.get_client(
        host=place.host,
        port=place.port,
        username=place.user,
        password=place.password,
        database="default",
        secure=place.secure,
        compress=place.host not in ("127.0.0.1", "localhost", "::1"),
        autogenerate_session_id=False,
        connect_timeout=5,
        send_receive_timeout=timeout_s,
        client_name="bellbuoy",
    )
    client.database = database or place.database
    return client


def is_away(error: BaseException) -> bool:
    """Whether the same call may succeed later: nothing answered, or ClickHouse was too busy."""
    if isinstance(error, OperationalError | ConnectionError | TimeoutError):
        return True
    return isinstance(error, DatabaseError) and getattr(error, "code", None) in _BUSY


def patiently(
    call: Callable[[], _T],
    *,
    attempts: int | None = None,
    longest_s: float = 5.0,
    on_wait: Callable[[BaseException], None] | None = None,
) -> _T:
    """Repeat a call while ClickHouse is away (`attempts` None: without end). Anything else is raised at once."""

    def tell(state: tenacity.RetryCallState) -> None:
        error = state.outcome.exception() if state.outcome else None
        if on_wait and error:
            on_wait(error)

    return tenacity.Retrying(
        retry=tenacity.retry_if_exception(is_away),
        wait=tenacity.wait_exponential_jitter(multiplier=0.1, max=longest_s),
        stop=tenacity.stop_never if attempts is None else tenacity.stop_after_attempt(attempts),
        before_sleep=tell,
        reraise=True,
    )(call)


@cache
def named_query(name: str) -> str:
    """The text of `schemas/clickhouse/queries/<name>.sql`; KeyError for a name that has no file."""
    file = _SQL / "queries" / f"{name}.sql"
    if not name.isidentifier() or not file.is_file():
        raise KeyError(f"there is no query named {name}")
    return file.read_text()


def rows(client: Client, name: str, parameters: Mapping[str, Any] | None = None) -> list[dict[str, Any]]:
    """Run a named query with server-side parameters; one dict per row."""
    result = client.query(named_query(name), parameters=dict(parameters or {}))
    return list(result.named_results())


def migrations() -> list[Migration]:
    """The migrations of this code in order."""
    return list(_read_migrations())


def _read_migrations() -> Iterator[Migration]:
    files = sorted((f for f in (_SQL / "migrations").iterdir() if f.name.endswith(".sql")), key=lambda f: f.name)
    for expected, file in enumerate(files, 1):
        number, _, name = file.name.removesuffix(".sql").partition("_")
        if int(number) != expected:
            raise MigrationError(f"migration {expected} is missing: the next file is {file.name}")
        yield Migration(expected, name, file.read_text())


def pending(client: Client, known: Sequence[Migration] | None = None) -> list[Migration]:
    """Migrations that the database has not applied. MigrationError where an applied one differs from this code's."""
    known = migrations() if known is None else known
    if not client.command("EXISTS TABLE schema_migrations"):
        return list(known)
    applied = {row["number"]: row for row in rows(client, "migrations_applied")}
    for migration in known:
        row = applied.get(migration.number)
        if row and row["checksum"] != migration.checksum:
            raise MigrationError(
                f"migration {migration.number:04}_{migration.name} was changed after it had been applied: "
                "restore its text and put the change into a new one"
            )
    if newer := [n for n in applied if n > len(known)]:
        raise MigrationError(f"the database is newer than this code: it has migration {max(newer)}")
    done = [m.number for m in known if m.number in applied]
    if done and done[-1] != len(done):
        raise MigrationError(f"the database has migration {done[-1]}, but not all before it")
    return [m for m in known if m.number not in applied]


def migrate(client: Client, known: Sequence[Migration] | None = None, *, now: Callable[[], float] = time.time) -> list[str]:
    """Apply what is pending; returns the names. Every statement may be repeated, so a crash in between does no harm.

    Two that run at once apply the same idempotent statements; a claim row makes the second one wait for the first.
    """
    database = client.database or DATABASE
    client.command("CREATE DATABASE IF NOT EXISTS {database:Identifier}", parameters={"database": database}, use_database=False)
    client.command(named_query("migrations_table"))
    client.command(named_query("migrations_claims_table"))
    known = migrations() if known is None else known
    if not pending(client, known):
        return []
    mine = hashlib.sha256(f"{id(client)} {now()} {time.monotonic_ns()}".encode()).hexdigest()
    client.insert("schema_migration_claims", [[mine, int(now() * 1000)]], column_names=["claim", "claimed_ms"])
    try:
        while True:
            first = rows(client, "migrations_claim", {"since": int((now() - _LOCK_S) * 1000)})
            if not first or first[0]["claim"] == mine:
                break
            time.sleep(0.2)
        names = []
        for migration in pending(client, known):
            for statement in migration.statements:
                client.command(statement)
            client.insert(
                "schema_migrations",
                [[migration.number, migration.name, migration.checksum]],
                column_names=["number", "name", "checksum"],
            )
            names.append(f"{migration.number:04}_{migration.name}")
        return names
    finally:
        client.command(named_query("migrations_release"), parameters={"claim": mine})
