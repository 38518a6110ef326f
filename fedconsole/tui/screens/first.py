"""The first screen of each mode. Imported when it is shown: the first frame waits for one of them only."""

from __future__ import annotations

from fedconsole.tui.desk import Desk
from fedconsole.tui.frame import ConsoleScreen


def first_screen(mode: str, desk: Desk) -> ConsoleScreen:
    match mode:
        case "fleet":
            from fedconsole.tui.screens.fleet import FleetScreen

            return FleetScreen(desk)
        case "new":
            from fedconsole.tui.screens.new_run import NewRunScreen

            return NewRunScreen(desk)
        case "live":
            from fedconsole.tui.screens.no_run import NoRunScreen

            return NoRunScreen(desk)
        case _:
            from fedconsole.tui.screens.history import HistoryScreen

            return HistoryScreen(desk)
