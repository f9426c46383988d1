"""Faust's private hooks are as they were when the block consumer was written for them.

A failure means: read what changed in Faust, adapt streams/block_consumer.py, run tests/integration/test_processor.py, and
only then write the new digest here.
"""

import hashlib
import inspect
from typing import Any

import pytest
from faust.transport.consumer import Consumer
from faust.transport.drivers.aiokafka import AIOKafkaConsumerThread

from streams.block_consumer import HOOKS, BlockConsumer, ReadCommittedThread

CONSUMER = {
    "getmany": "4b168d84882a70d6",
    "_wait_next_records": "6218e1969a636b3f",
    "_new_offset": "1d2c7ea89a7ad4f1",
    "_add_gap": "4df2573ded7c1c2c",
    "perform_seek": "0e8c130ff4b0afd8",
    "seek": "b86a9fe05f956b30",
    "on_partitions_revoked": "d04b7ae72c6fc206",
    "_drain_messages": "44a2500309e83c63",
    "_commit_offsets": "1a69799041188441",
}
THREAD = {
    "_create_worker_consumer": "c2701bfc3e6f6cad",
    "_fetch_records": "39a2c6c79fc1455a",
    "_commit": "932852ce7a23f658",
}


def _digest(function: Any) -> str:
    return hashlib.sha256(inspect.getsource(function).encode()).hexdigest()[:16]


@pytest.mark.parametrize("name", HOOKS)
def test_the_consumers_hook_is_unchanged(name: str) -> None:
    assert _digest(getattr(Consumer, name)) == CONSUMER[name]


@pytest.mark.parametrize("name", THREAD)
def test_the_consumer_threads_hook_is_unchanged(name: str) -> None:
    assert _digest(getattr(AIOKafkaConsumerThread, name)) == THREAD[name]


@pytest.mark.parametrize("name", ["getmany", "_new_offset", "_add_gap", "perform_seek", "seek", "on_partitions_revoked"])
def test_an_overridden_hook_takes_the_same_parameters(name: str) -> None:
    ours, theirs = (list(inspect.signature(getattr(c, name)).parameters) for c in (BlockConsumer, Consumer))
    assert ours == theirs


def test_the_thread_that_reads_committed_data_is_the_one_that_the_consumer_makes() -> None:
    made = inspect.getsource(BlockConsumer._new_consumer_thread)
    assert ReadCommittedThread.__name__ in made
