"""The status page: what it says, what it says when parts are away, and that text in it can do nothing to who reads it."""

import json
import re
from collections.abc import Mapping, Sequence
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from adapters.settings import Settings
from core.ledger import Gap, Ledger
from services.page import PAGES, build_page
from services.page_data import BUCKETS, StatusReader, Unavailable, process_states

NOW = 1_767_322_440_000
HOSTILE = "<script>alert(1)</script><img src=x onerror=alert(2)>\"'&lt;{{ 7*7 }}\u202e</style>"
EFFECT = {"before": 0.02, "after": 0.31, "low": 0.24, "high": 0.39, "events": 1801}
ALERT = {
    "id": "incident-1",
    "app": "help-desk",
    "environment": "production",
    "rule": "refusal-on-version",
    "metric": "refusal",
    "slice": "version=v8",
    "state": "firing",
    "changed_ms": NOW - 60_000,
    "opened_ms": NOW - 65_000,
    "onset_ms": NOW - 120_000,
    "reason": "the detection held",
    "effect": json.dumps(EFFECT),
    "contributions": json.dumps([{"bin": "1", "name": "refuses", "share": 1.0, "before": 0.02, "after": 0.31}]),
    "paged": True,
    "actor": "controller",
}
ACTION = {
    "id": "action-1",
    "app": "help-desk",
    "environment": "production",
    "incident": "incident-1",
    "kind": "rollback",
    "version": "v8",
    "to_version": "v7",
    "mode": "suggest",
    "state": "suggested",
    "changed_ms": NOW - 50_000,
    "reason": "refusal rose",
    "actor": "controller",
    "evidence": ["1,801 answers since the onset"],
}
TRAFFIC = {
    "app": "help-desk",
    "environment": "production",
    "total": 4500,
    "buckets": [(BUCKETS - 5, 50), (BUCKETS - 4, 50), (BUCKETS - 3, 50), (BUCKETS - 2, 7), (999, 1)],
}

KEY = "the-collectors-key"


class World:
    """What the page reads: rows by query, a ledger, processes; any of them may be away."""

    def __init__(self) -> None:
        self.rows: dict[str, list[dict[str, Any]]] = {"page_alerts": [ALERT], "page_actions": [ACTION], "page_traffic": [TRAFFIC]}
        self.store_away = False
        self.account = Ledger([])
        self.processes: list[dict[str, Any]] = [{"name": "sink", "ready": True, "reason": "", "pid": 7}]
        self.asked: list[str] = []
        self.parameters: dict[str, Mapping[str, Any]] = {}
        self.now = NOW

    def query(self, name: str, parameters: Mapping[str, Any]) -> Sequence[Mapping[str, Any]]:
        self.asked.append(name)
        self.parameters[name] = parameters
        if self.store_away:
            raise Unavailable("the store does not answer")
        return self.rows[name]

    def explain(self, id_: str, app: str) -> list[dict[str, Any]]:
        return [{"id": id_, "app": app}] if self.query("explain", {}) else []

    def ledger(self) -> Ledger:
        if self.store_away:
            raise Unavailable("the store does not answer")
        return self.account

    def client(self) -> TestClient:
        reader = StatusReader(query=self.query, ledger=self.ledger, processes=lambda: self.processes, now=lambda: self.now)
        return TestClient(
            build_page(reader, host_names=frozenset({"localhost"}), key=KEY, explain=self.explain, query=self.query),
            base_url="http://localhost:8090",
        )

    def html(self, path: str = "/") -> str:
        answer = self.client().get(path)
        assert answer.status_code == 200
        return answer.text


class Elements(HTMLParser):
    """Tags with their attributes, and the text, as a browser's parser sees them."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())


def test_a_firing_alert_says_what_moved_since_when_by_how_much_and_what_carries_it() -> None:
    text = Elements(World().html()).text
    assert "refusal on help-desk" in text
    assert "2.0 % → 31.0 %, 95 % interval 24.0 % to 39.0 %, 1,801 events" in text
    assert "2026-01-02 02:52:00 UTC (estimated)" in text
    assert "refuses 2.0 % 31.0 % 100.0 %" in text


def test_a_firing_alert_is_open_and_a_resolved_one_is_not() -> None:
    world = World()
    world.rows["page_alerts"] = [ALERT, ALERT | {"id": "incident-2", "state": "resolved"}]
    cards = {a["id"]: a for tag, a in Elements(world.html()).tags if tag == "details"}
    assert "open" in cards["alert-incident-1"]
    assert "open" not in cards["alert-incident-2"]


def test_an_action_says_what_it_would_do_and_why() -> None:
    text = Elements(World().html()).text
    assert "rollback help-desk , v8 → v7" in text
    assert "1,801 answers since the onset" in text


def test_traffic_is_a_rate_a_total_and_a_chart() -> None:
    elements = Elements(World().html())
    assert "help-desk 10.0 4,500" in elements.text
    assert sum(tag == "rect" for tag, _ in elements.tags) == 4


def test_the_chart_of_a_minute_of_traffic_spans_three_minutes_and_older_traffic_fifteen() -> None:
    world = World()
    assert "3 minutes ago" in Elements(world.html()).text
    world.rows["page_traffic"] = [TRAFFIC, TRAFFIC | {"app": "older", "buckets": [(0, 1)]}]
    assert "15 minutes ago" in Elements(world.html()).text


@pytest.mark.parametrize(
    ("environment", "slice_", "summary"),
    [
        ("production", "version=v8", "firing refusal on help-desk , version=v8 2.0 % → 31.0 % 2026-01-02 02:53:00"),
        ("staging", "all", "firing refusal on help-desk (staging) 2.0 % → 31.0 % 2026-01-02 02:53:00"),
    ],
)
def test_the_summary_of_an_alert_keeps_its_parts_apart(environment: str, slice_: str, summary: str) -> None:
    world = World()
    world.rows["page_alerts"] = [ALERT | {"environment": environment, "slice": slice_}]
    assert summary in Elements(world.html()).text


def test_the_parts_of_a_summary_are_apart_for_a_reader_of_plain_text_too() -> None:
    summary = re.sub(r"<[^>]+>", "", World().html().partition("<summary>")[2].partition("</summary>")[0])
    assert " ".join(summary.split()) == "firing refusal on help-desk, version=v8 2.0 % → 31.0 % 2026-01-02 02:53:00"


def test_a_bin_with_next_to_no_evidence_is_not_said_to_have_none() -> None:
    world = World()
    parts = [{"bin": "1", "name": "sql", "share": 1e-9, "before": 0.014, "after": 0.053}]
    world.rows["page_alerts"] = [ALERT | {"contributions": json.dumps(parts)}]
    assert "sql 1.4 % 5.3 % < 1 %" in Elements(world.html()).text


def test_the_verdict_names_what_needs_a_person() -> None:
    world = World()
    world.processes = [{"name": "sink", "ready": False, "reason": "does not answer", "pid": 7}]
    assert "sink does not answer · 1 alert firing" in Elements(world.html()).text


def test_the_verdict_is_calm_when_all_is_well() -> None:
    world = World()
    world.rows["page_alerts"] = []
    assert "All is well" in Elements(world.html()).text


def test_what_is_missing_is_named() -> None:
    world = World()
    world.account = Ledger([], [Gap("llm.interactions", "t", 2, 10, 14, 4, "rows")], ["headers contradict each other"])
    text = Elements(world.html()).text
    assert "llm.interactions/2 [10, 14): 4 rows" in text
    assert "headers contradict each other" in text


def test_while_the_store_is_down_the_page_says_so_and_shows_the_rest() -> None:
    world = World()
    world.store_away = True
    text = Elements(world.html()).text
    assert "the store does not answer" in text
    assert "sink ready" in text


def test_the_page_recovers_when_the_store_does() -> None:
    world = World()
    world.store_away = True
    client = world.client()
    client.get("/")
    world.store_away, world.now = False, NOW + 60_000
    assert "refusal" in client.get("/fragment").text


def test_many_readers_cost_the_store_one_query() -> None:
    world = World()
    client = world.client()
    for _ in range(5):
        client.get("/fragment")
    assert world.asked.count("page_alerts") == 1


def hostile() -> World:
    world = World()
    text = dict.fromkeys(("id", "app", "environment", "rule", "metric", "slice", "state", "reason", "actor"), HOSTILE)
    parts = json.dumps([{"bin": HOSTILE, "name": HOSTILE, "share": 1.0, "before": 0.0, "after": 1.0}])
    world.rows = {
        "page_alerts": [ALERT | text | {"contributions": parts}],
        "page_actions": [
            ACTION | {name: HOSTILE for name in ACTION if name not in ("changed_ms", "evidence")} | {"evidence": [HOSTILE]}
        ],
        "page_traffic": [TRAFFIC | {"app": HOSTILE, "environment": HOSTILE}],
    }
    world.processes = [{"name": HOSTILE, "ready": False, "reason": HOSTILE, "pid": None}]
    world.account = Ledger([], [], [HOSTILE])
    return world


@pytest.mark.parametrize("path", ["/", "/fragment"])
def test_hostile_text_adds_no_element_and_no_attribute(path: str) -> None:
    def shape(world: World) -> set[tuple[str, frozenset[str]]]:
        return {(tag, frozenset(a)) for tag, a in Elements(world.html(path)).tags}

    calm = World()
    calm.processes = [{"name": "sink", "ready": False, "reason": "is starting", "pid": None}]
    calm.account = Ledger([], [], ["a problem"])
    for rows in (calm.rows["page_alerts"], calm.rows["page_traffic"], calm.rows["page_actions"]):
        rows[0] = rows[0] | {"environment": "staging"}
    allowed = shape(calm) | {("details", frozenset({"class", "id"}))}
    assert shape(hostile()) <= allowed


def test_hostile_text_is_shown_as_it_is() -> None:
    assert HOSTILE in "".join(Elements(hostile().html()).words)


def test_a_template_in_a_name_is_not_rendered() -> None:
    assert "49" not in Elements(hostile().html()).text


def test_no_markup_carries_script_or_style_of_its_own() -> None:
    for tag, attributes in Elements(World().html()).tags:
        assert "style" not in attributes
        assert not any(name.startswith("on") for name in attributes)
        assert tag != "style"
        assert tag != "script" or attributes["src"] == "/static/page.js"


@pytest.mark.parametrize("path", ["/", "/fragment", "/api/status", "/static/page.js", "/nothing"])
def test_every_answer_has_the_security_headers(path: str) -> None:
    headers = World().client().get(path).headers
    policy = dict(part.strip().split(" ", 1) for part in headers["content-security-policy"].split(";"))
    assert policy["default-src"] == "'none'"
    assert policy["script-src"] == policy["style-src"] == "'self'"
    assert policy["frame-ancestors"] == "'none'"
    assert headers["x-content-type-options"] == "nosniff"


@pytest.mark.parametrize("host", ["evil.example", "evil.example:8090", "localhost.evil.example", "", "127.0.0.1.evil.example"])
def test_a_foreign_host_name_is_refused(host: str) -> None:
    answer = World().client().get("/api/status", headers={"host": host})
    assert answer.status_code == 421
    assert "content-security-policy" in answer.headers


@pytest.mark.parametrize("host", ["localhost", "localhost:8090", "127.0.0.1:8090", "[::1]:8090"])
def test_an_own_name_or_an_address_is_served(host: str) -> None:
    assert World().client().get("/", headers={"host": host}).status_code == 200


def test_the_page_works_without_script() -> None:
    assert re.search(r'<noscript><meta http-equiv="refresh" content="\d+"></noscript>', World().html())


def test_the_json_holds_what_the_page_shows() -> None:
    value = World().client().get("/api/status").json()
    assert value["alerts"][0]["effect"] == EFFECT
    assert value["traffic"][0]["counts"][-2] == 7
    assert value["ledger"]["missing"] == 0
    assert value["errors"] == {}


def test_the_json_says_which_parts_are_away() -> None:
    world = World()
    world.store_away = True
    value = world.client().get("/api/status").json()
    assert value["alerts"] is None
    assert value["errors"]["alerts"] == "the store does not answer"
    assert value["processes"]


@pytest.mark.parametrize("name", ["page.css", "page.js", "icon.svg"])
def test_static_files_are_served(name: str) -> None:
    assert World().client().get(f"/static/{name}").text == (PAGES / "static" / name).read_text()


@pytest.mark.parametrize("path", ["/static/../page.html", "/static/..%2f..%2fpage.py", "/static/%2e%2e/content.html"])
def test_nothing_outside_of_the_static_folder_is_served(path: str) -> None:
    assert World().client().get(path).status_code == 404


def test_a_process_without_or_with_a_broken_health_file_is_starting(tmp_path: Path) -> None:
    run = tmp_path / "run"
    run.mkdir()
    processes = [{"name": "sink", "pid": 1}, {"name": "store", "pid": 2}]
    (run / "stack.json").write_text(json.dumps({"urls": {}, "processes": processes}))
    (run / "store.health").write_text("{")
    states = process_states(Settings(data_dir=tmp_path))()
    assert [(s["name"], s["reason"]) for s in states] == [("sink", "is starting"), ("store", "is starting")]


def test_a_process_that_the_supervisor_has_down_is_not_running(tmp_path: Path) -> None:
    run = tmp_path / "run"
    run.mkdir()
    (run / "stack.json").write_text(json.dumps({"urls": {}, "processes": [{"name": "sink", "pid": None}]}))
    assert [s["reason"] for s in process_states(Settings(data_dir=tmp_path))()] == ["is not running"]


@pytest.mark.parametrize(("answers", "reason"), [(True, ""), (False, "does not answer at 127.0.0.1:9")])
def test_the_broker_which_has_no_health_file_is_asked_itself(tmp_path: Path, answers: bool, reason: str) -> None:
    run = tmp_path / "run"
    run.mkdir()
    stack = {"urls": {"kafka": "127.0.0.1:9"}, "processes": [{"name": "broker", "pid": 7}]}
    (run / "stack.json").write_text(json.dumps(stack))
    states = process_states(Settings(data_dir=tmp_path), broker_answers=lambda *_: answers)()
    assert states == [{"name": "broker", "ready": answers, "reason": reason, "pid": 7}]


@pytest.mark.parametrize(
    "headers", [{}, {"x-api-key": "wrong"}, {"authorization": "Bearer wrong"}, {"authorization": f"Basic {KEY}"}]
)
def test_what_people_wrote_needs_the_key(headers: dict[str, str]) -> None:
    world = World()
    assert world.client().get("/api/interactions/i-1", headers=headers).status_code == 401
    assert world.asked == []


@pytest.mark.parametrize("headers", [{"x-api-key": KEY}, {"authorization": f"Bearer {KEY}"}])
def test_an_interaction_is_explained_to_who_has_the_key(headers: dict[str, str]) -> None:
    world = World()
    world.rows["explain"] = [{"id": "a/b"}]
    answer = world.client().get("/api/interactions/a%2Fb?app=desk", headers=headers)
    assert answer.json() == {"interactions": [{"id": "a/b", "app": "desk"}]}


def test_an_interaction_that_is_not_there_is_not_found() -> None:
    world = World()
    world.rows["explain"] = []
    assert world.client().get("/api/interactions/x", headers={"x-api-key": KEY}).status_code == 404


def test_a_store_that_is_away_is_said() -> None:
    world = World()
    world.store_away = True
    assert world.client().get("/api/interactions/x", headers={"x-api-key": KEY}).status_code == 503


# --- history ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("range_", "resolution", "points"), [("day", 3_600, 24), ("month", 86_400, 30), ("year", 86_400, 365)])
def test_the_overview_reads_the_coarsest_rows_that_fit_its_range(range_: str, resolution: int, points: int) -> None:
    world = World()
    found = {"buckets": [0, points - 1, points, -1], "counts": [5, 7, 1_000, 1_000]}
    world.rows["page_overview"] = [{"app": HOSTILE, "environment": "production", "total": 12, **found}]
    told = world.client().get(f"/api/overview?range={range_}").json()
    asked = world.parameters["page_overview"]
    assert (told["resolution_s"], asked["resolution"]) == (resolution, resolution)
    assert (told["until"] - told["since"]) // (resolution * 1_000) == points
    assert told["until"] % (resolution * 1_000) == 0
    (app,) = told["apps"]
    assert app["counts"] == [5, *[0] * (points - 2), 7]


def test_an_apps_history_has_what_fired_of_a_rate_and_the_bins_of_the_rest() -> None:
    world = World()
    world.rows["page_app"] = [
        {
            "metric": "refusal@1",
            "version": "v1",
            "total": 30,
            "distribution": ([0, 1], [28, 2]),
            "buckets": [0, 3],
            "counts": [10, 20],
            "fires": [0, 2],
        },
        {
            "metric": "latency@1",
            "version": "v1",
            "total": 9,
            "distribution": ([40, 41], [4, 5]),
            "buckets": [1],
            "counts": [9],
            "fires": [0],
        },
    ]
    told = world.client().get("/api/apps/team/desk?environment=staging&range=day").json()
    asked = world.parameters["page_app"]
    assert (told["app"], asked["app"], asked["environment"]) == ("team/desk", "team/desk", "staging")
    refusal, latency = told["series"]
    assert (refusal["counts"][:4], refusal["fired"][:4]) == ([10, 0, 0, 20], [0, 0, 0, 2])
    assert latency["distribution"] == [[40, 4], [41, 5]]
    assert "fired" not in latency


def test_another_range_is_refused_before_the_store_is_asked() -> None:
    world = World()
    assert world.client().get("/api/overview?range=century").status_code == 400
    assert world.asked == []


def test_history_says_when_the_store_is_away() -> None:
    world = World()
    world.store_away = True
    answer = world.client().get("/api/apps/desk")
    assert (answer.status_code, answer.json()) == (503, {"error": "the store does not answer"})


def test_a_series_of_a_metric_that_is_not_known_any_more_is_shown_by_bins() -> None:
    world = World()
    found = {"distribution": ([1], [1]), "buckets": [0], "counts": [1], "fires": [1]}
    world.rows["page_app"] = [{"metric": "gone@7", "version": "v1", "total": 1, **found}]
    (series,) = world.client().get("/api/apps/desk").json()["series"]
    assert series["distribution"] == [[1, 1]]
