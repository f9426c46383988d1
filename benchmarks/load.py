"""A load generator: distinct texts of a stated length to the collector at a steady rate; prints its counts as JSON.

Runs as a process of its own so that its CPU is counted apart: python -m benchmarks.load URL RATE SECONDS APP.
"""

import os
import random
import sys
import time

import httpx
import msgspec

from adapters.corpus import long_texts

BATCH = 100
PAIR_BYTES = 1_300


def main(url: str, rate: float, seconds: float, app: str) -> None:
    """Post batches of 100 until the time is up; a 429 or 503 is waited out and counted."""
    draw = random.Random(1)
    texts = long_texts(draw, int(rate * seconds) + BATCH, PAIR_BYTES)
    encoder = msgspec.json.Encoder()
    sent = refused = 0
    client = httpx.Client(base_url=url, headers={"authorization": f"Bearer {os.environ['BELLBUOY_API_KEY']}"}, timeout=60)
    with client:
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
            body = encoder.encode(batch)
            while True:
                reply = client.post("/v1/interactions", content=body, headers={"content-type": "application/json"})
                if reply.status_code not in (429, 503):
                    break
                refused += 1
                time.sleep(min(float(reply.headers.get("retry-after", 1)), 5))
            reply.raise_for_status()
            sent += BATCH
            time.sleep(max(0.0, sent / rate - (time.monotonic() - start)))
            if sent % (BATCH * 20) == 0:
                print(f'{{"sent": {sent}, "seconds": {elapsed:.1f}}}', flush=True)
    times = os.times()
    print(
        msgspec.json.encode(
            {"sent": sent, "refused": refused, "seconds": time.monotonic() - start, "cpu": times.user + times.system}
        ).decode(),
        flush=True,
    )


if __name__ == "__main__":
    main(sys.argv[1], float(sys.argv[2]), float(sys.argv[3]), sys.argv[4])
