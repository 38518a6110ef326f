"""Counts the commands that are being carried out, so that no console piles them up."""

from __future__ import annotations

import asyncio
from typing import Final

MAX_AT_WORK: Final = 64
"""An honest console has a few under way."""


class AtWork:
    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[None]] = set()

    def add(self, task: asyncio.Task[None]) -> None:
        """Count a task until it is done."""
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    @property
    def is_full(self) -> bool:
        return len(self._tasks) >= MAX_AT_WORK

    async def one_done(self) -> None:
        await asyncio.wait(self._tasks, return_when=asyncio.FIRST_COMPLETED)
