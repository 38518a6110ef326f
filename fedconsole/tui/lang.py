"""The words on the screen in the operator's language. English is the key of each text."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

LANGUAGES: Final = {"en": "English", "ko": "한국어"}
"""Each with its own name."""

_words: Mapping[str, str] = {}
_sentences: Mapping[str, str] = {}


def use(language: str) -> None:
    """Show `en` or `ko` from now on."""
    global _words, _sentences
    if language == "ko":
        from fedconsole.tui.korean import catalogue, problems

        _words, _sentences = catalogue.WORDS, problems.SENTENCES
    else:
        _words, _sentences = {}, {}


def retold(sentence: str) -> str:
    """What another part of the program says of the form, its values filled in: in the current language."""
    for template, twin in _sentences.items():
        # Only the values differ from the template.
        pattern = re.sub(r"\\{(\w+)\\}", r"(?P<\1>.+?)", re.escape(template))
        if (found := re.fullmatch(pattern, sentence, re.DOTALL)) is not None:
            return twin.format(**found.groupdict())
    return sentence


def _(text: str, /, **fields: object) -> str:
    """A text in the current language, its {fields} filled in."""
    found = _words.get(text, text)
    return found.format(**fields) if fields else found
