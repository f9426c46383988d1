"""The loop from an alert to a verified fix: how long a rollback and a retrain take, and what kill -9 at every step does to them.

python -m benchmarks.loop --rollbacks 40 --crashes 200
"""

import argparse
import os
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from benchmarks.loop_clients import Clients
from benchmarks.loop_crashes import Crashes, Outcome
from benchmarks.loop_rollbacks import Rollbacks, after_verified, measure, open_desk
from benchmarks.loop_stack import LoopStack, until
from benchmarks.report import emit

PACKAGES = ("aiohttp", "kafka-python", "confluent-kafka", "mlflow", "openai")
DESK, SCHOOL = "desk", "school"
OPINIONS = 600


def say(line: str) -> None:
    """Progress, with the load of the machine."""
    print(f"# {time.strftime('%H:%M:%S')} load {os.getloadavg()[0]:.1f}: {line}", file=sys.stderr, flush=True)


def rollbacks(loop: LoopStack, rounds: int, seed: int, *, with_retrain: bool) -> None:
    """Rollbacks with both gateways alive, then with one killed just before; a retrain between."""
    for app in (DESK, SCHOOL):
        open_desk(loop, app)
    with Clients(loop, {DESK: 20.0, SCHOOL: 30.0}, seed=seed) as clients:
        say(f"{rounds} rollbacks with both gateways alive")
        alive = measure(loop, DESK, rounds, kill=False)
        report_rollbacks("loop.rollback_verified", alive)
        if with_retrain:
            until(lambda: clients.opinions(SCHOOL) >= OPINIONS, "opinions to train on", 300, 0.5)
            retrain(loop)
        say(f"{rounds} rollbacks with one gateway killed just before")
        killed = measure(loop, DESK, rounds, kill=True)
        report_rollbacks("loop.rollback_verified_one_killed", killed)
        time.sleep(1.0)
        late = after_verified(loop, alive.verified_at | killed.verified_at)
    report_late("loop.requests_after_verified", late)


def report_rollbacks(name: str, seen: Rollbacks) -> None:
    """Quantiles, and how many rollbacks were not verified in time."""
    for share in (50, 95):
        emit(f"{name}_p{share}_s", float(np.percentile(seen.seconds, share)) if seen.seconds else float("nan"), "s", PACKAGES)
    emit(f"{name}_max_s", max(seen.seconds, default=float("nan")), "s", PACKAGES)
    emit(f"{name}_unverified", seen.unverified, f"of {len(seen.seconds)} rollbacks", PACKAGES)


def report_late(name: str, late: list[int]) -> None:
    """Their number, and how late they were to stderr."""
    if late:
        say(f"PROBLEM requests on a bad version arrived so many ms after its rollback was verified: {late}")
    emit(name, len(late), "requests", PACKAGES)


def retrain(loop: LoopStack) -> None:
    """From the request, which stands in one transaction with the alert that it follows from, to the candidate."""
    say("a retrain")
    action = loop.ask("retrain", SCHOOL)
    end = loop.told.ended(action.id, 180)
    asked, candidate = loop.told.at(action.id, "requested"), loop.told.at(action.id, "succeeded/candidate")
    if asked is None or candidate is None:
        raise SystemExit(f"the retrain did not end with a candidate: {end.state}/{end.phase}: {end.reason}")
    emit("loop.detection_to_candidate_s", (candidate - asked) / 1000, "s", PACKAGES)


def report_crashes(seen: Outcome) -> None:
    """The counts; what must not be goes to stderr in words."""
    for (place, victim), n in sorted(seen.kills.items()):
        say(f"{n:4} kills of {victim} at {place}")
    for end, n in sorted(seen.actions.items()):
        say(f"{n:4} times {end}")
    for problem in (*seen.duplicates, *seen.stuck, *(f"{n} requests failed at {what}" for what, n in seen.refused.items())):
        say(f"PROBLEM {problem}")
    emit("loop.crashes", seen.crashes, "kills", PACKAGES)
    emit("loop.steps_with_crash", len(seen.kills), "pairs of step and victim", PACKAGES)
    emit("loop.rivals", seen.rivals, "times two of a kind", PACKAGES)
    emit("loop.actions_under_crashes", sum(seen.actions.values()), "actions", PACKAGES)
    emit("loop.duplicate_actions", len(seen.duplicates), "duplicates", PACKAGES)
    emit("loop.stuck_actions", len(seen.stuck), "actions", PACKAGES)
    emit("loop.refused_requests", sum(seen.refused.values()), f"of {seen.answered} requests", PACKAGES)
    emit("loop.cut_requests", seen.cut, "requests of killed gateways", PACKAGES)
    report_late("loop.requests_after_verified_under_crashes", seen.after_verified)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rollbacks", type=int, default=40, help="rollbacks of each sort (default 40); 0 leaves them out")
    parser.add_argument("--crashes", type=int, default=200, help="kills (default 200); 0 leaves them out")
    parser.add_argument("--retrain", action=argparse.BooleanOptionalAction, default=True, help="a retrain between the rollbacks")
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="bellbuoy-loop-") as folder:
        if args.rollbacks:
            with LoopStack(Path(folder) / "rollbacks", job_seconds=4.0) as loop:
                rollbacks(loop, args.rollbacks, args.seed, with_retrain=args.retrain)
        if args.crashes:
            with LoopStack(Path(folder) / "crashes") as loop:
                outcome = Crashes(loop, crashes=args.crashes, seed=args.seed, say=say).run()
            report_crashes(outcome)
            if outcome.duplicates or outcome.stuck or outcome.refused or outcome.after_verified:
                raise SystemExit(1)


if __name__ == "__main__":
    main()
