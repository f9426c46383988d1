"""One sub-command per process; the supervisor runs these, and so does production."""

import signal
import threading
from typing import Annotated

import typer

from adapters.process import die_with, name_process
from adapters.settings import Settings

Parent = Annotated[
    int | None, typer.Option("--parent", help="Die when this process, which must be the parent, dies.", hidden=True)
]


def broker(parent: Parent = None) -> None:
    """Run the embedded Apache Kafka in the foreground, until SIGTERM or Ctrl-C. Exits 1 when Kafka ends by itself."""
    from adapters.broker import Broker
    from adapters.kafka_admin import ensure_topics
    from adapters.telemetry import Telemetry, set_up_logging

    settings = _begin("broker", parent)
    set_up_logging("broker", settings)
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    with Telemetry("broker", settings) as telemetry:
        telemetry.set_ready("starting")
        kafka = Broker(settings, progress=telemetry.event)
        kafka.start()
        here = settings.model_copy(update={"kafka_bootstrap_servers": kafka.address})
        ensure_topics(here, embedded=True)
        telemetry.set_ready(None)
        telemetry.event("listening", address=kafka.address)
        while not stop.wait(0.5):
            assert kafka.process is not None
            if kafka.process.poll() is not None:
                raise typer.Exit(1)
        kafka.stop()


def store(parent: Parent = None) -> None:
    """Run the ClickHouse engine behind ClickHouse's HTTP interface, on this machine only (BELLBUOY_STORE_PORT, 8123)."""
    from services.store import main

    main(_begin("store", parent))


def processor(
    careful: Annotated[bool, typer.Option("--careful", help="One record per child process, to find the one that kills.")] = False,
    parent: Parent = None,
) -> None:
    """Score every record of llm.interactions and llm.feedback, a block (5 s of a partition) at a time."""
    from streams.faust_app import main

    main(_begin("processor", parent), careful=careful)


def sink(parent: Parent = None) -> None:
    """Write scored records, windows, alerts, actions and block headers to ClickHouse."""
    from services.sink import main

    main(_begin("sink", parent))


def controller(
    shards: Annotated[str | None, typer.Option(help="Shards of this controller, such as 0-1; default: all.")] = None,
    parent: Parent = None,
) -> None:
    """Decide: fold the counts of each window (5 s) into alerts and actions.

    Apps are spread over shards, and each shard has one controller. Exits with 75 when another controller took its shards.
    """
    from services.controller import main

    raise typer.Exit(main(_begin("controller", parent), shards))


def deploy_worker(parent: Parent = None) -> None:
    """Carry out rollbacks and canaries: write route tables, and verify them by the gateways' reports.

    Exits with 75 when another deploy worker took over.
    """
    from services.deploy_worker import main

    raise typer.Exit(main(_begin("deploy-worker", parent)))


def collector(parent: Parent = None) -> None:
    """Take interactions and feedback over HTTP (BELLBUOY_HOST, BELLBUOY_COLLECTOR_PORT); answers 2xx only when Kafka has them."""
    from services.collector import main

    main(_begin("collector", parent))


def gateway(parent: Parent = None) -> None:
    """Serve the OpenAI API to applications (BELLBUOY_HOST, BELLBUOY_GATEWAY_PORT, 8800), by the routes in force."""
    from services.gateway import main

    main(_begin("gateway", parent))


def page(parent: Parent = None) -> None:
    """Serve the status page (BELLBUOY_HOST, BELLBUOY_PAGE_PORT, 8090)."""
    from services.page import main

    main(_begin("page", parent))


def mlflow(parent: Parent = None) -> None:
    """Run MLflow (tracking server and model registry) on SQLite under the data folder (BELLBUOY_HOST, BELLBUOY_MLFLOW_PORT, 5000).

    It has no users: whoever reaches the port may write. Requests that name it otherwise than by an address of this machine or of a
    private network are refused unless MLFLOW_SERVER_ALLOWED_HOSTS names the host.
    """
    from adapters.mlflow_server import main

    main(_begin("mlflow", parent))


def sandbox(parent: Parent = None) -> None:
    """Serve the sandbox provider on this machine (BELLBUOY_SANDBOX_PORT, 8801): OpenAI's wire format, a small retrieval model, no cost."""
    from services.sandbox import main

    main(_begin("sandbox", parent))


def finetune_worker(parent: Parent = None) -> None:
    """Carry out `retrain` and `evaluate`: dataset, fine-tune, gate, candidate. Exits with 75 when another one took over."""
    from services.finetune_worker import main

    raise typer.Exit(main(_begin("finetune-worker", parent)))


def fitter(parent: Parent = None) -> None:
    """Give apps with enough scored prompts topic cells of their own, once each. Several may run."""
    from services.fitter import main

    raise typer.Exit(main(_begin("fitter", parent)))


def _begin(name: str, parent: int | None) -> Settings:
    if parent is not None:
        die_with(parent)
    name_process(f"bb-{name}")
    return Settings()
