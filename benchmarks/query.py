"""How fast a year of history reads: the queries of the page over window rows in the real engine, in a store of its own.

A year of hours and days, the last 90 days in minutes as far as the rows reach, for apps with two versions and every counted
metric. Counts are random; the ids, bins and shapes are those of the fold. Parts are merged before anything is asked, as they are in
a store that has run for long: what was written in a minute here comes in a year there.
    python -m benchmarks.query --rows 10000000
"""

import argparse
import contextlib
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import psutil
import pyarrow as pa

from adapters import clickhouse
from benchmarks.report import emit
from core.metrics import METRICS, metric_key
from core.rollup import DAY_MS
from services.page_history import RANGES, app_history, overview
from tests.fixtures_store import StoreProcess

PACKAGES = ("chdb", "clickhouse-connect", "pyarrow", "numpy")
CHUNK = 200_000
VERSIONS = ("v1", "v2")
COARSE = 365 * 25
"""Rows of one metric and version in a year: its hours and its days."""
NOW = 1_767_225_600_000 + 12 * 3_600_000
BINS = {"number": 24, "cells": 48, "distance": 12}
"""Bins that a row of a metric that is no rate has here."""


def metrics() -> list[tuple[str, int]]:
    """Every metric that is counted in bins, with the bins that its rows have."""
    return [(metric_key(m.name, 1), BINS.get(m.kind, 2)) for m in METRICS.values() if m.kind != "category"]


def tables(rows: int, seed: int) -> Iterator[pa.Table]:
    """About `rows` window rows, in parts."""
    rng = np.random.default_rng(seed)
    known = metrics()
    apps = max(1, rows // (COARSE * len(VERSIONS) * len(known)))
    today = NOW - NOW % DAY_MS
    left = rows
    for app in range(apps):
        for resolution, count in ((86_400, 365), (3_600, 365 * 24)):
            windows = today - resolution * 1000 * np.arange(1, count + 1)
            for version in VERSIONS:
                for metric, bins in known:
                    left -= count
                    yield table(rng, f"app-{app:03}", version, metric, bins, resolution, windows)
    minutes = max(0, left) // (len(VERSIONS) * len(known))
    windows = today - 60_000 * np.arange(1, min(minutes, 90 * 1_440) + 1)
    for version in VERSIONS:
        for metric, bins in known:
            yield table(rng, "app-000", version, metric, bins, 60, windows)


def table(
    rng: np.random.Generator, app: str, version: str, metric: str, bins: int, resolution: int, windows: np.ndarray
) -> pa.Table:
    """Rows of one series."""
    size = len(windows)
    counts = rng.integers(1, 100 * resolution, (size, bins))
    ends = pa.array(np.arange(size + 1) * bins, pa.int32())
    constant = {"app": app, "lane": "live", "environment": "production", "metric": metric, "version": version}
    return pa.table(
        {name: pa.array([value] * size, pa.string()) for name, value in constant.items()}
        | {
            "resolution": pa.array(np.full(size, resolution), pa.uint32()),
            "window": pa.array(windows, pa.timestamp("ms", tz="UTC")),
            "shard": pa.array(np.zeros(size), pa.uint32()),
            "n": pa.array(counts.sum(axis=1), pa.int64()),
            "bins": pa.ListArray.from_arrays(ends, pa.array(np.tile(np.arange(bins), size), pa.int32())),
            "names": pa.ListArray.from_arrays(pa.array(np.zeros(size + 1), pa.int32()), pa.array([], pa.string())),
            "counts": pa.ListArray.from_arrays(ends, pa.array(counts.ravel(), pa.int64())),
        }
    )


def fill(client: clickhouse.Client, rows: int, seed: int) -> int:
    """Insert the rows in parts of about CHUNK; returns how many there are."""
    waiting: list[pa.Table] = []
    done = size = 0

    def flush() -> None:
        nonlocal done, size
        client.insert_arrow("window_rows", pa.concat_tables(waiting).combine_chunks())
        done, size = done + size, 0
        waiting.clear()
        print(f"# {done:,} rows", file=sys.stderr)

    for part in tables(rows, seed):
        waiting.append(part)
        size += part.num_rows
        if size >= CHUNK:
            flush()
    if waiting:
        flush()
    return done


def timed(ask: Callable[[], object], times: int) -> list[float]:
    """Milliseconds of each call, after one that warms up."""
    ask()
    took = []
    for _ in range(times):
        began = time.perf_counter()
        ask()
        took.append((time.perf_counter() - began) * 1000)
    return took


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.query", description=__doc__)
    parser.add_argument("--rows", type=int, default=10_000_000)
    parser.add_argument("--times", type=int, default=50, help="how often each query is asked")
    parser.add_argument("--seed", type=int, default=1)
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="bellbuoy-query-") as folder:
        store = StoreProcess(Path(folder)).start()
        try:
            with contextlib.closing(clickhouse.connect(store.settings, timeout_s=600)) as client:
                clickhouse.migrate(client)
                began = time.monotonic()
                emit("query.rows", fill(client, chosen.rows, chosen.seed), "rows", PACKAGES)
                client.command("OPTIMIZE TABLE window_rows FINAL")
                emit("query.fill", time.monotonic() - began, "s", PACKAGES)
                assert store.process is not None
                measure(client, psutil.Process(store.process.pid), chosen.times)
        finally:
            store.stop()


def cpu_ms(store: psutil.Process) -> float:
    """CPU that the store and this process have used: on a busy machine the time that a query takes says more about the others."""
    used = store.cpu_times()
    return 1000 * (used.user + used.system + time.process_time())


def measure(client: clickhouse.Client, store: psutil.Process, times: int) -> None:
    """Ask what the page asks."""

    def query(name: str, parameters: object) -> list[dict[str, object]]:
        return clickhouse.rows(client, name, parameters)  # type: ignore[arg-type]  # a mapping

    for range_ in RANGES:
        asked: dict[str, Callable[[], dict[str, object]]] = {
            f"overview.{range_}": lambda range_=range_: overview(query, range_, NOW),  # type: ignore[misc]  # bound in the loop
            f"app.{range_}": lambda range_=range_: app_history(query, "app-000", "production", range_, NOW),  # type: ignore[misc]
        }
        for name, ask in asked.items():
            answer = ask()
            if not (answer.get("apps") or answer.get("series")):
                raise SystemExit(f"{name} found nothing")
            before = cpu_ms(store)
            took = timed(ask, times)
            emit(f"query.{name}.cpu", (cpu_ms(store) - before) / (times + 1), "ms of CPU a query", PACKAGES)
            for share in (50, 95):
                emit(f"query.{name}.p{share}", float(np.percentile(took, share)), "ms", PACKAGES)


if __name__ == "__main__":
    main()
