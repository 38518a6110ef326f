"""TOML of bounded cost: the standard library takes gigabytes for one key of some ten thousand parts."""

from __future__ import annotations

import tomllib
from typing import Any, Final

MAX_CHARACTERS: Final = 1 << 16
MAX_DOTS: Final = 500
"""In one line: the memory for a dotted key grows with the square of its parts."""


def parse_toml(text: str) -> dict[str, Any]:
    """
    Raises:
        ValueError: this is no TOML, or longer than any configuration; the message says why.
    """
    if len(text) > MAX_CHARACTERS:
        raise ValueError(f"{len(text)} characters, at most {MAX_CHARACTERS} are read")
    for number, line in enumerate(text.splitlines(), start=1):
        if line.count(".") > MAX_DOTS:
            raise ValueError(f"more than {MAX_DOTS} dots in one line (at line {number})")
    try:
        return tomllib.loads(text)
    # A number of 5,000 digits is a ValueError already.
    except RecursionError as error:
        raise ValueError(str(error)) from error
