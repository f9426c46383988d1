"""How a text is cut into words."""

import re
from typing import Final

MAX_CHARACTERS: Final = 8_192
"""Topic and language are read from the beginning of a text, up to this many characters …"""
MAX_WORDS: Final = 1_024
"""… and this many words."""
MAX_WORD: Final = 32
"""Characters of a word; a longer run of letters is several words."""

# Scripts written without spaces give one word per character, so that the cache knows their words too.
_UNSPACED = "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7a3\uf900-\ufaff"
WORD: Final = re.compile(rf"[{_UNSPACED}]|[^\W_{_UNSPACED}]{{1,{MAX_WORD}}}")
"""A word of a lower-case text."""
_ASCII_BREAKS = {c: " " for c in range(128) if not chr(c).isalnum()}


def all_words(text: str) -> list[str]:
    """Lower-case runs of letters and digits of at most MAX_WORD characters, in order.

    >>> all_words("Don't PANIC: 42 tea_bags")
    ['don', 't', 'panic', '42', 'tea', 'bags']
    """
    text = text.lower()
    if text.isascii():
        found = text.translate(_ASCII_BREAKS).split()
        if not found or max(map(len, found)) <= MAX_WORD:
            return found
    return WORD.findall(text)


def words(text: str) -> list[str]:
    """The words of a text's beginning: at most MAX_WORDS of MAX_CHARACTERS.

    >>> words("How do I use os.path.join?")
    ['how', 'do', 'i', 'use', 'os', 'path', 'join']
    """
    return all_words(text[:MAX_CHARACTERS])[:MAX_WORDS]
