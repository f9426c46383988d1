"""One shard of a running controller: reads what is new, folds what is closed, commits it in one transaction."""

import time
from collections import deque
from collections.abc import Iterable, Sequence
from typing import Final, Protocol

from adapters.shard_log import ShardLog
from core.configs import UnknownConfig
from core.fold import FoldOutput
from core.shard import MAX_OUTPUT_BYTES, MAX_WINDOWS, Batch, Ends, Shard
from schemas.codec import Record
from schemas.topics import ACTIONS, COMMANDS, CONFIG, SUMMARIES, WINDOWS
from services.controller_output import fold_records, state_records
from services.controller_recovery import feed_control, feed_summary, newest_closed, recover

STATE_EVERY_MS: Final = 60_000
HELD_WINDOWS: Final = 12
_CONTROL: Final = (COMMANDS, ACTIONS, CONFIG)


class Observer(Protocol):
    """What a shard tells whoever watches it."""

    def folded(self, batch: Batch, output: FoldOutput, seconds: float) -> None: ...

    def committed(self, shard: int, seconds: float) -> None: ...

    def waiting(self, shard: int, windows: int, held: int) -> None: ...

    def standing(self, shard: int, open_alerts: int) -> None: ...

    def unreadable(self, topic: str, code: str) -> None: ...


class ShardRunner:
    """One shard of a running controller. Methods that raise BrokerAway can be called again; after any other exception
    the runner is of no more use: its fold may be ahead of the log."""

    def __init__(self, number: int, source: ShardLog, observer: Observer, *, cell_names: Sequence[str] = ()) -> None:
        self.number = number
        self.headers = 0
        """Block headers read since the start."""
        self._source = source
        self._observer = observer
        self._cell_names = cell_names
        self._shard: Shard | None = None
        self._unfed: deque[Record] = deque()
        self._windows_from = 0
        self._saved = False

    def recover(self) -> None:
        """Shut out a predecessor, then take up where its last committed transaction left off."""
        self._source.fence()
        recovered = recover(self._source, self.number, self._cell_names)
        self._source.follow(recovered.positions)
        self._shard, self._windows_from, self._saved = recovered.shard, recovered.windows_from, recovered.saved
        self._observer.standing(self.number, recovered.shard.open_alerts)

    @property
    def active(self) -> bool:
        """Whether llm.config names a config to work by."""
        return self._shard is not None and bool(self._shard.configs.activations)

    def held_up_by(self) -> tuple[int | None, list[str]]:
        """The last window folded, and the partitions without which more than a minute of windows cannot close."""
        shard = self._shard
        if shard is None or not self.active:
            return None, []
        return shard.cut.last_window if shard.cut else None, shard.holding if shard.held > HELD_WINDOWS else []

    def cycle(self, timeout: float) -> bool:
        """Read what is new, fold what is closed and commit it; whether anything was."""
        shard = self._running()
        self._take(timeout)
        self._observer.waiting(self.number, shard.waiting, shard.held)
        if not shard.due():
            return False
        end = self._source.ends(SUMMARIES)[SUMMARIES]
        while self._source.position(SUMMARIES) < end and shard.waiting < MAX_WINDOWS and shard.waiting_bytes < MAX_OUTPUT_BYTES:
            self._take(timeout)
        self._read_control()
        read_to = self._source.position(SUMMARIES)
        ends = Ends(read_to, *(self._source.position(topic) for topic in _CONTROL))
        scan = read_to < end and shard.catching_up_until is None
        batch = shard.next_batch(ends, newest_in_log=newest_closed(self._source, shard, end) if scan else None)
        if batch is None:
            return False
        self._commit(shard, batch)
        return True

    def save(self) -> None:
        """Write the state at a clean stop, so that a restart has nothing to fold again."""
        if self._shard is not None and self._shard.cut is not None and (self._shard.unsaved_ms or not self._saved):
            sections = self._shard.sections(windows_from=self._windows_from, changed_only=self._saved)
            self._source.commit(state_records(sections))
            self._saved = True

    def probe(self) -> None:
        """Raises BrokerAway where no broker answers: polling alone would wait without a word."""
        self._source.ends(SUMMARIES)

    def close(self) -> None:
        self._source.close()

    def _running(self) -> Shard:
        if self._shard is None:
            raise RuntimeError("recover() comes first")
        return self._shard

    def _take(self, timeout: float) -> None:
        """Poll once and feed what came. Config goes first: a header may name one that has just been published."""
        shard = self._running()
        polled = self._source.poll(timeout)
        self._unfed.extend(polled.get(SUMMARIES, ()))
        self._add_config(shard, polled.get(CONFIG, ()))
        for topic in (COMMANDS, ACTIONS):
            for record in polled.get(topic, ()):
                if code := feed_control(shard, topic, record):
                    self._observer.unreadable(topic, code)
        while self._unfed:
            try:
                code = feed_summary(shard, self._unfed[0])
            except UnknownConfig:
                self._add_config(shard, self._source.read(CONFIG, shard.configs.end, self._source.ends(CONFIG)[CONFIG]))
                code = feed_summary(shard, self._unfed[0])
            self._unfed.popleft()
            self.headers += 1
            if code:
                self._observer.unreadable(SUMMARIES, code)

    def _add_config(self, shard: Shard, records: Iterable[Record]) -> None:
        for record in records:
            if record.offset >= shard.configs.end:
                shard.configs.add(record)

    def _read_control(self) -> None:
        """Read commands, steps and config to where they end now."""
        ends = self._source.ends(*_CONTROL)
        while any(self._source.position(topic) < end for topic, end in ends.items()):
            self._take(0.1)

    def _commit(self, shard: Shard, batch: Batch) -> None:
        started = time.monotonic()
        output = shard.fold(batch)
        self._observer.folded(batch, output, time.monotonic() - started)
        records = fold_records(batch.cut, output)
        save = not self._saved or shard.unsaved_ms >= STATE_EVERY_MS
        if save:
            records += state_records(shard.sections(windows_from=self._windows_from, changed_only=self._saved))
        started = time.monotonic()
        last = self._source.commit(records)
        self._observer.committed(self.number, time.monotonic() - started)
        self._observer.standing(self.number, shard.open_alerts)
        self._windows_from = last[WINDOWS] + 1
        self._saved = self._saved or save
