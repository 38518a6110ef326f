"""Resuming a run whose engine is gone, wherever it is shown."""

from __future__ import annotations

from datetime import datetime
from functools import partial
from shlex import quote
from typing import Final

from fedconsole.errors import FedconsoleError
from fedconsole.tui.frame import ConsoleScreen
from fedconsole.tui.keys import key
from fedconsole.tui.lang import _
from fedconsole.tui.messages import Echo, Notice, OpenRun

TAKE_UP_KEY: Final = key("u", "take_up", "Resume", cli="fedconsole resume RUN")


_GROUP: Final = "take_up"
TELL_S: Final = 4.0
"""A journal that takes longer to read is long."""


class TakingUp(ConsoleScreen):
    """A screen that can give a run a new engine."""

    def take_up(self, run: str) -> None:
        workers = self.app.workers
        if any(worker.group == _GROUP and not worker.is_finished for worker in workers):
            return
        # Not of this screen: who goes on from it while a long journal is read calls nothing off.
        self.app.run_worker(self._take_up(run), group=_GROUP)

    async def _take_up(self, run: str) -> None:
        taken_up_at: datetime | None = self.desk.now()
        telling = self.app.set_timer(TELL_S, partial(self._tell_waiting, run))
        try:
            await self.desk.take_up(run)
        except FedconsoleError as error:
            # Another console may have been quicker: then there is an engine to join.
            if not self.desk.is_running(run):
                self.app.post_message(Notice(str(error), "error"))
                return
            taken_up_at = None
        else:
            self.app.post_message(Echo(f"fedconsole resume {quote(run)}"))
        finally:
            telling.stop()
        self.app.post_message(OpenRun(run, taken_up_at))

    def _tell_waiting(self, run: str) -> None:
        text = _(
            "reading the journal of {run}: it is long; quitting leaves the run as it is", run=run
        )
        self.app.post_message(Notice(text))
