"""One JSON line per result: name, value, unit, the command that gave it and the versions it ran with."""

import json
import platform
import sys
from collections.abc import Iterable
from importlib.metadata import version


def emit(name: str, value: float, unit: str, packages: Iterable[str] = ()) -> None:
    """Print one result."""
    versions = {"python": platform.python_version()} | {p: version(p) for p in packages}
    print(
        json.dumps(
            {"name": name, "value": round(value, 6), "unit": unit, "command": " ".join(sys.orig_argv), "versions": versions}
        ),
        flush=True,
    )
