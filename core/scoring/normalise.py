"""Undoes what hides words from features: look-alike characters, leetspeak, letters spaced out, floods, encodings.

Most texts need nothing, which one automaton says. Each step replaces matches of a pattern, so that the same steps give
the text alone or the text with the span of the given text that each of its characters stands for.
"""

import base64
import binascii
import re
import unicodedata
from codecs import decode as codec_decode
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final
from urllib.parse import unquote_to_bytes

import re2

DECODED: Final = "decoded"
"""Stands in a reason for words that were found inside an encoding."""
MAX_DECODED: Final = 8_192
"""Characters of decoded text that are appended to a text, in all."""
_DEPTH: Final = 2
_MAX_RUN: Final = 16_384

_CONFUSABLE: Final = {
    **dict(zip("авеёкмнорстухіїјѕԁԛԝһӏгпдбзчьиꞓ", "abeekmhopctyxiijsdqwhlrnabzubnc", strict=True)),
    **dict(zip("αβγεηικνορστυχωζδλμ", "abyenikvopotuxwzdau", strict=True)),
    **dict(zip("ᴀʙᴄᴅᴇꜰɢʜɪᴊᴋʟᴍɴᴏᴘʀꜱᴛᴜᴠᴡʏᴢ", "abcdefghijklmnoprstuvwyz", strict=True)),
    **dict(zip("ɐɔǝɟɓɥɹʇʌʍʎıłøđŧħœæßƒðþ", "acefghrtvwyilodthoasfdp", strict=True)),
}
"""Letters that look like Latin ones (our own list), lower case."""
_ALWAYS: Final = frozenset("ᴀʙᴄᴅᴇꜰɢʜɪᴊᴋʟᴍɴᴏᴘʀꜱᴛᴜᴠᴡʏᴢɐɔǝɟɓɥɹʇʌʍʎıłøđŧħƒ")
"""Those of them that stand for a Latin letter also in a word of their own kind."""
_LEET: Final = {
    "0": "o",
    "1": "i",
    "3": "e",
    "4": "a",
    "5": "s",
    "7": "t",
    "8": "b",
    "9": "g",
    "@": "a",
    "$": "s",
    "!": "i",
    "|": "l",
}
_ROT13: Final = ("gur", "naq", "gung", "lbh", "ubj", "jvgu", "sbe", "guvf", "jung", "znxr", "jevgr", "gb", "n", "bs", "va")

_TRIGGERS: Final = (
    r"[A-Za-z][0-9@$!|]+[A-Za-z]|(?:^|[\s\"'(])[0-9@$][A-Za-z]{2}|[A-Za-z]\$(?:\W|$)",
    r"(?:^|[^0-9A-Za-z])(?:[A-Za-z][ .\-_*/,]){3}[A-Za-z](?:[^0-9A-Za-z]|$)",
    "(?i)" + "|".join(letter * 3 for letter in "abcdefghijklmnopqrstuvwxyz"),
    r"[A-Za-z0-9+/_-]{24}",
    r"(?:[0-9A-Fa-f]{2}[ :]?){8}|(?:\\x[0-9A-Fa-f]{2}){4}",
    r"(?:%[0-9A-Fa-f]{2}[^%\s]{0,2}){4}",
    r"(?i)\b(?:gur|naq|gung|lbh|ubj|jvgu|guvf|jung|znxr|jevgr)\b",
)
"""What a plain ASCII text must not match: leet, spaced, repeated, base64, hex, percent, rot13."""
_LEETED, _SPACED, _REPEATED, _BASE64, _HEX, _PERCENT, _ROTATED = range(7)


def _set() -> re2.Set:
    options = re2.Options()
    options.log_errors = False
    options.max_mem = 64 << 20
    found = re2.Set.SearchSet(options)
    for trigger in _TRIGGERS:
        found.Add(trigger)
    found.Compile()
    return found


_SET: Final = _set()


@dataclass(frozen=True, slots=True)
class Normalised:
    """Text for features; `given` is what it was made of. From `own` on it is what was found inside encodings: nobody redacted
    that, so no word of it may be shown."""

    text: str
    given: str
    own: int


@dataclass(frozen=True, slots=True)
class _Step:
    pattern: re.Pattern[str]
    replace: Callable[[re.Match[str]], str]


def normalise(text: str) -> Normalised:
    """The text as features want it. Linear in its length.

    >>> normalise("h0w c4n one k i l l: a рroсess").text
    'how can one kill: a process'
    """
    steps, wrapped = _needed(text)
    if not steps and not wrapped:
        return Normalised(text, text, len(text))
    result = text
    for step in steps:
        result = step.pattern.sub(step.replace, result)
    return Normalised(" ".join([result, *(more for more, _, _ in _decoded(text, wrapped, _DEPTH))]), text, len(result))


def spans(normalised: Normalised) -> list[tuple[int, int]]:
    """For each character of the normalised text the span of the given text that it stands for."""
    steps, wrapped = _needed(normalised.given)
    text = normalised.given
    at = [(position, position + 1) for position in range(len(text))]
    for step in steps:
        text, at = _mapped(step, text, at)
    for more, start, end in _decoded(normalised.given, wrapped, _DEPTH):
        at += [(start, end)] * (len(more) + 1)
    return at


def _needed(text: str) -> tuple[list[_Step], list[int]]:
    """The steps that a text needs, and which kinds of wrapping it may hold."""
    hits = sorted(_SET.Match(text.encode("utf-8", "replace")) or ())
    plain = text.isascii()
    if plain and not hits:
        return [], []
    steps = [] if plain else list(_CHARACTER_STEPS)
    if not plain or hits:
        steps += _WORD_STEPS if not plain else [_STEP_OF[hit] for hit in hits if hit in _STEP_OF]
    return steps, [hit for hit in hits if hit >= _BASE64]


def _mapped(step: _Step, text: str, at: list[tuple[int, int]]) -> tuple[str, list[tuple[int, int]]]:
    pieces: list[str] = []
    spans_: list[tuple[int, int]] = []
    position = 0
    for match in step.pattern.finditer(text):
        start, end = match.span()
        new = step.replace(match)
        pieces += (text[position:start], new)
        spans_ += at[position:start]
        if len(new) == end - start:
            spans_ += at[start:end]
        elif new:
            spans_ += [(at[start][0], at[end - 1][1])] * len(new)
        position = end
    pieces.append(text[position:])
    spans_ += at[position:]
    return "".join(pieces), spans_


class _Plain(dict[str, str]):
    """Character → what it stands for: compatibility forms folded, marks and invisible characters dropped."""

    def __missing__(self, character: str) -> str:
        category = unicodedata.category(character)
        if character in "\n\t\r":
            result = character
        elif category in ("Cf", "Cc", "Cs", "Co", "Mn", "Me", "Cn"):
            result = ""
        elif category in ("Zs", "Zl", "Zp"):
            result = " "
        elif 0x1F1E6 <= ord(character) <= 0x1F1FF:
            result = chr(ord(character) - 0x1F1E6 + ord("a"))
        else:
            result = unicodedata.normalize("NFKC", character)
            base = unicodedata.normalize("NFD", result)
            if base[0].isascii() and base[0].isalpha():
                result = "".join(one for one in base if unicodedata.category(one) != "Mn")
            if len(result.lower()) != len(result):
                result = character if len(character.lower()) == 1 else ""
            low = result.lower()
            if low in _ALWAYS:
                result = _CONFUSABLE[low]
        if len(self) > 65_536:
            self.clear()
        self[character] = result
        return result


_PLAIN: Final = _Plain()


def _unmixed(match: re.Match[str]) -> str:
    """A word that mixes Latin letters with look-alikes, in Latin letters."""
    word = match.group()
    if word.isascii() or not any("a" <= character <= "z" for character in word.lower()):
        return word
    return "".join(_CONFUSABLE.get(character.lower(), character) for character in word)


def _joined(match: re.Match[str]) -> str:
    """Letters spaced out, as one word; an article before them stays a word."""
    spaced = match.group()
    return spaced[:2] + spaced[2::2] if spaced[:2] in ("a ", "A ", "I ") and len(spaced) > 7 else spaced[::2]


def _unleeted(match: re.Match[str]) -> str:
    """A word with digits and signs between its letters, read as letters."""
    word = match.group()
    body = word.rstrip("!|0123456789@")
    letters = sum(map(str.isalpha, body))
    others = len(body) - letters
    if not others or letters < 2 or others > 2 * letters:
        return word
    return "".join(_LEET.get(character, character) for character in body) + word[len(body) :]


_CHARACTER_STEPS: Final = (
    _Step(re.compile(r"[^\n -~]"), lambda match: _PLAIN[match.group()]),
    _Step(re.compile(r"[^\W\d_]{2,}"), _unmixed),
)
_STEP_OF: Final = {
    _SPACED: _Step(
        re.compile(r"(?<![^\W_])(?:[^\W\d_][ .\-_*/,]){3,}[^\W\d_](?![^\W_])"),
        _joined,
    ),
    _LEETED: _Step(re.compile(r"[A-Za-z0-9@$!|]{2,48}"), _unleeted),
    _REPEATED: _Step(re.compile(r"([^\W\d_])\1{2,}", re.IGNORECASE), lambda match: match.group()[:2]),
}
_WORD_STEPS: Final = [_STEP_OF[_LEETED], _STEP_OF[_SPACED], _STEP_OF[_REPEATED]]

_CODE: Final = frozenset("0123456789abcdefABCDEF")

_RUNS: Final = {
    _BASE64: re.compile(r"[A-Za-z0-9+/_-]{20,}={0,2}"),
    _HEX: re.compile(r"(?:(?:\\x)?[0-9A-Fa-f]{2}[ :]?){8,}"),
    _PERCENT: re.compile(r"(?:[^%\s]{0,64}%[0-9A-Fa-f]{2}){4,}[^%\s]{0,64}"),
}


def _decoded(text: str, kinds: list[int], depth: int) -> Iterator[tuple[str, int, int]]:
    """Texts found inside wrappings, themselves normalised and unwrapped `depth` deep, with the spans that held them."""
    room = MAX_DECODED
    for kind in kinds:
        for start, end, inner in _unwrapped(text, kind):
            if room <= 0:
                return
            inner = inner[:room]
            room -= len(inner)
            if depth <= 1:
                yield inner, start, end
                continue
            steps, wrapped = _needed(inner)
            for more, _, _ in list(_decoded(inner, wrapped, depth - 1)):
                yield more[:room], start, end
                room -= len(more)
            for step in steps:
                inner = step.pattern.sub(step.replace, inner)
            yield inner, start, end


def _unwrapped(text: str, kind: int) -> Iterator[tuple[int, int, str]]:
    if kind == _ROTATED:
        found = text.lower().split()
        if sum(word.strip(".,?!\"'") in _ROT13 for word in found[:400]) * 8 >= min(len(found), 400):
            yield 0, len(text), codec_decode(text[:MAX_DECODED], "rot13")
        return
    for match in _RUNS[kind].finditer(text):
        start, end = match.span()
        inner = _readable(_bytes_of(match.group()[:_MAX_RUN], kind))
        if inner is not None:
            yield start, end, inner


def _bytes_of(run: str, kind: int) -> bytes:
    try:
        if kind == _BASE64:
            body = run.rstrip("=").replace("-", "+").replace("_", "/")
            return base64.b64decode(body[: len(body) - (len(body) % 4 == 1)] + "=" * (-len(body) % 4))
        if kind == _HEX:
            return bytes.fromhex(re.sub(r"\\x|[ :]", "", run))
        return unquote_to_bytes(run)
    except (ValueError, binascii.Error):
        return b""


def _readable(data: bytes) -> str | None:
    """The text that bytes are, where they are mostly letters and spaces."""
    try:
        text = data.decode()
    except UnicodeDecodeError:
        return None
    fitting = sum(character.isalpha() or character in " \n,.'" for character in text)
    wrapped_again = len(text) >= 16 and all(character in _CODE for character in text)
    return text if wrapped_again or (len(text) >= 6 and fitting * 10 >= len(text) * 8) else None
