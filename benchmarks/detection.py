"""The detectors against what they promise, and against peers at equal run length; in the event clock, so that A is in events.

    python -m benchmarks.detection --only feedback,topics --seeds 60
    python -m benchmarks.detection --only budget --seeds 59 --budget 1e5 --n0 1000,5000,20000,50000
    python -m benchmarks.detection --only control,conversations --seeds 20 --budget 1e5 --n0 5000
    python -m benchmarks.detection --only canary --seeds 2000
    python -m benchmarks.detection --only canary_turns,canary_worse --seeds 12
    python -m benchmarks.detection --only peers

A small run fits a small machine: --seeds, --n0 and --budget say how large it is. Seeds count from 0.
"""

import argparse
import sys
import time
from typing import Final

from adapters.corpus import chitchat
from adapters.embedding import load_embedding
from adapters.settings import Settings
from benchmarks import detection_budget, detection_canary, detection_feedback, detection_peers, detection_topics
from benchmarks.no_change import Pool, score_pool

PARTS: Final = (
    "feedback",
    "topics",
    "ramp",
    "budget",
    "control",
    "conversations",
    "canary",
    "canary_turns",
    "canary_worse",
    "peers",
)


def main() -> None:
    """Run the chosen parts."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default=",".join(PARTS), help=f"of {', '.join(PARTS)} (default: all)")
    parser.add_argument("--seeds", type=int, default=20, help="simulations of each kind (default 20)")
    parser.add_argument("--budget", type=float, default=1e5, help="A of the budget parts: one false alarm in so many events")
    parser.add_argument("--n0", default="1000,5000,20000,50000", help="sizes of the reference in the budget parts")
    parser.add_argument("--conversations", type=int, default=2_000, help="recorded conversations in the budget parts")
    parser.add_argument("--first-seed", type=int, default=0, help="of the canary parts, so that they can be run side by side")
    args = parser.parse_args()
    parts = args.only.split(",")
    unknown = [part for part in parts if part not in PARTS]
    if unknown:
        parser.error(f"there is no part {', '.join(unknown)}: choose from {', '.join(PARTS)}")
    sizes = [int(size) for size in args.n0.split(",")]
    seeds = range(args.first_seed, args.first_seed + args.seeds)
    pool: Pool | None = None
    for part in parts:
        started = time.monotonic()
        match part:
            case "feedback":
                detection_feedback.windowed(detection_feedback.run(args.seeds))
            case "topics":
                texts = detection_topics.corpus()
                detection_topics.best_window(texts, detection_topics.run(texts, args.seeds))
            case "ramp":
                detection_topics.ramp(detection_topics.corpus(), args.seeds)
            case "canary" | "canary_turns":
                detection_canary.run_equal(seeds, every_turn=part == "canary_turns")
            case "canary_worse":
                detection_canary.run_worse(seeds)
            case "peers":
                detection_peers.run()
            case _:
                pool = pool or score_pool(chitchat()[: args.conversations], load_embedding(Settings()))
                unit = "conversation" if part == "conversations" else "message"
                detection_budget.run(pool, args.seeds, sizes, args.budget, unit=unit, control=part == "control")
        print(f"# {part}: {time.monotonic() - started:.0f} s", file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
