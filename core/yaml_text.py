"""YAML as a tree whose every value knows its line and column; what a file of settings has no need of is refused before it is built.

Refused: anchors and aliases (a few lines of them unfold to gigabytes), tags (they name types to construct), several
documents, deep nesting, more than 256 KB. Scalars stay text: what they mean is decided by the field that they are for.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

import yaml

MAX_BYTES: Final = 256 * 1024
MAX_DEPTH: Final = 10


@dataclass(frozen=True, order=True)
class Place:
    """Line and column, counted from 1."""

    line: int
    column: int


@dataclass(frozen=True, order=True)
class Problem:
    """What is wrong at a place, and what would be right; `path` is the field's (`rules[2].metric`), empty for the whole text."""

    place: Place
    path: str
    wrong: str
    right: str

    def told(self, source: str) -> str:
        """One line, as compilers write it.

        >>> Problem(Place(3, 7), "delta", "2 is no probability", "write a number between 0 and 1").told("rules.yaml")
        'rules.yaml:3:7: delta: 2 is no probability; write a number between 0 and 1'
        """
        where = f"{self.path}: " if self.path else ""
        return f"{source}:{self.place.line}:{self.place.column}: {where}{self.wrong}; {self.right}"


class InvalidYaml(ValueError):
    """The text cannot be read at all; `problem` says where and why."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem.told("YAML"))
        self.problem = problem


@dataclass(frozen=True)
class Scalar:
    """`plain`: written without quotes."""

    text: str
    plain: bool
    place: Place

    @property
    def empty(self) -> bool:
        """Whether it stands for no value."""
        return self.plain and self.text in ("", "~", "null", "Null", "NULL")


@dataclass(frozen=True)
class Items:
    """A list."""

    items: tuple["Node", ...]
    place: Place


@dataclass(frozen=True)
class Table:
    """Keys and values as they are written, equal keys too."""

    entries: tuple[tuple["Node", "Node"], ...]
    place: Place


Node = Scalar | Items | Table


def read_yaml(text: str) -> Node | None:
    """The one document of a text; None where there is none. Raises InvalidYaml.

    >>> node = read_yaml("a: [1, 'x']")
    >>> node.entries[0][1].items[1]
    Scalar(text='x', plain=False, place=Place(line=1, column=8))
    """
    start = Place(1, 1)
    size = len(text.encode("utf-8", "surrogatepass"))
    if size > MAX_BYTES:
        raise InvalidYaml(Problem(start, "", f"the text has {size:,} bytes", f"{MAX_BYTES:,} are the most"))
    try:
        return _document(_events(text))
    except yaml.reader.ReaderError as error:
        before = text[: error.position]
        place = Place(before.count("\n") + 1, error.position - (before.rfind("\n") + 1) + 1)
        raise InvalidYaml(
            Problem(place, "", f"the character U+{ord(text[error.position]):04X}", "YAML has no such character")
        ) from None
    except InvalidYaml:
        raise
    except (ValueError, OverflowError):
        raise InvalidYaml(Problem(start, "", "a character or a number is none that YAML has", "mend the YAML")) from None
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        wrong = error.problem or error.context or "this is no YAML"
        context = f" {error.context}" if error.context and error.problem else ""
        raise InvalidYaml(Problem(_place(mark), "", f"{wrong}{context}", "mend the YAML")) from None


def _place(mark: Any) -> Place:
    """Of a mark, which the types of the library give as one of two classes or None."""
    return Place(1, 1) if mark is None else Place(mark.line + 1, mark.column + 1)


def _events(text: str) -> Iterator[yaml.Event]:
    """The parser's events, each looked at before anything is made of it."""
    depth = 0
    for event in yaml.parse(text, Loader=yaml.SafeLoader):
        if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None) is not None:
            raise _refused(event, "anchors and aliases are not read", "write the value out")
        tag = getattr(event, "tag", None)
        if tag is not None:
            raise _refused(event, f"the tag {tag[:40]} is not read", "leave it out: the field says what type its value has")
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
            if depth > MAX_DEPTH:
                raise _refused(event, f"nested more than {MAX_DEPTH} deep", "no field is")
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1
        yield event


def _refused(event: yaml.Event, wrong: str, right: str) -> InvalidYaml:
    return InvalidYaml(Problem(_place(event.start_mark), "", wrong, right))


def _document(events: Iterator[yaml.Event]) -> Node | None:
    root: Node | None = None
    documents = 0
    for event in events:
        if isinstance(event, yaml.DocumentStartEvent):
            documents += 1
            if documents > 1:
                raise _refused(event, "a second document begins", "one file is one document")
            root = _node(next(events), events)
    return root


def _node(event: yaml.Event, events: Iterator[yaml.Event]) -> Node:
    place = _place(event.start_mark)
    if isinstance(event, yaml.SequenceStartEvent):
        items = []
        while not isinstance(event := next(events), yaml.SequenceEndEvent):
            items.append(_node(event, events))
        return Items(tuple(items), place)
    if isinstance(event, yaml.MappingStartEvent):
        entries = []
        while not isinstance(event := next(events), yaml.MappingEndEvent):
            key = _node(event, events)
            entries.append((key, _node(next(events), events)))
        return Table(tuple(entries), place)
    assert isinstance(event, yaml.ScalarEvent)
    return Scalar(event.value, event.style is None, place)
