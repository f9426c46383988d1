"""Kill -9 of workers, controller and gateways at the recorded steps of rollbacks, canaries and retrains, and what the receivers counted."""

import contextlib
import random
import subprocess
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final

from adapters.registry import Registry, RegistryAway
from bellbuoy.routing import ask_release
from bellbuoy.story import HELP_DESK_PROMPT, SANDBOX_MODEL
from benchmarks.loop_clients import Clients, Failure
from benchmarks.loop_rollbacks import GOOD, after_verified, open_desk, release_bad
from benchmarks.loop_stack import ENVIRONMENT, SECOND, LoopStack, NotInTime, spawn, until
from core.actions import ENDED
from core.incident import digest_of
from core.rollout import RELEASE_RULE
from schemas.messages import ActionStep, CallConfiguration, GatewayReport, RouteTable

VICTIMS: Final = {
    "rollback": ("deploy-worker", "gateway", SECOND),
    "canary": ("deploy-worker", "controller", "gateway"),
    "retrain": ("finetune-worker", "finetune-worker", "deploy-worker"),
}
"""Whom a step of a kind may cost its life."""
RATES: Final = {"rollback": 8.0, "canary": 16.0, "retrain": 24.0}
"""Requests a second for each desk."""
OPINIONS: Final = 150
"""Opinions on a desk's answers before its first retrain."""
RIVALS: Final = ("deploy-worker", "finetune-worker", "controller")
RIVAL_S: Final = 12.0
"""How long there are two of a kind at most, its start included: the supervised one comes back and shuts the other out."""
END_S: Final = 180.0
"""So long after the last kill every action must have ended."""
SPREAD: Final = 12
"""Each pair of step and victim gets two kills, and one more for so many kills: the rare steps are to have theirs."""
OUTAGE_S: Final = 1.0
"""A connection that was cut by kill -9 is told of by then."""
Print = Callable[[str], None]


@dataclass
class Outcome:
    """What was done, and everything that must not be."""

    kills: Counter[tuple[str, str]] = field(default_factory=Counter)
    """By (step, victim)."""
    rivals: int = 0
    actions: Counter[str] = field(default_factory=Counter)
    """By kind and end."""
    answered: int = 0
    cut: int = 0
    """Requests whose connection ended with a gateway."""
    duplicates: list[str] = field(default_factory=list)
    stuck: list[str] = field(default_factory=list)
    refused: Counter[str] = field(default_factory=Counter)
    after_verified: list[int] = field(default_factory=list)
    """How many ms after `verified` a request reached a bad version, for each that did."""

    @property
    def crashes(self) -> int:
        return sum(self.kills.values())


class Crashes:
    """Desks on which rollbacks, canaries and retrains follow each other, while whoever acts is killed."""

    def __init__(self, loop: LoopStack, *, crashes: int, seed: int, say: Print, rivals_every: int = 25) -> None:
        self._loop, self._wanted, self._say, self._rivals_every = loop, crashes, say, rivals_every
        self._draw = random.Random(f"crashes/{seed}")
        self._seed = seed
        self._stop = threading.Event()
        self._registry = Registry(loop.settings)
        self._errors: list[BaseException] = []
        self._down: dict[str, list[list[float]]] = defaultdict(list)
        """By gateway instance: when it was killed and when it served again, monotonic."""
        self._asked: list[str] = []
        self._verified_at: dict[str, int] = {}
        self._rival: tuple[str, subprocess.Popen[bytes], float] | None = None
        self.outcome = Outcome()

    def run(self, kinds: Sequence[str] = ("rollback", "rollback", "canary", "canary", "retrain", "retrain")) -> Outcome:
        """Kill so often, then wait until every action has ended, and count."""
        desks = {f"desk-{number}-{kind}": kind for number, kind in enumerate(kinds, 1)}
        for app in desks:
            open_desk(self._loop, app)
        rates = {app: RATES[kind] for app, kind in desks.items()}
        with Clients(self._loop, rates, seed=self._seed) as clients:
            self._prepare(clients, desks)
            drivers = [threading.Thread(target=self._drive, args=item, daemon=True) for item in desks.items()]
            for driver in drivers:
                driver.start()
            self._kill_at_steps()
            self._stop.set()
            self._say("no more kills; waiting for the ends of the actions")
            until(lambda: self._all_run() and not any(d.is_alive() for d in drivers), "the ends of the actions", 2 * END_S, 0.2)
        if self._errors:
            raise self._errors[0]
        self._count(clients)
        return self.outcome

    # --- what goes on -----------------------------------------------------------------------------------------------

    def _prepare(self, clients: Clients, desks: dict[str, str]) -> None:
        """The registry holds every desk's first version, and the store the opinions that a dataset is made of."""
        for app in desks:
            version = until(lambda: self._register(app, HELP_DESK_PROMPT), "MLflow", 120, 1.0)  # noqa: B023
            assert version == GOOD, version
        retrained = [app for app, kind in desks.items() if kind == "retrain"]
        until(lambda: all(clients.opinions(app) >= OPINIONS for app in retrained), "opinions to train on", 180, 0.5)

    def _register(self, app: str, prompt: str) -> str | None:
        configuration = CallConfiguration(model=SANDBOX_MODEL, system_prompt=prompt)
        with contextlib.suppress(RegistryAway):
            return self._registry.register(app, ENVIRONMENT, configuration, facts={"actor": "benchmark"})
        return None

    def _drive(self, app: str, kind: str) -> None:
        number = 0
        try:
            while not self._stop.is_set():
                number += 1
                {"rollback": self._rollback, "canary": self._canary, "retrain": self._retrain}[kind](app, number)
        except NotInTime as error:
            self.outcome.stuck.append(f"{app}: {error}")
        except BaseException as error:  # noqa: BLE001  # `run` raises it
            self._errors.append(error)

    def _rollback(self, app: str, number: int) -> None:
        version = f"edit-{number}"
        digest = release_bad(self._loop, app, version)
        with contextlib.suppress(NotInTime):  # a gateway may be down
            until(lambda: self._loop.started_on(app, version), f"requests on {version}", 5)
        action = self._ask("rollback", app, version, GOOD)
        if self._ended(action.id).state == "succeeded":
            verified = self._loop.told.at(action.id, "succeeded/verified")
            assert verified is not None
            self._verified_at[digest] = verified

    def _canary(self, app: str, number: int) -> None:
        version = until(lambda: self._register(app, f"{HELP_DESK_PROMPT} This is edit {number}."), "MLflow", 120, 1.0)
        command = ask_release(self._loop.settings, app, ENVIRONMENT, version, "benchmark", "an edit", gate=False)
        incident = digest_of((RELEASE_RULE, command.id))

        def asked() -> str | None:
            return next((id_ for id_, steps in list(self._loop.told.steps.items()) if steps[0][0].incident == incident), None)

        id_ = until(asked, f"the canary of {version}", END_S)
        self._asked.append(id_)
        self._ended(id_)

    def _retrain(self, app: str, _: int) -> None:
        self._ended(self._ask("retrain", app).id)

    def _ask(self, kind: str, app: str, version: str | None = None, to_version: str | None = None) -> ActionStep:
        action = self._loop.ask(kind, app, version, to_version)  # type: ignore[arg-type]  # one of VICTIMS
        self._asked.append(action.id)
        return action

    def _ended(self, id_: str) -> ActionStep:
        step = self._loop.told.ended(id_, 3 * END_S)
        self.outcome.actions[f"{step.kind} {step.state}/{step.phase}"] += 1
        return step

    # --- kills ------------------------------------------------------------------------------------------------------

    def _kill_at_steps(self) -> None:
        """As each step appears, or up to half a second later, kill who acts; of several the one that this step killed least."""
        seen, last = len(self._loop.told.log), time.monotonic()
        while self.outcome.crashes < self._wanted and not self._errors:
            self._loop.told.check()
            self._revive()
            self._end_rival()
            log = self._loop.told.log
            if seen == len(log):
                if time.monotonic() - last > END_S:
                    raise NotInTime(f"nothing has happened for {END_S:g} s after {self.outcome.crashes} kills")
                time.sleep(0.02)
                continue
            step, at = log[seen]
            seen += 1
            last = time.monotonic()
            if last - at > 1.0 or step.kind not in VICTIMS:
                continue
            place = f"{step.kind} {step.state}/{step.phase}".rstrip("/")
            alive = [name for name in VICTIMS[step.kind] if self._is_up(name)]
            if not alive:
                continue
            deaths = Counter(victim for _, victim in self.outcome.kills.elements())
            victim = min(alive, key=lambda name: (self.outcome.kills[place, name], deaths[name]))
            if self.outcome.kills[place, victim] > 1 + self.outcome.crashes // SPREAD:
                continue
            time.sleep(self._draw.choice((0.0, 0.0, self._draw.uniform(0.0, 0.5))))
            self._kill(victim, place)

    def _kill(self, victim: str, place: str) -> None:
        instance = self._instance(victim)
        if instance is not None:
            self._serves(instance)
            self._down[instance].append([time.monotonic()])
        if victim == SECOND:
            self._loop.second.kill()
            self._loop.second.wait()
        else:
            with contextlib.suppress(ProcessLookupError):
                self._loop.stack.kill(victim)
        self.outcome.kills[place, victim] += 1
        if self.outcome.crashes % 10 == 0:
            self._say(f"{self.outcome.crashes} kills, the last of {victim} at {place}")
        if self._rival is None and self._rivals_every and self.outcome.crashes % self._rivals_every == 0:
            self._begin_rival()

    def _revive(self) -> None:
        """The supervisor's patience with what dies again and again is not what is measured."""
        for name in ("deploy-worker", "finetune-worker", "controller", "gateway"):
            self._loop.stack.release(name)
        if self._loop.second.poll() is not None:
            self._loop.start_second()
        for victim in ("gateway", SECOND):
            instance = self._instance(victim)
            if instance is not None and self._is_up(victim):
                self._serves(instance)

    def _serves(self, instance: str) -> None:
        """Note that a gateway's last time away is over."""
        if self._down[instance] and len(self._down[instance][-1]) == 1:
            self._down[instance][-1].append(time.monotonic())

    def _begin_rival(self) -> None:
        name = RIVALS[self.outcome.rivals % len(RIVALS)]
        log = self._loop.settings.run_dir / "logs" / f"rival-{name}.log"
        environment = self._loop.settings.environment(health_port=0)
        self._rival = name, spawn([name], environment, log), time.monotonic()
        self.outcome.rivals += 1
        self._say(f"a second {name}")

    def _end_rival(self, *, now: bool = False) -> None:
        if self._rival is None:
            return
        name, process, began = self._rival
        if now or process.poll() is not None or time.monotonic() - began > RIVAL_S:
            process.kill()
            process.wait()
            self._rival = None
            with contextlib.suppress(ProcessLookupError):
                self._loop.stack.kill(name)  # so that the health file, which they share, is the supervised one's again

    def _all_run(self) -> bool:
        self._end_rival(now=True)
        self._revive()
        return all(self._is_up(name) for name in ("deploy-worker", "finetune-worker", "controller", "gateway", SECOND))

    def _is_up(self, name: str) -> bool:
        if name != SECOND:
            return self._loop.stack.is_ready(name)
        return self._loop.second.poll() is None and self._loop.second_answers()

    def _instance(self, victim: str) -> str | None:
        return {"gateway": self._loop.settings.instance, SECOND: SECOND}.get(victim)

    # --- what the receivers counted ---------------------------------------------------------------------------------

    def _count(self, clients: Clients) -> None:
        out, told = self.outcome, self._loop.told
        out.answered = clients.answered
        for failure in clients.failures:
            if self._was_cut(failure):
                out.cut += 1
            else:
                out.refused[f"{failure.instance}: {failure.kind}"] += 1
        steps = {id_: [step for step, _ in of] for id_, of in told.steps.items()}
        out.duplicates += [*twice_in_log(steps), *twice_in_routes([table for table, _ in told.tables])]
        out.duplicates += self._jobs_twice(steps)
        out.duplicates += epochs_back([report for report, _ in told.reports])
        out.stuck += [f"{id_}: {of[-1].state}/{of[-1].phase}" for id_, of in steps.items() if of[-1].state not in ENDED]
        out.after_verified = after_verified(self._loop, self._verified_at)

    def _was_cut(self, failure: Failure) -> bool:
        if failure.kind.startswith("HTTP"):
            return False
        away = self._down[failure.instance]
        return any(d[0] <= failure.at and (len(d) == 1 or failure.at <= d[1] + OUTAGE_S) for d in away)

    def _jobs_twice(self, steps: dict[str, list[ActionStep]]) -> Iterator[str]:
        """Retrains that did not leave exactly one job: read from the provider's log of jobs that were made and cancelled."""
        cancelled = {entry["id"] for entry in self._loop.sandbox_log("job cancelled")}
        left: Counter[str] = Counter()
        for entry in self._loop.sandbox_log("job created"):
            left[entry["metadata"]["bellbuoy_action"]] += entry["id"] not in cancelled
        for id_, of in steps.items():
            submitted = any(step.phase == "submitted" for step in of)
            if left[id_] > 1 or (submitted and left[id_] != 1):
                yield f"{id_} left {left[id_]} jobs at the provider"


def twice_in_log(steps: dict[str, list[ActionStep]]) -> Iterator[str]:
    """Steps that stand on the log more than once, and incidents that asked for one thing more than once."""
    opened: Counter[tuple[str, str, int]] = Counter()
    for id_, of in steps.items():
        opened[of[0].incident, of[0].kind, of[0].attempt] += 1
        numbers = Counter(step.sequence for step in of)
        yield from (f"{id_} has step {number} {n} times" for number, n in numbers.items() if n > 1)
        once = Counter(step.phase for step in of if step.phase in ("routed", "submitting", "submitted", "tuned", "registered"))
        yield from (f"{id_} is {phase} {n} times" for phase, n in once.items() if n > 1)
        ends = sum(step.state in ENDED for step in of)
        if ends > 1:
            yield f"{id_} ends {ends} times"
    yield from (f"{kind} of incident {incident} is asked for {n} times" for (incident, kind, _), n in opened.items() if n > 1)


def twice_in_routes(tables: Sequence[RouteTable]) -> Iterator[str]:
    """Epochs that two tables have, epochs that are left out, and changes that an action made more than once."""
    epochs: dict[tuple[str, str], list[int]] = defaultdict(list)
    changes: Counter[tuple[str, str, str | None, int]] = Counter()
    for table in tables:
        epochs[table.app, table.environment].append(table.epoch)
        if table.action:
            changes[table.action, table.champion, table.candidate, table.weight] += 1
    for (app, _), of_app in epochs.items():
        if of_app != list(range(of_app[0], of_app[0] + len(of_app))):
            yield f"the epochs of {app} are {of_app}"
    yield from (f"{change[0]} routed to {change[1:]} {n} times" for change, n in changes.items() if n > 1)


def epochs_back(reports: Sequence[GatewayReport]) -> Iterator[str]:
    """Gateways that applied an older epoch after a newer one."""
    last: dict[tuple[str, str], int] = {}
    for report in reports:
        for route in report.routes:
            key = (f"{report.instance}/{report.incarnation}", route.app)
            if route.epoch < last.get(key, 0):
                yield f"{key[0]} went back from epoch {last[key]} of {route.app} to {route.epoch}"
            last[key] = max(route.epoch, last.get(key, 0))
