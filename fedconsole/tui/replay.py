"""Hands out the lines of a stored run at the pace at which they came, or faster."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from datetime import datetime
from itertools import islice
from typing import Final

from fedconsole.tui.desk import Line

SPEEDS: Final = (1.0, 2.0, 5.0, 10.0, 20.0, 30.0, 60.0)
_LONGEST_GAP_S: Final = 2.0
"""Of real time: nobody wants to watch a run wait."""
_STEP_S: Final = 0.05
"""A new speed counts after so long; lines that are nearer together come together."""
_BATCH: Final = 500
"""Lines between two breaths for the screen, however close they came."""


class Replay:
    """The lines of a run as an endless run would give them; may be iterated once."""

    def __init__(
        self,
        lines: Iterable[Line],
        speed: float = 10.0,
        *,
        sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`lines` are read in threads, some hundred at a time."""
        self._lines = iter(lines)
        self._sleep = sleep
        self._clock = clock
        self._goes_on = asyncio.Event()
        self._goes_on.set()
        self.speed = min(max(speed, SPEEDS[0]), SPEEDS[-1])
        """How many times faster than the run; 1 to 60."""
        self.is_over = False

    @property
    def is_paused(self) -> bool:
        return not self._goes_on.is_set()

    def toggle_pause(self) -> None:
        if self.is_paused:
            self._goes_on.set()
        else:
            self._goes_on.clear()

    def faster(self) -> None:
        self.speed = next((speed for speed in SPEEDS if speed > self.speed), SPEEDS[-1])

    def slower(self) -> None:
        self.speed = next((speed for speed in reversed(SPEEDS) if speed < self.speed), SPEEDS[0])

    async def __aiter__(self) -> AsyncIterator[Line]:
        previous: datetime | None = None
        # Of the run's time: by how much the next line would come too early.
        owed_s = 0.0
        while batch := await asyncio.to_thread(lambda: list(islice(self._lines, _BATCH))):
            for line in batch:
                now = datetime.fromisoformat(line["time"])
                if previous is not None:
                    # A clock that was set back gives no gap.
                    owed_s += max(0.0, (now - previous).total_seconds())
                previous = now
                owed_s = await self._wait(owed_s)
                yield line
        self.is_over = True

    async def _wait(self, owed_s: float) -> float:
        """Let this much of the run's time pass; gives what is still owed, below 0 after too much."""
        while True:
            await self._goes_on.wait()
            owed_s = min(owed_s, _LONGEST_GAP_S * self.speed)
            if owed_s < _STEP_S * self.speed:
                return owed_s
            before = self._clock()
            await self._sleep(_STEP_S)
            owed_s -= (self._clock() - before) * self.speed
