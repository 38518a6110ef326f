"""Whether lines and tables have colours, and which: the one place that decides.

Without colours they say the same: every colour stands beside a word.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, MutableMapping
from enum import StrEnum
from typing import Any, Final, TextIO


class Color(StrEnum):
    """What `--color` may be."""

    AUTO = "auto"
    ALWAYS = "always"
    NEVER = "never"


class Role(StrEnum):
    """What a colour means; the values are Rich's names of styles."""

    TITLE = "bold"
    GOOD = "green"
    WARNING = "yellow"
    BAD = "red"


_CODES: Final = {Role.TITLE: 1, Role.GOOD: 32, Role.WARNING: 33, Role.BAD: 31}
_WORDS: Final = {
    "bad": Role.BAD,
    "crashed": Role.BAD,
    "failed": Role.BAD,
    "IDENTITY CHANGED": Role.BAD,
    "aborted": Role.WARNING,
    "not paired": Role.WARNING,
    "links full": Role.WARNING,
    "offline": Role.WARNING,
    "stalled": Role.WARNING,
    "completed": Role.GOOD,
    "good": Role.GOOD,
    "paired": Role.GOOD,
}
"""Cells of tables that are states."""
_TROUBLE: Final = frozenset(
    {
        "run.quorum",
        "run.stalled",
        "run.fewer",
        "worker.lost",
        "worker.straggler",
        "worker.rejected",
        "warning",
    }
)


def settle(color: Color, environment: MutableMapping[str, str] = os.environ) -> None:
    """Say in NO_COLOR and FORCE_COLOR, which libraries read as well, what was chosen.

    The option outdoes the environment. In that, NO_COLOR outdoes FORCE_COLOR, and this CLICOLOR=0.
    An empty variable says nothing.
    """
    if color is Color.AUTO and not environment.get("NO_COLOR"):
        if environment.get("FORCE_COLOR"):
            color = Color.ALWAYS
        elif environment.get("CLICOLOR") == "0":
            color = Color.NEVER
        else:
            # Textual takes an empty one for a wish.
            environment.pop("NO_COLOR", None)
    match color:
        case Color.ALWAYS:
            environment.pop("NO_COLOR", None)
            environment["FORCE_COLOR"] = "1"
        case Color.NEVER:
            environment.pop("FORCE_COLOR", None)
            environment["NO_COLOR"] = "1"


def has_colours(stream: TextIO, environment: Mapping[str, str] = os.environ) -> bool:
    """Whether what is written there is coloured; after `settle`."""
    if environment.get("NO_COLOR"):
        return False
    is_able = environment.get("TERM") not in (None, "", "dumb")
    return bool(environment.get("FORCE_COLOR")) or (is_able and stream.isatty())


def painted(text: str, role: Role | None, stream: TextIO) -> str:
    """A text of one line as it is written to a stream."""
    if role is None or not text or not has_colours(stream):
        return text
    return f"\x1b[{_CODES[role]}m{text}\x1b[0m"


def role_of_word(word: str) -> Role | None:
    return _WORDS.get(word)


def role_of_line(line: Mapping[str, Any]) -> Role | None:
    """Of a sentence about a run's line."""
    if line["type"] == "run.finished":
        return _WORDS.get(line["outcome"])
    return Role.WARNING if line["type"] in _TROUBLE else None
