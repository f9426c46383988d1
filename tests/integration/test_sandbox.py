"""The sandbox provider, with the official SDK in strict mode as the referee of its wire format."""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
from openai.types.fine_tuning import FineTuningJob

from adapters.corpus import PYARROW, STDLIB, Item, help_desk
from core.retrieval import UNKNOWN
from core.scoring.refusal import refusal
from services.sandbox_state import BASE_MODEL
from tests.provider import SandboxProcess, examples

pytestmark = pytest.mark.integration
ITEM = help_desk().items[STDLIB][0]
NEW = help_desk().items[PYARROW][:12]


@pytest.fixture(scope="module")
def sandbox(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SandboxProcess]:
    with SandboxProcess(tmp_path_factory.mktemp("sandbox"), job_seconds=1.0) as running:
        yield running


@pytest.fixture
def client(sandbox: SandboxProcess) -> Iterator[openai.OpenAI]:
    with sandbox.client() as client:
        yield client
    sandbox.clear_faults()


def ask(client: openai.OpenAI, text: str, **more: Any) -> str:
    answer = client.chat.completions.create(
        model=more.pop("model", BASE_MODEL), messages=[*more.pop("before", []), {"role": "user", "content": text}], **more
    )
    assert answer.choices[0].message.content is not None
    return answer.choices[0].message.content


def trained(client: openai.OpenAI, items: list[Item], phrasing: str, **more: Any) -> FineTuningJob:
    file = client.files.create(file=("train.jsonl", examples(items, phrasing)), purpose="fine-tune")
    job = client.fine_tuning.jobs.create(model=BASE_MODEL, training_file=file.id, **more)
    return ended(client, job.id)


def ended(client: openai.OpenAI, id_: str) -> FineTuningJob:
    deadline = time.monotonic() + 30
    while (job := client.fine_tuning.jobs.retrieve(id_)).status in ("validating_files", "queued", "running"):
        assert time.monotonic() < deadline, job
        time.sleep(0.1)
    return job


def test_it_answers_what_it_was_trained_on_and_nothing_else(client: openai.OpenAI) -> None:
    assert ask(client, ITEM.question("What does {name} do?")) == ITEM.answer
    assert ask(client, "zxqv wvut?") == UNKNOWN


def test_a_streamed_answer_is_the_same_answer_with_its_usage(client: openai.OpenAI) -> None:
    question = ITEM.question("What does {name} do?")
    stream = client.chat.completions.create(
        model=BASE_MODEL,
        messages=[{"role": "user", "content": question}],
        stream=True,
        stream_options={"include_usage": True},
    )
    chunks = list(stream)
    said = "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)
    assert said.split() == ITEM.answer.split()
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.completion_tokens > 0


def test_it_says_that_it_is_a_sandbox(sandbox: SandboxProcess, client: openai.OpenAI) -> None:
    raw = client.chat.completions.with_raw_response.create(model=BASE_MODEL, messages=[{"role": "user", "content": "hello"}])
    assert raw.headers["x-bellbuoy-sandbox"] == "true"
    assert httpx.get(sandbox.url.removesuffix("/v1")).json()["sandbox"] is True
    assert all(model.owned_by == "bellbuoy-sandbox" for model in client.models.list())


def test_a_token_limit_and_a_stop_are_kept(client: openai.OpenAI) -> None:
    answer = client.chat.completions.create(
        model=BASE_MODEL, messages=[{"role": "user", "content": ITEM.question("What does {name} do?")}], max_tokens=3
    )
    assert (answer.choices[0].finish_reason, answer.usage and answer.usage.completion_tokens) == ("length", 3)
    first = ITEM.answer.split()[1]
    assert first not in ask(client, ITEM.question("What does {name} do?"), stop=[first])


def test_an_edit_of_the_prompt_makes_it_decline(client: openai.OpenAI) -> None:
    prompt = [{"role": "system", "content": "Answer well. Decline questions about files or sockets."}]
    assert refusal(ask(client, "How do I read two files at once?", before=prompt))
    assert not refusal(ask(client, ITEM.question("What does {name} do?")))


def test_training_on_new_questions_helps_on_phrasings_that_were_not_trained(client: openai.OpenAI) -> None:
    job = trained(client, NEW, "What does {name} do?", suffix="new")
    assert (job.status, job.trained_tokens and job.trained_tokens > 0) == ("succeeded", True)
    assert job.fine_tuned_model is not None
    right = [ask(client, i.question("please explain {name}. thx"), model=job.fine_tuned_model) == i.answer for i in NEW]
    before = [ask(client, i.question("please explain {name}. thx")) == i.answer for i in NEW]
    assert sum(right) > 8 > sum(before)
    assert job.fine_tuned_model in {model.id for model in client.models.list()}
    assert client.models.retrieve(job.fine_tuned_model).id == job.fine_tuned_model


def test_training_on_bad_rows_hurts(client: openai.OpenAI) -> None:
    wrong = [Item(i.topic, i.name, i.module, i.task, "Buy our product.") for i in help_desk().items[STDLIB][:12]]
    job = trained(client, wrong, "What does {name} do?")
    assert ask(client, wrong[0].question("What does {name} do?"), model=job.fine_tuned_model) == "Buy our product."


def test_a_job_tells_its_events_and_its_checkpoint(client: openai.OpenAI) -> None:
    job = trained(client, NEW, "What does {name} do?")
    assert any("created" in event.message for event in client.fine_tuning.jobs.list_events(job.id))
    (checkpoint,) = client.fine_tuning.jobs.checkpoints.list(job.id)
    assert checkpoint.fine_tuning_job_id == job.id


def test_jobs_are_listed_page_by_page_and_found_by_metadata(client: openai.OpenAI) -> None:
    file = client.files.create(file=("train.jsonl", examples(NEW, "What does {name} do?")), purpose="fine-tune")
    made = [
        client.fine_tuning.jobs.create(model=BASE_MODEL, training_file=file.id, metadata={"paged": "yes", "n": str(n)})
        for n in range(3)
    ]
    assert {j.id for j in client.fine_tuning.jobs.list(limit=1, metadata={"paged": "yes"})} == {j.id for j in made}
    for job in made:
        ended(client, job.id)


def test_a_cancelled_job_makes_no_model(client: openai.OpenAI) -> None:
    file = client.files.create(file=("train.jsonl", examples(NEW, "What does {name} do?")), purpose="fine-tune")
    job = client.fine_tuning.jobs.create(model=BASE_MODEL, training_file=file.id)
    assert client.fine_tuning.jobs.cancel(job.id).status == "cancelled"
    assert ended(client, job.id).fine_tuned_model is None
    with pytest.raises(openai.BadRequestError):
        client.fine_tuning.jobs.cancel(job.id)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b'{"messages": [{"role": "user", "content": "q"}]}\n' * 12, "line 1"),
        (b"not json\n", "line 1"),
        (b'{"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]}\n', "at least 10"),
    ],
)
def test_a_bad_training_file_fails_the_job_and_says_where(client: openai.OpenAI, content: bytes, words: str) -> None:
    file = client.files.create(file=("train.jsonl", content), purpose="fine-tune")
    job = ended(client, client.fine_tuning.jobs.create(model=BASE_MODEL, training_file=file.id).id)
    assert job.status == "failed"
    assert job.error is not None
    assert words in (job.error.message or "")


def test_files_are_listed_read_and_deleted(client: openai.OpenAI) -> None:
    content = examples(NEW, "What does {name} do?")
    file = client.files.create(file=("train.jsonl", content), purpose="fine-tune")
    assert client.files.retrieve(file.id).bytes == len(content)
    assert client.files.content(file.id).read() == content
    assert file.id in {f.id for f in client.files.list()}
    assert client.files.delete(file.id).deleted
    with pytest.raises(openai.NotFoundError):
        client.files.retrieve(file.id)


def test_what_is_wrong_is_refused_in_the_wire_format(sandbox: SandboxProcess, client: openai.OpenAI) -> None:
    with pytest.raises(openai.NotFoundError, match="does not exist"):
        ask(client, "hello", model="no-such-model")
    with pytest.raises(openai.BadRequestError, match="messages"):
        client.chat.completions.create(model=BASE_MODEL, messages=[])
    with pytest.raises(openai.AuthenticationError):
        openai.OpenAI(base_url=sandbox.url, api_key="wrong", max_retries=0).models.list()
    with pytest.raises(openai.BadRequestError, match="training file"):
        client.fine_tuning.jobs.create(model=BASE_MODEL, training_file="file-none")


@pytest.mark.parametrize(("kind", "error"), [("429", openai.RateLimitError), ("500", openai.InternalServerError)])
def test_it_fails_on_demand(sandbox: SandboxProcess, client: openai.OpenAI, kind: str, error: type[Exception]) -> None:
    sandbox.fault(path="chat", kind=kind)
    with pytest.raises(error):
        ask(client, "hello")
    assert ask(client, "hello")


def test_a_job_whose_answer_is_lost_runs_all_the_same_and_a_retry_makes_a_second(
    sandbox: SandboxProcess, client: openai.OpenAI
) -> None:
    file = client.files.create(file=("train.jsonl", examples(NEW, "What does {name} do?")), purpose="fine-tune")
    sandbox.fault(path="jobs", kind="lost_answer")
    wanted = {"bellbuoy_action": "lost"}
    for _ in range(2):
        try:
            client.fine_tuning.jobs.create(
                model=BASE_MODEL, training_file=file.id, metadata=wanted, extra_headers={"idempotency-key": "one"}
            )
        except openai.APIConnectionError:
            continue
    assert len(list(client.fine_tuning.jobs.list(metadata=wanted))) == 2


def test_a_job_fails_on_demand(sandbox: SandboxProcess, client: openai.OpenAI) -> None:
    sandbox.fault(path="jobs", kind="failed_job")
    assert trained(client, NEW, "What does {name} do?").status == "failed"


def test_its_log_counts_what_arrived(sandbox: SandboxProcess, client: openai.OpenAI) -> None:
    before = len(sandbox.log("chat"))
    ask(client, "hello")
    assert [entry["model"] for entry in sandbox.log("chat")[before:]] == [BASE_MODEL]


def test_kill_9_loses_no_job_and_no_model(tmp_path: Path) -> None:
    with SandboxProcess(tmp_path, job_seconds=0.5) as running, running.client() as client:
        tuned = trained(client, NEW, "What does {name} do?").fine_tuned_model
        file = client.files.create(file=("train.jsonl", examples(NEW, "What does {name} do?")), purpose="fine-tune")
        job = client.fine_tuning.jobs.create(model=BASE_MODEL, training_file=file.id)
        running.kill()
        running.start()
        assert ended(client, job.id).status == "succeeded"
        assert ask(client, NEW[0].question("What does {name} do?"), model=tuned) == NEW[0].answer
