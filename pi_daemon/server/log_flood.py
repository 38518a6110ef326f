"""Keeps strangers from filling the log: of one kind of line only so many are written in a while."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

MAX_LINES: Final = 20
PERIOD_S: Final = 10.0


@dataclass(slots=True)
class _Kind:
    began_s: float
    num_lines: int = 0
    """Since then, those that were left out included."""


class FloodFilter(logging.Filter):
    """A line's kind is its text without what is filled in. The next period's first line says how many
    were left out."""

    def __init__(self, now_s: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._now_s = now_s
        self._kinds: dict[str, _Kind] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        now_s = self._now_s()
        kind = self._kinds.setdefault(str(record.msg), _Kind(now_s))
        if now_s - kind.began_s >= PERIOD_S:
            num_left_out = kind.num_lines - MAX_LINES
            self._kinds[str(record.msg)] = kind = _Kind(now_s)
            if num_left_out > 0:
                record.msg = f"{record.getMessage()} (and {num_left_out} such lines before)"
                record.args = ()
        kind.num_lines += 1
        return kind.num_lines <= MAX_LINES
