"""What an app's own topic cells are called: the words that tell each from the others, and that nobody is known by.

A word may be part of a name only when several people said it in several texts; digits, placeholders of what was redacted,
small words, and runs of letters that look drawn rather than spelled are left out.
"""

import re
import unicodedata
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Final

from core.scoring.cut import words

LEAST_SUPPORT: Final = 5
"""Different people in its cell, and different texts, that a term must come from."""
MAX_TERMS: Final = 3
_SHORTEST, _LONGEST = 3, 24
_SMALL: Final = frozenset(
    word
    for line in (
        "the and that this these those with from for are was were been being have has had does did done not but you your yours",
        "they them their there here what when where which while who whom whose why how can could should would will may might",
        "must shall than then too very also just only into onto over under about after before because through please thanks",
        "want need get got some any all each every more most much many such same other another its our ours his her him she",
        "der die das und ist nicht ich ein eine einen wie mit von für auf was sie wir kann auch aber wenn werden wird sind mir",
        "mich bitte haben hat oder nach bei aus noch nur über les des est une que qui dans pour pas sur avec nous aux comment",
        "mais sont plus cette mon votre los las una por con para como del pero está son cuando quiero este esta porque tengo",
        "não mas você quando isso che per non come della sono questo perché anche het een van niet voor met hoe wat",
    )
    for word in line.split()
)
_PLACEHOLDER: Final = re.compile(r"\[[A-Z][A-Z0-9_ -]{0,40}(?:[:#][^\[\]\s]{0,80})?\]")
_FRACTION_BITS: Final = 16
_LEAST_ODDS: Final = 1 << _FRACTION_BITS
"""A term is at least twice as likely in its cell as elsewhere."""


@dataclass(frozen=True, slots=True)
class Document:
    """A redacted text, who said it, and the cell it is in."""

    text: str
    who: str
    cell: int


@dataclass(slots=True)
class _Support:
    """In which texts a word is, and who said it, cell by cell."""

    texts: set[int] = field(default_factory=set)
    by_cell: dict[int, set[str]] = field(default_factory=lambda: defaultdict(set))


def cell_terms(
    documents: Sequence[Document],
    cells: int,
    tokenise: Callable[[str], Sequence[int]],
    fallback: Callable[[int], str],
) -> tuple[str, ...]:
    """A name for each cell: up to three terms joined by `/`, else `fallback`; made unique by the cell's number.

    Terms are ranked by people × log-odds: how many in the cell say the word, times the logarithm of how much likelier
    they are to say it than people elsewhere (counts + 1), in integers; ties by the word.
    """
    supports, people = _supports(documents)
    everybody = sum(map(len, people.values()))
    ranked: dict[int, list[tuple[int, str]]] = defaultdict(list)
    for word, support in supports.items():
        if len(support.texts) < LEAST_SUPPORT or not _is_term(word, tokenise):
            continue
        said = sum(map(len, support.by_cell.values()))
        for cell, inside in support.by_cell.items():
            here, there = len(people[cell]), everybody - len(people[cell])
            odds = log2(len(inside) + 1) - log2(here + 2) - log2(said - len(inside) + 1) + log2(there + 2)
            if len(inside) >= LEAST_SUPPORT and odds >= _LEAST_ODDS:
                ranked[cell].append((-len(inside) * odds, word))
    names: list[str] = []
    for cell in range(cells):
        name = "/".join(_different(word for _, word in sorted(ranked[cell]))) or fallback(cell)
        names.append(name if name not in names else f"{name}/{cell}")
    return tuple(names)


@lru_cache(65_536)
def log2(n: int) -> int:
    """Logarithm of a positive integer to base 2 in 1/65,536, rounded down: the same on every machine.

    >>> log2(8) / 65_536, round(log2(10) / 65_536, 3)
    (3.0, 3.322)
    """
    whole = n.bit_length() - 1
    mantissa = (n << 64) >> whole
    fraction = 0
    for _ in range(_FRACTION_BITS):
        mantissa = mantissa * mantissa >> 64
        high = mantissa >> 65
        fraction = fraction << 1 | high
        mantissa >>= high
    return whole << _FRACTION_BITS | fraction


def _supports(documents: Sequence[Document]) -> tuple[dict[str, _Support], dict[int, set[str]]]:
    """Support of each word, and the people of each cell. Texts of the same words, numbers apart, are one text."""
    supports: dict[str, _Support] = defaultdict(_Support)
    people: dict[int, set[str]] = defaultdict(set)
    numbers: dict[frozenset[str], int] = {}
    for document in documents:
        found = frozenset(filter(str.isalpha, words(_PLACEHOLDER.sub(" ", document.text))))
        number = numbers.setdefault(found, len(numbers))
        people[document.cell].add(document.who)
        for word in found:
            support = supports[word]
            support.by_cell[document.cell].add(document.who)
            support.texts.add(number)
    return supports, people


def _is_term(word: str, tokenise: Callable[[str], Sequence[int]]) -> bool:
    """Whether a word may be shown: letters of a script with words, no small word, in tokens of at least 2.5 letters on average
    where it is ASCII (drawn letters, as in a password, fall into shorter ones)."""
    if not _SHORTEST <= len(word) <= _LONGEST or not word.isalpha() or word in _SMALL:
        return False
    if word.isascii():
        return 5 * len(tokenise(word)) <= 2 * len(word)
    return unicodedata.normalize("NFKC", word) == word


def _different(ranked: Iterable[str]) -> list[str]:
    """The first words that do not begin alike."""
    chosen: list[str] = []
    for word in ranked:
        if all(word[:4] != other[:4] for other in chosen):
            chosen.append(word)
        if len(chosen) == MAX_TERMS:
            break
    return chosen
