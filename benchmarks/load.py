"""A load generator: distinct texts of a stated length to the collector at a steady rate, over several connections; prints its
counts as JSON.

Runs as a process of its own so that its CPU is counted apart: python -m benchmarks.load URL RATE SECONDS APP.
"""

import os
import random
import sys
import threading
import time
from concurrent.futures import Future, ThreadPoolExecutor

import httpx
import msgspec

from adapters.corpus import long_texts

BATCH = 100
PAIR_BYTES = 1_300
CONNECTIONS = 4
"""Batches under way at once: with one alone its own waiting for the broker's word would be the limit."""


def main(url: str, rate: float, seconds: float, app: str) -> None:
    """Post batches of 100 until the time is up; a 429 or 503 is waited out and counted."""
    draw = random.Random(1)
    texts = long_texts(draw, int(rate * seconds) + BATCH, PAIR_BYTES)
    encoder = msgspec.json.Encoder()
    free = threading.Semaphore(CONNECTIONS)
    refused: list[int] = []
    headers = {"authorization": f"Bearer {os.environ['BELLBUOY_API_KEY']}", "content-type": "application/json"}

    def post(client: httpx.Client, body: bytes) -> None:
        try:
            while True:
                reply = client.post("/v1/interactions", content=body)
                if reply.status_code not in (429, 503):
                    break
                refused.append(reply.status_code)
                time.sleep(min(float(reply.headers.get("retry-after", 1)), 5))
            reply.raise_for_status()
        finally:
            free.release()

    sent = 0
    answers: list[Future[None]] = []
    with httpx.Client(base_url=url, headers=headers, timeout=60) as client, ThreadPoolExecutor(CONNECTIONS) as pool:
        start = time.monotonic()
        while (elapsed := time.monotonic() - start) < seconds:
            batch: list[dict[str, object]] = []
            for _ in range(BATCH):
                prompt, response = next(texts)
                batch.append(
                    {
                        "id": f"{app}-{sent + len(batch)}",
                        "app": app,
                        "prompt": prompt,
                        "response": response,
                        "model_version": "load@1",
                        "response_model": "load-model",
                        "latency_ms": round(draw.lognormvariate(6, 0.5), 1),
                        "conversation": f"c{(sent + len(batch)) // 4}",
                        "user": f"u{draw.randrange(5_000)}",
                    }
                )
            free.acquire()
            for answer in [answer for answer in answers if answer.done()]:
                answer.result()
                answers.remove(answer)
            answers.append(pool.submit(post, client, encoder.encode(batch)))
            sent += BATCH
            time.sleep(max(0.0, sent / rate - (time.monotonic() - start)))
            if sent % (BATCH * 20) == 0:
                print(f'{{"sent": {sent}, "seconds": {elapsed:.1f}}}', flush=True)
        for answer in answers:
            answer.result()
        took = time.monotonic() - start
    times = os.times()
    print(
        msgspec.json.encode({"sent": sent, "refused": len(refused), "seconds": took, "cpu": times.user + times.system}).decode(),
        flush=True,
    )


if __name__ == "__main__":
    main(sys.argv[1], float(sys.argv[2]), float(sys.argv[3]), sys.argv[4])
