"""Migrations against a real store."""

import contextlib
import uuid
from collections.abc import Iterator
from dataclasses import replace

import pytest

from adapters.clickhouse import Client, Migration, MigrationError, connect, migrate, migrations, pending
from tests.fixtures_store import StoreProcess

pytestmark = pytest.mark.integration
ONE = Migration(
    1,
    "one",
    "CREATE TABLE IF NOT EXISTS one (a UInt8) ENGINE = MergeTree ORDER BY a\n;\nCREATE TABLE IF NOT EXISTS too (a UInt8) ENGINE = Memory",
)
TWO = Migration(2, "two", "CREATE TABLE IF NOT EXISTS two (a UInt8) ENGINE = MergeTree ORDER BY a")


@pytest.fixture
def empty(store: StoreProcess) -> Iterator[Client]:
    """A client of a database that is not there yet."""
    database = f"test_{uuid.uuid4().hex}"
    with contextlib.closing(connect(store.settings, database=database)) as client:
        yield client
        client.command(f"DROP DATABASE IF EXISTS {database}", use_database=False)


def test_the_repositorys_migrations_make_an_empty_database_whole(empty: Client) -> None:
    assert migrate(empty) == [f"{m.number:04}_{m.name}" for m in migrations()]
    assert migrate(empty) == []


def test_only_what_is_new_is_applied(empty: Client) -> None:
    migrate(empty, [ONE])
    assert migrate(empty, [ONE, TWO]) == ["0002_two"]


def test_a_migration_that_was_changed_after_it_was_applied_is_refused(empty: Client) -> None:
    migrate(empty, [ONE, TWO])
    with pytest.raises(MigrationError, match="0002_two was changed"):
        migrate(empty, [ONE, replace(TWO, text=TWO.text + " ")])


def test_a_database_that_is_newer_than_the_code_is_refused(empty: Client) -> None:
    migrate(empty, [ONE, TWO])
    with pytest.raises(MigrationError, match="newer"):
        migrate(empty, [ONE])


def test_a_migration_that_broke_off_is_taken_up_again(empty: Client) -> None:
    broken = Migration(1, "one", ONE.text + "\n;\nCREATE TABLE three (a Nonsense) ENGINE = Memory")
    with pytest.raises(Exception, match="Nonsense"):
        migrate(empty, [broken])
    assert migrate(empty, [ONE]) == ["0001_one"]


def test_pending_changes_nothing(empty: Client) -> None:
    migrate(empty, [ONE])
    assert [m.name for m in pending(empty, [ONE, TWO])] == ["two"]
    assert not empty.command("EXISTS TABLE two")
