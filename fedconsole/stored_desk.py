"""A desk on which stored runs and time stand still: what pictures are drawn from. Looks for no devices."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from datetime import datetime
from typing import TYPE_CHECKING

from fedconsole.config import Config
from fedconsole.desk import RealDesk

if TYPE_CHECKING:
    from fedconsole.engine.store import Line


class StoredDesk(RealDesk):
    """The desk at one moment."""

    def __init__(self, settings: Config, live: Sequence[Line] = ()) -> None:
        """
        Args:
            live: the lines so far of a run that goes on, at the moment of the last one.
        """
        super().__init__(settings)
        self._live = live
        self._now = datetime.fromisoformat(live[-1]["time"]) if live else super().now()

    async def watch(self) -> None:
        await asyncio.Event().wait()

    def clock(self) -> float:
        return 0.0

    def now(self) -> datetime:
        return self._now

    def is_running(self, run: str) -> bool:
        return bool(self._live) and run == self._live[0]["run"]

    async def follow(self, run: str) -> AsyncIterator[Line]:
        for line in self._live:
            yield line
        await asyncio.Event().wait()
