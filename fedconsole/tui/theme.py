"""Colours by what they mean. The states stay apart without them: every one has a sign or a word."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from rich.color import ColorParseError
from rich.style import Style
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
THEMES: Final = (
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
DEFAULT: Final = "fed-dark"

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
    return name
