"""The in-memory twin of a fine-tuning provider: jobs that take a given number of looks, answers that can be lost on the way."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from adapters.tuning import AnswerLost, Job, ProviderAway, ProviderRefused
from schemas.messages import CallConfiguration

Answer = Callable[[str, str], str]
"""(model, question) → answer."""


class MemoryTuning:
    """`adapters.tuning.TuningProvider`. As a real provider it takes two requests for two jobs, whatever they have in common."""

    place = "memory"

    def __init__(self, answer: Answer, *, looks: int = 2) -> None:
        self._answer, self._looks = answer, looks
        self.jobs: dict[str, tuple[str, Job]] = {}
        """By job id: the action and the job, as the provider's own list shows them."""
        self.files: dict[str, bytes] = {}
        self.away = False
        self.lose = 0
        """So many answers to the creation of a job get lost, though it takes effect."""
        self.forgets = False
        """Whether it keeps no metadata, so that no job is found again by its action."""
        self.fail: str | None = None
        """Why every job fails; None: they succeed."""
        self._seen: dict[str, int] = {}

    def upload(self, data: bytes, name: str) -> str:
        self._here()
        self.files[name] = data
        return name

    def submit(self, action: str, file: str, model: str, *, suffix: str, seed: int) -> Job:  # noqa: ARG002
        self._here()
        if file not in self.files:
            raise ProviderRefused("there is no such file")
        number = len(self.jobs) + 1
        job = Job(number, f"job-{number}", "running")
        self.jobs[job.id] = (action, job)
        if self.lose:
            self.lose -= 1
            raise AnswerLost("the answer was lost")
        return job

    def keep_one(self, action: str) -> Job | None:
        self._here()
        jobs = self._of(action)
        for job in jobs[1:]:
            self._end(job, "cancelled")
        if not jobs:
            return None
        first = jobs[0]
        self._seen[first.id] = self._seen.get(first.id, 0) + 1
        if not first.ended and self._seen[first.id] > self._looks:
            self._end(first, "failed" if self.fail else "succeeded")
        return self._of(action)[0]

    def cancel(self, action: str) -> list[str]:
        self._here()
        going = [job for job in self._of(action) if not job.ended]
        for job in going:
            self._end(job, "cancelled")
        return [job.id for job in going]

    def answers(self, configuration: CallConfiguration, conversations: Sequence[Sequence[Mapping[str, str]]]) -> list[str]:
        self._here()
        return [self._answer(configuration.model, conversation[-1]["content"]) for conversation in conversations]

    def survivors(self, action: str) -> list[Job]:
        """Jobs of an action that were not cancelled."""
        return [job for job in self._of(action) if job.status != "cancelled"]

    def _of(self, action: str) -> list[Job]:
        return sorted(job for of, job in self.jobs.values() if of == action and not self.forgets)

    def _end(self, job: Job, status: str) -> None:
        if not job.ended:
            made = f"ft:{job.id}" if status == "succeeded" else None
            ended = replace(job, status=status, fine_tuned_model=made, error=self.fail or "" if status == "failed" else "")
            self.jobs[job.id] = (self.jobs[job.id][0], ended)

    def _here(self) -> None:
        if self.away:
            raise ProviderAway("the provider does not answer")
