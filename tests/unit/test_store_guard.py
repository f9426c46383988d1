"""What the store refuses; the texts are in the engine's canonical spelling."""

import pytest

from services.store_guard import Guard, Refused, check_settings, data_insert, escape, quote

GUARD = Guard(["file", "url", "s3", "remote", "executable", "numbers", "merge", "values"])


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT * FROM file('/etc/passwd')",
        "SELECT file('/etc/passwd')",
        "SELECT * FROM `file`('/etc/passwd')",
        "SELECT * FROM URL('http://x')",
        "INSERT INTO t SELECT * FROM remote('h:9000', 'a.b')",
        "CREATE TABLE x.t (`a` Int32) ENGINE = File(CSV)",
        "CREATE TABLE x.t (`a` Int32) ENGINE = URL('http://x', CSV)",
        "CREATE TABLE x.t (`a` Int32) ENGINE = MergeTree ORDER BY a SETTINGS disk = disk(type = local, path = '/')",
        "CREATE DICTIONARY x.d (`a` Int32) PRIMARY KEY a SOURCE(FILE(PATH 'x'))",
        "SELECT 1 INTO OUTFILE 'x'",
        "INSERT INTO t FROM INFILE 'x' FORMAT CSV",
        "CREATE FUNCTION f AS x -> x",
        "CREATE USER u",
        "GRANT ALL ON *.* TO u",
        "SYSTEM SHUTDOWN",
        "SET max_threads = 1",
        "USE x",
        "ATTACH TABLE x.t",
        "BACKUP TABLE x.t TO File('y')",
        "DROP DATABASE system",
        "DROP DATABASE default",
        "CREATE TABLE t (`a` Int32) ENGINE = MergeTree ORDER BY a",
        "INSERT INTO x.t SELECT 1 SETTINGS readonly = 0",
        "SELECT aiGenerate('x', 'y')",
        "SELECT 1 AS `a'`, file('/etc/passwd') AS `b'`",
        "SELECT '`', file('/etc/passwd'), '`'",
        "SELECT `{x:Identifier}'`, file('/etc/passwd') AS `'`",
    ],
)
def test_a_statement_that_reaches_out_is_refused(sql: str) -> None:
    with pytest.raises(Refused):
        GUARD.judge(sql, "default")


@pytest.mark.parametrize(
    ("sql", "lane"),
    [
        ("SELECT 1", "short"),
        ("SELECT * FROM system.tables", "short"),
        ("SELECT * FROM bellbuoy.interactions", "read"),
        ("SELECT 'file(x)' FROM x.t", "read"),
        ("SELECT file FROM x.t", "read"),
        ("WITH 1 AS a SELECT * FROM numbers(3)", "read"),
        ("INSERT INTO x.t SELECT * FROM x.u", "write"),
        ("CREATE TABLE x.t (`a` Int32) ENGINE = ReplacingMergeTree ORDER BY a", "control"),
        ("ALTER TABLE x.t (DELETE WHERE a = 1)", "control"),
        ("KILL QUERY WHERE 1 ASYNC", "control"),
    ],
)
def test_a_statement_runs_in_its_lane(sql: str, lane: str) -> None:
    assert GUARD.judge(sql, "default").lane == lane


@pytest.mark.parametrize("name", ["system", "default", "INFORMATION_SCHEMA", "system.one", "a`b", ""])
def test_a_name_that_comes_as_a_parameter_is_judged_like_one_in_the_text(name: str) -> None:
    with pytest.raises(Refused):
        GUARD.judge("DROP TABLE {d:Identifier}.one", "x", {"d": name})


def test_a_plain_name_as_a_parameter_is_fine() -> None:
    assert GUARD.judge("CREATE DATABASE IF NOT EXISTS {d:Identifier}", "x", {"d": "bellbuoy"}).lane == "control"


def test_a_statement_about_settings_that_changes_some_is_read_only() -> None:
    assert not GUARD.judge("SELECT name FROM system.settings", "x").readonly
    assert GUARD.judge("SELECT name FROM system.settings SETTINGS format_schema = 'x'", "x").readonly


def test_a_tables_own_database_makes_default_harmless() -> None:
    assert GUARD.judge("CREATE TABLE t (`a` Int32) ENGINE = Memory", "x").lane == "control"


def test_the_format_that_a_statement_names_is_seen() -> None:
    assert GUARD.judge("SELECT 1 FORMAT JSON", "x").format == "JSON"


def test_data_begins_behind_the_line_that_names_its_format() -> None:
    found = data_insert(b"INSERT INTO `x`.`t` (`a`, b) FORMAT Arrow\n\nARROW1")
    assert found is not None
    assert (found.format, found.start) == ("Arrow", 42)


@pytest.mark.parametrize(
    "text",
    [
        b"INSERT INTO t VALUES (1)",
        b"INSERT INTO FUNCTION file('x') FORMAT CSV\n1",
        b"INSERT INTO t FROM INFILE 'x' FORMAT CSV\n",
        b"SELECT 1",
    ],
)
def test_other_statements_are_no_data_inserts(text: bytes) -> None:
    assert data_insert(text) is None


@pytest.mark.parametrize(
    "name",
    [
        "readonly",
        "dialect",
        "additional_table_filters",
        "x y",
        "a'b",
        "format_schema",
        "format_template_row",
        "output_format_schema",
        "format_avro_schema_registry_url",
        "input_format_record_errors_file_path",
    ],
)
def test_a_setting_that_opens_a_door_is_refused(name: str) -> None:
    with pytest.raises(Refused):
        check_settings([(name, "1")])


def test_a_literal_cannot_be_left() -> None:
    assert quote("a' OR \\") == "'a\\' OR \\\\'"


def test_a_parameters_escapes_name_every_control_character_that_ends_a_value() -> None:
    assert escape("\t\n\r\0\\") == "\\t\\n\\r\\0\\\\"
