"""The sandbox's faults on demand: which requests they hit, in the order in which they were asked for."""

from random import Random
from typing import Final, Literal

import msgspec

Path = Literal["chat", "files", "jobs", "models"]
Kind = Literal["429", "500", "slow", "slow_stream", "half_stream", "failed_job", "lost_answer", "disconnect"]
POST_ONLY: Final = ("failed_job", "lost_answer")
DELAYS: Final = ("slow", "slow_stream")


class Fault(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """What happens to the next `count` requests (null: to all) of a path, and of a model or prompt, each with probability `share`.

    `429` (to come again after `seconds`) and `500` refuse it; `slow` answers `seconds` later, `slow_stream` spreads them over
    a stream's pieces; `half_stream` and `disconnect` cut the connection, `lost_answer` does so after the request took effect;
    `failed_job` lets the job that it creates fail.
    """

    path: Path
    kind: Kind
    model: str | None = None
    system: str | None = None
    """Digest of the system prompt, as in the log."""
    count: int | None = 1
    share: float = 1.0
    seconds: float = 1.0

    def __post_init__(self) -> None:
        if not (self.count is None or self.count >= 1) or not 0 < self.share <= 1 or not 0 <= self.seconds <= 3_600:
            raise ValueError("count is at least 1 or null, share in (0, 1], seconds in [0, 3600]")


class Hit(msgspec.Struct):
    """What happens to one request: delays in seconds, and at most one other fault."""

    delay: float = 0.0
    stream_delay: float = 0.0
    fault: Fault | None = None


class Faults:
    """The faults that stand, in memory: a restart ends them."""

    def __init__(self, draw: Random) -> None:
        self.standing: list[Fault] = []
        self._draw = draw

    def hit(self, path: Path, method: str, model: str | None, system: str | None) -> Hit:
        """What happens to a request; takes one from the count of each fault that hits it."""
        hit = Hit()
        for fault in list(self.standing):
            if not _concerns(fault, path, method, model, system) or (fault.kind not in DELAYS and hit.fault is not None):
                continue
            if self._draw.random() >= fault.share:
                continue
            if fault.count is not None:
                fault.count -= 1
                if fault.count == 0:
                    self.standing.remove(fault)
            if fault.kind == "slow":
                hit.delay += fault.seconds
            elif fault.kind == "slow_stream":
                hit.stream_delay += fault.seconds
            else:
                hit.fault = fault
        return hit


def _concerns(fault: Fault, path: Path, method: str, model: str | None, system: str | None) -> bool:
    return (
        fault.path == path
        and (fault.kind not in POST_ONLY or method == "POST")
        and fault.model in (None, model)
        and fault.system in (None, system)
    )
