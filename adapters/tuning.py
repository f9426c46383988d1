"""The fine-tuning provider through the official openai client: files, jobs that are found again by an action's id, and answers."""

import contextlib
import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Final, Protocol, TypeVar

import openai
import tenacity

from adapters.keys import ensure_key_file
from adapters.settings import Settings
from schemas.messages import CallConfiguration

T = TypeVar("T")
ACTION: Final = "bellbuoy_action"
"""Name in a job's metadata under which the action's id stands."""
_JOBS_READ: Final = 2_000
_AT_ONCE: Final = 12
_CHARACTERS_PER_TOKEN: Final = 4
_OURS: Final = frozenset({"model", "messages", "stream", "stream_options", "n", "tools"})


class ProviderAway(ConnectionError):
    """The provider does not answer, or not in its format, is overloaded or limits the rate: worth trying again later."""


class AnswerLost(ProviderAway):
    """A request that has an effect got no answer: it may or may not have been carried out."""


class ProviderRefused(RuntimeError):
    """The provider says no: a later try would fare the same. The text is the provider's, shortened."""


@dataclass(frozen=True)
class Plan:
    """What a fine-tune would send, said before anything is sent. `tokens` is an estimate of one epoch's."""

    model: str
    rows: int
    tokens: int
    size: int
    """Bytes."""

    def __str__(self) -> str:
        return f"{self.rows} rows, about {self.tokens} tokens an epoch ({self.size} bytes), to fine-tune {self.model}"


@dataclass(frozen=True, order=True)
class Job:
    """A fine-tuning job; the order is that of creation."""

    created_at: int
    id: str
    status: str
    fine_tuned_model: str | None = None
    error: str = ""

    @property
    def ended(self) -> bool:
        return self.status in ("succeeded", "failed", "cancelled")


class TuningProvider(Protocol):
    """What the fine-tune worker asks of a provider. Every method raises ProviderAway and ProviderRefused."""

    @property
    def place(self) -> str:
        """Where it is, in words."""

    def upload(self, data: bytes, name: str) -> str:
        """The id of the training file of this name; sent only where the provider does not have it."""

    def submit(self, action: str, file: str, model: str, *, suffix: str, seed: int) -> Job:
        """Create a job, once. Raises AnswerLost when it may exist or not: then look for it by `keep_one`."""

    def keep_one(self, action: str) -> Job | None:
        """The action's first job, all others cancelled; None where there is none (yet)."""

    def cancel(self, action: str) -> list[str]:
        """Cancel every job of the action that has not ended; their ids."""

    def answers(self, configuration: CallConfiguration, conversations: Sequence[Sequence[Mapping[str, str]]]) -> list[str]:
        """What a version answers to each conversation (its own system prompt comes first)."""


def plan(training: bytes, model: str) -> Plan:
    """What a training file (JSON lines) would cost.

    >>> str(plan(b'{"messages": []}\\n' * 10, "m-1"))
    '10 rows, about 43 tokens an epoch (170 bytes), to fine-tune m-1'
    """
    size = len(training)
    return Plan(model, training.count(b"\n"), -(-size // _CHARACTERS_PER_TOKEN), size)


class OpenAITuning:
    """`TuningProvider` on anything that speaks OpenAI's format: the setting's provider, else the bundled sandbox."""

    def __init__(self, settings: Settings, *, attempts: int = 5, longest_s: float = 8.0) -> None:
        if settings.upstream_url:
            self._url = settings.upstream_url
            key = settings.upstream_api_key.get_secret_value() if settings.upstream_api_key else ""
        else:
            self._url = settings.stack_urls().get("sandbox", f"http://127.0.0.1:{settings.sandbox_port}").rstrip("/") + "/v1"
            key = ensure_key_file(settings.key_dir / "sandbox")
        # The client must not repeat what creates a job.
        self._client = openai.OpenAI(base_url=self._url, api_key=key or "none", max_retries=0, timeout=60.0)
        self._patience = tenacity.Retrying(
            retry=tenacity.retry_if_exception_type(ProviderAway),
            wait=tenacity.wait_exponential_jitter(multiplier=0.2, max=longest_s),
            stop=tenacity.stop_after_attempt(attempts),
            reraise=True,
        )

    @property
    def place(self) -> str:
        return self._client.base_url.host

    def upload(self, data: bytes, name: str) -> str:
        def find_or_send() -> str:
            for file in itertools.islice(self._client.files.list(purpose="fine-tune"), _JOBS_READ):
                if file.filename == name and file.bytes == len(data):
                    return file.id
            return self._client.files.create(file=(name, data, "application/jsonl"), purpose="fine-tune").id

        return self._safely(find_or_send)

    def submit(self, action: str, file: str, model: str, *, suffix: str, seed: int) -> Job:
        try:
            with _openai_errors(self.place):
                made = self._client.fine_tuning.jobs.create(
                    model=model,
                    training_file=file,
                    method={"type": "supervised", "supervised": {}},
                    suffix=suffix,
                    seed=seed,
                    metadata={ACTION: action},
                )
                return _job(made)
        except ProviderAway as error:
            raise AnswerLost(str(error)) from error

    def keep_one(self, action: str) -> Job | None:
        jobs = self._safely(lambda: self._jobs(action))
        for job in jobs[1:]:
            self._cancel(job)
        return jobs[0] if jobs else None

    def cancel(self, action: str) -> list[str]:
        going = [job for job in self._safely(lambda: self._jobs(action)) if not job.ended]
        for job in going:
            self._cancel(job)
        return [job.id for job in going]

    def answers(self, configuration: CallConfiguration, conversations: Sequence[Sequence[Mapping[str, str]]]) -> list[str]:
        with ThreadPoolExecutor(_AT_ONCE) as pool:
            return list(pool.map(lambda one: self._safely(lambda: self._answer(configuration, one)), conversations))

    def _answer(self, configuration: CallConfiguration, conversation: Sequence[Mapping[str, str]]) -> str:
        messages: list[Any] = [dict(message) for message in conversation]
        if configuration.system_prompt is not None:
            messages.insert(0, {"role": "system", "content": configuration.system_prompt})
        extra: dict[str, Any] = {key: value for key, value in configuration.parameters.items() if key not in _OURS}
        if configuration.tools:
            extra["tools"] = configuration.tools
        said = self._client.chat.completions.create(model=configuration.model, messages=messages, extra_body=extra)
        return (said.choices[0].message.content or "") if said.choices else ""

    def _jobs(self, action: str) -> list[Job]:
        """Jobs of an action by age. Not every provider heeds the filter, and some refuse it."""
        try:
            listed = list(itertools.islice(self._client.fine_tuning.jobs.list(limit=100, metadata={ACTION: action}), _JOBS_READ))
        except openai.BadRequestError:
            listed = list(itertools.islice(self._client.fine_tuning.jobs.list(limit=100), _JOBS_READ))
        return sorted({_job(job) for job in listed if (job.metadata or {}).get(ACTION) == action})

    def _cancel(self, job: Job) -> None:
        if not job.ended:
            with contextlib.suppress(ProviderRefused):  # it ended in the meantime
                self._safely(lambda: self._client.fine_tuning.jobs.cancel(job.id))

    def _safely(self, call: Callable[[], T]) -> T:
        """Repeat a call that may be repeated while the provider is away."""

        def once() -> T:
            with _openai_errors(self.place):
                return call()

        return self._patience.copy()(once)


def _job(job: Any) -> Job:
    error = job.error.message if job.error and job.error.message else ""
    return Job(int(job.created_at), job.id, str(job.status), job.fine_tuned_model, str(error)[:300])


@contextlib.contextmanager
def _openai_errors(place: str) -> Iterator[None]:
    """What a later try may cure becomes ProviderAway, a no becomes ProviderRefused. Keys and texts stay out of both."""
    try:
        yield
    except openai.APIConnectionError as error:
        raise ProviderAway(f"the provider at {place} does not answer") from error
    except openai.APIStatusError as error:
        if error.status_code in (408, 409, 425, 429) or error.status_code >= 500:
            raise ProviderAway(f"the provider at {place} answers {error.status_code}") from error
        raise ProviderRefused(f"the provider answers {error.status_code}: {error.message[:200]}") from error
    except openai.APIError as error:
        raise ProviderAway(f"the provider at {place}: {type(error).__name__}") from error
    except (AttributeError, LookupError, TypeError, ValueError) as error:  # the client hands on whatever JSON, or text, came
        raise ProviderAway(f"the provider at {place} does not answer in OpenAI's format") from error
