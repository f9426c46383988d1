"""Records that go to the log together: all of them, or none."""

from collections.abc import Iterable

import kafka

from schemas.codec import Outgoing


def write_all(producer: kafka.KafkaProducer, outs: Iterable[Outgoing], *, flush_s: float = 30.0) -> dict[str, int]:
    """Write records in one transaction of an initialised producer; the last offset written, by topic.

    Kafka's errors pass: after one the transaction may or may not have been committed, and the producer is of no more use.
    """
    producer.begin_transaction()
    futures = [
        (o.topic, producer.send(o.topic, value=o.value, key=o.key, headers=list(o.headers), partition=o.partition)) for o in outs
    ]
    producer.flush(timeout=flush_s)
    last = {topic: int(future.get(timeout=1).offset) for topic, future in futures}
    producer.commit_transaction()
    return last
