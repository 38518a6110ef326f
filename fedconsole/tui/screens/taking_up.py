"""Resuming a run whose engine is gone, wherever it is shown."""

from __future__ import annotations

from datetime import datetime
from shlex import quote
from typing import Final

from fedconsole.errors import FedconsoleError
from fedconsole.tui.frame import ConsoleScreen
from fedconsole.tui.keys import key
from fedconsole.tui.messages import Echo, Notice, OpenRun

TAKE_UP_KEY: Final = key("u", "take_up", "Resume", cli="fedconsole resume RUN")


class TakingUp(ConsoleScreen):
    """A screen that can give a run a new engine."""

    def take_up(self, run: str) -> None:
        self.run_worker(self._take_up(run), group="take_up", exclusive=True)

    async def _take_up(self, run: str) -> None:
        taken_up_at: datetime | None = self.desk.now()
        try:
            await self.desk.take_up(run)
        except FedconsoleError as error:
            # Another console may have been quicker: then there is an engine to join.
            if not self.desk.is_running(run):
                self.post_message(Notice(str(error), "error"))
                return
            taken_up_at = None
        else:
            self.post_message(Echo(f"fedconsole resume {quote(run)}"))
        self.post_message(OpenRun(run, taken_up_at))
