"""A deploy worker in a process of its own, with a registry that knows every version: for tests that kill it."""

import sys

from adapters.settings import Settings
from schemas.messages import CallConfiguration
from services.deploy_worker import main


def configuration(app: str, environment: str, version: str) -> CallConfiguration:
    """What version `v3` is in these tests: the model `model-v3`."""
    return CallConfiguration(model=f"model-{version}")


if __name__ == "__main__":
    sys.exit(main(Settings(), configuration))
