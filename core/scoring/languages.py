"""Evidence for languages in one word: its script, letters that only some languages use, frequent words, beginnings and ends."""

from bisect import bisect_right
from collections.abc import Iterator, Mapping
from functools import cache
from typing import Final

import numpy as np
from numpy.typing import NDArray

from core.scoring.small_words import BEGINNINGS, ENDS, SMALL_WORDS

_LETTERS: Final = {
    "ß": "de", "ä": "de sv fi", "ö": "de sv tr fi hu", "ü": "de tr hu", "ñ": "es", "¿": "es", "ã": "pt", "õ": "pt", "å": "sv da no",
    "æ": "da no", "ø": "da no", "ł": "pl", "ą": "pl", "ę": "pl", "ż": "pl", "ź": "pl", "ś": "pl", "ć": "pl hr", "ń": "pl", "ğ": "tr",
    "ı": "tr", "ş": "tr ro", "œ": "fr", "ê": "fr pt vi", "è": "fr it ca", "ù": "fr it", "ì": "it", "ò": "it ca", "à": "fr it pt ca",
    "ç": "fr pt tr ca", "ó": "es pt pl hu cs", "í": "es pt cs hu", "á": "es pt cs hu", "ú": "es pt cs hu", "é": "fr es pt hu cs",
    "ě": "cs", "ř": "cs", "ů": "cs", "č": "cs hr", "š": "cs hr", "ž": "cs hr", "ý": "cs", "đ": "hr vi", "ă": "ro vi", "ș": "ro",
    "ț": "ro", "ţ": "ro", "î": "ro fr", "â": "ro fr pt vi", "ő": "hu", "ű": "hu", "ơ": "vi", "ư": "vi", "ô": "fr vi pt", "·": "ca",
    "ï": "fr ca",
}  # fmt: skip
_VIETNAMESE: Final = ("\u1ea0", "\u1ef9")
_MARKED: Final = {
    "і": "uk", "ї": "uk", "є": "uk", "ґ": "uk", "ј": "sr", "љ": "sr", "њ": "sr", "ћ": "sr", "ђ": "sr", "џ": "sr",
    "پ": "fa", "چ": "fa", "ژ": "fa", "گ": "fa", "ٹ": "ur", "ڈ": "ur", "ڑ": "ur", "ے": "ur", "ں": "ur",
}  # fmt: skip

# Beginning of each block of letters, and the script it belongs to; "" is no script.
_BLOCKS: Final = (
    (0x0000, ""), (0x0041, "latin"), (0x005B, ""), (0x0061, "latin"), (0x007B, ""), (0x00C0, "latin"), (0x0250, ""),
    (0x0370, "greek"), (0x0400, "cyrillic"), (0x0530, "armenian"), (0x0590, "hebrew"), (0x0600, "arabic"), (0x0780, ""),
    (0x0900, "devanagari"), (0x0980, "bengali"), (0x0A00, ""), (0x0B80, "tamil"), (0x0C00, ""), (0x0E00, "thai"),
    (0x0E80, ""), (0x10A0, "georgian"), (0x1100, "hangul"), (0x1200, "ethiopic"), (0x1380, ""), (0x1E00, "latin"),
    (0x1F00, "greek"), (0x2000, ""), (0x3040, "kana"), (0x3100, ""), (0x3400, "han"), (0x4DC0, ""), (0x4E00, "han"),
    (0xA000, ""), (0xAC00, "hangul"), (0xD7B0, ""), (0xF900, "han"), (0xFB00, ""), (0xFB50, "arabic"), (0xFE00, ""),
    (0xFE70, "arabic"), (0xFF00, ""), (0x20000, "han"), (0x32000, ""),
)  # fmt: skip
_BLOCK_STARTS: Final = [start for start, _ in _BLOCKS]

SCRIPT_LANGUAGE: Final = {
    "greek": "el", "cyrillic": "ru", "armenian": "hy", "hebrew": "he", "arabic": "ar", "devanagari": "hi", "bengali": "bn",
    "tamil": "ta", "thai": "th", "georgian": "ka", "hangul": "ko", "ethiopic": "am", "kana": "ja", "han": "zh",
}  # fmt: skip
"""The language that a script stands for, where nothing finer is known."""

LATIN: Final = "latin"
WORDS: Final = "words"
ODD: Final = "odd"
EVIDENCE: Final = (*SMALL_WORDS, LATIN, *SCRIPT_LANGUAGE, *dict.fromkeys(_MARKED.values()), WORDS, ODD)
"""Columns of an evidence vector: points for each Latin-script language, letters of each script, marked letters, Latin words
of letters only, and what else is made of Latin letters."""

_COLUMN: Final = {name: column for column, name in enumerate(EVIDENCE)}
_SPOKEN_IN: Final = {
    word: [language for language, words in SMALL_WORDS.items() if word in words.split()]
    for word in " ".join(SMALL_WORDS.values()).split()
}
_SHARES: Final = (0, 12, 8, 6, 4)
"""Points of a word by the number of languages that have it; 2 for more."""
_AFFIX: Final = 2
_LETTER: Final = 6
_LEAST: Final = 10
_PER_WORD: Final = 2
_MANY: Final = 8
"""Words from which a text that fits none of the languages is in another one."""
UNDETERMINED: Final = "und"
OTHER_LANGUAGE: Final = "mis"
"""ISO 639's code of a language without one: here, one that is not in the lists."""


def _by_affix(affixes: Mapping[str, str]) -> dict[str, tuple[int, ...]]:
    found: dict[str, list[int]] = {}
    for language, listed in affixes.items():
        for affix in listed.split():
            found.setdefault(affix, []).append(_COLUMN[language])
    return {affix: tuple(columns) for affix, columns in found.items()}


_BEGINNINGS: Final = _by_affix(BEGINNINGS)
_ENDS: Final = _by_affix(ENDS)
_LONGEST_AFFIX: Final = 6
_AFFIX_SIZES: Final = tuple(sorted({len(affix) for affix in known}) for known in (_BEGINNINGS, _ENDS))


def script_of(character: str) -> str:
    """The script of a letter, "" for anything else.

    >>> [script_of(c) for c in "aжק中7"]
    ['latin', 'cyrillic', 'hebrew', 'han', '']
    """
    return _BLOCKS[bisect_right(_BLOCK_STARTS, ord(character)) - 1][1]


def _affixes(word: str) -> Iterator[tuple[int, int]]:
    """(column, points) of a word's beginnings and ends that mark languages."""
    for known, at_end in ((_BEGINNINGS, False), (_ENDS, True)):
        for size in _AFFIX_SIZES[at_end]:
            columns = known.get(word[-size:] if at_end else word[:size])
            if columns:
                for column in columns:
                    yield column, 2 * _AFFIX if len(columns) == 1 else _AFFIX


def _share(word: str, languages: int) -> int:
    """Points of a listed word for each of its languages; a letter on its own says little."""
    return _SHARES[languages] if languages < len(_SHARES) and len(word) > 1 else _AFFIX


@cache
def _listed(word: str) -> NDArray[np.int16]:
    """Evidence of a word that is in a list, and has ASCII letters only."""
    points = np.zeros(len(EVIDENCE), np.int16)
    spoken_in = _SPOKEN_IN[word]
    for language in spoken_in:
        points[_COLUMN[language]] = _share(word, len(spoken_in))
    points[_COLUMN[LATIN]], points[_COLUMN[WORDS]] = len(word), 1
    return points


def evidence(word: str) -> NDArray[np.int16]:
    """Evidence of one lower-case word. It may be shared: nobody changes it."""
    spoken_in = _SPOKEN_IN.get(word, ())
    if word.isascii():
        if spoken_in:
            return _listed(word)
        points = np.zeros(len(EVIDENCE), np.int16)
        if word.isalpha():
            letters, kind = len(word), WORDS if len(word) > 1 else ODD
        else:
            letters, kind = sum(map(str.isalpha, word)), ODD
        if letters:
            points[_COLUMN[LATIN]], points[_COLUMN[kind]] = letters, 1
        if len(word) > _LONGEST_AFFIX - 2:
            for column, share in _affixes(word):
                points[column] += share
        return points
    points = np.zeros(len(EVIDENCE), np.int16)
    for language in spoken_in:
        points[_COLUMN[language]] = _share(word, len(spoken_in))
    if not spoken_in and len(word) > _LONGEST_AFFIX - 2:
        for column, share in _affixes(word):
            points[column] += share
    for character in word:
        if script := script_of(character):
            points[_COLUMN[script]] += 1
        if character > "\x7f":
            languages = "vi" if _VIETNAMESE[0] <= character <= _VIETNAMESE[1] else _LETTERS.get(character, "")
            for language in languages.split():
                points[_COLUMN[language]] += _LETTER if " " not in languages else _AFFIX
            if marked := _MARKED.get(character):
                points[_COLUMN[marked]] += 1
    if points[_COLUMN[LATIN]]:
        points[_COLUMN[WORDS if points[_COLUMN[LATIN]] == len(word) else ODD]] = 1
    return points


def language(points: NDArray[np.int32]) -> str:
    """The language that a text's summed evidence points to: see `languages`."""
    return languages(points[None, :])[0]


def languages(points: NDArray[np.int32]) -> list[str]:
    """The language that each text's summed evidence (texts × EVIDENCE) points to.

    The script with most letters decides. In Latin script the best language needs a few points, and more of them the
    more words there are; many words that fit none are OTHER_LANGUAGE, few are UNDETERMINED.
    """
    scripts = points[:, _COLUMN[LATIN] : _COLUMN["han"] + 1]
    latin = points[:, : len(SMALL_WORDS)]
    read = zip(
        scripts.argmax(axis=1).tolist(),
        (scripts.max(axis=1) > 0).tolist(),
        latin.argmax(axis=1).tolist(),
        latin.max(axis=1).tolist(),
        points[:, _COLUMN[WORDS]].tolist(),
        points[:, _COLUMN[ODD]].tolist(),
        strict=True,
    )
    result = []
    for number, (script, any_letter, best, most, words, odd) in enumerate(read):
        if not any_letter:
            result.append(UNDETERMINED)
        elif script:
            result.append(_by_script(EVIDENCE[_COLUMN[LATIN] + script], points[number]))
        elif most >= _LEAST and most >= _PER_WORD * words:
            result.append(EVIDENCE[best])
        else:
            result.append(OTHER_LANGUAGE if words >= _MANY and odd * 4 <= words else UNDETERMINED)
    return result


def _by_script(script: str, points: NDArray[np.int32]) -> str:
    if script == "han" and points[_COLUMN["kana"]] * 8 >= points[_COLUMN["han"]]:
        return SCRIPT_LANGUAGE["kana"]
    if script == "cyrillic" and points[_COLUMN["uk"]] + points[_COLUMN["sr"]] > 0:
        return "uk" if points[_COLUMN["uk"]] >= points[_COLUMN["sr"]] else "sr"
    if script == "arabic" and points[_COLUMN["ur"]] > 0:
        return "ur"
    if script == "arabic" and points[_COLUMN["fa"]] > 0:
        return "fa"
    return SCRIPT_LANGUAGE[script]
