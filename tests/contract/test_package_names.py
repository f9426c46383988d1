"""Our folders are top-level packages: nothing that we depend on may ship one of the same name."""

import tomllib
from importlib.metadata import distributions, packages_distributions
from pathlib import Path, PurePosixPath

import pytest

ROOT = Path(__file__).parent.parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
OURS = PROJECT["project"]["name"]
PACKAGES = PROJECT["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]


def shipped(name: str) -> list[str]:
    """Installed distributions, other than this project, that hold a top-level package or module of that name."""
    found = []
    for distribution in distributions():
        for path in distribution.files or ():
            top = PurePosixPath(path).parts[0]
            if top == name or (
                len(PurePosixPath(path).parts) == 1 and top.split(".")[0] == name and top.endswith((".py", ".so"))
            ):
                found.append(str(distribution.metadata["Name"]))
                break
    return [other for other in found if other.lower().replace("_", "-") != OURS.lower()]


@pytest.mark.parametrize("package", PACKAGES)
def test_no_dependency_ships_a_package_of_our_name(package: str) -> None:
    assert shipped(package) == []


def test_the_search_finds_what_is_there() -> None:
    assert shipped("msgspec") == ["msgspec"] == packages_distributions()["msgspec"]
    assert shipped("typing_extensions") == ["typing_extensions"]
