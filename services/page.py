"""The status page: alerts, actions, traffic, ledger and health on one screen, for whoever is called at night."""

import hmac
import ipaddress
import socket
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from adapters.asgi import App, Receive, Scope, Send, listen, reply, run, serve
from adapters.keys import api_key
from adapters.settings import Settings
from adapters.telemetry import Telemetry, set_up_logging
from services.page_data import BUCKET_MS, Status, StatusReader, Store, Unavailable, explainer, now_ms, process_states
from services.page_history import RANGES, Query, app_history, overview

_SHORT: Final = 36
"""Bars of the short chart: 3 minutes."""
PAGES: Final = Path(__file__).parent / "pages"
_CSP: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_SECURITY_HEADERS: Final = tuple(
    (name.encode(), value.encode())
    for name, value in {
        "content-security-policy": _CSP,
        "x-content-type-options": "nosniff",
        "x-frame-options": "DENY",
        "referrer-policy": "no-referrer",
        "cross-origin-opener-policy": "same-origin",
        "cross-origin-resource-policy": "same-origin",
        "permissions-policy": "camera=(), microphone=(), geolocation=()",
        "cache-control": "no-store",
    }.items()
)


Explain = Callable[[str, str], list[dict[str, Any]]]
"""(id, app or empty) → the stored interactions of that id, explained. Raises Unavailable."""


def build_page(reader: StatusReader, *, host_names: frozenset[str], key: str, explain: Explain, query: Query) -> App:
    """The ASGI application. Requests for a host that is neither in `host_names` nor an IP address are refused.

    What people wrote is given to nobody without the `key`.
    """
    templates = Environment(loader=FileSystemLoader(PAGES), autoescape=True, undefined=StrictUndefined, trim_blocks=True)
    templates.filters.update(clock=_clock, percent=_percent, number=_number, per_second=_per_second, chart=_chart, place=_place)

    def render(name: str, status: Status) -> HTMLResponse:
        return HTMLResponse(templates.get_template(name).render(status=status, problems=status.problems()))

    async def page(_: Request) -> Response:
        return render("page.html", await run_in_threadpool(reader.status))

    async def fragment(_: Request) -> Response:
        return render("content.html", await run_in_threadpool(reader.status))

    async def api(_: Request) -> Response:
        return JSONResponse(as_json(await run_in_threadpool(reader.status)))

    async def history(request: Request) -> Response:
        range_ = request.query_params.get("range", "day")
        if range_ not in RANGES:
            return JSONResponse({"error": f"range must be one of {', '.join(RANGES)}"}, 400)
        app = request.path_params.get("app")
        try:
            if app is None:
                return JSONResponse(await run_in_threadpool(overview, query, range_, now_ms()))
            environment = request.query_params.get("environment", "production")
            return JSONResponse(await run_in_threadpool(app_history, query, app, environment, range_, now_ms()))
        except Unavailable as error:
            return JSONResponse({"error": str(error)}, 503)

    async def interaction(request: Request) -> Response:
        if not hmac.compare_digest(_key(request).encode("utf-8", "replace"), key.encode()):
            return JSONResponse({"error": "send the collector's key as `Authorization: Bearer …` or `x-api-key`"}, 401)
        try:
            found = await run_in_threadpool(explain, request.path_params["id"], request.query_params.get("app", ""))
        except Unavailable as error:
            return JSONResponse({"error": str(error)}, 503)
        return JSONResponse({"interactions": found}) if found else JSONResponse({"error": "no such interaction"}, 404)

    routes = [
        Route("/", page),
        Route("/fragment", fragment),
        Route("/api/status", api),
        Route("/api/overview", history),
        Route("/api/apps/{app:path}", history),
        Route("/api/interactions/{id:path}", interaction),
        Mount("/static", StaticFiles(directory=PAGES / "static")),
    ]
    return _Guard(Starlette(routes=routes), host_names)


def as_json(status: Status) -> dict[str, Any]:
    """The page's content for a program to read; a part that could not be read is null, with the reason in `errors`."""
    parts = {
        "processes": status.processes,
        "ledger": status.ledger,
        "traffic": status.traffic,
        "alerts": status.alerts,
        "actions": status.actions,
    }
    return {
        "time": status.time,
        "problems": status.problems(),
        **{name: part.value for name, part in parts.items()},
        "as_of": {name: part.as_of for name, part in parts.items()},
        "errors": {name: part.error for name, part in parts.items() if part.error},
        "bucket_ms": BUCKET_MS,
    }


def _key(request: Request) -> str:
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    return token.strip() if scheme.lower() == "bearer" else request.headers.get("x-api-key", "")


class _Guard:
    """Refuses foreign hosts (a page of somebody else's that had its name point here) and adds the security headers."""

    def __init__(self, app: App, host_names: frozenset[str]) -> None:
        self._app, self._host_names = app, host_names

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            raise RuntimeError(f"no {scope['type']} here")

        async def send_with_headers(message: Any) -> None:
            if message["type"] == "http.response.start":
                message = {**message, "headers": [*message["headers"], *_SECURITY_HEADERS]}
            await send(message)

        host = dict(scope["headers"]).get(b"host", b"").decode("latin-1")
        if _allowed(host, self._host_names):
            await self._app(scope, receive, send_with_headers)
        else:
            await reply(send_with_headers, 421, b"this host name is not served here\n", content_type=b"text/plain")


def _allowed(host: str, names: frozenset[str]) -> bool:
    """An address cannot be rebound, a name can.

    >>> [_allowed(h, frozenset({"localhost"})) for h in ("127.0.0.1:8090", "[::1]:8090", "LOCALHOST", "evil.example:8090", "")]
    [True, True, True, False, False]
    """
    name = host[1:].partition("]")[0] if host.startswith("[") else host.partition(":")[0]
    if name.lower() in names:
        return True
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def _clock(ms: int) -> str:
    """UTC, to the second.

    >>> _clock(1_700_000_000_123)
    '2023-11-14 22:13:20'
    """
    return datetime.fromtimestamp(ms / 1000, UTC).strftime("%Y-%m-%d %H:%M:%S")


def _percent(value: float) -> str:
    """
    >>> _percent(0.0213), _percent(0.31)
    ('2.1 %', '31.0 %')
    """
    return f"{100 * value:.1f} %"


def _number(value: int) -> str:
    """
    >>> _number(1234567)
    '1,234,567'
    """
    return f"{value:,}"


def _place(app: str, environment: str) -> str:
    """An app, and its environment where that is not production.

    >>> _place("desk", "production"), _place("desk", "staging")
    ('desk', 'desk (staging)')
    """
    return app if environment == "production" else f"{app} ({environment})"


def _per_second(counts: list[int]) -> str:
    """Events a second over 15 s; the newest two buckets are still filling or on their way.

    >>> _per_second([0, 100, 100, 100, 100, 7])
    '20.0'
    """
    whole = counts[-5:-2]
    return f"{sum(whole) * 1000 / (len(whole) * BUCKET_MS):.1f}"


@dataclass(frozen=True)
class Chart:
    """The bars of one app: (x, y, height) in a field `width` wide and `height` high, the newest at the right."""

    minutes: int
    width: int
    height: int
    bars: list[tuple[int, int, int]]


def _chart(counts: list[int], others: list[list[int]], height: int = 40) -> Chart:
    """The last 3 minutes in bars of 5 s while no app (`others`) has older traffic, else 15 minutes in bars of 15 s.

    >>> chart = _chart([0] * 178 + [5, 10], [])
    >>> chart.minutes, chart.width, chart.bars
    (3, 36, [(34, 20, 20), (35, 0, 40)])
    """
    short = not any(any(other[:-_SHORT]) for other in (counts, *others))
    bars = counts[-_SHORT:] if short else [sum(counts[at : at + 3]) for at in range(0, len(counts), 3)]
    top = max([*bars, 1])
    drawn = [(x, height - round(height * count / top), round(height * count / top)) for x, count in enumerate(bars) if count]
    return Chart(3 if short else 15, len(bars), height, drawn)


def main(settings: Settings) -> None:
    """Serve the page until SIGTERM or SIGINT."""
    set_up_logging("page", settings)
    listener = listen(settings.host, settings.page_port)
    store = Store(settings)
    reader = StatusReader(query=store.query, ledger=store.ledger, processes=process_states(settings), now=now_ms)
    app = build_page(
        reader,
        host_names=frozenset({"localhost", settings.host.lower(), socket.gethostname().lower()}),
        key=api_key(settings),
        explain=explainer(store),
        query=store.query,
    )
    with Telemetry("page", settings) as telemetry:
        telemetry.set_ready(None)
        run(lambda: serve(app, listener, graceful_s=3))


if __name__ == "__main__":
    main(Settings())
