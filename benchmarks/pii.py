"""How well redaction finds personal data and secrets: recall and precision per kind, and what fires on ordinary text.

Documents are our own (tests/pii_documents). Ordinary text is the chitchat of the development dependency and the docstrings of
all installed packages; every firing is printed, for a person to say whether it is one.
    python -m benchmarks.pii --docstrings 50000
"""

import argparse
import ast
import json
import sysconfig
import time
import warnings
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Final

from scipy.stats import norm

from adapters.corpus import chitchat
from benchmarks.report import emit
from core.redaction import Redactor
from tests.pii_documents import PARTS, Document, documents
from tests.pii_documents.evaluation import evaluated

PACKAGES: Final = ("google-re2", "chitchat-dataset")
HOSTILE: Final = {
    "letters": "a", "digits": "1", "spaced digits": "1 ", "at signs": "a@", "keys": "sk-a-", "colons": "1:", "dots": "12.",
    "passwords": "password=", "accounts": "GB29 ", "wide digits": "\uff11", "zero width": "1\u200b", "logins": "x://u:p@",
    "cards": "4111 1111 1111 1112 ", "key markers": "-----BEGIN PRIVATE KEY-----", "addresses": "10.20.30.", "emails": "a@b.example ",
    "jwt": "eyJaaaaaaaaa.", "overrides": "\u202e1", "settings": "server=a;", "settings without a place": "port=a;password=b;", "words of settings": "user=a ",
    "coins": "1A1zP1eP5QGefi2DMPTfTL5SLmv7DivfNb ", "hexadecimal": "private key " + "0123456789abcdef" * 4 + "0 ", "escapes": "\\n1",
    "numbers in a list": "call 020 7946 0321, ", "spelled": "a [at] b [dot] ",
}  # fmt: skip
_MAX_TEXT: Final = 1 << 20


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--docstrings", type=int, default=50_000)
    count = parser.parse_args().docstrings
    redactor = Redactor(_MAX_TEXT)
    for part in PARTS:
        _documents(part, documents(part), redactor)
    _documents("all", [document for part in PARTS for document in documents(part)], redactor)
    _ordinary("chitchat", (text for talk in chitchat() for turn in talk.turns for text in (turn.prompt, turn.response)), redactor)
    _growth()
    _ordinary("docstrings", islice(docstrings(Path(sysconfig.get_path("purelib"))), count), redactor)


def wilson(successes: int, trials: int) -> tuple[float, float]:
    """95 % score interval of a share (Wilson 1927).

    >>> [round(bound, 3) for bound in wilson(25, 25)]
    [0.867, 1.0]
    """
    if not trials:
        return 0.0, 1.0
    z = float(norm.ppf(0.975))
    centre = (successes + z * z / 2) / (trials + z * z)
    half = z / (trials + z * z) * (successes * (trials - successes) / trials + z * z / 4) ** 0.5
    return max(0.0, centre - half), min(1.0, centre + half)


def docstrings(root: Path) -> Iterator[str]:
    """Docstrings of all modules below `root`, in the order of their paths."""
    for path in sorted(root.rglob("*.py")):
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                tree = ast.parse(path.read_bytes())
        except (SyntaxError, ValueError, RecursionError):
            continue
        for node in ast.walk(tree):
            if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
                text = ast.get_docstring(node)
                if text:
                    yield text


def _documents(part: str, found: Sequence[Document], redactor: Redactor) -> None:
    emit(f"pii.{part}.documents", len(found), "documents", PACKAGES)
    emit(f"pii.{part}.look_alikes", sum(not document.values for document in found), "documents", PACKAGES)
    for kind, counts in evaluated(found, redactor).items():
        for name, trials in (("recall", counts.values), ("precision", counts.fired)):
            low, high = wilson(counts.found, trials)
            emit(f"pii.{part}.{kind}.{name}", counts.found / trials if trials else 1.0, "share", PACKAGES)
            _say(f"pii.{part}.{kind}.{name}", interval=[round(low, 3), round(high, 3)], of=trials)
        for missed in counts.missed:
            _say(f"pii.{part}.{kind}.missed", what=missed)
        for false in counts.false:
            _say(f"pii.{part}.{kind}.false", what=false)


def _ordinary(name: str, texts: Iterable[str], redactor: Redactor) -> None:
    total = fired = 0
    for text in texts:
        total += 1
        found = redactor.find(text)
        fired += bool(found)
        for one in found:
            around = text[max(0, one.start - 30) : one.end + 20]
            _say(f"pii.{name}.fired", rule=one.rule.name, value=text[one.start : one.end], around=around)
    emit(f"pii.{name}.messages", total, "messages", PACKAGES)
    emit(f"pii.{name}.firings", 1_000 * fired / max(1, total), "messages with a firing per 1,000", PACKAGES)


def _growth() -> None:
    """Time for 1 MB over time for 128 KB of what nearly matches: 8 where it is linear."""
    redactor = Redactor(1 << 21)
    for name, piece in HOSTILE.items():
        small, large = (_least_seconds(redactor, piece * (size // len(piece))) for size in (1 << 17, 1 << 20))
        emit(f"pii.hostile.{name}.1MB", large * 1_000, "ms_cpu", PACKAGES)
        emit(f"pii.hostile.{name}.growth", large / max(small, 1e-6), "x for 8 times the text", PACKAGES)


def _least_seconds(redactor: Redactor, text: str) -> float:
    times = []
    for _ in range(3):
        started = time.process_time()
        redactor.redact(text)
        times.append(time.process_time() - started)
    return min(times)


def _say(name: str, **details: object) -> None:
    print(json.dumps({"name": name} | details, ensure_ascii=False), flush=True)


if __name__ == "__main__":
    main()
