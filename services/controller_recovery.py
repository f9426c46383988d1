"""Brings a shard back to where its last committed transaction left it: the saved state, then the recorded cuts again."""

import logging
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from adapters.shard_log import ShardLog
from core.configs import ConfigLog
from core.shard import Shard
from schemas.codec import InvalidMessage, Record, message_type, read
from schemas.messages import BlockSummary, Cut, StateSection
from schemas.topics import ACTIONS, COMMANDS, CONFIG, STATE, SUMMARIES, WINDOWS

log = logging.getLogger(__name__)

TAIL_RECORDS = 4_000
MAX_TAIL_RECORDS = 64_000


@dataclass(frozen=True)
class Recovered:
    """A shard as of its last cut, and the offsets at which it goes on."""

    shard: Shard
    positions: dict[str, int]
    windows_from: int
    """An offset of llm.windows after the last cut."""
    saved: bool
    """Whether there is a saved state."""


def recover(source: ShardLog, number: int, cell_names: Sequence[str]) -> Recovered:
    """Rebuild shard `number`; the predecessor must have been fenced. Writes nothing.

    Raises core.shard.RecoveryFailed where the log no longer holds what the recorded cuts were made of.
    """
    ends = source.ends(CONFIG, STATE, WINDOWS)
    configs = ConfigLog()
    for record in source.read(CONFIG, source.start(CONFIG), ends[CONFIG]):
        configs.add(record)
    sections = load_sections(source.read(STATE, source.start(STATE), ends[STATE]))
    if sections:
        shard, cursor = Shard.restore(number, configs, sections, cell_names=cell_names)
        cut, summaries_from, windows_from = cursor.cut, cursor.summaries_from, cursor.windows_from
        positions = {COMMANDS: cut.commands_end, ACTIONS: cut.actions_end}
    else:
        shard = Shard.begin(number, configs, cell_names=cell_names)
        cut, summaries_from, windows_from = None, source.start(SUMMARIES), source.start(WINDOWS)
        positions = {topic: source.start(topic) for topic in (COMMANDS, ACTIONS)}
    cuts = [
        c for c in load_cuts(source.read(WINDOWS, windows_from, ends[WINDOWS])) if cut is None or c.last_window > cut.last_window
    ]
    positions[SUMMARIES] = summaries_from
    if cuts:
        _replay(source, shard, cuts, positions)
        positions = {
            SUMMARIES: cuts[-1].summaries_end,
            COMMANDS: cuts[-1].commands_end,
            ACTIONS: cuts[-1].actions_end,
        }
    positions[CONFIG] = ends[CONFIG]
    log.info("shard %d: state of %d sections, %d cuts folded again", number, len(sections), len(cuts))
    return Recovered(shard, positions, ends[WINDOWS], bool(sections))


def load_sections(records: Iterable[Record]) -> dict[str, StateSection]:
    """The last section of each key, by its name; tombstones take one away."""
    by_key: dict[bytes | None, StateSection] = {}
    for record in records:
        if record.value is None:
            by_key.pop(record.key, None)
            continue
        message = read(record)
        if not isinstance(message, StateSection):
            raise InvalidMessage("type", "llm.state holds state sections only", "ce_type")
        by_key[record.key] = message
    return {section.section: section for section in by_key.values()}


def load_cuts(records: Iterable[Record]) -> list[Cut]:
    """The cuts among the records of llm.windows, in order."""
    cuts = []
    for record in records:
        if message_type(record.headers) is Cut:
            message = read(record)
            assert isinstance(message, Cut)
            cuts.append(message)
    return cuts


def feed_summary(shard: Shard, record: Record) -> str | None:
    """Hand a summary to the shard; why it was passed over, where it cannot be read."""
    try:
        shard.add_summary(record)
    except InvalidMessage as error:
        return _unreadable(SUMMARIES, record, error)
    return None


def feed_control(shard: Shard, topic: str, record: Record) -> str | None:
    """Hand a command or step to the shard; why it was passed over, where it cannot be read."""
    try:
        shard.add_control(topic, record)
    except InvalidMessage as error:
        return _unreadable(topic, record, error)
    return None


def newest_closed(source: ShardLog, shard: Shard, end: int) -> int | None:
    """The newest closed window of the whole log, from the headers at its end; None where some partition has none there."""
    waited = shard.closing
    start, count = source.start(SUMMARIES), TAIL_RECORDS
    while waited and count <= MAX_TAIL_RECORDS:
        newest: dict[tuple[str, int], int] = {}
        for record in source.read(SUMMARIES, max(start, end - count), end):
            try:
                message = read(record)
            except InvalidMessage:
                continue
            if isinstance(message, BlockSummary):
                header = message.header
                place = (header.topic, header.partition)
                newest[place] = max(header.window, newest.get(place, 0))
        if waited <= newest.keys():
            return min(newest[place] for place in waited)
        if end - count <= start:
            return None
        count *= 4
    return None


def _replay(source: ShardLog, shard: Shard, cuts: Sequence[Cut], positions: dict[str, int]) -> None:
    """Fold every recorded cut again from what it was made of; its output is on the log already."""
    last = cuts[-1]
    summaries = _Feed(source.read(SUMMARIES, positions[SUMMARIES], last.summaries_end))
    commands = _Feed(source.read(COMMANDS, positions[COMMANDS], last.commands_end))
    steps = _Feed(source.read(ACTIONS, positions[ACTIONS], last.actions_end))
    for cut in cuts:
        for record in summaries.below(cut.summaries_end):
            feed_summary(shard, record)
        for record in commands.below(cut.commands_end):
            feed_control(shard, COMMANDS, record)
        for record in steps.below(cut.actions_end):
            feed_control(shard, ACTIONS, record)
        shard.fold(shard.recorded_batch(cut))


class _Feed:
    """Records in order, taken up to one offset after another."""

    def __init__(self, records: Iterator[Record]) -> None:
        self._records = records
        self._next: Record | None = None

    def below(self, end: int) -> Iterator[Record]:
        """The records with offsets below `end` that were not taken yet."""
        while True:
            record = self._next or next(self._records, None)
            if record is None or record.offset >= end:
                self._next = record
                return
            self._next = None
            yield record


def _unreadable(topic: str, record: Record, error: InvalidMessage) -> str:
    log.error("%s at offset %d cannot be read and is passed over: %s", topic, record.offset, error.reason)
    return error.code
