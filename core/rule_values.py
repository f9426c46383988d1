"""The kinds of values that a file of rules holds: how each is read from YAML, written again, and described to an editor."""

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any, Final, Protocol

from core.rule_words import DURATION as DURATION_PATTERN
from core.rule_words import Wrong, budget_of, budget_words, duration_of, nearest, seconds_of, shown
from core.yaml_text import Items, Node, Place, Problem, Scalar, Table
from schemas.messages import WEIGHT_ONE

Schema = dict[str, Any]

MOST_PROBLEMS: Final = 50
MAX_TEXT: Final = 200
_PERCENT: Final = r"[0-9]{1,3}(\.[0-9]{1,6})?%"
_NUMBER: Final = re.compile(r"[-+]?([0-9]{1,18}(\.[0-9]{0,40})?|\.[0-9]{1,40})([eE][-+]?[0-9]{1,3})?")


@dataclass
class Report:
    """The problems found so far, the first 50 of them."""

    problems: list[Problem] = field(default_factory=list)
    found: int = 0
    """How many there were in all."""

    def add(self, place: Place, path: str, wrong: str, right: str) -> None:
        self.found += 1
        if len(self.problems) < MOST_PROBLEMS:
            self.problems.append(Problem(place, path, wrong, right))


class Kind(Protocol):
    """`read` gives None after it has reported; `plain` is the value as YAML's own types hold it."""

    def read(self, node: Node, path: str, report: Report) -> Any: ...

    def plain(self, value: Any) -> Any: ...

    def schema(self) -> Schema: ...


@dataclass(frozen=True)
class Single:
    """A kind of scalars: `parse` raises Wrong."""

    parse: Callable[[Scalar], Any]
    plain: Callable[[Any], Any]
    described: Schema
    wanted: str

    def read(self, node: Node, path: str, report: Report) -> Any:
        if not isinstance(node, Scalar):
            report.add(
                node.place, path, f"a {'list' if isinstance(node, Items) else 'table'} stands here", f"write {self.wanted}"
            )
            return None
        if node.empty:
            report.add(node.place, path, "there is no value", f"write {self.wanted}")
            return None
        try:
            return self.parse(node)
        except Wrong as error:
            report.add(node.place, path, error.wrong, error.right)
            return None

    def schema(self) -> Schema:
        return self.described


@dataclass(frozen=True)
class Listed:
    """A list of values of one kind, read as a tuple."""

    of: Kind
    wanted: str
    rising: bool = False

    def read(self, node: Node, path: str, report: Report) -> tuple[Any, ...] | None:
        if not isinstance(node, Items):
            report.add(node.place, path, "this is no list", f"write {self.wanted}")
            return None
        before = report.found
        read = tuple(self.of.read(item, f"{path}[{at}]", report) for at, item in enumerate(node.items))
        if report.found == before and self.rising and (not read or list(read) != sorted(set(read))):
            report.add(node.place, path, "the values do not rise from one to the next", f"write {self.wanted}")
        return read if report.found == before else None

    def plain(self, value: Sequence[Any]) -> list[Any]:
        return [self.of.plain(one) for one in value]

    def schema(self) -> Schema:
        return {"type": "array", "items": self.of.schema()}


@dataclass(frozen=True)
class Named:
    """Values of one kind by names from a list."""

    of: Kind
    names: Callable[[str], str | None]
    """None for a name that may stand here, else what would be right."""
    known: Sequence[str]
    wanted: str

    def read(self, node: Node, path: str, report: Report) -> dict[str, Any] | None:
        entries = table(node, path, report, self.wanted)
        if entries is None:
            return None
        before = report.found
        read = {}
        for name, key, value in entries:
            better = self.names(name)
            if better is not None:
                report.add(key.place, f"{path}.{shown(name)}", "nothing is called so", better)
                continue
            read[name] = self.of.read(value, f"{path}.{name}", report)
        return dict(sorted(read.items())) if report.found == before else None

    def plain(self, value: dict[str, Any]) -> dict[str, Any]:
        return {name: self.of.plain(one) for name, one in sorted(value.items())}

    def schema(self) -> Schema:
        return {"type": "object", "properties": {name: self.of.schema() for name in self.known}}


def table(node: Node, path: str, report: Report, wanted: str) -> list[tuple[str, Scalar, Node]] | None:
    """(key, where it stands, value) of a table; a key that stands there twice or is no text is reported and left out."""
    if not isinstance(node, Table):
        report.add(node.place, path, "this is no table of keys and values", f"write {wanted}")
        return None
    seen: dict[str, Scalar] = {}
    entries = []
    for key, value in node.entries:
        if not isinstance(key, Scalar):
            report.add(key.place, path, "a key must be a name", "write `name: value`")
        elif key.text in seen:
            first = seen[key.text].place.line
            report.add(key.place, _joined(path, key.text), f"this key stands in line {first} already", "keep one of the two")
        else:
            seen[key.text] = key
            entries.append((key.text, key, value))
    return entries


def _joined(path: str, name: str) -> str:
    return f"{path}.{shown(name)}" if path else shown(name)


# --- scalars ----------------------------------------------------------------------------------------------------------


def _share(text: str, wanted: str) -> float:
    if re.fullmatch(_PERCENT, text):
        return float(Decimal(text[:-1]) / 100)
    return _decimal(text, wanted)


def _decimal(text: str, wanted: str) -> float:
    if not _NUMBER.fullmatch(text):
        raise Wrong(f"`{shown(text)}` is no number", f"write {wanted}")
    return float(text)


def _weight(text: str, wanted: str) -> int:
    if not re.fullmatch(_PERCENT, text):
        raise Wrong(f"`{shown(text)}` is no share in percent", f"write {wanted}")
    weight = Decimal(text[:-1]) * WEIGHT_ONE / 100
    if weight % 1 or not 0 < weight < WEIGHT_ONE:
        raise Wrong(f"{text} cannot be a step", "a step lies between 0.01% and 99.99%, in hundredths of a percent")
    return int(weight)


def _percent_words(weight: int) -> str:
    return f"{Decimal(weight) * 100 / WEIGHT_ONE:f}%"


def _whole(text: str, wanted: str) -> int:
    if not re.fullmatch(r"[0-9]{1,15}", text):
        raise Wrong(f"`{shown(text)}` is no whole number", f"write {wanted}")
    return int(text)


def _flag(node: Scalar) -> bool:
    if node.plain and node.text in ("true", "false"):
        return node.text == "true"
    raise Wrong(f"`{shown(node.text)}` is neither true nor false", "write true or false")


def _name(node: Scalar) -> str:
    if not node.text.strip() or len(node.text) > MAX_TEXT or not node.text.isprintable():
        raise Wrong(f"`{shown(node.text)}` is no name", f"write 1 to {MAX_TEXT} printable characters")
    return node.text


def _itself(value: Any) -> Any:
    return value


NAME: Final = Single(_name, _itself, {"type": "string", "minLength": 1, "maxLength": MAX_TEXT}, "a name")
FLAG: Final = Single(_flag, _itself, {"type": "boolean"}, "true or false")
DURATION: Final = Single(
    lambda node: seconds_of(node.text),
    duration_of,
    {"type": "string", "pattern": f"^{DURATION_PATTERN}$"},
    "a duration: 30s, 15m, 2h, 30d",
)
BUDGET: Final = Single(
    lambda node: budget_of(node.text),
    lambda value: budget_words(*value),
    {"type": "string", "pattern": r"^[0-9]{1,6}\s+per\s+[0-9.smhdeE+-]+$"},
    "how many false pages in which time: 1 per 30d",
)
WEIGHTS: Final = Listed(
    Single(
        lambda node: _weight(node.text, "1%, 5% or 25%"),
        _percent_words,
        {"type": "string", "pattern": f"^{_PERCENT}$"},
        "1%, 5% or 25%",
    ),
    "the candidate's share step by step: [1%, 5%, 25%]",
    rising=True,
)


def choice(*options: str) -> Single:
    """One of some words."""

    def parse(node: Scalar) -> str:
        if node.text not in options:
            raise Wrong(f"`{shown(node.text)}` is not to be chosen here", nearest(node.text, options, "choices"))
        return node.text

    return Single(parse, _itself, {"type": "string", "enum": list(options)}, " or ".join(options))


def known_name(why_not: Callable[[str], str | None], known: Sequence[str], what: str) -> Single:
    """A name that `why_not` has nothing against."""

    def parse(node: Scalar) -> str:
        better = why_not(node.text)
        if better is not None:
            raise Wrong(f"`{shown(node.text)}` is no {what}", better)
        return node.text

    return Single(parse, _itself, {"type": "string", "examples": list(known)}, f"a {what}")


def whole(least: int, most: int = 10**9, *, zero: bool = False) -> Single:
    """A whole number of a range; with `zero` also 0."""
    wanted = (
        f"a whole number from {least:,} to {most:,}" + (", or 0" if zero else "")
        if most < 10**9
        else f"a whole number from {least:,} on"
    )

    def parse(node: Scalar) -> int:
        value = _whole(node.text, wanted)
        if not (least <= value <= most or (zero and value == 0)):
            raise Wrong(f"{shown(node.text)} lies outside", f"write {wanted}")
        return value

    within: Schema = {"type": "integer", "minimum": least, "maximum": most}
    return Single(parse, _itself, {"anyOf": [{"const": 0}, within]} if zero else within, wanted)


def number(above: float, below: float = math.inf, *, least: bool = False, most: bool = False, percent: bool = False) -> Single:
    """A number between two bounds, which belong to it with `least`, `most`; with `percent` also written so."""
    lower = f"from {above:g}" if least else f"above {above:g}"
    upper = "" if below == math.inf else f" to {below:g}" if most else f" and below {below:g}"
    wanted = f"a number {lower}{upper}" + (", or a percentage" if percent else "")

    def parse(node: Scalar) -> float:
        value = _share(node.text, wanted) if percent else _decimal(node.text, wanted)
        if not ((above < value or (least and value == above)) and (value < below or (most and value == below))):
            raise Wrong(f"{shown(node.text)} lies outside", f"write {wanted}")
        return value

    within: Schema = {"type": "number", "minimum" if least else "exclusiveMinimum": above}
    if below != math.inf:
        within["maximum" if most else "exclusiveMaximum"] = below
    words: Schema = {"type": "string", "pattern": f"^{_PERCENT}$"}
    return Single(parse, _itself, {"anyOf": [within, words]} if percent else within, wanted)
