"""The sandbox provider, with the official SDK in strict mode as the referee of its wire format."""

import asyncio
import hashlib
import signal
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import httpx2
import openai
import pytest
from openai.types.chat import ChatCompletion
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
    answer: ChatCompletion = client.chat.completions.create(
        model=more.pop("model", BASE_MODEL), messages=[*more.pop("before", []), {"role": "user", "content": text}], **more
    )
    assert answer.choices[0].message.content is not None
    return answer.choices[0].message.content


def trained(client: openai.OpenAI, items: list[Item], phrasing: str, **more: Any) -> FineTuningJob:
    file = client.files.create(file=("train.jsonl", examples(items, phrasing)), purpose="fine-tune")
    job = client.fine_tuning.jobs.create(model=more.pop("model", BASE_MODEL), training_file=file.id, **more)
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


def test_a_job_tells_its_events_the_newest_first_and_page_by_page(client: openai.OpenAI) -> None:
    job = trained(client, NEW, "What does {name} do?")
    events = list(client.fine_tuning.jobs.list_events(job.id, limit=2))
    assert "created" in events[0].message
    assert "Job created" in events[-1].message
    assert [event.type for event in events].count("metrics") == 3
    assert [e.created_at for e in events] == sorted((e.created_at for e in events), reverse=True)


def test_a_checkpoint_is_a_model_of_the_examples_up_to_its_step(client: openai.OpenAI) -> None:
    job = trained(client, NEW, "What does {name} do?")
    last, _, first = list(client.fine_tuning.jobs.checkpoints.list(job.id, limit=2))
    assert (first.step_number, last.step_number, first.fine_tuning_job_id) == (4, 12, job.id)
    assert (first.metrics.train_loss or 0) > 0.5 > (last.metrics.train_loss or 0)
    question = NEW[11].question("What does {name} do?")
    assert ask(client, question, model=last.fine_tuned_model_checkpoint) == NEW[11].answer
    assert ask(client, question, model=first.fine_tuned_model_checkpoint) != NEW[11].answer


def test_a_validation_file_is_measured(client: openai.OpenAI) -> None:
    file = client.files.create(file=("valid.jsonl", examples(NEW, "please explain {name}. thx")), purpose="fine-tune")
    job = trained(client, NEW, "What does {name} do?", validation_file=file.id)
    assert job.validation_file == file.id
    accuracy = client.fine_tuning.jobs.checkpoints.list(job.id).data[0].metrics.full_valid_mean_token_accuracy
    assert accuracy is not None
    assert accuracy > 0.8


def test_a_fine_tune_of_a_fine_tune_knows_what_both_were_trained_on(client: openai.OpenAI) -> None:
    more = help_desk().items[PYARROW][12:24]
    first = trained(client, NEW, "What does {name} do?").fine_tuned_model
    second = trained(client, more, "What does {name} do?", model=first)
    assert second.model == first
    for item in (NEW[0], more[0]):
        assert ask(client, item.question("What does {name} do?"), model=second.fine_tuned_model) == item.answer


def test_a_model_stays_when_its_training_file_is_deleted(client: openai.OpenAI) -> None:
    job = trained(client, NEW, "What does {name} do?")
    assert client.files.delete(job.training_file).deleted
    assert ask(client, NEW[0].question("What does {name} do?"), model=job.fine_tuned_model) == NEW[0].answer
    with pytest.raises(openai.NotFoundError):
        client.files.content(job.training_file)


def test_a_job_keeps_what_it_was_created_with(client: openai.OpenAI) -> None:
    method: Any = {"type": "supervised", "supervised": {"hyperparameters": {"n_epochs": 3}}}
    job = trained(client, NEW, "What does {name} do?", seed=7, suffix="help-desk", method=method)
    assert (job.seed, job.hyperparameters.n_epochs) == (7, 3)
    assert (job.fine_tuned_model or "").startswith("ft:sandbox-docs-1:bellbuoy:help-desk:")
    assert job.finished_at is not None


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
    with pytest.raises(openai.NotFoundError, match="fine-tuning job"):
        client.fine_tuning.jobs.list_events("ftjob-none")


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("n", 2),
        ("n", "two"),
        ("temperature", 3),
        ("temperature", "hot"),
        ("max_tokens", 0),
        ("stop", 5),
        ("stop", ["a"] * 5),
        ("stream_options", 1),
        ("seed", "x"),
        ("model", None),
        ("messages", [{"role": "user", "content": 5}]),
        ("messages", ["hello"]),
        ("messages", [{"role": "nobody", "content": "x"}]),
    ],
)
def test_a_chat_field_that_cannot_be_taken_is_named(client: openai.OpenAI, field: str, value: object) -> None:
    body = {"model": BASE_MODEL, "messages": [{"role": "user", "content": "hello"}]} | {field: value}
    with pytest.raises(openai.BadRequestError) as refused:
        client.post("/chat/completions", body=body, cast_to=ChatCompletion)
    assert (refused.value.type, (refused.value.param or "").partition("[")[0]) == ("invalid_request_error", field)


@pytest.mark.parametrize(
    "fields",
    [
        {"metadata": {str(n): "v" for n in range(17)}},
        {"metadata": {"k": "v" * 513}},
        {"metadata": {"k": 1}},
        {"suffix": "a:b"},
        {"suffix": "a" * 65},
        {"method": {"type": "dpo"}},
        {"seed": "x"},
        {"training_file": 5},
    ],
)
def test_a_job_that_cannot_be_taken_is_refused_and_not_created(client: openai.OpenAI, fields: dict[str, Any]) -> None:
    file = client.files.create(file=("train.jsonl", examples(NEW, "What does {name} do?")), purpose="fine-tune")
    before = len(list(client.fine_tuning.jobs.list(limit=100)))
    with pytest.raises(openai.BadRequestError):
        client.fine_tuning.jobs.create(**{"model": BASE_MODEL, "training_file": file.id, **fields})
    assert len(list(client.fine_tuning.jobs.list(limit=100))) == before


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("POST", "/v1/chat/completions", b"{"),
        ("POST", "/v1/chat/completions", b"[" * 100_000),
        ("POST", "/v1/chat/completions", b'{"model": "\\ud800", "messages": []}'),
        ("POST", "/v1/chat/completions", b"\xff"),
        ("POST", "/v1/files", b"no form"),
        ("POST", "/v1/fine_tuning/jobs", b"[]"),
        ("GET", "/v1/files?limit=x", b""),
        ("GET", "/v1/files?limit=\u00b2", b""),
        ("GET", "/v1/files?after=none", b""),
        ("GET", "/v1/files/%ff", b""),
        ("GET", "/v1/fine_tuning/jobs/%ed%a0%80", b""),
        ("GET", "/v1/nothing%ff", b""),
        ("GET", "/v1/models/%00", b""),
        ("PUT", "/v1/files", b""),
        ("POST", "/sandbox/faults", b'{"path": "chat", "kind": "fire"}'),
        ("POST", "/sandbox/faults", b'{"path": "chat", "kind": "slow", "seconds": -1}'),
        ("GET", "/sandbox/log?since=x", b""),
    ],
)
def test_a_hostile_request_gets_an_error_of_the_wire_format(sandbox: SandboxProcess, method: str, path: str, body: bytes) -> None:
    url, key = sandbox.url.removesuffix("/v1") + path, {"authorization": f"Bearer {sandbox.key}"}
    answer = httpx.request(method, url, content=body, headers=key)
    assert 400 <= answer.status_code < 500
    assert answer.json()["error"]["type"] == "invalid_request_error"


@pytest.mark.parametrize("header", [None, b"Bearer \xff\xfe", b"Basic eDp5", b"Bearer", b""])
def test_without_the_key_nothing_is_told(sandbox: SandboxProcess, header: bytes | None) -> None:
    headers = {b"authorization": header} if header is not None else {}
    assert httpx.get(f"{sandbox.url}/models", headers=headers).status_code == 401


def test_tools_and_other_fields_are_taken(client: openai.OpenAI) -> None:
    tool: Any = {"type": "function", "function": {"name": "look_up", "parameters": {"type": "object", "properties": {}}}}
    said = ask(client, ITEM.question("What does {name} do?"), tools=[tool], user="u", temperature=0, n=1, stop=None)
    assert said == ITEM.answer


async def _asked_async(sandbox: SandboxProcess) -> str:
    client = openai.AsyncOpenAI(base_url=sandbox.url, api_key=sandbox.key, max_retries=0, _strict_response_validation=True)
    question: Any = [{"role": "user", "content": ITEM.question("What does {name} do?")}]
    async with client:
        stream = await client.chat.completions.create(model=BASE_MODEL, messages=question, stream=True)
        return "".join([chunk.choices[0].delta.content or "" async for chunk in stream])


def test_the_asynchronous_client_reads_a_stream(sandbox: SandboxProcess) -> None:
    assert asyncio.run(_asked_async(sandbox)) == ITEM.answer


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
    job = trained(client, NEW, "What does {name} do?")
    assert (job.status, job.error and job.error.code, job.fine_tuned_model) == ("failed", "server_error", None)


def test_a_refusal_to_slow_down_says_for_how_long(sandbox: SandboxProcess, client: openai.OpenAI) -> None:
    sandbox.fault(path="models", kind="429", seconds=7)
    with pytest.raises(openai.RateLimitError) as refused:
        client.models.list()
    assert refused.value.response.headers["retry-after"] == "7"


def test_a_cut_connection_has_no_effect(sandbox: SandboxProcess, client: openai.OpenAI) -> None:
    before = len(list(client.files.list(limit=1_000)))
    sandbox.fault(path="files", kind="disconnect")
    with pytest.raises(openai.APIConnectionError):
        client.files.create(file=("train.jsonl", b"{}"), purpose="fine-tune")
    assert len(list(client.files.list(limit=1_000))) == before


def test_a_stream_is_cut_in_the_middle_on_demand(sandbox: SandboxProcess, client: openai.OpenAI) -> None:
    sandbox.fault(path="chat", kind="half_stream")
    question: Any = [{"role": "user", "content": ITEM.question("What does {name} do?")}]
    stream = client.chat.completions.create(model=BASE_MODEL, messages=question, stream=True)
    assert next(stream).choices[0].delta.content
    with pytest.raises((openai.APIConnectionError, httpx2.TransportError)):
        list(stream)


def test_a_stream_that_is_slowed_down_is_whole(sandbox: SandboxProcess, client: openai.OpenAI) -> None:
    sandbox.fault(path="chat", kind="slow_stream", seconds=0.1)
    question: Any = [{"role": "user", "content": ITEM.question("What does {name} do?")}]
    stream = client.chat.completions.create(model=BASE_MODEL, messages=question, stream=True)
    assert "".join(chunk.choices[0].delta.content or "" for chunk in stream) == ITEM.answer


@pytest.mark.parametrize("stream", [False, True])
def test_a_chat_whose_answer_is_lost_arrived_all_the_same(sandbox: SandboxProcess, client: openai.OpenAI, stream: bool) -> None:
    before = len(sandbox.log("chat"))
    sandbox.fault(path="chat", kind="lost_answer")
    with pytest.raises(openai.APIConnectionError):
        client.chat.completions.create(model=BASE_MODEL, messages=[{"role": "user", "content": "hello"}], stream=stream)
    assert len(sandbox.log("chat")) == before + 1


def test_a_fault_hits_only_the_model_and_the_prompt_that_it_names(sandbox: SandboxProcess, client: openai.OpenAI) -> None:
    digest = hashlib.sha256(b"Be kind.").hexdigest()[:16]
    sandbox.fault(path="chat", kind="500", model="another", count=None)
    sandbox.fault(path="chat", kind="500", model=BASE_MODEL, system=digest, count=None)
    assert ask(client, "hello")
    for _ in range(2):
        with pytest.raises(openai.InternalServerError):
            ask(client, "hello", before=[{"role": "system", "content": "Be kind."}])


def test_a_fault_with_a_share_hits_some(sandbox: SandboxProcess, client: openai.OpenAI) -> None:
    sandbox.fault(path="models", kind="500", share=0.5, count=None)
    failed = 0
    for _ in range(40):
        try:
            client.models.list()
        except openai.InternalServerError:
            failed += 1
    assert 0 < failed < 40


def test_its_log_counts_what_arrived(sandbox: SandboxProcess, client: openai.OpenAI) -> None:
    before = len(sandbox.log("chat"))
    ask(client, "hello")
    assert [entry["model"] for entry in sandbox.log("chat")[before:]] == [BASE_MODEL]


def test_its_log_names_the_prompt_and_the_conversation(sandbox: SandboxProcess, client: openai.OpenAI) -> None:
    ask(client, "hello", before=[{"role": "system", "content": "Be."}], extra_headers={"x-bellbuoy-conversation": "c-1"})
    entry = sandbox.log("chat")[-1]
    assert (entry["conversation"], entry["system"]) == ("c-1", hashlib.sha256(b"Be.").hexdigest()[:16])
    assert {"time", "monotonic"} <= entry.keys()


def test_its_log_tells_when_a_request_arrived_not_when_it_was_taken_up(sandbox: SandboxProcess, client: openai.OpenAI) -> None:
    ask(client, "hello")  # the connection stays open
    assert sandbox.process is not None
    with ThreadPoolExecutor() as pool:
        sandbox.process.send_signal(signal.SIGSTOP)
        asked = pool.submit(ask, client, "are you there?")
        time.sleep(0.5)
        sandbox.process.send_signal(signal.SIGCONT)
        continued_ms = time.time_ns() // 1_000_000
        asked.result(30)
    assert sandbox.log("chat")[-1]["time"] < continued_ms - 100


def test_a_chat_that_a_fault_refused_is_in_the_log(sandbox: SandboxProcess, client: openai.OpenAI) -> None:
    before = len(sandbox.log("chat"))
    sandbox.fault(path="chat", kind="500")
    with pytest.raises(openai.InternalServerError):
        ask(client, "hello")
    assert len(sandbox.log("chat")) == before + 1


def test_only_the_owner_can_read_what_it_keeps(sandbox: SandboxProcess) -> None:
    folder = sandbox.data_dir / "sandbox"
    assert {path.stat().st_mode & 0o077 for path in (folder, *folder.iterdir())} == {0}


def test_kill_9_loses_no_job_and_no_model(tmp_path: Path) -> None:
    with SandboxProcess(tmp_path, job_seconds=0.5) as running, running.client() as client:
        tuned = trained(client, NEW, "What does {name} do?").fine_tuned_model
        file = client.files.create(file=("train.jsonl", examples(NEW, "What does {name} do?")), purpose="fine-tune")
        job = client.fine_tuning.jobs.create(model=BASE_MODEL, training_file=file.id)
        said = ask(client, "hello")
        running.kill()
        running.start()
        assert ended(client, job.id).status == "succeeded"
        assert ask(client, "hello") == said
        assert [entry["id"] for entry in running.log("job created")][-1] == job.id
        assert len(running.log("chat")) == 2
        assert ask(client, NEW[0].question("What does {name} do?"), model=tuned) == NEW[0].answer
