"""What can be done with one stored run, wherever it is shown: resume, export, clone, replay."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from functools import partial
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, ClassVar, Final

import msgspec

from fedconsole import report
from fedconsole.coordinator.plan import Plan
from fedconsole.equivalent import command_line
from fedconsole.errors import FedconsoleError, StorageError
from fedconsole.headless import json_line
from fedconsole.tui.desk import Desk
from fedconsole.tui.dialogs.choice import Choice
from fedconsole.tui.frame import Command
from fedconsole.tui.keys import key
from fedconsole.tui.lang import _
from fedconsole.tui.messages import CloneRun, Echo, Notice, Replay
from fedconsole.tui.screens.taking_up import TAKE_UP_KEY, TakingUp

if TYPE_CHECKING:
    from fedconsole.history import RunSummary

FORMS: Final = {"markdown": "md", "csv": "csv", "json": "jsonl", "svg": "svg"}
"""The exports: option of `fedconsole runs export` and ending of the file."""
_TITLES: Final = {
    "markdown": "Report (Markdown)",
    "csv": "Rounds (CSV)",
    "json": "Journal (JSON lines)",
    "svg": "Losses (SVG)",
}
REPLAY_SPEED: Final = 10.0


class RunActions(TakingUp):
    """A screen on which one run is chosen."""

    # First what no pane takes for itself: l and e mean something else in a plot and in a log.
    BINDINGS: ClassVar = [
        key("r", "replay", "Replay", cli="fedconsole runs replay RUN"),
        TAKE_UP_KEY,
        key("f,l,L", "clone", "Clone", cli="fedconsole run PLAN"),
        key("E,e", "export", "Export", cli="fedconsole runs export RUN --markdown"),
    ]

    def chosen(self) -> RunSummary | None:
        """The run that the keys act on."""
        return None

    def names(self) -> Mapping[str, str]:
        summary = self.chosen()
        if summary is None:
            return {}
        names = {"RUN": quote(summary.run)}
        with suppress(ValueError, FedconsoleError):
            # One that this version does not take has no command line.
            command = command_line(msgspec.convert(summary.plan, Plan), self.desk.configured())
            names["PLAN"] = command.removeprefix("fedconsole run").strip()
        return names

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        if action in ("replay", "clone", "export"):
            return True if self.chosen() is not None else None
        if action == "take_up":
            # Only a run whose engine is gone has something to resume.
            summary = self.chosen()
            return summary is not None and summary.state == "crashed"
        return True

    def why_not(self, action: str) -> str:
        return _("no run is chosen") if self.chosen() is None else ""

    def action_replay(self) -> None:
        if (summary := self.chosen()) is not None:
            self.post_message(Replay(summary.run, REPLAY_SPEED))

    def action_clone(self) -> None:
        summary = self.chosen()
        if summary is None:
            return
        try:
            plan = msgspec.convert(summary.plan, Plan)
        except (msgspec.ValidationError, FedconsoleError) as error:
            self.post_message(
                Notice(_("this plan cannot be used again: {why}", why=error), "error")
            )
            return
        self.post_message(CloneRun(plan))

    def action_take_up(self) -> None:
        if (summary := self.chosen()) is not None:
            self.take_up(summary.run)

    def action_export(self) -> None:
        if (summary := self.chosen()) is not None:
            self.run_worker(self._ask_and_export(summary), group="export", exclusive=True)

    async def _ask_and_export(self, summary: RunSummary) -> None:
        form = await self.app.push_screen_wait(
            Choice(
                _("Export run {run}", run=summary.run),
                _("The file goes to {folder}.", folder=self.desk.export_folder()),
                [
                    ("markdown", "Markdown"),
                    ("csv", "CSV"),
                    ("json", "JSONL"),
                    ("svg", "SVG"),
                    ("cancel", _("Cancel")),
                ],
                default="cancel",
            )
        )
        if form != "cancel":
            await self._export(summary, form)

    async def _export(self, summary: RunSummary, form: str) -> None:
        path = self._path(summary, form)
        try:
            await asyncio.to_thread(_write, path, self.desk, summary, form)
        except FedconsoleError as error:
            self.post_message(Notice(str(error), "error"))
            return
        self.post_message(Notice(_("written: {path}", path=path)))
        self.post_message(Echo(self._export_command(summary, form)))

    def _path(self, summary: RunSummary, form: str) -> Path:
        return self.desk.export_folder() / f"{summary.run}.{FORMS[form]}"

    def _export_command(self, summary: RunSummary, form: str) -> str:
        path = quote(str(self._path(summary, form)))
        return f"fedconsole runs export {quote(summary.run)} --{form} > {path}"

    def commands(self) -> Iterable[Command]:
        summary = self.chosen()
        if summary is None:
            return
        for form, title in _TITLES.items():
            yield Command(
                _("Export: {what}", what=_(title)),
                self._export_command(summary, form),
                partial(self._export, summary, form),
            )


def _write(path: Path, desk: Desk, summary: RunSummary, form: str) -> None:
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with path.open("w", encoding="utf-8", newline="\n") as file:
            file.writelines(_content(desk, summary, form))
    except OSError as error:
        raise StorageError(
            _("cannot write to {folder}: {why}", folder=path.parent, why=error)
        ) from error


def _content(desk: Desk, summary: RunSummary, form: str) -> Iterator[str]:
    match form:
        case "json":
            yield from (f"{json_line(line)}\n" for line in desk.lines(summary.run))
        case "csv":
            yield report.csv_text(desk.rounds(summary.run))
        case _:
            rounds = desk.rounds(summary.run)
            record = report.make_record(summary, rounds, desk.lines(summary.run))
            yield report.markdown(record) if form == "markdown" else report.svg(record)
