"""The language of filters: words that must all match.

`word` any field that holds it; `~re` a regular expression; `!word` what does not match;
`field:word` one field; quotes keep a blank. Small letters match capitals, too.
"""

from __future__ import annotations

import re
import shlex
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

LEVELS: Final = ("debug", "info", "warning", "error")
_LEVEL_FIELD: Final = "level"

Fields = Mapping[str, str]
_Test = Callable[[Fields], bool]


class FilterError(ValueError):
    """A filter that means nothing; the message says why."""


@dataclass(frozen=True, slots=True)
class Filter:
    """Matches everything unless there are words."""

    text: str = ""
    tests: Sequence[_Test] = ()
    needles: tuple[str, ...] = ()
    """Plain words that must be there, for highlighting; in small letters."""

    @property
    def is_empty(self) -> bool:
        return not self.tests

    def matches(self, fields: Fields) -> bool:
        return all(test(fields) for test in self.tests)


EVERYTHING: Final = Filter()


def parse(text: str) -> Filter:
    """Raises FilterError."""
    # What is shown is composed; what a Mac pastes is not.
    words = _words(unicodedata.normalize("NFC", text))
    needles = [word.lower() for word in words if word[0] not in "!~" and not _is_of_field(word)]
    return Filter(text, [_test(word) for word in words], tuple(needles))


def _words(text: str) -> list[str]:
    lexer = shlex.shlex(text, posix=True)
    lexer.whitespace_split = True
    lexer.commenters = ""
    # A backslash belongs to a regular expression.
    lexer.escape = ""
    try:
        return [word for word in lexer if word]
    except ValueError:
        return text.split()  # a quote that is not closed yet


def _is_of_field(word: str) -> bool:
    name, colon, wanted = word.partition(":")
    return bool(colon and name.isalpha() and wanted)


def _test(word: str) -> _Test:
    if word.startswith("!") and len(word) > 1:
        inner = _test(word[1:])
        return lambda fields: not inner(fields)
    if word.startswith("~"):
        pattern = _compile(word[1:])
        return lambda fields: any(pattern.search(value) for value in fields.values())
    if _is_of_field(word):
        return _field_test(word)
    return _anywhere(word)


def _anywhere(word: str) -> _Test:
    holds = _holder(word)
    return lambda fields: any(holds(value) for value in fields.values())


def _field_test(word: str) -> _Test:
    name, _colon, wanted = word.partition(":")
    name = name.lower()
    if name == _LEVEL_FIELD and (least := _level(wanted)) is not None:
        return lambda fields: (_level(fields.get(name, "")) or 0) >= least
    if wanted.startswith("~"):
        pattern = _compile(wanted[1:])
        return lambda fields: pattern.search(fields.get(name, "")) is not None
    holds, anywhere = _holder(wanted), _anywhere(word)
    # kitchen:10002 is an address, not a field.
    return lambda fields: holds(fields[name]) if name in fields else anywhere(fields)


def _holder(word: str) -> Callable[[str], bool]:
    if word != word.lower():
        return lambda value: word in value
    return lambda value: word in value.lower()


def _level(text: str) -> int | None:
    return next(
        (i for i, name in enumerate(LEVELS) if text and name.startswith(text.lower())), None
    )


def _compile(pattern: str) -> re.Pattern[str]:
    try:
        return re.compile(pattern, re.IGNORECASE)
    except re.error as error:
        raise FilterError(f"{pattern!r} is no regular expression: {error}") from error
