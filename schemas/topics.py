"""The registry of topics: what each is for, how it is kept, who writes it and who reads it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, Literal
from zlib import crc32

from schemas import messages as m

HOUR_MS: Final = 3_600_000
DAY_MS: Final = 24 * HOUR_MS
MAX_RAW_BYTES: Final = 1_048_576
"""Largest batch that a raw topic takes, and so the largest record that a client may send."""
MAX_RECORD_BYTES: Final = 4 * 1024 * 1024
"""Largest record of our own topics; what one raw record becomes may be larger than it was."""
EMBEDDED_SHARDS: Final = 2
CLUSTER_SHARDS: Final = 16

INTERACTIONS: Final = "llm.interactions"
FEEDBACK: Final = "llm.feedback"
SCORED: Final = "llm.scored"
SUMMARIES: Final = "llm.summaries"
DEADLETTER: Final = "llm.deadletter"
CONFIG: Final = "llm.config"
COMMANDS: Final = "llm.commands"
WINDOWS: Final = "llm.windows"
ALERTS: Final = "llm.alerts"
ACTIONS: Final = "llm.actions"
STATE: Final = "llm.state"
ROUTES: Final = "llm.routes"
GATEWAYS: Final = "llm.gateways"

RAW_TOPICS: Final = (INTERACTIONS, FEEDBACK)


@dataclass(frozen=True)
class Topic:
    """One topic's contract. Partitions: embedded and cluster; `sharded` topics have as many as there are shards."""

    name: str
    key: str
    messages: tuple[type[m.Message], ...]
    producers: tuple[str, ...]
    consumers: tuple[str, ...]
    cleanup: Literal["delete", "compact"] = "delete"
    retention_ms: int | None = None
    embedded_partitions: int = 1
    cluster_partitions: int = 1
    sharded: bool = False
    settings: Mapping[str, str] = field(default_factory=dict)

    def partitions(self, *, embedded: bool) -> int:
        """Partition count to create the topic with."""
        if self.sharded:
            return EMBEDDED_SHARDS if embedded else CLUSTER_SHARDS
        return self.embedded_partitions if embedded else self.cluster_partitions

    def config(self, *, embedded: bool) -> dict[str, str]:
        """Topic settings as the broker spells them; every topic is stamped by the broker."""
        limit = MAX_RAW_BYTES if self.name in RAW_TOPICS else MAX_RECORD_BYTES
        settings = {
            "message.timestamp.type": "LogAppendTime",
            "cleanup.policy": self.cleanup,
            "max.message.bytes": str(limit + 4096),
        }
        if self.retention_ms is not None:
            settings["retention.ms"] = str(self.retention_ms)
        if self.cleanup == "compact":
            settings["segment.bytes"] = str(64 * 1024 * 1024)
        if not embedded:
            settings["min.insync.replicas"] = "2"
        return settings | dict(self.settings)

    def replication(self, *, embedded: bool) -> int:
        return 1 if embedded else 3


_SEGMENT_6H = {"segment.ms": str(6 * HOUR_MS)}
_CONTROL_READERS = ("controller", "backtest")
_WORKERS = ("deploy worker", "fine-tune worker")

# fmt: off
TOPICS: Final[Mapping[str, Topic]] = {
    t.name: t
    for t in (
        Topic(INTERACTIONS, "conversation id, else trace id, else interaction id", (m.Interaction, m.Tick),
              ("collector", "gateway", "clients", "processor (ticks)"), ("processor", "backtest"),
              retention_ms=66 * HOUR_MS, embedded_partitions=4, cluster_partitions=32, settings=_SEGMENT_6H),
        Topic(FEEDBACK, "interaction id", (m.Feedback, m.Tick),
              ("collector", "clients", "processor (ticks)"), ("processor", "backtest"),
              retention_ms=14 * DAY_MS - 6 * HOUR_MS, embedded_partitions=2, cluster_partitions=8, settings=_SEGMENT_6H),
        Topic(SCORED, "interaction id", (m.ScoredInteraction, m.ScoredFeedback), ("processor",), ("sink", "fitter"),
              retention_ms=7 * DAY_MS, embedded_partitions=4, cluster_partitions=32),
        Topic(SUMMARIES, "shard", (m.BlockSummary,), ("processor",), ("controller", "sink", "fitter"),
              retention_ms=30 * DAY_MS, sharded=True),
        Topic(DEADLETTER, "coordinates", (m.DeadLetter,), ("processor",), ("sink",), retention_ms=30 * DAY_MS),
        Topic(CONFIG, "config/<digest>, activation/<id>, poison/<coordinates>", (m.Config, m.Activation, m.Poison),
              ("cli", "processor --careful", "fitter"), ("processor", "fine-tune worker", "fitter", *_CONTROL_READERS), cleanup="compact"),
        Topic(COMMANDS, "shard", (m.Command,), ("cli", "ledger"), _CONTROL_READERS, retention_ms=400 * DAY_MS, sharded=True),
        Topic(WINDOWS, "shard", (m.WindowRows, m.Detection, m.Cut), ("controller",), ("sink", *_CONTROL_READERS),
              retention_ms=30 * DAY_MS, sharded=True),
        Topic(ALERTS, "alert id", (m.AlertTransition,), ("controller",), ("sink",), retention_ms=400 * DAY_MS, sharded=True),
        Topic(ACTIONS, "action id", (m.ActionStep,), ("controller", *_WORKERS),
              ("sink", *_WORKERS, *_CONTROL_READERS),
              retention_ms=400 * DAY_MS, sharded=True),
        Topic(STATE, "<shard>/<section>", (m.StateSection,), ("controller",), ("controller",), cleanup="compact", sharded=True),
        Topic(ROUTES, "app ‖ 0 ‖ environment", (m.RouteTable,), ("deploy worker", "cli"), ("gateway", *_WORKERS, "cli"),
              cleanup="compact"),
        Topic(GATEWAYS, "gateway instance", (m.GatewayReport,), ("gateway", "supervisor", "cli"),
              ("deploy worker", "supervisor", "cli"),
              cleanup="compact"),
    )
}

# fmt: on


def route_key(app: str, environment: str) -> bytes:
    """Key of an app's route table."""
    return app.encode() + b"\0" + environment.encode()


def shard_of(app: str, environment: str, shards: int) -> int:
    """The shard that owns an app: crc32(app ‖ 0 ‖ environment) mod shards.

    >>> shard_of("help-desk", "production", 2) in (0, 1)
    True
    """
    return crc32(route_key(app, environment)) % shards
