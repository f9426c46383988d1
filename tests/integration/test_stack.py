"""The supervisor on real processes: a small program stands in for each of them."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from adapters import process as os_process
from adapters.patience import EXIT_FENCED
from bellbuoy.supervisor import Spec, Supervisor
from tests.conftest import ROOT

pytestmark = pytest.mark.integration

# Works until it is told to stop; a file makes it fail with the code in it, once.
WORKER = """
import pathlib, signal, sys, time
order, code = pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2])
def stop(*_):
    with order.open("a") as file: file.write(sys.argv[3] + "\\n")
    sys.exit(0)
signal.signal(signal.SIGTERM, stop)
while not code.exists(): time.sleep(0.02)
text = code.read_text(); code.unlink(); sys.exit(int(text))
"""


class World:
    """A supervisor with processes of which the test decides how they end."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.supervisor = Supervisor(lambda: None)
        self.committed: dict[tuple[str, int], int] | None = {("t", 0): 7}
        self.careful_starts = 0
        self.ends: list[threading.Event] = []

    def add(self, name: str, *, watched: bool = False, needed: bool = True) -> None:
        def launch(careful: bool) -> "subprocess.Popen[bytes]":
            self.careful_starts += careful
            command = [sys.executable, "-c", WORKER, str(self.folder / "order"), str(self.folder / name), name]
            return os_process.spawn(os_process.bound(command), log=self.folder / f"{name}.log")

        committed = (lambda: self.committed) if watched else None
        log = self.folder / f"{name}.log"
        spec = Spec(name, launch, lambda _: None, log, 10.0, committed, needed, self.ends.append)
        self.supervisor.add(spec, later=not needed)

    def fail(self, name: str, code: int) -> None:
        (self.folder / name).write_text(str(code))

    def until(self, what: Callable[[], bool]) -> None:
        deadline = time.monotonic() + 60
        while not what():
            assert time.monotonic() < deadline
            self.supervisor.step()
            time.sleep(0.02)

    def until_restarted(self, name: str, total: int) -> None:
        child = self.supervisor.children[name]
        self.until(lambda: child.restarts.total == total and child.pid is not None)


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    world = World(tmp_path)
    yield world
    world.supervisor.stop()


def test_what_is_killed_comes_back_as_another_process(world: World) -> None:
    world.add("sink")
    before = world.supervisor.kill("sink")
    world.until_restarted("sink", 1)
    assert world.supervisor.pid("sink") != before


def test_a_fenced_controller_is_left_down_and_the_others_run_on(world: World) -> None:
    world.add("controller")
    world.add("sink")
    time.sleep(0.3)
    world.fail("controller", EXIT_FENCED)
    child = world.supervisor.children["controller"]
    world.until(lambda: child.restarts.total == 1)
    for _ in range(20):
        world.supervisor.step()
        time.sleep(0.02)
    assert world.supervisor.pid("controller") is None
    assert world.supervisor.not_ready("controller") == "is not running"
    assert world.supervisor.pid("sink") is not None


def test_three_deaths_at_one_offset_start_a_careful_processor_once(world: World) -> None:
    world.add("processor", watched=True)
    for total in (1, 2, 3):
        assert world.careful_starts == 0
        world.fail("processor", 1)
        world.until_restarted("processor", total)
    assert world.careful_starts == 1
    world.fail("processor", 0)
    world.until_restarted("processor", 4)
    assert world.careful_starts == 1
    assert not world.supervisor.children["processor"].careful


def test_a_held_process_stays_down_until_it_is_released(world: World) -> None:
    world.add("sink")
    world.supervisor.hold("sink")
    for _ in range(10):
        world.supervisor.step()
    assert world.supervisor.pid("sink") is None
    world.supervisor.release("sink")
    world.until(lambda: world.supervisor.pid("sink") is not None)


def test_what_is_added_for_later_keeps_its_place_and_is_down_until_it_is_released(world: World) -> None:
    for name, needed in (("broker", True), ("mlflow", False), ("gateway", True)):
        world.add(name, needed=needed)
    world.supervisor.step()
    assert world.supervisor.pid("mlflow") is None
    world.supervisor.release("mlflow")
    world.until(lambda: world.supervisor.pid("mlflow") is not None)
    time.sleep(0.5)
    world.supervisor.stop()
    assert (world.folder / "order").read_text().split() == ["gateway", "mlflow", "broker"]


def test_an_end_is_told_with_an_event_that_the_next_start_sets(world: World) -> None:
    world.add("gateway")
    world.supervisor.hold("gateway")
    (end,) = world.ends
    assert not end.is_set()
    world.supervisor.release("gateway")
    world.until(lambda: world.supervisor.pid("gateway") is not None)
    assert end.is_set()


def test_a_clean_stop_of_everything_is_no_end_to_tell(world: World) -> None:
    world.add("gateway")
    world.supervisor.stop()
    assert world.ends == []


def test_everything_is_stopped_in_reverse_order(world: World) -> None:
    for name in ("broker", "store", "sink"):
        world.add(name)
    time.sleep(0.5)
    world.supervisor.stop()
    assert (world.folder / "order").read_text().split() == ["sink", "store", "broker"]


ORPHANS = """
import sys, time
from pathlib import Path
from tests.integration.test_stack import World
world = World(Path(sys.argv[1]))
for name in ("broker", "store"): world.add(name)
print(*[world.supervisor.pid(name) for name in ("broker", "store")], flush=True)
time.sleep(600)
"""


def test_nothing_is_left_after_kill_9_of_the_supervisor(tmp_path: Path) -> None:
    parent = subprocess.Popen([sys.executable, "-c", ORPHANS, str(tmp_path)], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    children = [psutil.Process(int(pid)) for pid in parent.stdout.readline().split()]
    assert len(children) == 2
    os.kill(parent.pid, signal.SIGKILL)
    parent.wait()
    parent.stdout.close()
    _, alive = psutil.wait_procs(children, timeout=30)
    assert alive == []
