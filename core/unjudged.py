"""What no detector of an app judges, and why: silence about these says nothing."""

from collections.abc import Mapping
from dataclasses import dataclass

from core.detection.application import AppMonitor
from core.detection.budget import STREAMS
from core.metrics import split_metric_key


@dataclass(frozen=True)
class Unjudged:
    """A stream of an app that was not judged; `seen` events of the app, `counted` of them in the stream's reference."""

    app: str
    environment: str
    metric: str
    reason: str
    seen: int = 0
    counted: int = 0


def unjudged(monitors: Mapping[tuple[str, str], AppMonitor]) -> list[Unjudged]:
    """By app and stream, sorted."""
    return [one for key in sorted(monitors) for name in sorted(STREAMS) if (one := _why_not(monitors[key], name)) is not None]


def _why_not(monitor: AppMonitor, name: str) -> Unjudged | None:
    references = [r for key, r in monitor.references.items() if split_metric_key(key)[0] == name]
    if not references:
        return Unjudged(monitor.app, monitor.environment, name, "no data")
    newest = max(references, key=lambda reference: split_metric_key(reference.key)[1])
    if not newest.complete:
        reason = "its reference is not complete"
    elif any(reference.key in layout.keys for layout in monitor.layouts.values() for reference in references):
        return None
    else:
        reason = "its reference is too small for any test"
    return Unjudged(monitor.app, monitor.environment, name, reason, newest.seen, newest.own())
