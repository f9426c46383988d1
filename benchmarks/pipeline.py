"""How many events a second the whole pipeline carries, from accepted to queryable, and what an event costs by process.

Everything runs on this machine, the generator too. Rows are counted by querying the store while traffic flows.
    python -m benchmarks.pipeline --rate 1500 --seconds 300
"""

import argparse
import contextlib
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import httpx
import psutil

from adapters import clickhouse
from adapters.keys import api_key
from adapters.settings import Settings
from adapters.telemetry import health_file
from bellbuoy.ledger import read_ledger, wait_at_rest
from bellbuoy.stack import Stack
from benchmarks.load import PAIR_BYTES
from benchmarks.report import emit

PACKAGES = ("confluent-kafka", "faust-streaming", "chdb", "clickhouse-connect", "pyarrow", "msgspec", "numpy")
PROCESSES = ("generator", "collector", "broker", "processor", "sink", "store", "controller", "page", "supervisor")
STAGES = re.compile(r'^bellbuoy_stage_seconds_total\{stage="(\w+)"\} (\S+)$', re.MULTILINE)
SAMPLE_S = 5.0
WARM_UP = 0.2
"""Share of the run that is not measured: the broker's JVM compiles, caches fill."""


@dataclass(frozen=True)
class Sample:
    """What was seen at one moment: events sent and queryable, CPU seconds used until then by process and stage."""

    seconds: float
    sent: int
    queryable: int
    cpu: dict[str, float]


class Watch:
    """Looks at the processes of a stack, and at the generator."""

    def __init__(self, stack: Stack, settings: Settings, generator: "subprocess.Popen[str]") -> None:
        self._stack, self._settings, self._generator = stack, settings, generator
        self._lines: list[str] = []
        assert generator.stdout is not None
        self._reader = threading.Thread(target=self._lines.extend, args=(iter(generator.stdout.readline, ""),), daemon=True)
        self._reader.start()

    def family(self, name: str) -> list[psutil.Process]:
        """A process and its living children; the supervisor is this process, which also counts the rows."""
        if name == "supervisor":
            return [psutil.Process()]
        process = psutil.Process(self._generator.pid if name == "generator" else self._stack.pid(name))
        return [process, *process.children(recursive=True)]

    def sent(self) -> dict[str, float]:
        """The generator's last word so far."""
        return json.loads(self._lines[-1]) if self._lines else {"sent": 0}

    def last_word(self) -> dict[str, float]:
        """What the generator says at its end."""
        if self._generator.wait() != 0:
            raise SystemExit("the load generator failed")
        self._reader.join()
        return self.sent()

    def cpu(self) -> dict[str, float]:
        """User and system seconds of each process with its living children, and of the processor's stages."""
        used = {name: total(self.family(name), cpu_seconds) for name in PROCESSES}
        return used | {f"processor.{stage}": float(seconds) for stage, seconds in STAGES.findall(self._metrics("processor"))}

    def rss(self) -> dict[str, float]:
        """Resident bytes by process."""
        return {name: total(self.family(name), lambda p: p.memory_info().rss) for name in PROCESSES[1:]}

    def samples(self, client: "clickhouse.Client") -> list[Sample]:
        """One about every five seconds while the generator runs."""
        start, samples = time.monotonic(), list[Sample]()
        while True:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._generator.wait(SAMPLE_S)
                return samples
            rows = client.query(clickhouse.named_query("count_rows"), parameters={"app": "load"}).result_rows[0][0]
            with contextlib.suppress(psutil.NoSuchProcess):  # the generator has just ended
                s = Sample(time.monotonic() - start, int(self.sent()["sent"]), int(rows), self.cpu())
                print(
                    f"# {s.seconds:6.1f} s  sent {s.sent:>9,}  queryable {s.queryable:>9,}  behind {s.sent - s.queryable:>7,}",
                    file=sys.stderr,
                    flush=True,
                )
                samples.append(s)

    def _metrics(self, name: str) -> str:
        url = json.loads(health_file(self._settings, name).read_text())["url"]
        return httpx.get(f"{url}/metrics", timeout=10).text


def total(processes: Iterable[psutil.Process], measure: Callable[[psutil.Process], float]) -> float:
    """A number summed over processes; one that has just ended counts as nothing."""
    found = 0.0
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            found += measure(process)
    return found


def cpu_seconds(process: psutil.Process) -> float:
    """User and system time of a process."""
    times = process.cpu_times()
    return float(times.user + times.system)


def run(rate: float, seconds: float, data_dir: Path) -> None:
    """Start a stack of its own, send for `seconds` at `rate`, wait until at rest, print the results."""
    settings = Settings(data_dir=data_dir)
    stack = Stack(settings)
    stack.start()
    try:
        environment = {**os.environ, "BELLBUOY_API_KEY": api_key(settings)}
        command = [sys.executable, "-m", "benchmarks.load", stack.urls()["collector"], str(rate), str(seconds), "load"]
        generator = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)
        watch = Watch(stack, settings, generator)
        with contextlib.closing(clickhouse.connect(settings)) as client:
            samples = watch.samples(client)
            sent = watch.last_word()
            wait_at_rest(settings, client, timeout=timedelta(seconds=300))
            ledger = read_ledger(settings, client)
        report(sent, samples, len(os.sched_getaffinity(0)))
        for name, size in watch.rss().items():
            emit(f"pipeline.rss.{name}", size / 2**20, "MiB", PACKAGES)
        emit("pipeline.missing", ledger.missing, "records", PACKAGES)
        if ledger.missing or ledger.stored + ledger.dead != ledger.received:
            raise SystemExit(f"the ledger is not whole: {ledger}")
    finally:
        stack.stop()


def report(sent: dict[str, float], samples: list[Sample], cores: int) -> None:
    """Rates, backlog and CPU per event, after the warm-up."""
    steady = [s for s in samples if s.seconds >= sent["seconds"] * WARM_UP]
    if len(steady) < 2:
        raise SystemExit("too short a run to measure anything")
    first, last = steady[0], steady[-1]
    seconds, events = last.seconds - first.seconds, last.sent - first.sent
    emit("pipeline.sent", sent["sent"], "events", PACKAGES)
    emit("pipeline.text_bytes", PAIR_BYTES, "bytes of prompt and response per event", PACKAGES)
    emit("pipeline.duration", sent["seconds"], "s", PACKAGES)
    emit("pipeline.refused", sent["refused"], "requests", PACKAGES)
    emit("pipeline.accepted_rate", sent["sent"] / sent["seconds"], "events/s", PACKAGES)
    emit("pipeline.queryable_rate", (last.queryable - first.queryable) / seconds, "events/s", PACKAGES)
    half = len(steady) // 2
    for name, part in (("first_half", steady[:half]), ("second_half", steady[half:])):
        emit(f"pipeline.backlog.{name}", statistics.mean(s.sent - s.queryable for s in part), "events", PACKAGES)
    used = {name: last.cpu[name] - first.cpu[name] for name in first.cpu.keys() & last.cpu.keys()}
    for name in sorted(used, key=[*PROCESSES, *sorted(used.keys() - set(PROCESSES))].index):
        emit(f"pipeline.cpu_ms.{name}", 1000 * used[name] / events, "CPU-ms/event", PACKAGES)
    everything = sum(used[name] for name in PROCESSES)
    emit("pipeline.cpu_ms.total", 1000 * everything / events, "CPU-ms/event", PACKAGES)
    emit("pipeline.cpu_share", everything / seconds / cores, f"of {cores} cores", PACKAGES)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rate", type=float, default=1500, help="events a second (default 1500)")
    parser.add_argument("--seconds", type=float, default=300, help="how long (default 300)")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="bellbuoy-pipeline-") as folder:
        run(args.rate, args.seconds, Path(folder))


if __name__ == "__main__":
    main()
