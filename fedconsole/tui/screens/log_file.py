"""Writes what a log shows into a file of the exports."""

from __future__ import annotations

from fedconsole.tui.frame import ConsoleScreen
from fedconsole.tui.lang import _
from fedconsole.tui.messages import Notice
from fedconsole.tui.widgets.line_log import LineLog


def save_log(screen: ConsoleScreen, log: LineLog, run: str) -> None:
    """Write the lines that pass the log's filter to RUN.log, and say where that is, or why not."""
    path = screen.desk.export_folder() / f"{run}.log"
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        path.write_text("\n".join(log.matching_lines()) + "\n")
    except OSError as error:
        screen.post_message(Notice(f"{path}: {error.strerror}", "error"))
        return
    screen.post_message(Notice(_("log saved: {path}", path=path)))
