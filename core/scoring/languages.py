"""Evidence for languages in one word: its script, letters that only some languages use, and frequent small words."""

from bisect import bisect_right
from typing import Final

import numpy as np
from numpy.typing import NDArray

SMALL_WORDS: Final = {
    "en": "the and of to is in that it you for with this are was what how do does not have be can my from which will there "
    "when who why would should could they we your its an if or but has been about i me please",
    "de": "der die das und ist nicht ich ein eine einen wie zu den mit von für auf was sie es im dem wir kann auch aber wenn "
    "werden wird sind mir mich bitte warum haben hat oder nach bei aus noch nur über",
    "fr": "le la les des et est un une je vous que qui dans pour pas ce sur avec il elle nous au aux du comment pourquoi mais "
    "ou être sont plus cette faire peut mon votre ne se si d l c j s'il",
    "es": "el la los las de que y en un una es por con para no se lo como qué cómo del al su me mi pero está son puedo hay "
    "más muy cuando quiero este esta porque tengo favor",
    "pt": "o a os as de que e em um uma é por com para não se como do da dos das no na ao meu minha mas você são posso mais "
    "muito quando isso este esta porque tenho está eu ele ela",
    "it": "il lo la gli le di che e in un una è per con non si come del della dei al mio mia ma sono posso più molto quando "
    "questo questa perché ho cosa anche nel alla dove io ci",
    "nl": "de het een en van ik is niet dat die in op te zijn voor met hoe wat kan je mijn maar ook wij naar als dit deze "
    "waarom wordt heeft hebben om er bij uit nog",
    "pl": "i w na z się nie to jest jak do że co czy mam mój dla ale o po za od przez tym jestem można chcę są był tak proszę "
    "dlaczego kiedy moje ten ta",
    "sv": "och att det som en på är av för med jag inte den till har de hur vad kan min du om men så från vi ett var när "
    "varför skulle också eller detta mig",
    "tr": "ve bir bu için ne nasıl ile de da mi mı çok ben benim var yok daha gibi olarak değil ama neden olan kadar sonra "
    "lütfen bana istiyorum nedir her şey",
}
"""Our own short lists, in the order in which ties are decided."""

_LETTERS: Final = {
    "ß": "de", "ä": "de sv", "ö": "de sv tr", "ü": "de tr", "ñ": "es", "¿": "es", "ã": "pt", "õ": "pt", "å": "sv", "ł": "pl",
    "ą": "pl", "ę": "pl", "ż": "pl", "ź": "pl", "ś": "pl", "ć": "pl", "ń": "pl", "ğ": "tr", "ı": "tr", "ş": "tr", "œ": "fr",
    "ê": "fr pt", "è": "fr it", "ù": "fr it", "ì": "it", "ò": "it", "à": "fr it pt", "ç": "fr pt tr", "ó": "es pt pl",
    "í": "es pt", "á": "es pt", "ú": "es pt",
}  # fmt: skip
_MARKED: Final = {"і": "uk", "ї": "uk", "є": "uk", "ґ": "uk", "پ": "fa", "چ": "fa", "ژ": "fa", "گ": "fa"}

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
EVIDENCE: Final = (*SMALL_WORDS, LATIN, *SCRIPT_LANGUAGE, *dict.fromkeys(_MARKED.values()))
"""Columns of an evidence vector: points for each Latin-script language, characters for each script, marked letters."""

_COLUMN: Final = {name: column for column, name in enumerate(EVIDENCE)}
_SPOKEN_IN: Final = {
    word: [language for language, words in SMALL_WORDS.items() if word in words.split()]
    for word in " ".join(SMALL_WORDS.values()).split()
}
_POINTS: Final = 2
UNDETERMINED: Final = "und"


def script_of(character: str) -> str:
    """The script of a letter, "" for anything else.

    >>> [script_of(c) for c in "aжק中7"]
    ['latin', 'cyrillic', 'hebrew', 'han', '']
    """
    return _BLOCKS[bisect_right(_BLOCK_STARTS, ord(character)) - 1][1]


def evidence(word: str) -> NDArray[np.int16]:
    """Evidence of one lower-case word."""
    points = np.zeros(len(EVIDENCE), np.int16)
    for language in _SPOKEN_IN.get(word, ()):
        points[_COLUMN[language]] = _POINTS
    if word.isascii():
        points[_COLUMN[LATIN]] = sum(map(str.isalpha, word))
        return points
    for character in word:
        if script := script_of(character):
            points[_COLUMN[script]] += 1
        if character > "\x7f":
            for language in _LETTERS.get(character, "").split():
                points[_COLUMN[language]] += 1
            if marked := _MARKED.get(character):
                points[_COLUMN[marked]] += 1
    return points


def language(points: NDArray[np.int64]) -> str:
    """The language that a text's summed evidence points to.

    The script with most characters decides; Latin script needs at least two small words (or as much in letters).
    """
    scripts = points[_COLUMN[LATIN] : _COLUMN["han"] + 1]
    most = int(scripts.argmax())
    if scripts[most] == 0:
        return UNDETERMINED
    if most == 0:
        latin = points[: len(SMALL_WORDS)]
        best = int(latin.argmax())
        return EVIDENCE[best] if latin[best] >= 2 * _POINTS else UNDETERMINED
    script = EVIDENCE[_COLUMN[LATIN] + most]
    if script == "han" and points[_COLUMN["kana"]] * 8 >= points[_COLUMN["han"]]:
        return SCRIPT_LANGUAGE["kana"]
    if script == "cyrillic" and points[_COLUMN["uk"]] > 0:
        return "uk"
    if script == "arabic" and points[_COLUMN["fa"]] > 0:
        return "fa"
    return SCRIPT_LANGUAGE[script]
