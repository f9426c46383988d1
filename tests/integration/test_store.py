"""The store under stock clients, hostile statements, limits and kill -9."""

import asyncio
import contextlib
import gzip
import stat
import threading
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Callable, Iterator
from urllib.parse import urlencode

import clickhouse_connect
import pyarrow as pa
import pytest
import zstandard
from clickhouse_connect.driver.exceptions import DatabaseError, OperationalError, StreamFailureError

from adapters.clickhouse import Client
from tests.fixtures_store import StoreProcess

pytestmark = pytest.mark.integration
HOSTILE = "a\tb\n'\\c\"日本\0{x:String}; DROP TABLE t --"


@pytest.fixture
def client(store: StoreProcess) -> Iterator[Client]:
    with contextlib.closing(store.client()) as client:
        yield client


@pytest.fixture
def table(client: Client) -> Iterator[str]:
    """A table in a database of its own."""
    database = f"test_{uuid.uuid4().hex}"
    client.command(f"CREATE DATABASE {database}")
    client.command(f"CREATE TABLE {database}.t (a UInt64, s String, m Map(String, Int64)) ENGINE = MergeTree ORDER BY a")
    yield f"{database}.t"
    client.command(f"DROP DATABASE {database}")


def rows(count: int, first: int = 0) -> pa.Table:
    maps = pa.array([[("k", 1)]] * count, pa.map_(pa.string(), pa.int64()))
    return pa.table({"a": pa.array(range(first, first + count), pa.uint64()), "s": ["x"] * count, "m": maps})


def post(
    store: StoreProcess, body: bytes, *, key: str | None = None, headers: dict[str, str] | None = None, **values: str
) -> bytes:
    request = urllib.request.Request(
        f"{store.url}/?{urlencode(values)}", data=body, headers={"X-ClickHouse-Key": key or store.key} | (headers or {})
    )
    with urllib.request.urlopen(request, timeout=30) as response:
        answer: bytes = response.read()
        return answer


def code_of(error: urllib.error.HTTPError) -> str | None:
    return error.headers.get("X-ClickHouse-Exception-Code")


@pytest.mark.parametrize("compress", [False, "lz4", "zstd", "gzip"])
def test_arrow_goes_in_and_native_comes_out_under_any_compression(store: StoreProcess, table: str, compress: bool | str) -> None:
    client = clickhouse_connect.get_client(
        host="127.0.0.1", port=store.port, username="default", password=store.key, compress=compress
    )
    assert client.insert_arrow(table, rows(1_000)).written_rows == 1_000
    assert client.query(f"SELECT count(), sum(a) FROM {table}").result_rows == [(1_000, 499_500)]
    assert client.query("SELECT number, toString(number) FROM numbers(200000)").row_count == 200_000
    client.close()


def test_an_insert_says_how_many_rows_it_wrote(client: Client, table: str) -> None:
    assert client.insert(table, [[1, "a", {"k": 2}], [2, "b", {}]], column_names=["a", "s", "m"]).written_rows == 2


def test_rows_come_as_a_data_frame(client: Client, table: str) -> None:
    client.insert_arrow(table, rows(3))
    assert client.query_df(f"SELECT a, s FROM {table} ORDER BY a").to_dict("list") == {"a": [0, 1, 2], "s": ["x"] * 3}


def test_a_parameters_value_comes_back_as_it_was(client: Client) -> None:
    assert client.query("SELECT {v:String}, {l:Array(String)}", parameters={"v": HOSTILE, "l": [HOSTILE]}).result_rows == [
        (HOSTILE, [HOSTILE])
    ]


def test_a_large_arrow_result_is_streamed_whole(client: Client) -> None:
    with client.query_arrow_stream("SELECT number FROM numbers(500000)") as stream:
        assert sum(batch.num_rows for batch in stream) == 500_000


def test_an_empty_arrow_result_has_its_columns(client: Client) -> None:
    assert client.query_arrow("SELECT number AS n FROM numbers(0)").column_names == ["n"]


def test_the_async_client_works_side_by_side(store: StoreProcess, table: str) -> None:
    async def use() -> tuple[int, int]:
        client = await clickhouse_connect.get_async_client(
            host="127.0.0.1", port=store.port, username="default", password=store.key
        )
        written = (await client.insert_arrow(table, rows(10))).written_rows
        results = await asyncio.gather(*[client.query(f"SELECT count() FROM {table}") for _ in range(20)])
        await client.close()
        return written, sum(r.result_rows[0][0] for r in results)

    assert asyncio.run(use()) == (10, 200)


@pytest.mark.parametrize("encoding", ["gzip", "zstd"])
def test_a_body_may_be_compressed(store: StoreProcess, encoding: str) -> None:
    encode = {"gzip": gzip.compress, "zstd": zstandard.compress}[encoding]
    assert post(store, encode(b"SELECT 1"), headers={"Content-Encoding": encoding}) == b"1\n"


def test_a_small_body_that_grows_too_large_is_refused(store: StoreProcess) -> None:
    bomb = zstandard.compress(b" " * (300 * 1024 * 1024))
    with pytest.raises(urllib.error.HTTPError, match="413"):
        post(store, bomb, headers={"Content-Encoding": "zstd"})


def test_the_key_file_is_the_owners_alone(store: StoreProcess) -> None:
    assert stat.S_IMODE((store.data_dir / "keys" / "store").stat().st_mode) == 0o600


def test_a_wrong_key_is_refused(store: StoreProcess) -> None:
    with pytest.raises(urllib.error.HTTPError) as caught:
        post(store, b"SELECT 1", key="wrong")
    assert (caught.value.code, code_of(caught.value)) == (403, "516")


def test_a_request_without_a_key_is_refused(store: StoreProcess) -> None:
    with pytest.raises(urllib.error.HTTPError, match="403"):
        urllib.request.urlopen(f"{store.url}/?query=SELECT+1", timeout=5)


def test_nothing_of_a_request_is_left_for_the_next_one(store: StoreProcess, client: Client) -> None:
    post(store, b"SELECT {p:String}", database="system", max_threads="1", param_p="x")
    with pytest.raises(urllib.error.HTTPError):
        post(store, b"SELECT nonsense", database="system", max_block_size="7", param_p="x")
    assert client.query("SELECT currentDatabase(), getSetting('max_block_size') != 7").result_rows == [("default", True)]
    with pytest.raises(DatabaseError, match="UNKNOWN_QUERY_PARAMETER"):
        client.query("SELECT {p:String}")


def test_a_slow_query_ends_with_a_clear_timeout(client: Client) -> None:
    with pytest.raises(DatabaseError, match="TIMEOUT_EXCEEDED"):
        client.query("SELECT count() FROM numbers(100000000000) WHERE sipHash64(number) = 3", settings={"max_execution_time": 1})


def test_a_query_that_fails_while_it_is_streamed_fails_in_the_client(client: Client) -> None:
    sql = "SELECT number, throwIf(number = 900000, 'boom') FROM numbers(1000000)"
    with pytest.raises(StreamFailureError, match="boom"), client.query_row_block_stream(sql) as stream:
        for _ in stream:
            pass


def test_a_client_that_leaves_frees_its_worker(store: StoreProcess, client: Client) -> None:
    slow = b"SELECT count() FROM numbers(100000000000) WHERE sipHash64(number) = 3"
    request = urllib.request.Request(store.url, data=slow, headers={"X-ClickHouse-Key": store.key})
    for _ in range(4):
        with pytest.raises(TimeoutError):
            urllib.request.urlopen(request, timeout=0.3)
    assert client.query("SELECT count() FROM numbers(10)").result_rows == [(10,)]


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT * FROM file('/etc/passwd', 'LineAsString')",
        "SELECT * FROM `fi\\x6ce`('/etc/passwd', 'LineAsString')",
        "SELECT * FROM file/**/('/etc/passwd', 'LineAsString')",
        "SELECT $a$'$a$, file('/etc/passwd')",
        "SELECT ‘'’, file('/etc/passwd') -- '",
        "SELECT * FROM '/etc/hostname'",
        "SELECT * FROM default.`/etc/hostname`",
        "SELECT * FROM url('http://127.0.0.1:1/', 'TSV', 'a Int32')",
        "SELECT * FROM view(SELECT file('/etc/passwd'))",
        "SELECT 1; SELECT 2",
        "SELECT * FROM Python(os)",
        "INSERT INTO {table} (s) VALUES (file('/etc/passwd'))",
        "INSERT INTO {table} (s) SETTINGS input_format_values_interpret_expressions = 1 VALUES (file('/etc/passwd'))",
        "INSERT INTO {table} (s) SELECT file('/etc/passwd')",
        "INSERT INTO FUNCTION file('/var/lib/out.csv', 'CSV') SELECT 1",
        "CREATE VIEW {table}_v AS SELECT * FROM file('/etc/passwd')",
        "SYSTEM SHUTDOWN",
        "SET readonly = 0",
        "SELECT 1 AS `a'`, file('/etc/passwd') AS `b'`",
        "INSERT INTO {table} (s) SELECT file('/etc/passwd') AS `b'` FROM (SELECT 1 AS `a'`)",
        "SELECT name FROM system.settings LIMIT 1 FORMAT Template SETTINGS format_template_row = '/etc/hostname'",
        "SELECT name FROM system.settings LIMIT 1 SETTINGS format_schema = '/etc/hostname:X' FORMAT Protobuf",
        "SELECT 1 SETTINGS readonly = 0",
        "WITH x AS (SELECT * FROM file('/etc/passwd')) SELECT * FROM x",
        "EXPLAIN SELECT * FROM file('/etc/passwd')",
        "DESCRIBE TABLE url('http://127.0.0.1:1/')",
        "SELECT * FROM executable('ls', 'TSV', 'x String')",
        "SELECT * FROM numbers(1) INTO OUTFILE '/var/lib/out.tsv'",
        "CREATE TABLE {table}_f (x String) ENGINE = File(TSV)",
        "CREATE TABLE {table}_f AS file('/etc/passwd')",
        "CREATE DATABASE q ENGINE = Filesystem('/etc')",
        "CREATE NAMED COLLECTION x AS a = 1",
        "BACKUP TABLE {table} TO File('/var/lib/b')",
        "ATTACH TABLE {table}_z FROM '/tmp' (x String) ENGINE = MergeTree ORDER BY x",
        "ALTER TABLE {table} ADD COLUMN y String DEFAULT file('/etc/passwd')",
        "DETACH TABLE {table}",
        "TRUNCATE ALL TABLES FROM system",
    ],
)
def test_a_statement_that_reaches_out_of_the_store_is_refused(client: Client, table: str, sql: str) -> None:
    with pytest.raises(DatabaseError):
        client.command(sql.replace("{table}", table))


@pytest.mark.parametrize(
    "setting",
    ["format_template_row", "format_schema", "format_avro_schema_registry_url", "input_format_record_errors_file_path"],
)
def test_settings_that_name_files_or_addresses_are_refused(client: Client, table: str, setting: str) -> None:
    with pytest.raises(DatabaseError):
        client.raw_insert(table, insert_block=b"x\n", fmt="CSV", settings={setting: "/etc/hostname"})


def test_the_engines_own_tables_cannot_be_dropped_by_a_parameter(client: Client) -> None:
    with pytest.raises(DatabaseError):
        client.command("DROP TABLE {d:Identifier}.one", parameters={"d": "system"})
    assert client.command("SELECT 1 FROM system.one") == 1


@pytest.mark.parametrize(
    "values",
    [{"readonly": "0"}, {"max_threads": "1', readonly = '0"}, {"a b": "1"}, {"param_a b": "1"}, {"database": "x`; DROP"}],
)
def test_hostile_names_and_values_around_a_statement_are_refused(store: StoreProcess, values: dict[str, str]) -> None:
    with pytest.raises(urllib.error.HTTPError):
        post(store, b"SELECT 1", **values)


def test_a_get_request_cannot_write(store: StoreProcess, table: str) -> None:
    query = urlencode({"query": f"TRUNCATE TABLE {table}"})
    request = urllib.request.Request(f"{store.url}/?{query}", headers={"X-ClickHouse-Key": store.key})
    with pytest.raises(urllib.error.HTTPError) as caught:
        urllib.request.urlopen(request, timeout=5)
    assert code_of(caught.value) == "164"


def test_long_reads_do_not_hold_up_writes(store: StoreProcess, client: Client, table: str) -> None:
    def read() -> None:
        with contextlib.suppress(DatabaseError), contextlib.closing(store.client()) as other:
            other.query(
                "SELECT count() FROM numbers(100000000000) WHERE sipHash64(number) = 3", settings={"max_execution_time": 3}
            )

    readers = [threading.Thread(target=read) for _ in range(3)]
    for reader in readers:
        reader.start()
    time.sleep(0.3)
    assert client.insert_arrow(table, rows(10)).written_rows == 10
    assert any(reader.is_alive() for reader in readers)
    for reader in readers:
        reader.join()


def test_what_was_acknowledged_is_there_after_kill_9(start_store: Callable[[], StoreProcess]) -> None:
    store = start_store().start()
    with contextlib.closing(store.client()) as client:
        client.command("CREATE DATABASE k")
        client.command("CREATE TABLE k.t (a UInt64, s String, m Map(String, Int64)) ENGINE = MergeTree ORDER BY a")
    for round_ in range(3):
        acknowledged = round_ * 1_000
        done = threading.Event()

        def insert(done: threading.Event = done) -> None:
            nonlocal acknowledged
            with contextlib.suppress(OperationalError, DatabaseError), contextlib.closing(store.client()) as client:
                while not done.is_set():
                    client.insert_arrow("k.t", rows(500, acknowledged))
                    acknowledged += 500

        with contextlib.closing(store.client()) as client:
            client.command("TRUNCATE TABLE k.t")
        acknowledged = 0
        writer = threading.Thread(target=insert)
        writer.start()
        while acknowledged < 2_000:
            time.sleep(0.01)
        store.kill()
        done.set()
        writer.join()
        store.start()
        with contextlib.closing(store.client()) as client:
            held, distinct = client.query("SELECT count(), uniqExact(a) FROM k.t").result_rows[0]
        assert acknowledged <= distinct <= acknowledged + 500
        assert held == distinct
