"""`make chaos ROUNDS=n SEED=s`: kill -9 of every process in turn and at random, under traffic; exits 1 on any loss or repetition."""

import argparse
import contextlib
import tempfile
from pathlib import Path

from adapters.settings import Settings
from tests.chaos.harness import FREE_PORTS, VICTIMS, Chaos


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=len(VICTIMS), help="kills; the first ones go through all processes in turn")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--rate", type=float, default=400, help="requests a second")
    parser.add_argument("--victims", nargs="+", choices=VICTIMS, default=VICTIMS, help="only these processes")
    parser.add_argument("--keep", type=Path, help="work in this folder and keep it, for a look afterwards")
    args = parser.parse_args()
    temporary = contextlib.nullcontext(args.keep) if args.keep else tempfile.TemporaryDirectory(prefix="bellbuoy-chaos-")
    with temporary as folder:
        settings = Settings(data_dir=Path(folder), **FREE_PORTS)
        outcome = Chaos(
            settings,
            rounds=args.rounds,
            seed=args.seed,
            rate=args.rate,
            say=lambda line: print(line, flush=True),
            victims=args.victims,
        ).run()
    problems = outcome.problems()
    for problem in problems:
        print(f"PROBLEM {problem}")
    verdict = outcome.verdict
    print(f"accepted={outcome.accepted} alerts={verdict.alerts} actions={verdict.actions} repeated={verdict.repeated}")
    print(f"rounds={len(outcome.rounds)} missing={verdict.missing} duplicates={verdict.duplicates}")
    raise SystemExit(1 if problems or verdict.missing or verdict.duplicates else 0)


if __name__ == "__main__":
    main()
