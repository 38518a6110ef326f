"""How long the rounds of a run take, and so how long those that are left may take.

A pause is no part of a round here: it says nothing about the rounds to come.
"""

from __future__ import annotations

import math
import statistics
from collections import deque
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

_MAX_ROUNDS: Final = 20


@dataclass(slots=True)
class RoundTimes:
    began_at: datetime | None = None
    """When the open round began; None: none is open."""
    paused_at: datetime | None = None
    """Since when the run is paused; None: it is not."""
    paused_s: float = 0.0
    """How long it was paused in the open round, without the pause that goes on."""
    seconds: deque[float] = field(default_factory=lambda: deque(maxlen=_MAX_ROUNDS))
    """Of the last rounds."""

    def begin(self, now: datetime) -> None:
        self.began_at, self.paused_at, self.paused_s = now, None, 0.0

    def finish(self, seconds: float) -> None:
        """`seconds`: with the pauses, as in `round.finished`."""
        self.seconds.append(max(0.0, seconds - self.paused_s))
        self.began_at = None

    def pause(self, now: datetime) -> None:
        self.paused_at = now

    def go_on(self, now: datetime) -> None:
        if self.paused_at is not None:
            self.paused_s += (now - self.paused_at).total_seconds()
            self.paused_at = None

    def left_s(self, num_left: int, now: datetime) -> tuple[float, float] | None:
        """Seconds that so many rounds take, the open one among them, and their spread; None: not known."""
        if not self.seconds:
            return None
        spread = statistics.stdev(self.seconds) if len(self.seconds) > 1 else 0.0
        gone_s = 0.0
        if self.began_at is not None:
            gone_s = ((self.paused_at or now) - self.began_at).total_seconds() - self.paused_s
        # The median: a round that waited for a lost worker says little about the others.
        left_s = statistics.median(self.seconds) * num_left - max(0.0, gone_s)
        return max(0.0, left_s), spread * math.sqrt(num_left)
