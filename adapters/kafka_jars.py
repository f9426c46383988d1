"""The broker's jars: fetched by the Ivy that pyspark carries, checked against a committed lock, and its class-data archive."""

import fcntl
import hashlib
import importlib.util
import os
import re
import shutil
import subprocess
import tempfile
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from adapters.java import Java
from adapters.settings import Settings

KAFKA_VERSION: Final = "4.4.0"
INFRA: Final = Path(__file__).resolve().parent.parent / "infra" / "kafka"
LOCK_FILE: Final = INFRA / "jars.lock"
_FETCH_TIMEOUT_S: Final = 1_800
_ATTEMPTS: Final = 2

Progress = Callable[[str], None]


class JarsMissing(RuntimeError):
    """The jars are not there, or are not those of the lock; the text says what to do."""


@dataclass(frozen=True)
class Jar:
    """One line of the lock."""

    name: str
    size: int
    sha256: str


def cache_folder(settings: Settings) -> Path:
    """Where the jars and the archive are kept."""
    return settings.cache_dir.resolve() / f"kafka-{KAFKA_VERSION}"


def jar_folder(settings: Settings) -> Path:
    return cache_folder(settings) / "libs"


def read_lock(path: Path = LOCK_FILE) -> list[Jar]:
    """The lock's lines: sha256, size in bytes, file name."""
    lines = (line.split() for line in path.read_text().splitlines() if line and not line.startswith("#"))
    return [Jar(name, int(size), digest) for digest, size, name in lines]


def problems(folder: Path, lock: list[Jar], *, digests: bool) -> list[str]:
    """What of `folder` differs from the lock: by name and size, and with `digests` by content."""
    found = []
    for jar in lock:
        path = folder / jar.name
        if not path.is_file():
            found.append(f"{jar.name} is missing")
        elif path.stat().st_size != jar.size:
            found.append(f"{jar.name} has {path.stat().st_size} bytes, the lock says {jar.size}")
        elif digests and _sha256(path) != jar.sha256:
            found.append(f"{jar.name} has another sha256 than the lock says")
    known = {jar.name for jar in lock}
    if folder.is_dir():
        found += [f"{path.name} is not in the lock" for path in sorted(folder.iterdir()) if path.name not in known]
    return found


def class_path(settings: Settings) -> str:
    """The class path, every jar spelled out in the lock's order. JarsMissing when names or sizes differ from the lock."""
    folder, lock = jar_folder(settings), read_lock()
    wrong = problems(folder, lock, digests=False)
    if wrong:
        raise JarsMissing(f"Kafka's jars in {folder} are not those of the lock ({_some(wrong)}). Run `bellbuoy setup`.")
    return ":".join(str(folder / jar.name) for jar in lock)


def ensure_jars(settings: Settings, java: Java, progress: Progress) -> None:
    """Fetch the jars unless they are there, and compare every digest with the lock."""
    folder, lock = jar_folder(settings), read_lock()
    if not problems(folder, lock, digests=False):
        return
    with exclusive(cache_folder(settings)):
        if not problems(folder, lock, digests=False):
            return
        megabytes = sum(jar.size for jar in lock) / 1e6
        progress(f"fetching Apache Kafka {KAFKA_VERSION}: {len(lock)} jars, {megabytes:.0f} MB, about half a minute")
        fetched = _fetch(settings, java, progress, len(lock))
        wrong = problems(fetched, lock, digests=True)
        if wrong:
            shutil.rmtree(fetched)
            raise JarsMissing(
                f"the jars that were fetched are not those of {LOCK_FILE.name} and were thrown away: {_some(wrong)}"
            )
        if folder.exists():
            shutil.rmtree(folder)
        fetched.rename(folder)


def write_lock(settings: Settings, java: Java, progress: Progress, path: Path = LOCK_FILE) -> None:
    """Resolve anew and write the lock; for a maintainer who changed ivy.xml."""
    with exclusive(cache_folder(settings)):
        fetched = _fetch(settings, java, progress, 0)
        lines = [f"{_sha256(jar)} {jar.stat().st_size} {jar.name}" for jar in sorted(fetched.iterdir())]
        path.write_text(
            "# sha256, bytes, file: what ivy.xml resolves to. Written by `bellbuoy setup --write-lock`.\n"
            + "\n".join(lines)
            + "\n"
        )
        shutil.rmtree(fetched)


def verify_jars(settings: Settings) -> list[str]:
    """Every digest compared anew; for `bellbuoy doctor`."""
    return problems(jar_folder(settings), read_lock(), digests=True)


def archive_file(settings: Settings, java: Java) -> Path:
    """The class-data archive for this Java and these jars in this place."""
    basis = "\n".join([java.version, str(java.path), LOCK_FILE.read_text(), str(jar_folder(settings))])
    return cache_folder(settings) / f"classes-{hashlib.sha256(basis.encode()).hexdigest()[:16]}.jsa"


def _fetch(settings: Settings, java: Java, progress: Progress, expected: int) -> Path:
    """Run Ivy; returns the folder it filled. Ivy's own cache stays, so that a second attempt goes on where the first ended."""
    cache = cache_folder(settings)
    target = Path(tempfile.mkdtemp(prefix="fetch-", dir=cache))
    command = [
        str(java.path),
        *java.options(),
        *_proxy_options(),
        f"-Divy.default.ivy.user.dir={cache / 'ivy-home'}",
        "-jar",
        str(_ivy()),
        "-ivy",
        str(INFRA / "ivy.xml"),
        "-cache",
        str(cache / "ivy"),
        "-retrieve",
        f"{target}/[artifact]-[revision].[ext]",
        "-types",
        "jar",
        "bundle",
    ]
    said: list[str] = []
    for _ in range(_ATTEMPTS):
        said = []
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace")
        assert process.stdout is not None
        jars = 0
        for line in process.stdout:
            said.append(line.rstrip())
            started = re.match(r"downloading \S*/(\S+\.jar)", line)
            if started:
                jars += 1
                progress(f"  {jars}{f'/{expected}' if expected else ''} {started[1]}")
        if process.wait(_FETCH_TIMEOUT_S) == 0 and any(target.iterdir()):
            return target
    shutil.rmtree(target)
    tail = "\n".join(line for line in said[-15:] if line.strip())
    raise JarsMissing(f"Kafka's jars could not be fetched. Is the network there (a proxy: set https_proxy)? Ivy said:\n{tail}")


def _ivy() -> Path:
    spec = importlib.util.find_spec("pyspark")
    folders = list(spec.submodule_search_locations or ()) if spec is not None else []
    for folder in folders:
        for jar in sorted(Path(folder, "jars").glob("ivy-*.jar")):
            return jar
    raise JarsMissing("the pyspark package, whose Ivy fetches Kafka's jars, is not installed. Run `make setup`.")


def _proxy_options() -> list[str]:
    """Java does not read https_proxy and its like."""
    options = []
    for scheme, address in urllib.request.getproxies().items():
        parts = urlsplit(address if "//" in address else f"//{address}")
        if scheme in ("http", "https") and parts.hostname:
            options += [f"-D{scheme}.proxyHost={parts.hostname}", f"-D{scheme}.proxyPort={parts.port or 80}"]
    return options


@contextmanager
def exclusive(folder: Path) -> Iterator[None]:
    """One process at a time works in the cache folder; the others wait."""
    folder.mkdir(parents=True, exist_ok=True)
    fd = os.open(folder / ".lock", os.O_RDWR | os.O_CREAT, 0o644)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _some(wrong: list[str]) -> str:
    return "; ".join(wrong[:3]) + (f"; and {len(wrong) - 3} more" if len(wrong) > 3 else "")
