"""The log again, in-process: blocks and folds recomputed from what was recorded, and compared with what was published."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Final, TypeVar

from adapters.recorded import RecordedLog, record_log
from core.blocks import STEP_RECORDS, BlockCutter, Place, begin
from core.configs import ConfigLog
from core.fold import FoldOutput
from core.scoring import EmbeddingTable, HeadTable, Scoring
from core.shard import RecoveryFailed, Shard, is_own
from schemas import codec
from schemas.codec import InvalidMessage, Outgoing, Record
from schemas.messages import ActionStep, AlertTransition, BlockSummary, Cut, Detection, Message, WindowRow, WindowRows
from schemas.topics import ACTIONS, ALERTS, COMMANDS, CONFIG, DEADLETTER, RAW_TOPICS, SCORED, SUMMARIES, WINDOWS
from streams.active_configs import ActiveConfigs, MakeScoring

__all__ = ["Recomputed", "RecordedLog", "compare", "compare_blocks", "recompute", "recompute_blocks", "record_log"]

_SHOWN: Final = 20
M = TypeVar("M", bound=Message)


@dataclass
class Recomputed:
    """What the recorded log gives when it is computed again."""

    scored: list[Outgoing] = field(default_factory=list)
    dead_letters: list[Outgoing] = field(default_factory=list)
    summaries: list[Outgoing] = field(default_factory=list)
    folded: dict[int, FoldOutput] = field(default_factory=dict)
    """By shard, what all recorded cuts together put out."""
    unfoldable: list[str] = field(default_factory=list)
    """Why a recorded cut could not be folded again."""

    @property
    def rows(self) -> list[WindowRow]:
        return [row for shard in sorted(self.folded) for row in self.folded[shard].rows]

    @property
    def detections(self) -> list[Detection]:
        return [detection for shard in sorted(self.folded) for detection in self.folded[shard].detections]

    @property
    def alerts(self) -> list[AlertTransition]:
        return [alert for shard in sorted(self.folded) for alert in self.folded[shard].alerts]

    @property
    def actions(self) -> list[ActionStep]:
        return [step for shard in sorted(self.folded) for step in self.folded[shard].actions]


def recompute(
    log: RecordedLog, embedding: EmbeddingTable, heads: HeadTable, redaction_keys: Mapping[str, bytes] | None = None
) -> Recomputed:
    """Raw topics → blocks → summaries → folds with the recorded cuts; hashes in the texts need the processor's keys."""
    result = recompute_blocks(log, lambda config: Scoring(config, embedding, heads, redaction_keys=redaction_keys))
    fold_again(log, result, embedding.cells)
    return result


def recompute_blocks(log: RecordedLog, make_scoring: MakeScoring) -> Recomputed:
    """Every block of the raw topics; of a partition's last one, which is still open, the scored records only."""
    configs = ActiveConfigs(_config_log(log), make_scoring)
    result = Recomputed()
    for topic in RAW_TOPICS:
        for _, partition in log.places(topic):
            place = Place(topic, log.topic_ids[topic], partition)
            start = log.starts[topic, partition]
            block = None
            for window, records in BlockCutter().cut(log.of(topic, partition)):
                if block is not None:
                    start = records[0].offset
                    result.summaries += block.end(start)
                block = begin(place, window, start, configs.for_window(window))
                for first in range(0, len(records), STEP_RECORDS):
                    for out in block.step(records[first : first + STEP_RECORDS]):
                        (result.scored if out.topic == SCORED else result.dead_letters).append(out)
    return result


def fold_again(log: RecordedLog, result: Recomputed, cell_names: Sequence[str] = ()) -> None:
    """Fold the recomputed summaries with the recorded cuts; blocks whose raw records are gone come from the log itself."""
    expired = [r for _, shard in log.places(SUMMARIES) for r in log.of(SUMMARIES, shard) if _is_expired(log, r)]
    for _, number in log.places(WINDOWS):
        configs = _config_log(log)
        shard = Shard.begin(number, configs, cell_names=cell_names)
        own = [Record(0, 0, o.key, o.value, o.headers) for o in result.summaries if o.partition == number]
        own += [r for r in expired if codec.decode(BlockSummary, r.value).shard == number]
        own.sort(key=_summary_order)
        for offset, record in enumerate(own):
            shard.add_summary(Record(offset, 0, record.key, record.value, record.headers))
        commands, steps = iter(log.of(COMMANDS, number)), iter(log.of(ACTIONS, number))
        feeds = {COMMANDS: _Until(commands), ACTIONS: _Until(steps)}
        total = result.folded[number] = FoldOutput()
        for cut in _messages(log, WINDOWS, number, Cut):
            for topic, end in ((COMMANDS, cut.commands_end), (ACTIONS, cut.actions_end)):
                for record in feeds[topic].below(end):
                    # The controller passes over what it cannot read, and says so.
                    with suppress(InvalidMessage):
                        shard.add_control(topic, record)
            try:
                output = shard.fold(shard.recorded_batch(cut))
            except RecoveryFailed as error:
                result.unfoldable.append(str(error))
                break
            total.rows += output.rows
            total.detections += output.detections
            total.alerts += output.alerts
            total.actions += output.actions


def compare(log: RecordedLog, recomputed: Recomputed) -> list[str]:
    """What differs between what is on the broker and what the log gives, in sentences; nothing where all is equal."""
    found = compare_blocks(log, recomputed) + recomputed.unfoldable
    for number, output in recomputed.folded.items():
        # Alerts and actions were read after llm.windows: what came with a later cut is not compared.
        until = max((cut.last_window for cut in _messages(log, WINDOWS, number, Cut)), default=-1)
        rows = [row for part in _messages(log, WINDOWS, number, WindowRows) for row in part.rows]
        alerts = [a for a in _messages(log, ALERTS, number, AlertTransition) if a.window <= until]
        steps = [s for s in _messages(log, ACTIONS, number, ActionStep, only=is_own) if s.window <= until]
        found += [
            *_unequal(f"shard {number}: window row", rows, output.rows),
            *_unequal(f"shard {number}: detection", _messages(log, WINDOWS, number, Detection), output.detections),
            *_unequal(f"shard {number}: alert", alerts, output.alerts),
            *_unequal(f"shard {number}: action", steps, output.actions),
        ]
    return found


def compare_blocks(log: RecordedLog, recomputed: Recomputed) -> list[str]:
    """Scored records, dead letters and summaries, byte for byte. A repetition on the broker must equal the first.

    Everything on the broker must be recomputed, except what was made of records that are gone; everything recomputed
    must be on the broker up to each partition's last header.
    """
    found: list[str] = []
    frontier: dict[tuple[str, int], int] = {}
    for _, shard in log.places(SUMMARIES):
        for record in log.of(SUMMARIES, shard):
            header = codec.decode(BlockSummary, record.value).header
            if header.topic_id == log.topic_ids.get(header.topic):
                place = (header.topic, header.partition)
                frontier[place] = max(frontier.get(place, 0), header.end)
    wanted = {_id(o.topic, o.headers): o for o in (*recomputed.scored, *recomputed.dead_letters, *recomputed.summaries)}
    there: dict[str, tuple[bytes | None, bytes | None, tuple[tuple[str, bytes], ...]]] = {}
    for topic in (SCORED, DEADLETTER, SUMMARIES):
        for _, partition in log.places(topic):
            for record in log.of(topic, partition):
                id_ = _id(topic, record.headers)
                said = (record.key, record.value, tuple(record.headers))
                if there.setdefault(id_, said) != said:
                    found.append(f"{id_}: published twice with different bytes")
                    continue
                out = wanted.get(id_)
                if out is None:
                    if not _made_of_gone_records(log, topic, record):
                        found.append(f"{id_}: on the broker, but not in the recomputation")
                elif said != (out.key, out.value, tuple(out.headers)):
                    found.append(f"{id_}: differs from the recomputation")
    found += [
        f"{id_}: in the recomputation, but not on the broker"
        for id_, out in wanted.items()
        if id_ not in there and _is_due(out, frontier)
    ]
    return found


def _config_log(log: RecordedLog) -> ConfigLog:
    config_log = ConfigLog()
    for record in log.of(CONFIG):
        config_log.add(record)
    return config_log


def _id(topic: str, headers: Iterable[tuple[str, bytes]]) -> str:
    return f"{topic} {(codec.header(headers, 'ce_id') or b'').decode()}"


def _source(headers: Iterable[tuple[str, bytes]]) -> tuple[str, str, int, int]:
    """(topic, topic id, partition, offset or window) from a ce_id of a record, dead letter or summary."""
    topic, topic_id, partition, number = (codec.header(headers, "ce_id") or b"").decode().split("/")[:4]
    return topic, topic_id, int(partition), int(number)


def _made_of_gone_records(log: RecordedLog, topic: str, record: Record) -> bool:
    if topic == SUMMARIES:
        return _is_expired(log, record)
    source, topic_id, partition, offset = _source(record.headers)
    return topic_id != log.topic_ids.get(source) or offset < log.starts[source, partition]


def _is_expired(log: RecordedLog, record: Record) -> bool:
    """Whether a published block began before what its partition still holds, or belongs to a topic that is no more."""
    header = codec.decode(BlockSummary, record.value).header
    return header.topic_id != log.topic_ids.get(header.topic) or header.start < log.starts[header.topic, header.partition]


def _is_due(out: Outgoing, frontier: Mapping[tuple[str, int], int]) -> bool:
    topic, _, partition, offset = _source(out.headers)
    reached = frontier.get((topic, partition), 0)
    if out.topic == SUMMARIES:
        return codec.decode(BlockSummary, out.value).header.end <= reached
    return offset < reached


def _summary_order(record: Record) -> tuple[int, str, int, int]:
    summary = codec.decode(BlockSummary, record.value)
    return summary.header.window, summary.header.topic, summary.header.partition, summary.part


def _messages(
    log: RecordedLog, topic: str, partition: int, type_: type[M], *, only: Callable[[Record], bool] = lambda _: True
) -> list[M]:
    records = log.of(topic, partition)
    return [codec.decode(type_, r.value) for r in records if codec.message_type(r.headers) is type_ and only(r)]


def _unequal(what: str, there: Sequence[Message | WindowRow], wanted: Sequence[Message | WindowRow]) -> list[str]:
    found = [
        f"{what} {number}: {codec.to_builtins(a)} is on the broker, the recomputation gives {codec.to_builtins(b)}"
        for number, (a, b) in enumerate(zip(there, wanted, strict=False))
        if a != b
    ][:_SHOWN]
    if len(there) != len(wanted):
        found.append(f"{what}: {len(there)} on the broker, {len(wanted)} in the recomputation")
    return found


class _Until:
    """Records in order, taken up to one offset after another."""

    def __init__(self, records: Iterator[Record]) -> None:
        self._records, self._next = records, next(records, None)

    def below(self, end: int) -> Iterator[Record]:
        while self._next is not None and self._next.offset < end:
            record, self._next = self._next, next(self._records, None)
            yield record
