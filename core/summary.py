"""Counts over bins: what a block adds up per (app, environment, version) and per cohort, bounded and split by shard."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Final, NamedTuple

import msgspec

from core.identity import OTHER, Turns
from core.metrics import GUARDRAILS, METRICS, bin_of, metric_key, split_metric_key
from schemas.codec import encode
from schemas.messages import BlockHeader, BlockSummary, Cohort, Counts, Group, Score
from schemas.topics import shard_of

MAX_NAMES: Final = 32
MAX_LABEL: Final = 128
MAX_COHORTS: Final = 64
"""Cohorts that a block names per shard; the rest is not counted."""
MAX_PART_BYTES: Final = 512 * 1024
_COMPACT_AT: Final = 8_192
_MEMO_LIMIT: Final = 4_096
_OTHER_PAIR: Final = (OTHER, OTHER, OTHER)

Pair = tuple[str, str, str]
"""(app, environment, version)."""
Unit = tuple[str, str, str, int]
"""(app, environment, version, route epoch)."""


class _Code(NamedTuple):
    """What one small integer in a tally stands for: a bin of a metric, or (bin None) a label of it."""

    key: str
    bin: int | None
    label: str


class _Tally:
    """One pair's counts: codes are appended one by one and added up now and then."""

    __slots__ = ("acts", "codes", "counts", "n", "shard")

    def __init__(self, shard: int) -> None:
        self.shard, self.n, self.acts = shard, 0, 0
        self.codes: list[int] = []
        self.counts: dict[int, int] | None = None

    def compact(self) -> dict[int, int]:
        counts = Counter(self.counts or {})
        counts.update(self.codes)
        self.codes, self.counts = [], counts
        return counts


class _Memo:
    """From a score's value (or a category's label) to its code, for one metric of one scorer version."""

    __slots__ = ("by_value", "category", "counted", "key", "metric", "scorer")

    def __init__(self, name: str, scorer: str) -> None:
        self.scorer = scorer
        self.metric = METRICS.get(name)
        self.counted = self.metric is not None
        self.category = self.metric is not None and self.metric.kind == "category"
        self.key = metric_key(name, split_metric_key(scorer)[1])
        self.by_value: dict[int | str | None, int] = {}


class Tallies:
    """The counts of an open block. Adding in any order and any grouping gives the same summaries."""

    def __init__(self, shards: int) -> None:
        self._shards = shards
        self._tallies: dict[Turns, dict[Pair, _Tally]] = {"first": {}, "later": {}, "rest": {}}
        self._cohorts: dict[Unit, _Tally] = {}
        self._memos: dict[str, _Memo] = {}
        self._others: dict[tuple[str, str], _Memo] = {}
        """By metric and scorer: apps with cells of their own have scorers of their own, and a block holds several apps."""
        self._codes: list[_Code] = []
        self._index: dict[_Code, int] = {}

    def interaction(self, pair: Pair, scores: Mapping[str, Score], turns: Turns = "first", *, counts: bool = True) -> None:
        """Add one interaction; `counts` off adds its scores only (the second half of one that came in two parts)."""
        tally = self._tallies[turns].get(pair) or self._new(pair, turns)
        tally.n += counts
        self._add(tally, scores)

    def act(self, pair: Pair, scores: Mapping[str, Score], turns: Turns = "first") -> None:
        """Add one feedback act."""
        tally = self._tallies[turns].get(pair) or self._new(pair, turns)
        tally.acts += 1
        self._add(tally, scores)

    def cohort_interaction(self, unit: Unit, scores: Mapping[str, Score], *, counts: bool = True) -> None:
        """Add the first turn of a conversation to its cohort; `counts` as for `interaction`."""
        tally = self._cohorts.get(unit) or self._new_cohort(unit)
        tally.n += counts
        self._add(tally, _guarded(scores))

    def cohort_act(self, unit: Unit, scores: Mapping[str, Score]) -> None:
        """Add a feedback act on such a turn."""
        tally = self._cohorts.get(unit) or self._new_cohort(unit)
        tally.acts += 1
        self._add(tally, _guarded(scores))

    def _new_cohort(self, unit: Unit) -> _Tally:
        tally = self._cohorts[unit] = _Tally(shard_of(unit[0], unit[1], self._shards))
        return tally

    def _new(self, pair: Pair, turns: Turns) -> _Tally:
        tally = self._tallies[turns][pair] = _Tally(shard_of(pair[0], pair[1], self._shards))
        return tally

    def _add(self, tally: _Tally, scores: Mapping[str, Score]) -> None:
        codes, memos = tally.codes, self._memos
        for name, score in scores.items():
            memo = memos.get(name)
            if memo is None or memo.scorer != score.scorer:
                memo = self._memo(name, score.scorer)
            if score.outcome != "ok" or not memo.counted:
                continue
            code = memo.by_value.get(score.label if memo.category else score.value)
            codes.append(self._code(memo, score) if code is None else code)
        if len(codes) > _COMPACT_AT:
            tally.compact()

    def _memo(self, name: str, scorer: str) -> _Memo:
        memo = self._others.get((name, scorer))
        if memo is None:
            if len(self._others) >= _MEMO_LIMIT:
                self._others.clear()
            memo = self._others[name, scorer] = _Memo(name, scorer)
        self._memos[name] = memo
        return memo

    def _code(self, memo: _Memo, score: Score) -> int:
        assert memo.metric is not None
        if memo.category:
            what = _Code(memo.key, None, (score.label or "")[:MAX_LABEL])
        else:
            what = _Code(memo.key, bin_of(memo.metric, score), "")
        code = self._index.get(what)
        if code is None:
            code = self._index[what] = len(self._codes)
            self._codes.append(what)
        if len(memo.by_value) >= _MEMO_LIMIT:
            memo.by_value.clear()
        memo.by_value[score.label if memo.category else score.value] = code
        return code

    def groups(self, shard: int, admitted: frozenset[tuple[str, str]], max_pairs: int) -> list[Group]:
        """A shard's groups, sorted by name: at most `max_pairs` are named, admitted apps first, then by count, ties by name.

        The rest is summed into (`other`, `other`, `other`).
        """
        records: dict[Pair, int] = {}
        for tallies in self._tallies.values():
            for pair, tally in tallies.items():
                if tally.shard == shard:
                    records[pair] = records.get(pair, 0) + tally.n + tally.acts
        ranked = sorted(
            (pair for pair in records if pair != _OTHER_PAIR), key=lambda pair: (pair[:2] not in admitted, -records[pair], pair)
        )
        named = {pair: [pair] for pair in ranked[:max_pairs]}
        rest = ranked[max_pairs:] + ([_OTHER_PAIR] if _OTHER_PAIR in records else [])
        if rest:
            named[_OTHER_PAIR] = rest
        return [self._group(pair, named[pair]) for pair in sorted(named)]

    def cohorts(self, shard: int, admitted: frozenset[tuple[str, str]]) -> list[Cohort]:
        """A shard's cohorts, sorted by name: the MAX_COHORTS that come first by admitted app, then by count, ties by name."""
        mine = {unit: tally for unit, tally in self._cohorts.items() if tally.shard == shard}
        ranked = sorted(mine, key=lambda unit: (unit[:2] not in admitted, -(mine[unit].n + mine[unit].acts), unit))
        return [self._cohort(unit, mine[unit]) for unit in sorted(ranked[:MAX_COHORTS])]

    def _cohort(self, unit: Unit, tally: _Tally) -> Cohort:
        app, environment, version, route_epoch = unit
        bins, _ = self._counted(tally.compact())
        return Cohort(
            app=app, environment=environment, version=version, route_epoch=route_epoch, n=tally.n, acts=tally.acts, bins=bins
        )

    def _counted(self, counts: Mapping[int, int]) -> tuple[dict[str, list[tuple[int, int]]], dict[str, dict[str, int]]]:
        """(bin, count) pairs and counts by label, both by metric key; keys and bins sorted."""
        bins: dict[str, list[tuple[int, int]]] = {}
        names: dict[str, dict[str, int]] = {}
        for code, count in counts.items():
            what = self._codes[code]
            if what.bin is None:
                names.setdefault(what.key, {})[what.label] = count
            else:
                bins.setdefault(what.key, []).append((what.bin, count))
        return {key: sorted(bins[key]) for key in sorted(bins)}, names

    def _group(self, pair: Pair, pairs: Sequence[Pair]) -> Group:
        of: dict[Turns, list[_Tally]] = {
            turns: [tallies[one] for one in pairs if one in tallies] for turns, tallies in self._tallies.items()
        }
        whole = self._sum([tally for tallies in of.values() for tally in tallies])
        only_first = not of["later"] and not of["rest"]
        app, environment, version = pair
        return Group(
            app=app,
            environment=environment,
            version=version,
            n=whole.n,
            acts=whole.acts,
            bins=whole.bins,
            names=whole.names,
            first=msgspec.UNSET if only_first else self._sum(of["first"]),
            later=self._sum(of["later"]) if of["later"] else msgspec.UNSET,
        )

    def _sum(self, tallies: Sequence[_Tally]) -> Counts:
        total: Counter[int] = Counter()
        for tally in tallies:
            total.update(tally.compact())
        bins, names = self._counted(total)
        return Counts(
            n=sum(tally.n for tally in tallies),
            acts=sum(tally.acts for tally in tallies),
            bins=bins,
            names={key: bounded(names[key]) for key in sorted(names)},
        )


def _guarded(scores: Mapping[str, Score]) -> dict[str, Score]:
    return {name: scores[name] for name in GUARDRAILS if name in scores}


def bounded(counts: Mapping[str, int]) -> list[tuple[str, int]]:
    """At most MAX_NAMES labels by count, ties by name, and `other` for the rest; sorted by label."""
    ranked = sorted((label for label in counts if label != OTHER), key=lambda label: (-counts[label], label))
    kept = {label: counts[label] for label in ranked[:MAX_NAMES]}
    rest = sum(counts[label] for label in ranked[MAX_NAMES:]) + counts.get(OTHER, 0)
    if rest:
        kept[OTHER] = rest
    return sorted(kept.items())


def _split(counted: Iterable[Group | Cohort], room: int) -> Iterator[list[Group | Cohort]]:
    part: list[Group | Cohort] = []
    used = 0
    for one in counted:
        size = len(msgspec.json.encode(one)) + 1
        if part and used + size > room:
            yield part
            part, used = [], 0
        part.append(one)
        used += size
    yield part


def summaries(
    header: BlockHeader, shard: int, groups: Sequence[Group], cohorts: Sequence[Cohort] = (), *, max_bytes: int = MAX_PART_BYTES
) -> list[BlockSummary]:
    """One shard's summary of a block, in as few parts as fit `max_bytes` each; never none."""
    empty = len(encode(BlockSummary(header=header, shard=shard, part=1_000, parts=1_000)))
    keys = 32 if cohorts else 16
    parts = list(_split([*groups, *cohorts], max_bytes - empty - keys))
    return [
        BlockSummary(
            header=header,
            shard=shard,
            part=number,
            parts=len(parts),
            groups=[one for one in part if isinstance(one, Group)],
            cohorts=[one for one in part if isinstance(one, Cohort)],
        )
        for number, part in enumerate(parts, 1)
    ]
