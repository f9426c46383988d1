"""The graph as a table: which process reads what, runs which function, and writes where. For readers, docs and tests."""

from dataclasses import dataclass
from typing import Final

from schemas.topics import (
    ACTIONS,
    ALERTS,
    COMMANDS,
    CONFIG,
    DEADLETTER,
    FEEDBACK,
    GATEWAYS,
    INTERACTIONS,
    ROUTES,
    SCORED,
    STATE,
    SUMMARIES,
    WINDOWS,
)


@dataclass(frozen=True)
class Node:
    """One process of the graph, and the function that does its work."""

    process: str
    runs: str
    reads: tuple[str, ...]
    writes: tuple[str, ...]


TOPOLOGY: Final = (
    Node("clients", "any Kafka producer", (), (INTERACTIONS, FEEDBACK)),
    Node("collector", "services.collector", (), (INTERACTIONS, FEEDBACK)),
    Node("gateway", "services.gateway", (ROUTES,), (INTERACTIONS, GATEWAYS)),
    Node("cli", "bellbuoy.cli", (ROUTES, GATEWAYS), (CONFIG, COMMANDS, ROUTES, GATEWAYS)),
    Node("supervisor", "bellbuoy.gateway_death", (GATEWAYS,), (GATEWAYS,)),
    Node("ledger", "core.ledger", (), (COMMANDS,)),
    Node("processor", "core.blocks.score_block", (INTERACTIONS, FEEDBACK, CONFIG), (SCORED, SUMMARIES, DEADLETTER)),
    Node("processor (ticks)", "streams.ticker.Ticker", (), (INTERACTIONS, FEEDBACK)),
    Node("processor --careful", "streams.careful.find_poison", (), (CONFIG,)),
    Node(
        "controller",
        "core.fold.Fold",
        (SUMMARIES, CONFIG, COMMANDS, WINDOWS, ACTIONS, STATE),
        (WINDOWS, ALERTS, ACTIONS, STATE),
    ),
    Node("sink", "services.sink", (SCORED, SUMMARIES, DEADLETTER, WINDOWS, ALERTS, ACTIONS), ()),
    Node("fitter", "services.fitter", (SUMMARIES, SCORED, CONFIG), (CONFIG,)),
    Node("fine-tune worker", "services.finetune_worker", (ACTIONS, ROUTES, CONFIG), (ACTIONS,)),
    Node("deploy worker", "services.deploy_worker", (ACTIONS, ROUTES, GATEWAYS), (ACTIONS, ROUTES)),
    Node(
        "backtest",
        "streams.backtest.recompute",
        (INTERACTIONS, FEEDBACK, CONFIG, COMMANDS, WINDOWS, ACTIONS),
        (),
    ),
)
