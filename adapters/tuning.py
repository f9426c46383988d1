"""A tuning backend that speaks OpenAI's fine-tuning wire format, through the official client.

A provider knows no idempotency: two calls are two jobs. So a job carries its action's id as metadata, is looked for before a
call and after it, and all but the first are cancelled.
"""

import asyncio
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

import openai
from openai.types.fine_tuning import FineTuningJob

from adapters.keys import ensure_key_file
from adapters.settings import Settings
from schemas.messages import CallConfiguration

ACTION: Final = "bellbuoy_action"
ENDED: Final = frozenset({"succeeded", "failed", "cancelled"})
CONCURRENT: Final = 16
TIMEOUT_S: Final = 60.0


class ProviderAway(RuntimeError):
    """The provider does not answer, or asks to wait: worth trying again."""


class ProviderRefused(RuntimeError):
    """The provider will not do it, however often it is asked; the text is its own."""


@dataclass(frozen=True)
class Job:
    """A fine-tuning job as it stands."""

    id: str
    status: str
    model: str | None
    """The fine-tuned model, once it succeeded."""
    error: str | None
    created: int

    @property
    def ended(self) -> bool:
        return self.status in ENDED


class Tuning:
    """The provider that `settings` name, else the bundled sandbox. Methods raise ProviderAway and ProviderRefused."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings

    def upload(self, content: bytes) -> str:
        """Upload a training file; its id."""
        with self._client() as client:
            return client.files.create(file=("training.jsonl", content), purpose="fine-tune").id

    def find(self, action: str) -> list[Job]:
        """The jobs of an action, the first first."""
        with self._client() as client:
            found = [job for job in client.fine_tuning.jobs.list(limit=100) if (job.metadata or {}).get(ACTION) == action]
        return [_job(job) for job in sorted(found, key=lambda job: (job.created_at, job.id))]

    def submit(self, model: str, file: str, action: str, suffix: str) -> None:
        """Ask for a job. It may have been created even where this raises: `settle` tells."""
        with self._client() as client:
            client.fine_tuning.jobs.create(
                model=model,
                training_file=file,
                method={"type": "supervised"},
                metadata={ACTION: action},
                suffix=suffix,
            )

    def settle(self, action: str) -> Job | None:
        """The one job of an action: the first, all others cancelled. None where there is none."""
        jobs = self.find(action)
        living = [job for job in jobs if job.status != "cancelled"]
        for job in living[1:]:
            self.cancel(job.id)
        return living[0] if living else (jobs[0] if jobs else None)

    def job(self, id_: str) -> Job:
        """A job as it stands now."""
        with self._client() as client:
            return _job(client.fine_tuning.jobs.retrieve(id_))

    def cancel(self, id_: str) -> None:
        """Cancel a job; one that has ended stays as it is."""
        with self._client() as client:
            try:
                client.fine_tuning.jobs.cancel(id_)
            except openai.BadRequestError:
                return

    def answers(self, configuration: CallConfiguration, asked: Sequence[Sequence[Mapping[str, str]]]) -> list[str]:
        """A call configuration's answers to chats (without system messages), in order; "" where a chat gave none."""

        async def everything() -> list[str]:
            free = asyncio.Semaphore(CONCURRENT)
            async with openai.AsyncOpenAI(base_url=self._url(), api_key=self._key(), timeout=TIMEOUT_S, max_retries=4) as client:

                async def one(messages: Sequence[Mapping[str, str]]) -> str:
                    async with free:
                        return await _answer(client, configuration, messages)

                return await asyncio.gather(*(one(messages) for messages in asked))

        with _provider_errors():
            return asyncio.run(everything())

    def _url(self) -> str:
        if self._settings.upstream_url is not None:
            return self._settings.upstream_url
        sandbox = self._settings.stack_urls().get("sandbox")
        if sandbox is None:
            raise ProviderAway("no provider is known; start the stack, or set BELLBUOY_UPSTREAM_URL")
        return f"{sandbox.removesuffix('/v1')}/v1"

    def _key(self) -> str:
        if self._settings.upstream_api_key is not None:
            return self._settings.upstream_api_key.get_secret_value()
        return ensure_key_file(self._settings.key_dir / "sandbox")

    @contextmanager
    def _client(self) -> Iterator[openai.OpenAI]:
        with (
            _provider_errors(),
            openai.OpenAI(base_url=self._url(), api_key=self._key(), timeout=TIMEOUT_S, max_retries=0) as client,
        ):
            yield client


async def _answer(client: openai.AsyncOpenAI, configuration: CallConfiguration, messages: Sequence[Mapping[str, str]]) -> str:
    system = [{"role": "system", "content": configuration.system_prompt}] if configuration.system_prompt else []
    body: dict[str, Any] = {
        **configuration.parameters,
        "model": configuration.model,
        "messages": [*system, *messages],
    }
    if configuration.tools:
        body["tools"] = configuration.tools
    answer = await client.chat.completions.create(**body)
    return (answer.choices[0].message.content or "") if answer.choices else ""


def _job(job: FineTuningJob) -> Job:
    error = job.error.message if job.error is not None and job.error.message else None
    return Job(job.id, job.status, job.fine_tuned_model, error, job.created_at)


@contextmanager
def _provider_errors() -> Iterator[None]:
    try:
        yield
    except (openai.APIConnectionError, openai.RateLimitError, openai.InternalServerError) as error:
        raise ProviderAway(f"{type(error).__name__}: {str(error)[:300]}") from error
    except openai.APIStatusError as error:
        raise ProviderRefused(f"{error.status_code}: {str(error.message)[:300]}") from error
