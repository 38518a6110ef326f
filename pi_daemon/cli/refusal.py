"""How a command of the daemon ends when an option, the data or a folder does not allow it to go on."""

from __future__ import annotations

import sys
from typing import Final, NoReturn

import typer

from pi_daemon.protocol.limits import MAX_COUNT
from pi_daemon.protocol.text import clean

EXIT_REFUSED: Final = 3
_MOST: Final = 1_000
"""Characters of a reason: what it quotes may be long, or no text at all."""


def refuse(reason: str) -> NoReturn:
    """Say why in one line and end with exit code 3."""
    print(clean(f"pi-daemon: {reason}", _MOST), file=sys.stderr)
    raise typer.Exit(EXIT_REFUSED)


def parse_size(option: str, text: str | None) -> int | None:
    """A number of bytes, with K, M or G for powers of 1024; None for an option that is not given."""
    if text is None:
        return None
    number, unit = (text[:-1], text[-1].upper()) if text[-1:].isalpha() else (text, "")
    factor = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30}.get(unit)
    if factor is None or not number.isdecimal() or int(number) == 0:
        refuse(f"{option} {text}: expected a size such as 512M or 2G")
    size = int(number) * factor
    if size > MAX_COUNT:
        refuse(f"{option} {text}: expected at most {MAX_COUNT >> 30}G")
    return size
