"""The provider through the official client: what is repeated, what is not, and what survives."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from adapters.settings import Settings
from adapters.tuning import AnswerLost, OpenAITuning, ProviderAway, ProviderRefused
from schemas.messages import CallConfiguration
from tests.provider_server import ProviderServer

pytestmark = pytest.mark.integration
LINES = b'{"messages": [{"role": "user", "content": "how high is it"}, {"role": "assistant", "content": "Ten."}]}\n' * 10


@pytest.fixture
def server() -> Iterator[ProviderServer]:
    with ProviderServer() as server:
        yield server


@pytest.fixture
def tuning(server: ProviderServer, tmp_path: Path) -> OpenAITuning:
    return OpenAITuning(Settings(data_dir=tmp_path, upstream_url=server.url), longest_s=0.05)


def submit(tuning: OpenAITuning, action: str = "a") -> str:
    return tuning.submit(action, tuning.upload(LINES, "t.jsonl"), "base", suffix="desk", seed=7).id


def test_a_file_is_sent_once(tuning: OpenAITuning, server: ProviderServer) -> None:
    assert tuning.upload(LINES, "t.jsonl") == tuning.upload(LINES, "t.jsonl")
    assert list(server.files.values()) == [("t.jsonl", LINES)]


def test_a_job_is_found_by_its_action(tuning: OpenAITuning) -> None:
    submit(tuning, "a")
    other = submit(tuning, "b")
    found = tuning.keep_one("b")
    assert found is not None
    assert found.id == other
    assert tuning.keep_one("c") is None


def test_of_two_jobs_the_first_survives(tuning: OpenAITuning, server: ProviderServer) -> None:
    first, second = submit(tuning), submit(tuning)
    found = tuning.keep_one("a")
    assert found is not None
    assert (found.id, server.survivors(), server.jobs[second]["status"]) == (first, [first], "cancelled")


def test_a_lost_answer_is_said_and_nothing_is_sent_twice(tuning: OpenAITuning, server: ProviderServer) -> None:
    server.lose = 1
    with pytest.raises(AnswerLost):
        submit(tuning)
    assert list(server.jobs) == ["job-1"]
    assert tuning.keep_one("a") is not None


def test_what_changes_nothing_is_repeated_while_the_provider_fails(tuning: OpenAITuning, server: ProviderServer) -> None:
    submit(tuning)
    server.errors = 3
    assert tuning.keep_one("a") is not None


def test_a_provider_that_goes_on_failing_is_away(tuning: OpenAITuning, server: ProviderServer) -> None:
    server.errors = 1_000
    with pytest.raises(ProviderAway):
        tuning.keep_one("a")


def test_a_no_is_not_repeated(tuning: OpenAITuning, server: ProviderServer) -> None:
    with pytest.raises(ProviderRefused, match="there is no such file"):
        tuning.submit("a", "file-9", "base", suffix="desk", seed=7)
    assert server.requests == ["POST /v1/fine_tuning/jobs"]


def test_an_action_that_is_called_off_leaves_no_job(tuning: OpenAITuning, server: ProviderServer) -> None:
    submit(tuning)
    assert tuning.cancel("a") == ["job-1"]
    assert (tuning.cancel("a"), server.survivors()) == ([], [])


def test_a_model_that_was_trained_answers_as_it_was_taught(tuning: OpenAITuning, server: ProviderServer) -> None:
    submit(tuning)
    while (job := tuning.keep_one("a")) is None or not job.ended:
        pass
    asked = [[{"role": "user", "content": "how high is it then"}]]
    taught = CallConfiguration(model=str(job.fine_tuned_model), system_prompt="Be brief.", parameters={"temperature": 0.0})
    assert tuning.answers(taught, asked) == ["Ten."]
    assert tuning.answers(CallConfiguration(model="base"), asked) == ["I do not know that one."]
