"""Locks, logs and ports of processes."""

import socket
from pathlib import Path

import pytest

from adapters.process import FolderInUse, FolderLock, holder, pick_port, port_is_free, rotate


def test_a_folder_has_one_holder_and_is_free_after_release(tmp_path: Path) -> None:
    import os

    path = tmp_path / "run" / "stack.lock"
    first, second = FolderLock(path), FolderLock(path)
    assert holder(path) is None
    first.acquire("the data folder")
    assert holder(path) == os.getpid()
    with pytest.raises(FolderInUse, match=f"the data folder is in use by process {os.getpid()}"):
        second.acquire("the data folder")
    first.release()
    assert holder(path) is None
    second.acquire("the data folder")
    second.release()


def test_a_log_is_copied_aside_and_emptied_when_it_is_large(tmp_path: Path) -> None:
    log = tmp_path / "sink.log"
    with log.open("ab") as writer:
        for text in (b"one", b"two", b"three"):
            writer.write(text)
            writer.flush()
            assert rotate(log, 2)
            assert log.read_bytes() == b""
    assert (tmp_path / "sink.log.1").read_bytes() == b"three"
    assert (tmp_path / "sink.log.2").read_bytes() == b"two"
    assert not rotate(log, 2)


def test_a_port_that_somebody_has_is_passed_over() -> None:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        taken = server.getsockname()[1]
        assert not port_is_free("127.0.0.1", taken)
        assert pick_port("127.0.0.1", (0, taken)) not in (0, taken)


def test_a_free_preferred_port_is_taken_unless_it_is_refused() -> None:
    free = pick_port("127.0.0.1", ())
    assert pick_port("127.0.0.1", (free,)) == free
    assert pick_port("127.0.0.1", (free,), (free,)) != free
