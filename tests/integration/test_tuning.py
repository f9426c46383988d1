"""The provider through the official client: what is repeated, what is not, and what survives, by the sandbox's own log."""

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from adapters.corpus import PHRASINGS, PYARROW, help_desk
from adapters.settings import Settings
from adapters.tuning import ACTION, AnswerLost, Job, OpenAITuning, ProviderAway, ProviderRefused
from core.retrieval import UNKNOWN
from schemas.messages import CallConfiguration
from services.sandbox_state import BASE_MODEL
from tests.provider import SandboxProcess, examples

pytestmark = pytest.mark.integration
ITEMS = help_desk().items[PYARROW][:12]
LINES = examples(ITEMS, PHRASINGS[0])


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SandboxProcess]:
    with SandboxProcess(tmp_path_factory.mktemp("sandbox"), job_seconds=1.0) as running:
        yield running


@pytest.fixture
def sandbox(running: SandboxProcess) -> Iterator[SandboxProcess]:
    yield running
    running.clear_faults()


@pytest.fixture
def tuning(sandbox: SandboxProcess, tmp_path: Path) -> OpenAITuning:
    settings = Settings(data_dir=tmp_path, upstream_url=sandbox.url, upstream_api_key=sandbox.key)  # type: ignore[arg-type]  # read as a secret
    return OpenAITuning(settings, longest_s=0.05)


@pytest.fixture
def action(request: pytest.FixtureRequest) -> str:
    return str(request.node.name)


def submit(tuning: OpenAITuning, action: str) -> Job:
    return tuning.submit(action, tuning.upload(LINES, "train.jsonl"), BASE_MODEL, suffix="desk", seed=7)


def arrived(sandbox: SandboxProcess, what: str, action: str) -> list[dict[str, Any]]:
    return [entry for entry in sandbox.log(what) if entry["metadata"] == {ACTION: action}]


def test_a_file_is_sent_once(tuning: OpenAITuning) -> None:
    assert tuning.upload(LINES, "once.jsonl") == tuning.upload(LINES, "once.jsonl")


def test_a_file_of_the_same_name_and_another_size_is_another_one(tuning: OpenAITuning) -> None:
    assert tuning.upload(LINES, "two.jsonl") != tuning.upload(LINES * 2, "two.jsonl")


def test_a_job_is_found_by_its_action_alone(tuning: OpenAITuning, action: str) -> None:
    made = submit(tuning, action)
    submit(tuning, action + "-other")
    found = tuning.keep_one(action)
    assert found is not None
    assert found.id == made.id
    assert tuning.keep_one("nobody's") is None


def test_of_several_jobs_one_survives_and_the_others_are_cancelled(
    tuning: OpenAITuning, sandbox: SandboxProcess, action: str
) -> None:
    made = sorted(submit(tuning, action) for _ in range(3))
    found = tuning.keep_one(action)
    assert found is not None
    assert found.id == made[0].id
    assert sorted(entry["id"] for entry in arrived(sandbox, "job cancelled", action)) == sorted(job.id for job in made[1:])


def test_a_lost_answer_is_said_and_nothing_is_sent_twice(tuning: OpenAITuning, sandbox: SandboxProcess, action: str) -> None:
    sandbox.fault(path="jobs", kind="lost_answer")
    with pytest.raises(AnswerLost):
        submit(tuning, action)
    (made,) = arrived(sandbox, "job created", action)
    found = tuning.keep_one(action)
    assert found is not None
    assert found.id == made["id"]


def test_what_changes_nothing_is_repeated_while_the_provider_fails(
    tuning: OpenAITuning, sandbox: SandboxProcess, action: str
) -> None:
    made = submit(tuning, action)
    for kind in ("500", "429", "disconnect"):
        sandbox.fault(path="jobs", kind=kind)
    found = tuning.keep_one(action)
    assert found is not None
    assert found.id == made.id


def test_a_provider_that_goes_on_failing_is_away(tuning: OpenAITuning, sandbox: SandboxProcess, action: str) -> None:
    sandbox.fault(path="jobs", kind="500", count=1_000)
    with pytest.raises(ProviderAway):
        tuning.keep_one(action)


def test_a_no_makes_no_job(tuning: OpenAITuning, sandbox: SandboxProcess, action: str) -> None:
    with pytest.raises(ProviderRefused):
        tuning.submit(action, "file-9", BASE_MODEL, suffix="desk", seed=7)
    assert arrived(sandbox, "job created", action) == []


def test_an_action_that_is_called_off_leaves_no_job(tuning: OpenAITuning, action: str) -> None:
    made = submit(tuning, action)
    assert tuning.cancel(action) == [made.id]
    assert tuning.cancel(action) == []


def test_a_model_that_was_trained_answers_as_it_was_taught(tuning: OpenAITuning, action: str) -> None:
    submit(tuning, action)
    while (job := tuning.keep_one(action)) is None or not job.ended:
        pass
    asked = [[{"role": "user", "content": ITEMS[0].question(PHRASINGS[3])}]]
    taught = CallConfiguration(model=str(job.fine_tuned_model), system_prompt="Be helpful.", parameters={"temperature": 0.0})
    assert tuning.answers(taught, asked) == [ITEMS[0].answer]
    assert tuning.answers(CallConfiguration(model=BASE_MODEL), asked) == [UNKNOWN]


@pytest.fixture(scope="module")
def strange() -> Iterator[tuple[OpenAITuning, dict[str, bytes]]]:
    """A provider that answers everything with the bytes that stand under its content type."""
    said: dict[str, bytes] = {}

    class Strange(BaseHTTPRequestHandler):
        def do_GET(self) -> None:  # the name that http.server calls
            self.rfile.read(int(self.headers.get("content-length") or 0))
            ((kind, body),) = said.items()
            self.send_response(200)
            self.send_header("content-type", kind)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        do_POST = do_GET  # noqa: N815  # the name that http.server calls

        def log_message(self, *_: object) -> None: ...

    with ThreadingHTTPServer(("127.0.0.1", 0), Strange) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}/v1"
        yield OpenAITuning(Settings(upstream_url=url, upstream_api_key="secret-word"), attempts=1), said  # type: ignore[arg-type]  # read as a secret
        server.shutdown()


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        ("text/html", b"<html>Down for maintenance</html>"),
        ("application/json", b"[]"),
        ("application/json", b"null"),
        ("application/json", b"{"),
        ("application/json", b'{"data": [null], "choices": [null]}'),
        ("application/json", b'{"data": [{"metadata": {"bellbuoy_action": "a"}}], "choices": [{"message": null}]}'),
    ],
)
def test_an_answer_of_another_shape_is_waited_out(strange: tuple[OpenAITuning, dict[str, bytes]], kind: str, body: bytes) -> None:
    provider, said = strange
    said.clear()
    said[kind] = body
    for call in (
        lambda: provider.keep_one("a"),
        lambda: provider.cancel("a"),
        lambda: provider.answers(CallConfiguration(model="m"), [[{"role": "user", "content": "?"}]]),
    ):
        with pytest.raises(ProviderAway, match="does not answer in OpenAI's format"):
            call()
    with pytest.raises(AnswerLost):
        provider.submit("a", "file-1", "m", suffix="s", seed=1)
