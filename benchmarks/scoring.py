"""What scoring costs: CPU microseconds per interaction, by part and in total, on distinct texts with cold caches.

The peer is wordllama's own embedding of the same prompts, in the same run, against our topic and novelty.
    python -m benchmarks.scoring --texts 100000
    python -m benchmarks.scoring --texts 20000 --peers      (installs them into throwaway venvs)
"""

import argparse
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from random import Random
from typing import Final, TypeVar

import msgspec
from wordllama import WordLlama

from adapters.corpus import long_texts
from adapters.embedding import check_source, load_embedding
from adapters.heads import load_heads
from adapters.settings import Settings
from benchmarks.report import emit
from benchmarks.scoring_peers import measured
from core.redaction import Redactor
from core.scoring import SCORER_VERSIONS, SCORERS, Scoring
from core.scoring.batch import Batch, Reading, Scorer
from core.scoring.heads import Heads
from core.scoring.reading import redact_interaction
from core.scoring.words import WordSums
from schemas.embedding import EmbeddingTable
from schemas.messages import ChatMessage, Config, Interaction

T = TypeVar("T")
STEP: Final = 128
PART_TEXTS: Final = 20_000
HOSTILE: Final = {
    "no_space": "a",
    "emoji": "\U0001f600",
    "right_to_left": "\u202ekill\u202c ",
    "zero_width": "a\u200b",
    "spaced_out": "k i l l ",
    "base64": "a2lsbCBhbGwgb2YgdGhlbSBub3cg",
    "percent": "%6b%69%6c%6c",
    "distinct_words": "".join(f"w{n:x} " for n in range(1_000)),
    "refusals": "I'm sorry, but I can't help with that. ",
}
PACKAGES: Final = ("google-re2", "numpy", "scipy", "tokenizers", "wordllama", "chitchat-dataset")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--texts", type=int, default=100_000)
    parser.add_argument("--peers", action="store_true", help="beside the peers that install")
    given = parser.parse_args()
    count = given.texts
    table = load_embedding(Settings())
    pairs = list(long_texts(Random(1), count, 1_300))
    chats = [_chat(prompt, response, number) for number, (prompt, response) in enumerate(pairs)]
    characters = sum(len(prompt) + len(response) for prompt, response in pairs) / len(pairs)
    emit("scoring.chat.distinct", len(set(pairs)), "texts", PACKAGES)
    emit("scoring.chat.length", characters, "characters", PACKAGES)
    emit("scoring.chat.total", _total(chats, table), "us_cpu/interaction", PACKAGES)
    for size in (170, 800):
        texts = [(prompt + " " + response)[:size] for prompt, response in pairs]
        emit(
            f"scoring.prompt_{size}.total",
            _total([_chat(text, None, 1) for text in texts], table),
            "us_cpu/interaction",
            PACKAGES,
        )
        emit(
            f"scoring.response_{size}.total",
            _total([_chat("", text, 1) for text in texts], table),
            "us_cpu/interaction",
            PACKAGES,
        )
    sized = {f"prompt_{size}": list(dict.fromkeys((p + " " + r)[:size] for p, r in pairs)) for size in (170, 800)}
    rates = {name: 1e6 / _total([_chat(text, None, 1) for text in texts], table) for name, texts in sized.items()}
    for name, rate in rates.items():
        emit(f"scoring.{name}.rate", rate, "texts/s/core", PACKAGES)
    if given.peers:
        _peers(sized, rates)
    _growth(table)
    _parts(chats[:PART_TEXTS], table)
    _peer([prompt for prompt, _ in pairs[:PART_TEXTS]], table)


def _chat(prompt: str, response: str | None, number: int) -> Interaction:
    return Interaction(
        id=str(number),
        app="benchmark",
        input=[ChatMessage(role="user", content=prompt)],
        output=[] if response is None else [ChatMessage(role="assistant", content=response)],
        latency_ms=100.0 + number % 1_000,
        response_model="model-1",
    )


def _config(table: EmbeddingTable) -> Config:
    return Config(scorers=SCORER_VERSIONS, embedding=table.digest, heads=load_heads().digest, partitions={}, shards=1)


def _total(interactions: Sequence[Interaction], table: EmbeddingTable) -> float:
    scoring = Scoring(_config(table), table, load_heads())
    return _cpu(lambda step: scoring.interactions(step), interactions)


def _parts(interactions: Sequence[Interaction], table: EmbeddingTable) -> None:
    redactor = Redactor(_config(table).max_text_bytes)
    cost = _cpu(lambda step: [redact_interaction(one, redactor) for one in step], interactions)
    emit("scoring.part.redaction", cost, "us_cpu/interaction", PACKAGES)
    readings = []
    for interaction in interactions:
        read = redact_interaction(interaction, redactor)
        readings.append(Reading(interaction, read.scored_prompt, read.scored_response))
    words, heads = WordSums(table), Heads(load_heads(), table)
    emit("scoring.part.words", _cpu(lambda step: Batch(step, words, heads).prompts, readings), "us_cpu/interaction", PACKAGES)
    batches = [Batch(step, words, heads) for step in _steps(readings)]
    for batch in batches:
        assert batch.prompts
    for name, scorer in SCORERS.items():
        if isinstance(scorer, Scorer):
            started = time.process_time()
            for batch in batches:
                scorer.score(batch)
            emit(f"scoring.part.{name}", (time.process_time() - started) / len(readings) * 1e6, "us_cpu/interaction", PACKAGES)


def _peer(prompts: list[str], table: EmbeddingTable) -> None:
    peer = WordLlama.load(cache_dir=check_source(), disable_download=True)
    words, heads = WordSums(table), Heads(load_heads(), table)
    redactor = Redactor(_config(table).max_text_bytes)
    readings = [Reading(_chat(prompt, None, 0), redactor.redact(prompt), None) for prompt in prompts]
    ours = _cpu(lambda step: SCORERS["topic"].score(Batch(step, words, heads)), readings)  # type: ignore[arg-type]
    theirs = _cpu(lambda step: peer.embed(step), prompts)
    emit("scoring.topic.cold", ours, "us_cpu/text", PACKAGES)
    emit("scoring.peer.wordllama_embed", theirs, "us_cpu/text", PACKAGES)
    emit("scoring.peer.ratio", theirs / ours, "x", PACKAGES)


def _growth(table: EmbeddingTable) -> None:
    """Time for 1 MB over time for 128 KB of hostile text, without the cap of 32 KB: 8 where it is linear."""
    config = msgspec.structs.replace(_config(table), max_text_bytes=1 << 22)
    for name, piece in HOSTILE.items():
        small, large = (_least_us(config, table, piece * (size // len(piece.encode()))) for size in (1 << 17, 1 << 20))
        emit(f"scoring.hostile.{name}.1MB", large / 1_000, "ms_cpu", PACKAGES)
        emit(f"scoring.hostile.{name}.growth", large / small, "x for 8 times the text", PACKAGES)


def _least_us(config: Config, table: EmbeddingTable, text: str) -> float:
    scorings = [Scoring(config, table, load_heads()) for _ in range(3)]
    return min(_cpu(lambda step, s=scoring: s.interactions(step), [_chat(text, text, 1)]) for scoring in scorings)


def _peers(texts: dict[str, list[str]], ours: dict[str, float]) -> None:
    """Each peer on the same distinct texts; one that cannot be installed or run says why on stderr."""
    for peer, rates, reason in measured(texts):
        if reason is not None:
            print(f"{peer}: not measured: {reason}", file=sys.stderr, flush=True)
        for name, rate in rates.items():
            emit(f"scoring.peer.{peer}.{name}.rate", rate, "texts/s/core", PACKAGES)
            emit(f"scoring.peer.{peer}.{name}.ratio", ours[name] / rate, "x", PACKAGES)


def _steps(items: Sequence[T]) -> Iterator[Sequence[T]]:
    for at in range(0, len(items), STEP):
        yield items[at : at + STEP]


def _cpu(function: Callable[[Sequence[T]], object], items: Sequence[T]) -> float:
    """CPU microseconds of this process per item, in steps of 128."""
    started = time.process_time()
    for step in _steps(items):
        function(step)
    return (time.process_time() - started) / len(items) * 1e6


if __name__ == "__main__":
    main()
