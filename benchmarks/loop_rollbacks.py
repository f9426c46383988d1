"""How long a rollback takes from its request until it is verified, and what reaches the bad version afterwards."""

import hashlib
from dataclasses import dataclass, field

from adapters.gateways import read_gateways
from bellbuoy.routing import release_now
from bellbuoy.story import HELP_DESK_PROMPT, SANDBOX_MODEL
from benchmarks.loop_stack import ENVIRONMENT, LoopStack, until
from schemas.messages import CallConfiguration

GOOD = "v1"


@dataclass
class Rollbacks:
    """Seconds from each request's append time to that of `verified`; the times by digest of the bad versions' prompts."""

    seconds: list[float] = field(default_factory=list)
    unverified: int = 0
    verified_at: dict[str, int] = field(default_factory=dict)
    """Digest of the system prompt as the sandbox logs it → when its rollback was verified, ms."""


def open_desk(loop: LoopStack, app: str) -> None:
    """Release an app's first version, and wait until every gateway has its route: before, it would pass requests through."""
    configuration = CallConfiguration(model=SANDBOX_MODEL, system_prompt=HELP_DESK_PROMPT)
    table = release_now(loop.settings, app, ENVIRONMENT, GOOD, configuration, "benchmark", "the help desk opens")

    def routed() -> bool:
        reports = [report for report, _ in read_gateways(loop.settings).values()]
        return all(any(r.app == app and r.epoch >= table.epoch for r in report.routes) for report in reports)

    until(routed, f"the route of {app} at every gateway", 30, 0.2)


def release_bad(loop: LoopStack, app: str, version: str) -> str:
    """Release another prompt at once; its digest as the sandbox logs it."""
    prompt = f"{HELP_DESK_PROMPT} This is edit {version} of {app}."
    configuration = CallConfiguration(model=SANDBOX_MODEL, system_prompt=prompt)
    release_now(loop.settings, app, ENVIRONMENT, version, configuration, "benchmark", "an edit")
    return digest(prompt)


def digest(prompt: str) -> str:
    """A system prompt as the sandbox logs it."""
    return hashlib.sha256(prompt.encode()).hexdigest()[:16]


def measure(loop: LoopStack, app: str, rounds: int, *, kill: bool) -> Rollbacks:
    """Release a bad version, wait for requests on it at both gateways, ask for its rollback; with `kill`, the stack's own
    gateway gets kill -9 just before."""
    out = Rollbacks()
    for number in range(rounds):
        version = f"bad-{'killed' if kill else 'alive'}-{number}"
        prompt = release_bad(loop, app, version)
        until(lambda: loop.started_on(app, version), f"requests on {version} at both gateways")  # noqa: B023
        if kill:
            loop.stack.kill("gateway")
        action = loop.ask("rollback", app, version, GOOD)
        loop.told.ended(action.id)
        asked, verified = loop.told.at(action.id, "requested"), loop.told.at(action.id, "succeeded/verified")
        out.unverified += loop.told.at(action.id, "unverified/unverified") is not None
        if asked is not None and verified is not None:
            out.seconds.append((verified - asked) / 1000)
            out.verified_at[prompt] = verified
        if kill:
            until(lambda: _again(loop), "the killed gateway again", 60)
    return out


def after_verified(loop: LoopStack, verified_at: dict[str, int]) -> list[int]:
    """Requests to a bad version that reached the sandbox after its rollback was verified: so many ms after."""
    told = [(entry["time"], verified_at.get(entry["system"])) for entry in loop.sandbox_log("chat")]
    return [arrived - verified for arrived, verified in told if verified is not None and arrived > verified]


def _again(loop: LoopStack) -> bool:
    loop.stack.release("gateway")  # the next round need not wait for the supervisor's patience
    return loop.stack.is_ready("gateway")
