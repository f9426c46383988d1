"""Texts that say nearly the same: weighted Jaccard similarity of their words, found exactly through an index of rare words."""

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from fractions import Fraction
from typing import Final

_WORD: Final = re.compile(r"[\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]|[^\W_](?:[\w.'’-]*[^\W_])?")
_FUNCTION_WORDS: Final = frozenset(
    word
    for line in (
        "a an and are as at be but by can could do does for from had has have how i if in is it its me my of on or our so",
        "that the their them there they this to was we were what when where which who why will with would you your",
    )
    for word in line.split()
)


def words(text: str) -> list[str]:
    """The words of a text in order, case folded; dotted names stay whole, scripts without spaces give their characters.

    >>> words("What does json.loads do?  It's 東京.")
    ['what', 'does', 'json.loads', 'do', "it's", '東', '京']
    """
    return _WORD.findall(text.casefold())


def content_words(text: str) -> frozenset[str]:
    """The words that tell one question from another; all of them where there are only function words."""
    found = frozenset(words(text))
    return found - _FUNCTION_WORDS or found


def token_f1(answer: str, reference: str) -> float:
    """Harmonic mean of precision and recall over words, as counted, in [0, 1]; two texts without words are equal.

    >>> token_f1("It parses JSON", "it parses JSON text"), token_f1("", "x")
    (0.8571428571428571, 0.0)
    """
    given, wanted = Counter(words(answer)), Counter(words(reference))
    if not given or not wanted:
        return float(given == wanted)
    shared = sum((given & wanted).values())
    return 2 * shared / (given.total() + wanted.total())


class WordWeights:
    """How much a word tells in a collection: 1 + ⌊log2(texts / texts with the word)⌋, integers, the same in any order."""

    def __init__(self, texts: Sequence[Iterable[str]]) -> None:
        self._texts = max(len(texts), 1)
        self._with: Mapping[str, int] = Counter(word for text in texts for word in frozenset(text))

    def weight(self, word: str) -> int:
        return (self._texts // max(self._with.get(word, 1), 1)).bit_length()

    def total(self, text: Iterable[str]) -> int:
        return sum(self.weight(word) for word in text)

    def rarest_first(self, text: Iterable[str]) -> list[str]:
        return sorted(text, key=lambda word: (self._with.get(word, 0), word))


class Leaders:
    """Groups texts, one after the other, each under the first leader that is at least `threshold` similar; else it leads.

    So two leaders are never as similar as that, whatever comes between them: nobody can chain groups together. Two sets
    that are similar enough share a word of their prefixes (the rarest words, the rest weighing less than the threshold asks
    for), so only leaders with such a word are compared.
    """

    def __init__(self, threshold: Fraction, weights: WordWeights) -> None:
        self._threshold, self._weights = threshold, weights
        self._leaders: list[frozenset[str]] = []
        self._by_word: dict[str, list[int]] = {}

    def place(self, text: frozenset[str]) -> int:
        """The number of the text's group; groups count from 0 in the order in which they began."""
        prefix = self._prefix(text)
        for number in sorted({number for word in prefix for number in self._by_word.get(word, ())}):
            if self._similar(text, self._leaders[number]):
                return number
        number = len(self._leaders)
        self._leaders.append(text)
        for word in prefix:
            self._by_word.setdefault(word, []).append(number)
        return number

    def _similar(self, one: frozenset[str], other: frozenset[str]) -> bool:
        shared = self._weights.total(one & other)
        return shared >= self._threshold * self._weights.total(one | other)

    def _prefix(self, text: frozenset[str]) -> list[str]:
        ordered = self._weights.rarest_first(text)
        left = self._weights.total(ordered)
        needed = self._threshold * left
        for count, word in enumerate(ordered):
            if left < needed:
                return ordered[:count]
            left -= self._weights.weight(word)
        return ordered
