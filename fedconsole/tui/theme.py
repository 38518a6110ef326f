"""Colours by what they mean. The states stay apart without them: every one has a sign or a word."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from typing import Final

from rich.color import ColorParseError
from rich.style import Style
from textual.color import Color
from textual.theme import BUILTIN_THEMES, Theme
from textual.widget import Widget

SERIES: Final = (
    "#56b4e9",
    "#e69f00",
    "#009e73",
    "#cc79a7",
    "#f0e442",
    "#d55e00",
    "#0072b2",
    "#999999",
)
"""Okabe and Ito's colours, which colour-blind people can tell apart."""

OWN_COLOURS: Final = "ansi"
"""The terminal's own 16 colours."""
_OWN_THEMES: Final = (
    replace(BUILTIN_THEMES["ansi-dark"], name=OWN_COLOURS),
    Theme(
        name="fed-dark",
        primary="#56b4e9",
        secondary="#0072b2",
        accent="#e69f00",
        success="#2bc99a",
        warning="#e69f00",
        error="#ff7b4d",
        foreground="#e4e8ec",
        background="#0d1117",
        surface="#151b23",
        panel="#1f2731",
        dark=True,
    ),
    Theme(
        name="fed-light",
        primary="#005a94",
        secondary="#0072b2",
        accent="#8a5a00",
        success="#00694d",
        warning="#8a5a00",
        error="#a83f00",
        foreground="#1b1f24",
        background="#ffffff",
        surface="#f3f5f7",
        panel="#e3e8ed",
        dark=False,
    ),
    Theme(
        name="fed-high-contrast",
        primary="#ffffff",
        secondary="#9fdcff",
        accent="#ffd75f",
        success="#5fffaf",
        warning="#ffd75f",
        error="#ff8f6b",
        foreground="#ffffff",
        background="#000000",
        surface="#000000",
        panel="#262626",
        dark=True,
    ),
)
THEMES: Final = (
    *_OWN_THEMES,
    # Those of the terminal's own colours are ours by another name.
    *(theme for theme in BUILTIN_THEMES.values() if not theme.ansi),
)
DEFAULT: Final = "fed-dark"

_TEXT_CONTRAST: Final = 4.5
_LINE_CONTRAST: Final = 3.0
"""WCAG 2.2, 1.4.3 and 1.4.11: of texts, and of what is drawn, against what is behind it."""

_VARIABLES: Final = {
    "good": "success",
    "warning": "warning",
    "bad": "error",
    "accent": "accent",
    "title": "primary",
}


def style(widget: Widget, role: str) -> Style:
    """The style of a role in the current theme.

    Args:
        role: good, warning, bad, dim, accent, title or cursor.
    """
    if role == "dim":
        return Style(dim=True)
    if role == "cursor":
        return Style(reverse=True) if widget.app.native_ansi_color else _background(widget, "panel")
    return Style(color=_colour(widget, _VARIABLES[role]), bold=role in ("bad", "title"))


def _background(widget: Widget, variable: str) -> Style:
    return Style(bgcolor=_colour(widget, variable))


def _colour(widget: Widget, variable: str) -> str | None:
    name = widget.app.theme_variables.get(variable, "").removeprefix("ansi_")
    try:
        Style(color=name)
    except ColorParseError:
        return None
    if variable == "panel":
        return name
    return _seen(widget, name, background=_TEXT_CONTRAST, panel=_LINE_CONTRAST)


def readable(widget: Widget, colour: str) -> str:
    """The colour of a curve, as much lighter or darker as the theme's background wants it.

    Textual's light themes have yellow for warnings; ours are as they were chosen.
    """
    return _seen(widget, colour, background=_LINE_CONTRAST)


def _seen(widget: Widget, colour: str, **least: float) -> str:
    """`least`: the contrasts to what may be behind it, by the theme's variable."""
    if widget.app.native_ansi_color:
        return colour
    variables = widget.app.theme_variables
    return _moved(colour, tuple((variables[name], wanted) for name, wanted in least.items()))


@cache
def _moved(colour: str, least: tuple[tuple[str, float], ...]) -> str:
    behind = [(Color.parse(place), wanted) for place, wanted in least]
    own = Color.parse(colour)
    end = behind[0][0].get_contrast_text(1)
    steps = (own.blend(end, share / 10) for share in range(11))
    seen = (c for c in steps if all(_contrast(c, place) >= wanted for place, wanted in behind))
    chosen = next(seen, end)
    return colour if chosen == own else chosen.hex6


def _contrast(one: Color, other: Color) -> float:
    """Of WCAG: 1 to 21."""
    dark, light = sorted((_luminance(one), _luminance(other)))
    return (light + 0.05) / (dark + 0.05)


def _luminance(colour: Color) -> float:
    parts = (part / 255 for part in colour.rgb)
    red, green, blue = (p / 12.92 if p <= 0.03928 else ((p + 0.055) / 1.055) ** 2.4 for p in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue
