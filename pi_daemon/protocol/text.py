"""Makes a peer's text harmless before it meets a terminal, a log or a file name."""

from __future__ import annotations

import unicodedata

_ZERO_WIDTH_JOINER = "\u200d"
_BLANK = frozenset("\u034f\u115f\u1160\u17b4\u17b5\u302e\u302f\u3164\uffa0\U00016ff0\U00016ff1")
"""Fillers and marks that are seen as nothing, and take room on terminals that no program counts."""
_TONES = frozenset(map(chr, range(0x1F3FB, 0x1F400)))
"""Of skin; alone, and after what is no person, they take room that no program counts."""
_MAX_MARKS = 3
"""On one letter: more than writing needs, and programs and terminals disagree on the room they take."""


def clean(text: str, limit: int = 512) -> str:
    """One line of visible text: NFC, no control, bidi, zero-width or blank characters, at most `limit`.

    Tabs and line ends become spaces. The zero-width joiner stays only where it joins two symbols,
    as in emoji. Longer text ends in "…".
    """
    # Cut first: cleaning a megabyte in order to show one line would be work for the peer's benefit.
    text = unicodedata.normalize("NFC", text[: 4 * limit])
    kept: list[str] = []
    num_marks = 0
    for index, char in enumerate(text):
        if char in "\t\n\r\v\f\u2028\u2029":
            kept.append(" ")
        elif char == _ZERO_WIDTH_JOINER:
            if kept and _is_symbol(kept[-1]) and _is_symbol(text[index + 1 : index + 2]):
                kept.append(char)
        elif not _is_unshown(char):
            num_marks = num_marks + 1 if unicodedata.category(char) in _MARKS else 0
            if num_marks <= _MAX_MARKS:
                kept.append(char)
    shown = "".join(kept)
    return shown if len(shown) <= limit else shown[: limit - 1] + "…"


_UNSHOWN = frozenset({"Cc", "Cf", "Cs", "Co", "Cn"})
"""Cf: what changes the direction, joins, separates or tags without being seen."""

_MARKS = frozenset({"Mn", "Mc", "Me"})


def _is_unshown(char: str) -> bool:
    return unicodedata.category(char) in _UNSHOWN or char in _BLANK or char in _TONES


def _is_symbol(char: str) -> bool:
    return char != "" and unicodedata.category(char) in {"So", "Sk", "Mn"}
