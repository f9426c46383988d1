"""Real text for stories and load: docstrings as a programming help desk, recorded conversations, a user's own file.

Nothing of it is stored here: it comes from the running interpreter and from installed packages.
"""

import importlib
import importlib.util
import inspect
import re
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from types import ModuleType
from typing import Any, Final

import msgspec

STDLIB: Final = "stdlib"
PYARROW: Final = "pyarrow"
PANDAS: Final = "pandas"
MAX_ANSWER: Final = 1_600
MIN_DOC: Final = 60

_STDLIB_MODULES: Final = """
argparse array ast asyncio base64 bisect bz2 calendar cmath codecs collections collections.abc concurrent.futures
configparser contextlib copy csv datetime decimal difflib dis email.message email.policy enum fileinput fnmatch
fractions functools gettext glob gzip hashlib heapq hmac html html.parser http.client http.cookies http.server imaplib
importlib.metadata importlib.resources inspect io ipaddress itertools json keyword linecache locale logging
logging.handlers lzma mailbox math mimetypes multiprocessing multiprocessing.pool numbers operator os os.path pathlib
pickle pickletools platform plistlib poplib pprint profile pstats queue random re reprlib sched secrets select
selectors shelve shlex shutil signal smtplib socket socketserver sqlite3 ssl stat statistics string struct subprocess
sys sysconfig tarfile tempfile textwrap threading time timeit token tokenize trace traceback tracemalloc types typing
unicodedata unittest unittest.mock urllib.error urllib.parse urllib.request uuid warnings wave weakref
wsgiref.simple_server xml.dom.minidom xml.etree.ElementTree xmlrpc.client zipapp zipfile zlib zoneinfo builtins
"""
_PYARROW_MODULES: Final = """
pyarrow pyarrow.compute pyarrow.csv pyarrow.json pyarrow.parquet pyarrow.dataset pyarrow.fs pyarrow.feather pyarrow.ipc
pyarrow.types pyarrow.orc pyarrow.flight pyarrow.acero pyarrow.substrait pyarrow.cffi
"""
_PANDAS_MODULES: Final = """
pandas pandas.api.types pandas.api.extensions pandas.tseries.offsets pandas.plotting pandas.io.formats.style
pandas.testing
"""

_MODULES: Final = {STDLIB: _STDLIB_MODULES, PYARROW: _PYARROW_MODULES, PANDAS: _PANDAS_MODULES}
_IMPLEMENTED_IN: Final = {"os": "posix"}

PHRASINGS: Final = (
    "What does {name} do?",
    "How do I use {name} in {package}? I need to {task}.",
    "I want to {task}. Which function should I call?",
    "{name} - can you explain it with its arguments please",
    "hey, quick q: whats {short} for?? the docs say it should {task}",
    "In {module}, how would one {task}?",
    "Is {name} the right way to {task}, or is there something better in {package}?",
    "Trying to {task} with {package} and got stuck. Someone told me to look at {short}. How does it work?",
    "please explain {name}. thx",
    "I keep mixing this up: {short} in {module}. What is it supposed to do and what does it return?",
    "To {task}, do I call {name}?",
    "can u help me wiht {name}, i dont understnad what it does",
    "We have code that calls {name} and nobody knows why. What is it for?",
    "My colleague says {package} can {task}. True? How?",
)


@dataclass(frozen=True)
class Item:
    """One thing that people ask about: its qualified name, its module and package, and its documentation."""

    topic: str
    name: str
    module: str
    task: str
    answer: str

    @property
    def short(self) -> str:
        return self.name.rpartition(".")[2]

    def question(self, phrasing: str) -> str:
        """The item's question in one of the `PHRASINGS`."""
        package = "Python" if self.topic == STDLIB else self.topic
        return phrasing.format(name=self.name, short=self.short, module=self.module, package=package, task=self.task)


@dataclass(frozen=True)
class HelpDesk:
    """Items by topic. Everything drawn is drawn from the generator that the caller passes."""

    items: dict[str, list[Item]]

    def ask(self, rng: Random, topic: str) -> tuple[str, str]:
        """A question about a random item of the topic, and its answer."""
        item = rng.choice(self.items[topic])
        return item.question(rng.choice(PHRASINGS)), item.answer


def help_desk(seed: int = 0, topics: Sequence[str] = (STDLIB, PYARROW)) -> HelpDesk:
    """The help desk of this interpreter on topics such as `stdlib`, `pyarrow` and `pandas`, each shuffled by the seed."""
    items = {topic: _items(topic, _MODULES[topic]) for topic in topics}
    for topic, found in sorted(items.items()):
        Random(f"{seed}/{topic}").shuffle(found)
    return HelpDesk(items)


def _items(topic: str, modules: str) -> list[Item]:
    found: dict[str, Item] = {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # deprecated names are documented too
        for module_name in modules.split():
            try:
                module = importlib.import_module(module_name)
            except ImportError:
                continue  # an optional part that this build of the interpreter or package lacks
            for name, doc in _documented(module):
                answer = _answer(doc)
                if len(answer) >= MIN_DOC and answer not in found:
                    found[answer] = Item(topic, name, module_name, _task(answer, name), answer)
    return sorted(found.values(), key=lambda item: (item.name, item.answer))


def _documented(module: ModuleType) -> Iterator[tuple[str, str]]:
    """(qualified name, docstring) of a module's public functions, classes and their public methods."""
    root = module.__name__.partition(".")[0]
    for name, value in sorted(vars(module).items()):
        if name.startswith("_") or inspect.ismodule(value) or not callable(value):
            continue
        home = getattr(value, "__module__", None) or module.__name__
        if not isinstance(home, str) or home.lstrip("_").partition(".")[0] not in (root, _IMPLEMENTED_IN.get(root)):
            continue
        prefix = "" if module.__name__ == "builtins" else f"{module.__name__}."
        yield f"{prefix}{name}", value.__doc__ if isinstance(value.__doc__, str) else ""
        if inspect.isclass(value) and not issubclass(value, BaseException):
            for method, inner in sorted(vars(value).items()):
                doc = getattr(inner, "__doc__", None)
                if not method.startswith("_") and isinstance(doc, str) and not isinstance(inner, int | str | type):
                    yield f"{prefix}{name}.{method}", doc


def _answer(doc: str) -> str:
    """A docstring without its indentation and without a leading signature line, cut at a paragraph."""
    text = inspect.cleandoc(doc).strip()
    first, _, rest = text.partition("\n")
    if rest and re.fullmatch(r"[\w.]+\(.*\)( ->.*)?", first.strip()):
        text = rest.strip()
    if len(text) > MAX_ANSWER:
        cut = text.rfind("\n\n", 0, MAX_ANSWER)
        text = text[: cut if cut > MIN_DOC else MAX_ANSWER].rstrip()
    return text


def _task(answer: str, name: str) -> str:
    """The first sentence as something that one may want to do."""
    sentence = re.split(r"(?<=[.:;])\s|\n\n", answer, maxsplit=1)[0]
    sentence = " ".join(sentence.split()).rstrip(".:; ")
    if not sentence or len(sentence) > 160:
        return f"work with {name}"
    words = sentence.split(" ")
    if words[0].isalpha() and words[0][1:].islower():
        verb = words[0].lower()
        if verb.endswith("s") and not verb.endswith(("ss", "us", "is")) and len(verb) > 4:
            verb = verb[:-1]
        words[0] = verb
    return " ".join(words)


@dataclass(frozen=True)
class Turn:
    """One exchange: what one person said and what the other answered."""

    prompt: str
    response: str


@dataclass(frozen=True)
class Conversation:
    """A recorded conversation between two people. `rating` is in [0, 1], None where nobody rated it."""

    id: str
    turns: tuple[Turn, ...]
    rating: float | None


class CorpusMissing(RuntimeError):
    """A package that ships the text is not installed."""


def chitchat() -> list[Conversation]:
    """The conversations that the development dependency chitchat-dataset ships, in its order; raises CorpusMissing."""
    recorded = _chitchat_file()
    conversations = []
    for id_, entry in recorded.items():
        said = [" ".join(m["text"].strip() for m in turn) for turn in entry["messages"]]
        pairs = zip(said[::2], said[1::2], strict=False)
        turns = tuple(Turn(prompt, response) for prompt, response in pairs if prompt and response)
        if turns:
            conversations.append(Conversation(id_, turns, _rating(entry.get("ratings"))))
    return conversations


def _chitchat_file() -> dict[str, Any]:
    spec = importlib.util.find_spec("chitchat_dataset")
    if spec is None or not spec.submodule_search_locations:
        raise CorpusMissing("the package chitchat-dataset is not installed: run `make setup` for the development dependencies")
    path = Path(spec.submodule_search_locations[0]) / "dataset.json"
    value: dict[str, Any] = msgspec.json.decode(path.read_bytes())
    return value


def _rating(ratings: dict[str, int] | None) -> float | None:
    """Mean of the 1–10 ratings."""
    values = [v for v in (ratings or {}).values() if 1 <= v <= 10]
    return (sum(values) / len(values) - 1) / 9 if values else None


def long_texts(rng: Random, n: int, size: int = 1_300) -> Iterator[tuple[str, str]]:
    """`n` distinct (prompt, response) of about `size` characters together, put together from recorded messages."""
    said = sorted({text for c in chitchat() for turn in c.turns for text in (turn.prompt, turn.response)})
    seen: set[int] = set()
    while len(seen) < n:
        prompt, response = _joined(rng, said, size // 4), _joined(rng, said, size - size // 4)
        fingerprint = hash((prompt, response))
        if fingerprint not in seen:
            seen.add(fingerprint)
            yield prompt, response


def _joined(rng: Random, said: list[str], size: int) -> str:
    parts: list[str] = []
    length = 0
    while length < size:
        text = said[int(rng.random() * len(said))]
        parts.append(text)
        length += len(text) + 1
    return " ".join(parts)[: size + 80]


class CorpusLine(msgspec.Struct):
    """One line of a user's JSONL corpus; other fields are ignored."""

    prompt: str
    response: str | None = None


class InvalidCorpus(ValueError):
    """A user's corpus that cannot be read; the message names file and line."""


def corpus_file(path: Path) -> list[tuple[str, str | None]]:
    """(prompt, response) of each non-blank line of a JSONL file; raises InvalidCorpus with the line's number."""
    decoder = msgspec.json.Decoder(CorpusLine)
    rows: list[tuple[str, str | None]] = []
    try:
        with path.open("rb") as lines:
            for number, line in enumerate(lines, start=1):
                if not line.strip():
                    continue
                try:
                    row = decoder.decode(line)
                except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
                    raise InvalidCorpus(f"{path}:{number}: {error}") from None
                if not row.prompt.strip():
                    raise InvalidCorpus(f"{path}:{number}: prompt is empty")
                rows.append((row.prompt, row.response))
    except OSError as error:
        raise InvalidCorpus(f"{path}: {error.strerror}") from None
    if not rows:
        raise InvalidCorpus(f"{path}: no line has a prompt")
    return rows
