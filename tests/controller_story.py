"""A story in block headers for tests of the controller: traffic by window and partition, written without a processor."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import msgspec

from core.fold import FoldOutput
from core.rules import DEFAULT_RULES, default_config
from core.shard import Shard
from core.summary import summaries
from schemas.codec import Outgoing, Record, cloud_headers, digest, encode, read
from schemas.messages import (
    WINDOW_MS,
    ActionStep,
    Activation,
    AlertTransition,
    BlockHeader,
    BlockSummary,
    Command,
    Config,
    Cut,
    Detection,
    Group,
    LedgerCounts,
    Mode,
    WindowRow,
    WindowRows,
)
from schemas.topics import ACTIONS, ALERTS, COMMANDS, CONFIG, FEEDBACK, INTERACTIONS, SUMMARIES, WINDOWS, shard_of

SHARDS = 2
PARTITIONS = {INTERACTIONS: 4, FEEDBACK: 2}
FIRST_WINDOW = 1_700_000_000_000
SCORERS = dict.fromkeys(("topic", "language", "pii", "refusal", "answer", "latency", "thumbs"), 1)


def story_config(*, reference_events: int = 2_000, mode: Mode = "suggest", partitions: dict[str, int] | None = None) -> Config:
    rules = msgspec.structs.replace(
        DEFAULT_RULES,
        reference_events=reference_events,
        rules=tuple(msgspec.structs.replace(rule, mode=mode) for rule in DEFAULT_RULES.rules),
    )
    return default_config(
        scorers=SCORERS,
        embedding="0" * 64,
        heads="0" * 64,
        partitions=partitions or PARTITIONS,
        shards=SHARDS,
        receipt_keys={},
        rules=rules,
    )


def app_of(shard: int) -> str:
    """The name of an app that belongs to a shard."""
    return next(name for name in (f"desk-{n}" for n in range(100)) if shard_of(name, "production", SHARDS) == shard)


@dataclass
class Story:
    """Traffic of one app: 100 requests a window on `v1`; from `bad_from` on (a window number) half of them on `v2`, which
    refuses 60 % instead of 2 % until `bad_until`."""

    shard: int
    config: Config
    first_window: int = FIRST_WINDOW
    bad_from: int | None = None
    bad_until: int | None = None
    active: bool = True
    _starts: dict[tuple[str, int], int] = field(default_factory=dict)

    def window(self, number: int) -> int:
        return self.first_window + number * WINDOW_MS

    def blocks(self, number: int, *, without: Sequence[tuple[str, int]] = ()) -> list[Outgoing]:
        """The block headers of one window, one per partition."""
        places = [(topic, p) for topic, count in self.config.partitions.items() for p in range(count)]
        return [out for place in places if place not in without for out in self.block(number, place)]

    def block(self, number: int, place: tuple[str, int]) -> list[Outgoing]:
        topic, partition = place
        groups = self._groups(number) if topic == INTERACTIONS and self.active else []
        scored = sum(g.n for g in groups)
        start = self._starts.get(place, 0)
        end = self._starts[place] = start + max(scored, 1)
        header = BlockHeader(
            topic=topic,
            topic_id=f"id-of-{topic}",
            partition=partition,
            window=self.window(number),
            start=start,
            end=end,
            config=digest(self.config),
            counts=LedgerCounts(scored=scored, tick=0 if scored else 1),
        )
        return [summary_record(summary) for summary in summaries(header, self.shard, groups)]

    def _groups(self, number: int) -> list[Group]:
        app = app_of(self.shard)
        if self.bad_from is None or number < self.bad_from:
            return [_group(app, "v1", 25, number % 2)]
        bad = self.bad_until is None or number < self.bad_until
        usual = 1 if number % 4 == 0 else 0
        return [_group(app, "v1", 12, usual), _group(app, "v2", 13, 8 if bad else usual)]


def _group(app: str, version: str, n: int, refused: int) -> Group:
    def rate(fired: int) -> list[tuple[int, int]]:
        return [(bin_, count) for bin_, count in ((0, n - fired), (1, fired)) if count]

    cells = [(3, n // 2), (9, n - n // 2)]
    return Group(
        app=app,
        environment="production",
        version=version,
        n=n,
        bins={
            "error@1": rate(0),
            "latency@1": [(40, n)],
            "novelty@1": [(7, n)],
            "refusal@1": rate(refused),
            "response.empty@1": rate(0),
            "topic@1": cells,
        },
        names={"response.model@1": [("m", n)]},
    )


def summary_record(summary: BlockSummary) -> Outgoing:
    header = summary.header
    id_ = f"{header.topic}/{header.topic_id}/{header.partition}/{header.window}/{summary.shard}/{summary.part}"
    headers = cloud_headers(BlockSummary, id_=id_, time_ms=header.window + WINDOW_MS)
    return Outgoing(SUMMARIES, str(summary.shard).encode(), encode(summary), headers, summary.shard)


def config_outs(config: Config, number: int = 0) -> list[Outgoing]:
    """A config and its activation."""
    activation = Activation(id=f"activation-{number}", config=digest(config), actor="test", reason="test")
    return [
        Outgoing(
            CONFIG, f"config/{digest(config)}".encode(), encode(config), cloud_headers(Config, id_=digest(config), time_ms=0), 0
        ),
        Outgoing(
            CONFIG,
            f"activation/{activation.id}".encode(),
            encode(activation),
            cloud_headers(Activation, id_=activation.id, time_ms=0),
            0,
        ),
    ]


def command_out(command: Command, shard: int) -> Outgoing:
    return Outgoing(COMMANDS, str(shard).encode(), encode(command), cloud_headers(Command, id_=command.id, time_ms=0), shard)


@dataclass
class Written:
    """What the controller wrote for one shard, in order."""

    rows: list[WindowRow] = field(default_factory=list)
    detections: list[Detection] = field(default_factory=list)
    alerts: list[AlertTransition] = field(default_factory=list)
    actions: list[ActionStep] = field(default_factory=list)
    cuts: list[Cut] = field(default_factory=list)

    def decisions(self) -> FoldOutput:
        return FoldOutput(rows=self.rows, detections=self.detections, alerts=self.alerts, actions=self.actions)


def written(windows: Sequence[Record], alerts: Sequence[Record], actions: Sequence[Record]) -> Written:
    out = Written()
    for record in windows:
        match read(record):
            case WindowRows() as part:
                out.rows += part.rows
            case Detection() as detection:
                out.detections.append(detection)
            case Cut() as cut:
                out.cuts.append(cut)
    out.alerts = [m for m in map(read, alerts) if isinstance(m, AlertTransition)]
    out.actions = [m for m in map(read, actions) if isinstance(m, ActionStep)]
    return out


def recomputed(
    shard: int, logs: dict[str, Sequence[Record]], cuts: Sequence[Cut], *, cell_names: Sequence[str] = ()
) -> FoldOutput:
    """Fold the recorded log in-process with the recorded cuts, from its beginning."""
    from core.configs import ConfigLog

    configs = ConfigLog()
    for record in logs[CONFIG]:
        configs.add(record)
    fold = Shard.begin(shard, configs, cell_names=cell_names)
    feeds = {topic: iter(list(logs[topic])) for topic in (SUMMARIES, COMMANDS, ACTIONS)}
    held: dict[str, Record | None] = dict.fromkeys(feeds)

    def below(topic: str, end: int) -> Iterator[Record]:
        while (record := held[topic] or next(feeds[topic], None)) is not None:
            held[topic] = record
            if record.offset >= end:
                return
            held[topic] = None
            yield record

    total = FoldOutput()
    for cut in cuts:
        for record in below(SUMMARIES, cut.summaries_end):
            fold.add_summary(record)
        for record in below(COMMANDS, cut.commands_end):
            fold.add_control(COMMANDS, record)
        for record in below(ACTIONS, cut.actions_end):
            fold.add_control(ACTIONS, record)
        output = fold.fold(fold.recorded_batch(cut))
        total.rows += output.rows
        total.detections += output.detections
        total.alerts += output.alerts
        total.actions += output.actions
    return total


TOPICS_WRITTEN = (WINDOWS, ALERTS, ACTIONS)
