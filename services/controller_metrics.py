"""What the controller counts about itself."""

import logging
import time
from collections.abc import Callable

from adapters.telemetry import Telemetry
from core.fold import FoldOutput
from core.shard import Batch
from schemas.messages import WINDOW_MS, AlertTransition

log = logging.getLogger(__name__)


class ControllerMetrics:
    """`Observer` on Prometheus metrics and the log."""

    def __init__(self, telemetry: Telemetry, *, clock_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000) -> None:
        self._clock_ms = clock_ms
        shard = ("shard",)
        self._windows = telemetry.counter("controller_windows_folded", "windows folded", shard)
        self._rows = telemetry.counter("controller_window_rows", "window rows written", shard)
        self._waiting = telemetry.gauge("controller_lag_windows", "closed windows that are not folded yet", shard)
        self._held = telemetry.gauge("controller_held_windows", "windows that cannot close for want of headers", shard)
        self._age = telemetry.gauge(
            "controller_folded_age_seconds", "from the end of the last folded window to its commit", shard
        )
        self._transactions = telemetry.counter("controller_transactions", "transactions committed", shard)
        self._commit_seconds = telemetry.histogram("controller_commit_seconds", "duration of a transaction", shard)
        self._fold_seconds = telemetry.histogram("controller_fold_seconds", "duration of a fold", shard)
        self._transitions = telemetry.counter("controller_alert_transitions", "alert transitions", ("state",))
        self._open_alerts = telemetry.gauge("controller_alerts_open", "alerts not resolved", shard)
        self._steps = telemetry.counter("controller_action_steps", "action steps written", ("kind", "state"))
        self._problems = telemetry.counter(
            "controller_chain_problems", "what is wrong with the chain of block headers", ("kind",)
        )
        self._unreadable = telemetry.counter("controller_unreadable", "records passed over", ("topic", "code"))
        self._last_window: dict[int, int] = {}

    def folded(self, batch: Batch, output: FoldOutput, seconds: float) -> None:
        shard = str(batch.cut.shard)
        self._windows.labels(shard).inc(len(batch.windows))
        self._rows.labels(shard).inc(len(output.rows))
        self._fold_seconds.labels(shard).observe(seconds)
        self._last_window[batch.cut.shard] = batch.cut.last_window
        for window in batch.windows:
            for problem in window.problems:
                self._problems.labels(problem.kind).inc()
                log.error("%s/%d, window %d: %s", problem.topic, problem.partition, problem.window, problem.detail)
        for alert in output.alerts:
            self._alert(alert)
        for step in output.actions:
            self._steps.labels(step.kind, step.state).inc()
            log.warning("action %s %s (%s) for %s: %s", step.kind, step.state, step.mode, step.target.app, step.reason)

    def committed(self, shard: int, seconds: float) -> None:
        self._transactions.labels(str(shard)).inc()
        self._commit_seconds.labels(str(shard)).observe(seconds)
        if shard in self._last_window:
            self._age.labels(str(shard)).set((self._clock_ms() - self._last_window[shard] - WINDOW_MS) / 1000)

    def waiting(self, shard: int, windows: int, held: int) -> None:
        self._waiting.labels(str(shard)).set(windows)
        self._held.labels(str(shard)).set(held)

    def standing(self, shard: int, open_alerts: int) -> None:
        self._open_alerts.labels(str(shard)).set(open_alerts)

    def unreadable(self, topic: str, code: str) -> None:
        self._unreadable.labels(topic, code).inc()

    def _alert(self, alert: AlertTransition) -> None:
        self._transitions.labels(alert.state).inc()
        log.warning("alert %s on %s of %s: %s: %s", alert.metric, alert.slice, alert.app, alert.state, alert.reason)
