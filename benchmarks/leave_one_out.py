"""How the heads do on sources that they never saw: train on all sources but one, test on that one.

The peer is "both concatenated": hashed word 1–2-grams and character 3–5-grams, and the mean of the static embedding, in one
logistic regression; trained on the same rows, tested on the same rows, in the same run. Sources without harmless rows are
tested against the benign traffic of sources that nobody trains on (class SA). Near-duplicates of training rows are left out.
    python -m benchmarks.leave_one_out DATA --out table.md
"""

import argparse
import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import chain, pairwise
from pathlib import Path
from random import Random
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.sparse import csr_array, hstack
from scipy.special import expit

from adapters.embedding import load_embedding
from adapters.settings import Settings
from bellbuoy.training_data import SHIPPABLE, read_training_data
from benchmarks.report import emit
from core.scoring.cut import all_words
from core.scoring.heads import COMBINED
from core.scoring.words import word_vectors
from core.training.calibration import FALSE_POSITIVES, TAIL
from core.training.examples import WRITTEN, Example
from core.training.fit import Recipe
from core.training.matrix import Matrix, matrix
from core.training.train import Prepared, fit_head, kept_for_calibration
from schemas.embedding import EmbeddingTable

Vector = NDArray[np.float64]
FEWEST: Final = 195
"""Positives of a source that is in the table (200, less what is not a text)."""
FEWEST_OWN_NEGATIVES: Final = 50
PER_CLASS: Final = 700
"""Rows taken of a source and class, seeded."""
RESAMPLES: Final = 500
PEER_BUCKETS: Final = 1 << 18
PEER_RIDGE: Final = 0.1
PEER_STEPS: Final = 30
SHINGLE: Final = 4
TASKS: Final = {"harm": "harmful", "jailbreak": "jailbreak", "answer": "reply", "refusal": "refusal"}
"""Task → the head whose labels it has."""


@dataclass(frozen=True)
class Result:
    """One source's figures for one model."""

    ap: float
    auroc: float
    recall_1: float
    recall_5: float
    caught: float
    over_blocked: float


@dataclass(frozen=True, eq=False)
class Pool:
    """The rows of the run with what both models need of them."""

    examples: list[Example]
    shippable: NDArray[np.bool_]
    kept: NDArray[np.bool_]
    matrix: Matrix
    peer: csr_array
    shingles: list[frozenset[int]]

    def labels(self, head: str) -> NDArray[np.int8]:
        return np.array([one.labels.get(head, -1) for one in self.examples], np.int8)

    @property
    def sources(self) -> NDArray[np.str_]:
        return np.array([one.source for one in self.examples])


def main() -> None:
    """Measure and print; the table goes to --out."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--per-class", type=int, default=PER_CLASS)
    parser.add_argument("--tasks", default=",".join(TASKS))
    chosen = parser.parse_args()
    pool = _pool(chosen.data, load_embedding(Settings()), chosen.per_class)
    lines = ["| task | source | negatives | positives | ours AP / AUROC / r1 / r5 / caught / over | peer AP / AUROC / r1 / r5 / caught / over |", "| --- | --- | --- | --- | --- | --- |"]  # fmt: skip
    for task in chosen.tasks.split(","):
        pairs = []
        for source in _tested(pool, TASKS[task]):
            started = time.process_time()
            line, scored = _one(pool, task, source)
            lines.append(line)
            pairs.append(scored)
            print(f"{line}  {time.process_time() - started:.0f} s CPU", flush=True)
        lines += _macro(task, pairs)
    if chosen.out:
        chosen.out.write_text("\n".join(lines) + "\n")


def _pool(folder: Path, embedding: EmbeddingTable, per_class: int) -> Pool:
    data = read_training_data(folder, (*SHIPPABLE, "SA"))
    groups: dict[tuple[str, bool, tuple[tuple[str, int], ...]], list[int]] = defaultdict(list)
    for number, one in enumerate(data.examples):
        told = tuple((head, one.labels[head]) for head in TASKS.values() if head in one.labels)
        groups[one.source, one.answer, told].append(number)
    draw = Random(1)
    taken = []
    for key in sorted(groups):
        draw.shuffle(groups[key])
        taken += groups[key] if key[0] == WRITTEN else groups[key][:per_class]
    examples = [data.examples[number] for number in sorted(taken)]
    shippable = np.array([data.classes[number] != "SA" for number in sorted(taken)])
    texts = [one.text for one in examples]
    return Pool(
        examples,
        shippable,
        kept_for_calibration(examples, 0) & shippable,
        matrix(texts, embedding),
        _peer_features(texts, embedding),
        [_shingles(text) for text in texts],
    )


def _shingles(text: str) -> frozenset[int]:
    found = all_words(text)[:400]
    runs = [" ".join(found[at : at + SHINGLE]) for at in range(max(1, len(found) - SHINGLE + 1))]
    return frozenset(_stable(run) for run in runs)


def _tested(pool: Pool, head: str) -> list[str]:
    labels, sources = pool.labels(head), pool.sources
    counted = zip(*np.unique(sources[labels == 1], return_counts=True), strict=True)
    return [str(source) for source, count in counted if count >= FEWEST and source != WRITTEN]


def _one(pool: Pool, task: str, source: str) -> tuple[str, tuple[Vector, Vector, Vector]]:
    """A line of the table, and (labels, our scores, the peer's scores) of the source's test rows."""
    head = TASKS[task]
    labels, sources = pool.labels(head), pool.sources
    learn = pool.shippable & (sources != source) & ~pool.kept
    seen = set(chain.from_iterable(pool.shingles[number] for number in np.flatnonzero(learn & (labels >= 0))))
    own = [
        number
        for number in np.flatnonzero((sources == source) & (labels >= 0))
        if len(pool.shingles[number] & seen) * 2 <= len(pool.shingles[number])
    ]
    positives, negatives, which = [n for n in own if labels[n] == 1], [n for n in own if labels[n] == 0], "own"
    benign = np.array([one.benign_traffic and not one.answer for one in pool.examples]) & ~pool.shippable
    if head in ("reply", "refusal"):
        benign = pool.kept & np.array([one.answer for one in pool.examples]) & (sources != source)
    if len(negatives) < FEWEST_OWN_NEGATIVES:
        negatives, which = np.flatnonzero(benign).tolist(), "held-out benign"
    tested = np.array([*positives, *negatives])
    truth = np.repeat([1.0, 0.0], [len(positives), len(negatives)])
    ours, peer = _ours(pool, task, learn), _peer(pool, head, learn)
    answers = np.array([one.answer for one in pool.examples])
    calibration = pool.kept & (answers == (head in ("reply", "refusal")))
    figures = [_result(truth, scores, tested, calibration, benign) for scores in (ours, peer)]
    cells = [
        f"{one.ap:.3f} / {one.auroc:.3f} / {one.recall_1:.2f} / {one.recall_5:.2f} / {one.caught:.2f} / {one.over_blocked:.3f}"
        for one in figures
    ]
    return f"| {task} | {source} | {which} | {len(positives)} | {cells[0]} | {cells[1]} |", (truth, ours[tested], peer[tested])


def _ours(pool: Pool, task: str, learn: NDArray[np.bool_]) -> Vector:
    heads = {"harm": COMBINED["prompt_unsafe"], "answer": COMBINED["response_unsafe"]}.get(task)
    if heads is None:
        return _head(pool, TASKS[task], learn)
    always, others = heads
    votes = [_on_scale(_head(pool, other, learn), pool) for other in others]
    return np.asarray(_on_scale(_head(pool, always, learn), pool) + np.maximum(*votes))


def _head(pool: Pool, head: str, learn: NDArray[np.bool_]) -> Vector:
    """Scores of all rows by a head that learned from some."""
    masked = [one if use else replace(one, labels={}) for one, use in zip(pool.examples, learn.tolist(), strict=True)]
    by_window = fit_head(head, Prepared(masked, pool.matrix), Recipe()).scores(pool.matrix)
    if head == "refusal":
        by_window = np.where(pool.matrix.first, by_window, -np.inf)
    result = np.full(len(masked), -np.inf)
    np.maximum.at(result, pool.matrix.text, by_window)
    return result


def _on_scale(scores: Vector, pool: Pool) -> Vector:
    tail, threshold = np.quantile(scores[pool.kept], [1.0 - TAIL, 1.0 - FALSE_POSITIVES])
    return np.asarray((scores - threshold) / max(threshold - tail, 1e-6))


def _peer_features(texts: Sequence[str], embedding: EmbeddingTable) -> csr_array:
    blocks = []
    for ngrams in (_word_ngrams, _character_ngrams):
        ids: list[int] = []
        ends = [0]
        for text in texts:
            ids += [hash_ % PEER_BUCKETS for hash_ in ngrams(text[:6_000].lower())]
            ends.append(len(ids))
        block = csr_array((np.ones(len(ids), np.float32), np.array(ids), np.array(ends)), shape=(len(texts), PEER_BUCKETS))
        block.sum_duplicates()
        lengths = np.sqrt(np.asarray(block.multiply(block).sum(axis=1)).ravel())
        block.data /= np.repeat(np.maximum(lengths, 1e-9), np.diff(block.indptr)).astype(np.float32)
        blocks.append(block)
    row_of: dict[str, int] = {}
    rows = [[row_of.setdefault(word, len(row_of)) for word in all_words(text[:6_000])] for text in texts]
    vectors = word_vectors(list(row_of), embedding).astype(np.float32)
    sums = np.stack([vectors[line].sum(axis=0) for line in rows])
    sums /= np.maximum(np.linalg.norm(sums, axis=1, keepdims=True), 1e-9)
    return csr_array(hstack([*blocks, csr_array(sums)], format="csr"), dtype=np.float32)


def _word_ngrams(text: str) -> list[int]:
    found = all_words(text)
    grams = found + [f"{a} {b}" for a, b in pairwise(found)]
    return [_stable(gram) for gram in grams]


def _character_ngrams(text: str) -> list[int]:
    return [
        _stable(padded[at : at + size])
        for padded in (f" {word} " for word in text.split())
        for size in (3, 4, 5)
        for at in range(len(padded) - size + 1)
    ]


_KNOWN: dict[str, int] = {}


def _stable(gram: str) -> int:
    value = _KNOWN.get(gram)
    if value is None:
        value = _KNOWN[gram] = int.from_bytes(gram.encode("utf-8", "replace"), "little") % 1_000_003_777
    return value


def _peer(pool: Pool, head: str, learn: NDArray[np.bool_]) -> Vector:
    labels = pool.labels(head)
    rows = np.flatnonzero(learn & (labels >= 0))
    part = pool.peer[rows]
    back = csr_array(part.T)
    signs = np.where(labels[rows] > 0, 1.0, -1.0)
    weights = np.where(signs > 0, 0.5 / (signs > 0).sum(), 0.5 / (signs < 0).sum())

    def loss(point: Vector) -> tuple[float, Vector]:
        margin = signs * (part @ point[:-1] + point[-1])
        slope = -signs * weights * expit(-margin)
        penalty = PEER_RIDGE / len(rows)
        value = weights @ np.logaddexp(0.0, -margin) + 0.5 * penalty * point[:-1] @ point[:-1]
        return float(value), np.append(back @ slope + penalty * point[:-1], slope.sum())

    start = np.zeros(part.shape[1] + 1)
    found = minimize(loss, start, jac=True, method="L-BFGS-B", options={"maxiter": PEER_STEPS, "maxcor": 6}).x
    return np.asarray(pool.peer @ found[:-1] + found[-1])


def average_precision(truth: Vector, scores: Vector) -> float:
    """Average precision; rows of equal score are one step."""
    order = np.argsort(-scores, kind="stable")
    truth, scores = truth[order], scores[order]
    last = np.append(np.flatnonzero(np.diff(scores)), len(scores) - 1)
    hits = np.cumsum(truth)[last]
    return float((np.diff(hits, prepend=0.0) * hits / (last + 1)).sum() / max(hits[-1], 1.0))


def _result(
    truth: Vector, scores: Vector, tested: NDArray[np.int64], calibration: NDArray[np.bool_], benign: NDArray[np.bool_]
) -> Result:
    positive, negative = scores[tested][truth == 1], np.sort(scores[tested][truth == 0])
    below = np.searchsorted(negative, positive, "left") + np.searchsorted(negative, positive, "right")
    threshold = np.quantile(scores[calibration], 1.0 - FALSE_POSITIVES)
    return Result(
        average_precision(truth, scores[tested]),
        float(below.mean() / 2.0 / len(negative)),
        *(float((positive > np.quantile(negative, 1.0 - rate)).mean()) for rate in (0.01, 0.05)),
        float((positive > threshold).mean()),
        float((scores[benign] > threshold).mean()),
    )


def _macro(task: str, scored: Sequence[tuple[Vector, Vector, Vector]]) -> list[str]:
    """The macro average over sources and its paired bootstrap (rows within each source and class)."""
    if not scored:
        return []
    draw = np.random.default_rng(1)

    def both(resample: bool) -> tuple[float, float]:
        found = []
        for truth, ours, peer in scored:
            take = np.arange(len(truth))
            if resample:
                split = int(truth.sum())
                take = np.concatenate((draw.integers(0, split, split), draw.integers(split, len(truth), len(truth) - split)))
            found.append((average_precision(truth[take], ours[take]), average_precision(truth[take], peer[take])))
        ours_mean, peer_mean = np.mean(found, axis=0)
        return float(ours_mean), float(peer_mean)

    ours, peer = both(resample=False)
    differences = [one - other for one, other in (both(resample=True) for _ in range(RESAMPLES))]
    low, high = np.quantile(differences, [0.025, 0.975])
    for name, value in (("ours", ours), ("peer", peer), ("difference", ours - peer), ("low", low), ("high", high)):
        emit(f"leave_one_out.{task}.{name}", float(value), "macro AP", ("numpy", "scipy"))
    return [
        f"| {task} | macro of {len(scored)} | | | {ours:.3f} | {peer:.3f}; difference {ours - peer:+.3f} ({low:+.3f} … {high:+.3f}) |"
    ]


if __name__ == "__main__":
    main()
