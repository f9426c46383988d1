"""An app's monitor as JSON and back, exactly: a restored one goes on as if it had never stopped."""

import msgspec
import numpy as np

from core.detection.application import AppMonitor
from core.detection.growth import Growth
from core.detection.history import History
from core.detection.reference import Reference
from core.detection.slices import Bank, Slice
from core.detection.sr import Hold, SrState
from core.packing import pack_bytes, unpack_bytes


class _Slice(msgspec.Struct):
    name: str
    bank: Bank
    weight: float
    start: int
    events: int
    pending: list[tuple[int, int]]
    arrays: list[str]
    holds: list[tuple[str, int, int, float]]
    absent: int = 0


class _App(msgspec.Struct):
    app: str
    environment: str
    references: list[Reference]
    versions: list[tuple[str, int]]
    next_k: int
    seen: list[tuple[str, int]]
    last_seen: int
    history: list[tuple[int, list[tuple[str, int]]]]
    slices: list[_Slice]
    begun: list[str] = []
    growth: list[tuple[Bank, int, int, int, str, str]] = []
    """Bank, events, clock, since, and the older and the younger bucket."""


def dump(monitor: AppMonitor) -> msgspec.Raw:
    """The state of an app; arrays as base64 of their deflated bytes, order of all mappings kept."""
    state = _App(
        app=monitor.app,
        environment=monitor.environment,
        references=list(monitor.references.values()),
        versions=list(monitor.versions.items()),
        next_k=monitor.next_k,
        seen=list(monitor.seen.items()),
        last_seen=monitor.last_seen,
        begun=sorted(monitor.begun),
        growth=[
            (bank, one.events, one.clock, one.since, pack_bytes(one.older.tobytes()), pack_bytes(one.younger.tobytes()))
            for bank, one in monitor.growth.items()
        ],
        history=[(window, list(records.items())) for window, records in monitor.history.windows],
        slices=[
            _Slice(
                name=name,
                bank=bank,
                weight=part.weight,
                start=part.start,
                events=part.events,
                pending=list(part.pending.items()),
                arrays=[pack_bytes(array.tobytes()) for array in part.state.arrays()],
                holds=[(key, hold.tilt, hold.arm, hold.s) for key, hold in part.state.holds.items()],
                absent=part.absent,
            )
            for (name, bank), part in monitor.slices.items()
        ],
    )
    return msgspec.Raw(msgspec.json.encode(state))


def load(data: msgspec.Raw) -> AppMonitor:
    """The inverse of `dump`; bands and layouts are computed again from the references."""
    state = msgspec.json.decode(data, type=_App)
    monitor = AppMonitor(state.app, state.environment)
    monitor.references = {reference.key: reference for reference in state.references}
    monitor.versions = dict(state.versions)
    monitor.next_k = state.next_k
    monitor.seen = dict(state.seen)
    monitor.last_seen = state.last_seen
    monitor.begun = set(state.begun)
    monitor.history = History((window, dict(records)) for window, records in state.history)
    monitor.lay_out(0)
    for bank, events, clock, since, older, younger in state.growth:
        growth = monitor.growth[bank] = Growth(monitor.layouts[bank].width, clock, since)
        growth.events = events
        growth.older[:] = np.frombuffer(unpack_bytes(older), dtype=np.int64)
        growth.younger[:] = np.frombuffer(unpack_bytes(younger), dtype=np.int64)
    for part in state.slices:
        restored = SrState.new(monitor.layouts[part.bank], 0)
        for array, text in zip(restored.arrays(), part.arrays, strict=True):
            array[:] = np.frombuffer(unpack_bytes(text), dtype=array.dtype).reshape(array.shape)
        restored.holds = {key: Hold(tilt, arm, s) for key, tilt, arm, s in part.holds}
        monitor.slices[part.name, part.bank] = Slice(
            restored, part.weight, part.start, part.events, dict(part.pending), part.absent
        )
    return monitor
