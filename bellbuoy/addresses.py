"""Where the processes of an embedded stack listen, and the addresses that the rest of the world is told."""

from dataclasses import dataclass, fields
from typing import Final
from urllib.parse import urlsplit, urlunsplit

from adapters import process as os_process
from adapters.settings import Settings

LOOPBACK: Final = "127.0.0.1"
LOOPBACK_ONLY: Final = ("store", "sandbox", "mlflow")
"""They listen on this machine only, whatever BELLBUOY_HOST says: none of them is made to face strangers."""


@dataclass(frozen=True)
class Ports:
    """What a stack listens on; a restarted process gets the same again."""

    collector: int
    store: int
    page: int
    gateway: int
    sandbox: int
    mlflow: int


def pick_ports(settings: Settings) -> Ports:
    """Those of the stack that ran here before, else the preferred ones; free ones for what is taken."""
    before: dict[str, int] = (settings.stack() or {}).get("ports", {})
    taken: list[int] = []
    for name in (port.name for port in fields(Ports)):
        preferred = (before.get(name, 0), getattr(settings, f"{name}_port"))
        taken.append(os_process.pick_port(listens_on(settings, name), preferred, taken))
    return Ports(*taken)


def listens_on(settings: Settings, name: str) -> str:
    """The host of a process of an embedded stack."""
    return LOOPBACK if name in LOOPBACK_ONLY else settings.host


def urls(settings: Settings, ports: Ports, kafka: str) -> dict[str, str]:
    """`kafka` as bootstrap servers; `collector`, `gateway`, `page`, `mlflow` and what else runs here as HTTP addresses."""
    own = [name for name in vars(ports) if runs_here(settings, name)]
    found = {name: f"http://{listens_on(settings, name)}:{getattr(ports, name)}" for name in own}
    if settings.mlflow_tracking_uri is not None:
        found["mlflow"] = shown(settings.mlflow_tracking_uri)
    return found | {"kafka": kafka}


def runs_here(settings: Settings, name: str) -> bool:
    """Whether the stack runs a process itself, rather than using a server that the settings name."""
    elsewhere = {"store": settings.clickhouse_dsn, "sandbox": settings.upstream_url, "mlflow": settings.mlflow_tracking_uri}
    return elsewhere.get(name) is None


def shown(url: str) -> str:
    """An address without the user and password that may be in it.

    >>> shown("https://me:secret@mlflow.example:5000/x"), shown("http://[::1]:5000")
    ('https://mlflow.example:5000/x', 'http://[::1]:5000')
    """
    parts = urlsplit(url)
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))
