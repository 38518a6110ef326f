"""A clock for durations on the screen: jumps of the wall clock are taken out of it.

Lines of a run carry the wall clock's times, and the engine's wall clock is this machine's.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Final

_JUMP: Final = timedelta(seconds=1)
"""Less is how clocks are kept right, a little at a time."""


class SteadyTime:
    """The time of its making, moved on by the monotonic clock."""

    def __init__(self, wall: Callable[[], datetime], clock: Callable[[], float]) -> None:
        """`clock` gives monotonic seconds."""
        self._wall = wall
        self._clock = clock
        self._made_at, self._made_s = wall(), clock()
        self._jumps = [timedelta()]
        """By how much the wall clock has been ahead so far; the newest last."""

    def now(self) -> datetime:
        steady = self._made_at + timedelta(seconds=self._clock() - self._made_s)
        ahead = self._wall() - steady
        if all(abs(ahead - jump) > _JUMP for jump in self._jumps):
            self._jumps.append(ahead)
        return steady

    def of(self, told: datetime) -> datetime:
        """When that was which the wall clock called so, and which was heard of just now.

        It may be from before the last jump: of all that it can be, the nearest to now.
        """
        now = self.now()
        return min((told - jump for jump in self._jumps), key=lambda time: abs(now - time))
