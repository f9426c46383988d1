"""The gateway: an OpenAI-compatible proxy that applies the route table and tells llm.interactions what it saw."""

import asyncio
import gc
import sys
import threading
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import quote

from adapters.asgi import listen, serve
from adapters.kafka import HotProducer, Producer
from adapters.keys import api_key, ensure_key_file, receipt_key
from adapters.process import FolderLock
from adapters.settings import Settings
from adapters.spool import Spool
from adapters.telemetry import Telemetry, set_up_logging
from adapters.upstream import Upstream, upstream_address
from core.receipts import sign
from schemas.topics import INTERACTIONS
from services.gateway_app import Gateway
from services.gateway_emission import BrokerKnown, Emission
from services.gateway_lease import DELIVERY_S, Lease
from services.gateway_routes import RouteFollower, Routes, read_now

_SHUTDOWN_S: Final = 20
_SWITCH_S: Final = 0.0005
_GC_THRESHOLDS: Final = (50_000, 20, 50)
_IDLE_S: Final = 75
"""Longer than clients keep an idle connection, so that they close it and not the gateway."""
_THREADS_END_S: Final = 5.0
_CATCH_UP_S: Final = 3.0
"""So long a start waits for the routes of the log: those on disk may name a version that has been rolled back since."""


@dataclass
class GatewayProcess:
    """A gateway with its threads. `folder` must be this process's alone."""

    app: Gateway
    routes: Routes
    lease: Lease
    emission: Emission
    upstream: Upstream
    follower: RouteFollower

    def __post_init__(self) -> None:
        self._threads = [
            threading.Thread(target=part.run, name=type(part).__name__, daemon=True)
            for part in (self.follower, self.lease, self.emission)
        ]

    async def start(self) -> None:
        """Start the threads, and wait a little for the present routes; without a broker those on disk have to do."""
        for thread in self._threads:
            thread.start()
        await asyncio.to_thread(self.follower.caught_up.wait, _CATCH_UP_S)

    async def run(self) -> None:
        """Watch the threads until cancelled. RuntimeError when one of them has ended: only a new start helps then."""
        while True:
            if not all(thread.is_alive() for thread in self._threads):
                raise RuntimeError("a thread of the gateway has ended")
            await asyncio.sleep(0.2)

    async def stop(self) -> None:
        """Emit what is left, or keep it on disk; then say that this gateway has stopped."""
        for part in (self.follower, self.emission, self.lease):
            part.stop()
        for thread in self._threads:
            await asyncio.to_thread(thread.join, _THREADS_END_S)
        await asyncio.to_thread(lambda: self.lease.report(stopped=True))
        await self.upstream.close()


def gateway_folder(settings: Settings) -> Path:
    """Where an instance keeps its routes and its spool."""
    name = quote(settings.instance, safe="")
    return settings.data_dir / "gateway" / (name if name.strip(".") else f"%2E{name[1:]}")


def build_gateway(
    settings: Settings,
    telemetry: Telemetry,
    *,
    make_producer: Callable[[], Producer],
    make_lease_producer: Callable[[], Producer],
    partitions: Callable[[], int | None],
    started_ms: int,
) -> GatewayProcess:
    """A gateway with this machine's keys, in the folder of its instance (which the caller has locked)."""
    folder = gateway_folder(settings)
    receipts = receipt_key(settings)
    incarnation = f"{started_ms:x}-{uuid.uuid4().hex[:8]}"
    shed = telemetry.counter("gateway_shed", "Texts and events that were dropped for want of room", ["what"])
    spool = Spool(folder / "spool", settings.gateway_spool_mb * 1024 * 1024)
    if spool.torn:
        telemetry.event("the end of the spool was torn and has been cut", bytes=spool.torn)
    emission = Emission(
        spool,
        make_producer,
        partitions,
        instance=f"gateway-{settings.instance}-{incarnation}",
        shed=lambda what: shed.labels(what).inc(),
    )
    lease = Lease(
        settings.instance,
        incarnation,
        make_lease_producer,
        routes=lambda: routes.reports(),
        spooled=lambda: emission.spooled,
        shed=lambda: emission.shed,
        refresh=lambda: read_now(settings, routes),
    )
    routes = Routes(folder / "routes.json", lease.holds)
    routes.load()
    upstream = Upstream(lambda: upstream_address(settings), silence_s=settings.gateway_timeout_s)
    telemetry.gauge("gateway_spooled", "Events that wait on disk").set_function(lambda: emission.spooled)
    telemetry.gauge("gateway_lease_holds", "1 while candidates may be routed to").set_function(lambda: float(lease.holds()))
    app = Gateway(
        routes,
        upstream,
        emission.offer,
        key=api_key(settings),
        subject_key=ensure_key_file(settings.key_dir / "subjects").encode(),
        sign_receipt=lambda receipt: sign(receipt, receipts.private, receipts.id),
        telemetry=telemetry,
    )
    return GatewayProcess(app, routes, lease, emission, upstream, RouteFollower(settings, routes, lease.wake))


def main(settings: Settings) -> None:
    """Run until SIGTERM or SIGINT: then stop accepting, finish what is under way, emit or spool the rest, say `stopped`.

    Raises FolderInUse when another gateway runs under this instance's name.
    """
    set_up_logging("gateway", settings)
    lock = FolderLock(gateway_folder(settings) / "lock")
    lock.acquire(f"the gateway instance {settings.instance!r}")
    listener = listen(settings.host, settings.gateway_port)
    dead_letters = settings.run_dir / "gateway.deadletter.jsonl"
    with Telemetry("gateway", settings) as telemetry:
        process = build_gateway(
            settings,
            telemetry,
            make_producer=lambda: HotProducer(settings, dead_letter_file=dead_letters),
            make_lease_producer=lambda: HotProducer(settings, linger_ms=0, extra={"message.timeout.ms": int(DELIVERY_S * 1000)}),
            partitions=BrokerKnown(lambda: HotProducer(settings).partitions(INTERACTIONS)),
            started_ms=time.time_ns() // 1_000_000,
        )

        async def serve_until_stopped() -> None:
            await process.upstream.open()
            await process.start()
            telemetry.ready("gateway", True)
            await serve(process.app, listener, graceful_s=_SHUTDOWN_S, idle_s=_IDLE_S, beside=process.run())
            await process.stop()

        # The threads beside the event loop must not keep it waiting, and what is loaded now stays.
        sys.setswitchinterval(_SWITCH_S)
        gc.collect()
        gc.freeze()
        gc.set_threshold(*_GC_THRESHOLDS)
        # Not uvloop: it writes at the end of a turn, asyncio at once, so that nothing comes between the last look at the
        # lease and the request.
        asyncio.run(serve_until_stopped())
    lock.release()


if __name__ == "__main__":
    main(Settings())
