"""Makes a peer's text harmless before it meets a terminal, a log or a file name."""

from __future__ import annotations

import unicodedata

_ZERO_WIDTH_JOINER = "\u200d"


def clean(text: str, limit: int = 512) -> str:
    """One line of visible text: NFC, no control, bidi or zero-width characters, at most `limit`.

    Tabs and line ends become spaces. The zero-width joiner stays only where it joins two symbols,
    as in emoji. Longer text ends in "…".
    """
    # Cut first: cleaning a megabyte in order to show one line would be work for the peer's benefit.
    text = unicodedata.normalize("NFC", text[: 4 * limit])
    kept: list[str] = []
    for index, char in enumerate(text):
        if char in "\t\n\r\v\f\u2028\u2029":
            kept.append(" ")
        elif char == _ZERO_WIDTH_JOINER:
            if kept and _is_symbol(kept[-1]) and _is_symbol(text[index + 1 : index + 2]):
                kept.append(char)
        elif unicodedata.category(char) not in _UNSHOWN:
            kept.append(char)
    shown = "".join(kept)
    return shown if len(shown) <= limit else shown[: limit - 1] + "…"


_UNSHOWN = frozenset({"Cc", "Cf", "Cs", "Co", "Cn"})
"""Cf: what changes the direction, joins, separates or tags without being seen."""


def _is_symbol(char: str) -> bool:
    return char != "" and unicodedata.category(char) in {"So", "Sk", "Mn"}
