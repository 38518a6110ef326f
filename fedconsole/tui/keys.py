"""Key bindings that also work while a Korean input method is on."""

from __future__ import annotations

from typing import Final

from textual.binding import Binding

_LATIN: Final = "qwertyuiopasdfghjklzxcvbnm"
_JAMO: Final = "ㅂㅈㄷㄱㅅㅛㅕㅑㅐㅔㅁㄴㅇㄹㅎㅗㅓㅏㅣㅋㅌㅊㅍㅠㅜㅡ"
JAMO: Final = dict(zip(_LATIN, _JAMO, strict=True)) | dict(
    zip("QWERTOP", "ㅃㅉㄸㄲㅆㅒㅖ", strict=True)
)
"""What a Latin key types on a two-set Korean keyboard. Other capitals type the same as small letters."""

_NAMES: Final = {
    "/": "slash",
    "?": "question_mark",
    ":": "colon",
    "!": "exclamation_mark",
    "*": "asterisk",
    "+": "plus",
    "-": "minus",
    "<": "less_than_sign",
    ">": "greater_than_sign",
}


def key(
    keys: str,
    action: str,
    description: str,
    *,
    show: bool = True,
    cli: str = "",
    priority: bool = False,
) -> Binding:
    """A binding with its Hangul twins.

    Args:
        keys: one or more, separated by commas.
        description: English; translated when it is shown.
        cli: the command line that does the same; shown in the help and the palette.
    """
    names = []
    for one in keys.split(","):
        names.append(_NAMES.get(one, one))
        if one in JAMO:
            names.append(JAMO[one])
    shown = keys.split(",")[0]
    return Binding(
        ",".join(names),
        action,
        description,
        show=show,
        key_display=_DISPLAYED.get(shown, shown),
        tooltip=cli,
        priority=priority,
    )


_DISPLAYED: Final = {
    "escape": "Esc",
    "space": "Space",
    "enter": "Enter",
    "tab": "Tab",
    "delete": "Del",
    "home": "Home",
    "end": "End",
    "pageup": "PgUp",
    "pagedown": "PgDn",
    "f1": "F1",
    "f5": "F5",
    "f6": "F6",
    "f9": "F9",
    "left": "←",
    "right": "→",
    "up": "↑",
    "down": "↓",
} | {f"ctrl+{letter}": f"^{letter.upper()}" for letter in _LATIN}
