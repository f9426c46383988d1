"""A processor process for tests: the real one, with a cheap scorer that dies of the word that a test says.

`python -m tests.integration.processor_process [--careful]`, settings from the environment.
"""

import os
import sys
import time
from collections.abc import Sequence
from typing import Any

from adapters.settings import Settings
from schemas.messages import Config, Interaction
from streams.active_configs import MakeScoring
from streams.faust_app import main
from tests.unit.scoring_twin import TwinScoring

DEADLY = "die of this"
SLOW = float(os.environ.get("TEST_SCORING_SECONDS", "0"))


class MortalScoring(TwinScoring):
    """Ends the process at once on a prompt that holds DEADLY."""

    def interactions(self, batch: Sequence[Interaction]) -> list[Any]:
        out = super().interactions(batch)
        if any(DEADLY in text.prompt for text in out):
            os._exit(9)
        if SLOW:
            time.sleep(SLOW * len(batch))
        return out


def make(config: Config) -> MortalScoring:
    return MortalScoring(config)


def factory(_: Settings) -> MakeScoring:
    return make


if __name__ == "__main__":
    main(Settings(), careful="--careful" in sys.argv, factory=factory)
