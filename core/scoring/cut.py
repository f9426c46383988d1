"""How a text is cut into words."""

import re
from typing import Final

MAX_CHARACTERS: Final = 8_192
"""Topic and language are read from the beginning of a text, up to this many characters …"""
MAX_WORDS: Final = 1_024
"""… and this many words."""
MAX_WORD: Final = 32

# Scripts written without spaces give one word per character, so that the cache knows their words too.
_UNSPACED = "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7a3\uf900-\ufaff"
_WORD = re.compile(rf"[{_UNSPACED}]|[^\W_{_UNSPACED}]{{1,{MAX_WORD}}}")
_ASCII_BREAKS = {c: " " for c in range(128) if not chr(c).isalnum()}


def words(text: str) -> list[str]:
    """Lower-case runs of letters and digits, at most MAX_WORDS of at most MAX_WORD characters.

    >>> words("How do I use os.path.join?")
    ['how', 'do', 'i', 'use', 'os', 'path', 'join']
    """
    text = text[:MAX_CHARACTERS].lower()
    if not text.isascii():
        return _WORD.findall(text)[:MAX_WORDS]
    found = text.translate(_ASCII_BREAKS).split()[:MAX_WORDS]
    if max(map(len, found), default=0) > MAX_WORD:
        return _WORD.findall(text)[:MAX_WORDS]
    return found
