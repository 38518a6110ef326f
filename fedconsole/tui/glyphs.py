"""Signs beside colours. Some terminals draw the Unicode ones two cells wide: then ASCII takes over."""

from __future__ import annotations

from typing import Final

_UNICODE: Final = {
    "online": "●",
    "stale": "◐",
    "offline": "○",
    "new": "◇",
    "not paired": "·",
    "links full": "◆",
    "KEY CHANGED": "✗",
    "done": "✓",
    "failed": "✗",
    "up": "▲",
    "down": "▼",
    "paused": "‖",
    "running": "▶",
    "aborted": "◼",
    "crashed": "☓",
    "mark": "■",
    "no mark": "□",
    "absent": "○",
    "none": "·",
    "warning": "▲",
    "bar_full": "━",
    "bar_empty": "─",
    "ellipsis": "…",
    "receive": "↓",
    "send": "↑",
}
_ASCII: Final = {
    "online": "*",
    "stale": "~",
    "offline": "o",
    "new": "?",
    "not paired": ".",
    "links full": "&",
    "KEY CHANGED": "x",
    "done": "+",
    "failed": "x",
    "up": "^",
    "down": "v",
    "paused": "=",
    "running": ">",
    "aborted": "#",
    "crashed": "X",
    "mark": "#",
    "no mark": "_",
    "absent": "o",
    "none": ".",
    "warning": "!",
    "bar_full": "=",
    "bar_empty": "-",
    "ellipsis": "~",
    "receive": "v",
    "send": "^",
}
_current: dict[str, str] = dict(_UNICODE)


def use(name: str) -> None:
    """Draw with `unicode` or `ascii` from now on."""
    _current.update(_ASCII if name == "ascii" else _UNICODE)


def is_ascii() -> bool:
    return _current["online"] == _ASCII["online"]


def glyph(name: str) -> str:
    """One cell."""
    return _current[name]
