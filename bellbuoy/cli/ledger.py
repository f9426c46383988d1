"""`bellbuoy ledger`: what was received, stored, dead, missing and in flight."""

import contextlib
from typing import Annotated, Any, Final

import typer

from adapters import clickhouse
from adapters.kafka import HotProducer, LogOffsets, read_all
from adapters.settings import Settings
from bellbuoy.cli.printing import console, print_json, safe, table, when
from bellbuoy.reach import need_kafka, need_store
from core.ledger import Gap, Ledger, ranges
from schemas.codec import TICK_TYPE, header
from schemas.topics import COMMANDS
from services.ledger_reader import Reporter, read_ledger

_NAMED: Final = 20
"""So many gaps are looked up in the log for the offsets that miss; the others are named as ranges."""
_LOOKED_UP: Final = 200_000
_TOTALS: Final = (
    "received",
    "stored",
    "dead",
    "missing",
    "in_flight",
    "repeated",
    "poison",
    "tick",
    "control",
    "expired",
    "deleted",
)
_OF_PARTITION: Final = (
    "received",
    "stored",
    "dead",
    "missing",
    "in_flight",
    "tick",
    "control",
    "expired",
    "deleted",
    "start",
    "frontier",
)


_SHOWN: Final = ("received", "stored", "dead", "missing", "in_flight")


def command(
    verify: Annotated[bool, typer.Option("--verify", help="Look up and name the offsets that are missing.")] = False,
    json: Annotated[bool, typer.Option("--json", help="Print JSON for a program to read.")] = False,
    no_report: Annotated[bool, typer.Option("--no-report", help="Do not open an alert for what is missing.")] = False,
) -> None:
    """Count the rows in ClickHouse against the records on Kafka: received = stored + dead + missing.

    In flight: on Kafka, not accounted for yet (a few seconds). Dead: could not be read, kept in llm.deadletter with the reason.
    Offset: up to there everything is accounted for. Repeated: stored rows beyond one for each record. What is missing also opens an
    alert. Exits 1 when anything is missing or contradicts itself.

    \b
    Examples:
      bellbuoy ledger
      bellbuoy ledger --verify        names the offsets of what is missing
      bellbuoy ledger --json
    """
    settings = Settings()
    need_kafka(settings)
    need_store(settings)
    with contextlib.closing(clickhouse.connect(settings)) as client, LogOffsets(settings) as offsets:
        ledger = read_ledger(client, offsets)
        absent = {gap.id: _absent(settings, client, gap) for gap in ledger.gaps[:_NAMED]} if verify else {}
        if not no_report:
            producer = HotProducer(settings)
            Reporter(client, producer, producer.partitions(COMMANDS)).report(ledger, whole=True)
    if json:
        print_json(as_json(ledger, absent))
    else:
        _print(ledger, absent)
    if ledger.missing or ledger.problems:
        raise typer.Exit(1)


def as_json(ledger: Ledger, absent: dict[str, list[tuple[int, int]] | None]) -> dict[str, Any]:
    """The ledger for a program; ranges of offsets are half-open."""
    return {
        **{name: getattr(ledger, name) for name in _TOTALS},
        "in_flight_age_s": ledger.in_flight_age_s,
        "partitions": [
            {
                "topic": p.topic,
                "topic_id": p.topic_id,
                "partition": p.partition,
                **{name: getattr(p, name) for name in _OF_PARTITION},
            }
            for p in ledger.partitions
        ],
        "gaps": [
            {
                "id": gap.id,
                "topic": gap.topic,
                "topic_id": gap.topic_id,
                "partition": gap.partition,
                "what": gap.what,
                "window": gap.window,
                "start": gap.start,
                "end": gap.end,
                "records": gap.records,
                "offsets": absent.get(gap.id),
            }
            for gap in ledger.gaps
        ],
        "problems": list(ledger.problems),
    }


def _absent(settings: Settings, client: clickhouse.Client, gap: Gap) -> list[tuple[int, int]] | None:
    """Offsets of a gap that the log still has and the store has not, as ranges; None where the log has let them go, or for a long gap."""
    query = clickhouse.rows(
        client, "ledger_held", {"topic_id": gap.topic_id, "partition": gap.partition, "start": gap.start, "end": gap.end}
    )
    held = {row["offset"] for row in query}
    if gap.end - gap.start > _LOOKED_UP:
        return None
    try:
        sent = {
            r.offset
            for r in read_all(settings, gap.topic, gap.partition, gap.start, gap.end)
            if header(r.headers, "ce_type") != TICK_TYPE
        }
    except TimeoutError:
        return None
    return ranges(sent - held) if sent else None


def partitions(ledger: Ledger) -> str:
    """One line for each partition, at most 80 columns up to ten million records each."""
    header = ("topic/partition", *(name.replace("_", " ") for name in _SHOWN), "offset")
    rows = [
        (f"{p.topic}/{p.partition}", *(f"{getattr(p, name):,}" for name in _SHOWN), f"{p.frontier:,}") for p in ledger.partitions
    ]
    return table(header, rows, right=range(1, len(header)))


def _print(ledger: Ledger, absent: dict[str, list[tuple[int, int]] | None]) -> None:
    typer.echo(partitions(ledger))
    out = console()
    age = f", the oldest at most {ledger.in_flight_age_s:.1f} s old" if ledger.in_flight_age_s else ""
    out.print(f"\nreceived {ledger.received:,} = stored {ledger.stored:,} + dead {ledger.dead:,} + missing {ledger.missing:,}")
    out.print(f"in flight {ledger.in_flight:,}{age}; repeated {ledger.repeated:,}; poison {ledger.poison:,}")
    out.print(
        f"not counted as received: {ledger.tick:,} ticks, {ledger.control:,} transaction markers, "
        f"{ledger.expired:,} expired, {ledger.deleted:,} deleted"
    )
    for gap in ledger.gaps:
        what = "no header is stored for" if gap.what == "header" else "rows are missing in"
        at = f", window {when(gap.window)}" if gap.window is not None else ""
        out.print(
            f"[red]missing[/] {gap.records:,}: {what} {safe(gap.topic)}/{gap.partition} offsets {gap.start} to before {gap.end}{at}"
        )
        if found := absent.get(gap.id):
            out.print("   offsets " + ", ".join(f"{a}" if b == a + 1 else f"{a}-{b - 1}" for a, b in found[:50]))
    for problem in ledger.problems:
        out.print(f"[red]problem[/] {safe(problem)}")
