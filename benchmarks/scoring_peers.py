"""Peers that score text on CPU, each in a throwaway venv of its own: texts/s of one process on the texts that it is given."""

import json
import os
import subprocess
import sys
import tempfile
import venv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

_TIMEOUT_S: Final = 900
_THREADS: Final = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
_FRAME: Final = """
import json, sys, time
texts = json.load(open(sys.argv[1]))
{setup}
run(texts[:8])
started = time.process_time()
for at in range(0, len(texts), 128):
    run(texts[at : at + 128])
print(); print(json.dumps({{"seconds": time.process_time() - started}}))
"""


@dataclass(frozen=True)
class Peer:
    """What is installed, and the code that defines `run(texts)`; `most` texts are given to it."""

    name: str
    packages: tuple[str, ...]
    setup: str
    most: int


PEERS: Final = (
    Peer(
        "alt_profanity_check",
        ("alt-profanity-check",),
        "from profanity_check import predict_prob as run",
        20_000,
    ),
    Peer(
        "presidio_patterns",
        ("presidio-analyzer",),
        """
from presidio_analyzer import PatternRecognizer, RecognizerRegistry
registry = RecognizerRegistry()
registry.load_predefined_recognizers(languages=["en"])
found = [r for r in registry.recognizers if isinstance(r, PatternRecognizer)]
def run(texts):
    for text in texts:
        for recogniser in found:
            recogniser.analyze(text, recogniser.supported_entities)
""",
        2_000,
    ),
    Peer(
        "langkit_whylogs",
        ("langkit", "whylogs", "pandas<3", "numpy<2", "setuptools<81"),
        """
import pandas, whylogs
from langkit import regexes, textstat
from whylogs.experimental.core.udf_schema import udf_schema
schema = udf_schema()
def run(texts):
    whylogs.log(pandas.DataFrame({"prompt": texts}), schema=schema)
""",
        2_000,
    ),
    Peer(
        "evidently_descriptors",
        ("evidently", "pandas<3"),
        """
import pandas
from evidently import DataDefinition, Dataset
from evidently.descriptors import NonLetterCharacterPercentage, SentenceCount, TextLength, WordCount
definition = DataDefinition(text_columns=["text"])
def run(texts):
    frame = pandas.DataFrame({"text": texts})
    descriptors = [TextLength("text"), WordCount("text"), SentenceCount("text"), NonLetterCharacterPercentage("text")]
    Dataset.from_pandas(frame, data_definition=definition, descriptors=descriptors)
""",
        5_000,
    ),
)


class PeerFailed(RuntimeError):
    """A peer could not be installed or run; the text is pip's or its own."""


class InstalledPeer:
    """A peer in its venv below `folder`."""

    def __init__(self, peer: Peer, folder: Path) -> None:
        """Raises PeerFailed with pip's reason."""
        self.peer = peer
        self._folder = folder / peer.name
        venv.create(self._folder, with_pip=True)
        self._python = self._folder / "bin" / "python"
        done = self._call("-m", "pip", "install", "--quiet", "--disable-pip-version-check", *peer.packages)
        if done.returncode:
            raise PeerFailed(_reason(done.stderr))

    def rate(self, texts: Sequence[str]) -> float:
        """Texts per CPU-second. Raises PeerFailed."""
        given = texts[: self.peer.most]
        return len(given) / float(self.run(_FRAME.format(setup=self.peer.setup), given)["seconds"])

    def run(self, program: str, given: Any) -> dict[str, Any]:
        """What a program prints as JSON in its last line; `given` is JSON in the file that its first argument names.

        Raises PeerFailed.
        """
        file, code = self._folder / "given.json", self._folder / "run.py"
        file.write_text(json.dumps(given))
        code.write_text(program)
        done = self._call(str(code), str(file))
        if done.returncode:
            raise PeerFailed(_reason(done.stderr))
        value: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
        return value

    def _call(self, *arguments: str) -> "subprocess.CompletedProcess[str]":
        environment = {"PATH": "/usr/bin:/bin", "HOME": str(self._folder), **_THREADS, **_network()}
        try:
            return subprocess.run(
                [str(self._python), *arguments], capture_output=True, text=True, timeout=_TIMEOUT_S, env=environment, check=False
            )
        except subprocess.TimeoutExpired as error:
            raise PeerFailed(f"it took longer than {_TIMEOUT_S} s") from error


def measured(texts: dict[str, Sequence[str]]) -> list[tuple[str, dict[str, float], str | None]]:
    """(peer, rate by name of texts, why there is none)."""
    results: list[tuple[str, dict[str, float], str | None]] = []
    with tempfile.TemporaryDirectory() as folder:
        for peer in PEERS:
            print(f"{peer.name}: installing {', '.join(peer.packages)}", file=sys.stderr, flush=True)
            try:
                installed = InstalledPeer(peer, Path(folder))
                results.append((peer.name, {name: installed.rate(some) for name, some in texts.items()}, None))
            except PeerFailed as error:
                results.append((peer.name, {}, str(error)))
    return results


def _network() -> dict[str, str]:
    """How this machine reaches its package index, where the environment says so."""
    return {
        name: value
        for name, value in os.environ.items()
        if name.upper().startswith(("PIP_", "HTTP", "SSL_", "NO_PROXY", "REQUESTS_"))
    }


def _reason(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    errors = [line for line in lines if "rror" in line]
    return " / ".join((errors or lines)[-2:])[:400] or "it said nothing"
