"""How often the judgement alarms while nothing changes, against the budget that it states.

Recorded conversations are scored once with every scorer. Each simulated app then draws its traffic from them with
replacement, so its text is real and its distribution never changes: single interactions, or (`--unit conversation`) whole
conversations, their turns `--turn-seconds` apart. With `--blind` the turns are counted as if each were a first one: the negative
control. From the third hour on a second version answers 30 % of the traffic (of the conversations) just the same. Latencies and
errors are synthetic and fixed per text.
    python -m benchmarks.no_change --days 1 --seeds 4
    python -m benchmarks.no_change --unit conversation --turn-seconds 40 --days 1 --seeds 4
"""

import argparse
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final, Literal, get_args

import msgspec
import numpy as np
import numpy.typing as npt
from scipy.stats import poisson

from adapters.corpus import Conversation, chitchat
from adapters.embedding import load_embedding
from adapters.heads import load_heads
from adapters.settings import Settings
from benchmarks.report import emit
from core.fold import Fold
from core.identity import Turns
from core.metrics import METRICS, bin_of, metric_key, split_metric_key
from core.rules import DEFAULT_RULES, default_config
from core.scoring import SCORER_VERSIONS, Scoring
from core.windows import ClosedWindow, cut_of
from schemas.embedding import EmbeddingTable
from schemas.messages import WINDOW_MS, ChatMessage, Config, Counts, Detection, Feedback, Group, Interaction, Score

PACKAGES: Final = ("numpy", "scipy", "chitchat-dataset")
Unit = Literal["interaction", "conversation"]
Ints = npt.NDArray[np.int64]
Flags = npt.NDArray[np.bool_]
TURNS: Final = get_args(Turns)

STEP: Final = 128
WINDOWS_PER_CUT: Final = 720
WINDOWS_PER_DAY: Final = 86_400_000 // WINDOW_MS
FIRST: Final = 1_700_000_000_000
NEW_VERSION_AT: Final = 3 * 720
NEW_VERSION_SHARE: Final = 0.3
ACTS_SHARE: Final = 0.1
"""Interactions of rated conversations that get an act of feedback."""
ERRORS_SHARE: Final = 0.005


@dataclass(frozen=True)
class Pool:
    """Scored interactions: `codes` (interactions, metrics) index `bins`, the bins of all metrics in a row; code 0 is none."""

    codes: Ints
    down: Ints
    """Codes of the act that an interaction would get, 0 for none."""
    bins: list[tuple[str, int | str]]
    starts: Ints
    """First interaction of each conversation, and the end."""


@dataclass(frozen=True)
class Traffic:
    rate: float
    unit: Unit
    turn_seconds: float = 0.0
    blind: bool = False


class OneConfig:
    """A config that always holds."""

    def __init__(self, config: Config) -> None:
        self._config = config

    def config_for(self, window: int) -> str:  # noqa: ARG002 - the same for every window
        return "config"

    def config(self, digest_: str) -> Config:  # noqa: ARG002 - there is one
        return self._config


def score_pool(conversations: Sequence[Conversation], table: EmbeddingTable) -> Pool:
    """Score every turn once."""
    scoring = Scoring(
        Config(scorers=SCORER_VERSIONS, embedding=table.digest, heads=load_heads().digest, partitions={}, shards=1),
        table,
        load_heads(),
    )
    random = np.random.default_rng(0)
    chats = [chat for c in conversations for chat in _chats(c, random)]
    code_of: dict[tuple[str, int | str], int] = {("", 0): 0}
    rows: list[dict[str, int]] = []
    for at in range(0, len(chats), STEP):
        for text in scoring.interactions(chats[at : at + STEP]):
            rows.append({name: _code(name, score, code_of) for name, score in text.scores.items() if name in METRICS})
    names = sorted({name for row in rows for name in row})
    down = []
    for conversation in conversations:
        act = Feedback(id="f", interaction_id="i", name="rating", score=conversation.rating or 0.0)
        (score,) = scoring.feedback([act])[0].scores.values()
        code = 0 if conversation.rating is None else _code("thumbs.down", score, code_of)
        down += [code] * len(conversation.turns)
    return Pool(
        codes=np.array([[row.get(name, 0) for name in names] for row in rows], dtype=np.int64),
        down=np.array(down, dtype=np.int64),
        bins=list(code_of),
        starts=np.concatenate(([0], np.cumsum([len(c.turns) for c in conversations]))),
    )


def _chats(conversation: Conversation, random: np.random.Generator) -> Iterator[Interaction]:
    for turn in conversation.turns:
        yield Interaction(
            id="i",
            app="app",
            input=[ChatMessage(role="user", content=turn.prompt)],
            output=[ChatMessage(role="assistant", content=turn.response)],
            latency_ms=float(random.lognormal(6.5, 0.6)),
            error_type="timeout" if random.random() < ERRORS_SHARE else None,
            response_model="model-1",
        )


def _code(name: str, score: Score, code_of: dict[tuple[str, int | str], int]) -> int:
    metric = METRICS[name]
    bin_: int | str = (score.label or "") if metric.kind == "category" else bin_of(metric, score)
    return code_of.setdefault((metric_key(name, split_metric_key(score.scorer)[1]), bin_), len(code_of))


@dataclass(frozen=True)
class Drawn:
    """Interactions by place in the pool, each with the window in which it comes, its version and how its turn counts."""

    window: Ints
    place: Ints
    new: Flags
    turns: Ints
    """Index into TURNS."""

    def chosen(self, mask: Flags) -> "Drawn":
        return Drawn(self.window[mask], self.place[mask], self.new[mask], self.turns[mask])


def windows(pool: Pool, traffic: Traffic, days: float, random: np.random.Generator) -> Iterator[ClosedWindow]:
    """Windows of one app's traffic."""
    count = int(days * WINDOWS_PER_DAY)
    waiting: dict[int, list[Drawn]] = {}
    for number in range(count):
        began = _drawn(pool, traffic, number, random)
        for window in np.unique(began.window).tolist():
            waiting.setdefault(window, []).append(began.chosen(began.window == window))
        groups = []
        here = waiting.pop(number, [])
        for version, new in (("v1", False), ("v2", True)):
            mine = [drawn.chosen(drawn.new == new) for drawn in here]
            if any(len(drawn.place) for drawn in mine):
                place = np.concatenate([drawn.place for drawn in mine])
                turns = np.concatenate([drawn.turns for drawn in mine])
                groups.append(_group(pool, version, place, turns, random, blind=traffic.blind))
        yield ClosedWindow(FIRST + number * WINDOW_MS, (), tuple(groups))


def _drawn(pool: Pool, traffic: Traffic, number: int, random: np.random.Generator) -> Drawn:
    """What begins in a window: interactions, or conversations with all their turns, whenever they come."""
    mean = traffic.rate * WINDOW_MS / 1000
    turns = len(pool.codes)
    share = NEW_VERSION_SHARE if number >= NEW_VERSION_AT else 0.0
    if traffic.unit == "interaction":
        place = random.integers(0, turns, random.poisson(mean))
        return Drawn(np.full(len(place), number), place, random.random(len(place)) < share, np.zeros(len(place), dtype=np.int64))
    conversations = len(pool.starts) - 1
    chosen = random.integers(0, conversations, random.poisson(mean * conversations / turns))
    lengths = pool.starts[chosen + 1] - pool.starts[chosen]
    nth = np.arange(lengths.sum()) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    sampled = 1 + np.floor(1.0 / (1.0 - random.random(len(chosen)))).astype(np.int64)
    late = np.where(nth + 1 == np.repeat(sampled, lengths), TURNS.index("later"), TURNS.index("rest"))
    return Drawn(
        window=number + (nth * traffic.turn_seconds * 1000 / WINDOW_MS).astype(np.int64),
        place=np.repeat(pool.starts[chosen], lengths) + nth,
        new=np.repeat(random.random(len(chosen)) < share, lengths),
        turns=np.where(nth == 0, TURNS.index("first"), late),
    )


def _group(pool: Pool, version: str, place: Ints, turns: Ints, random: np.random.Generator, *, blind: bool) -> Group:
    acts = np.where(random.random(len(place)) < ACTS_SHARE, pool.down[place], 0)
    whole = _counts(pool, place, acts)
    group = Group(app="app", environment="e", version=version, n=whole.n, acts=whole.acts, bins=whole.bins, names=whole.names)
    if not blind and turns.any():
        group.first, group.later = (
            _counts(pool, place[turns == TURNS.index(one)], acts[turns == TURNS.index(one)]) for one in ("first", "later")
        )
    return group


def binned(pool: Pool, counts: Ints) -> tuple[dict[str, list[tuple[int, int]]], dict[str, list[tuple[str, int]]]]:
    """Counts by code as a group has them: bins, and names, by metric."""
    bins: dict[str, list[tuple[int, int]]] = {}
    names: dict[str, list[tuple[str, int]]] = {}
    for code in np.flatnonzero(counts).tolist():
        key, bin_ = pool.bins[code]
        if isinstance(bin_, str):
            names.setdefault(key, []).append((bin_, int(counts[code])))
        else:
            bins.setdefault(key, []).append((bin_, int(counts[code])))
    return bins, names


def _counts(pool: Pool, place: Ints, acts: Ints) -> Counts:
    counts = np.bincount(np.concatenate((pool.codes[place].ravel(), acts)), minlength=1)
    counts[0] = 0
    bins, names = binned(pool, counts)
    return Counts(n=len(place), acts=int(np.count_nonzero(acts)), bins=bins, names=names)


@dataclass
class Outcome:
    """What one simulated app brought."""

    detections: list[Detection]
    pages: int = 0
    events: int = 0
    fold_seconds: float = 0.0


def simulate(pool: Pool, traffic: Traffic, days: float, per_days: float, seed: int) -> Outcome:
    """Fold one app's days."""
    rules = msgspec.structs.replace(DEFAULT_RULES, per_days=per_days)
    config = default_config(scorers={}, embedding="", heads="", partitions={}, shards=1, receipt_keys={}, rules=rules)
    fold, outcome = Fold(0, OneConfig(config)), Outcome([])
    batch: list[ClosedWindow] = []
    for window in windows(pool, traffic, days, np.random.default_rng(seed)):
        batch.append(window)
        if len(batch) == WINDOWS_PER_CUT:
            _fold(fold, batch, outcome)
            batch = []
    if batch:
        _fold(fold, batch, outcome)
    return outcome


def _fold(fold: Fold, batch: Sequence[ClosedWindow], outcome: Outcome) -> None:
    started = time.process_time()
    output = fold.fold(batch, (), cut_of(batch))
    outcome.fold_seconds += time.process_time() - started
    outcome.detections += output.detections
    outcome.pages += sum(alert.paged for alert in output.alerts)
    outcome.events += sum(group.n for window in batch for group in window.groups)


def main() -> None:
    """Simulate and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--days", type=float, default=1.0, help="monitored time of each app (default 1)")
    parser.add_argument("--seeds", type=int, default=1, help="how many apps, each with a reference of its own (default 1)")
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--rate", type=float, default=20.0, help="interactions a second (default 20)")
    parser.add_argument("--per-days", type=float, default=DEFAULT_RULES.per_days, help="budget: one false alarm in so many days")
    parser.add_argument("--unit", choices=("interaction", "conversation"), default="interaction", help="what is drawn")
    parser.add_argument("--turn-seconds", type=float, default=0.0, help="time between the turns of a conversation (default 0)")
    parser.add_argument("--blind", action="store_true", help="count every turn as a first one")
    args = parser.parse_args()
    pool = score_pool(chitchat(), load_embedding(Settings()))
    print(f"# {len(pool.codes):,} interactions scored", file=sys.stderr, flush=True)
    outcomes = []
    for seed in range(args.first_seed, args.first_seed + args.seeds):
        outcomes.append(
            simulate(pool, Traffic(args.rate, args.unit, args.turn_seconds, args.blind), args.days, args.per_days, seed)
        )
        last = outcomes[-1]
        found = dict(Counter(f"{d.metric} {d.slice}" for d in last.detections))
        print(f"# seed {seed}: {last.events:,} events, {last.pages} pages, alarms {found}", file=sys.stderr, flush=True)
    report(outcomes, args.days / args.per_days)


def report(outcomes: Sequence[Outcome], budget: float) -> None:
    """Alarms against the budget; `budget`: how many an app may have on average."""
    events = sum(outcome.events for outcome in outcomes)
    exceeding = poisson.ppf(0.99, budget)
    emit("no_change.apps", len(outcomes), "apps", PACKAGES)
    emit("no_change.events", events, "events", PACKAGES)
    emit("no_change.alarms", sum(len(o.detections) for o in outcomes), "alarms", PACKAGES)
    emit("no_change.alarms.budget", budget * len(outcomes), "alarms on average at most", PACKAGES)
    emit("no_change.apps.exceeding", sum(len(o.detections) > int(exceeding) for o in outcomes), "apps", PACKAGES)
    for metric, count in sorted(Counter(d.metric for o in outcomes for d in o.detections).items()):
        emit(f"no_change.alarms.{metric}", count, "alarms", PACKAGES)
    emit("no_change.pages", sum(o.pages for o in outcomes), "pages", PACKAGES)
    emit("no_change.fold", 1e6 * sum(o.fold_seconds for o in outcomes) / max(events, 1), "us_cpu/event", PACKAGES)


if __name__ == "__main__":
    main()
