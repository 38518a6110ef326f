"""All runs in a table, the newest first. They are read in threads, a few at a time."""

from __future__ import annotations

import asyncio
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from shlex import quote
from typing import TYPE_CHECKING, Any, ClassVar, Final

from rich.text import Text
from textual.app import ComposeResult
from textual.widget import Widget

from fedconsole.errors import FedconsoleError
from fedconsole.report import MOST_COMPARED, num_workers
from fedconsole.tui.desk import Desk
from fedconsole.tui.dialogs.choice import Choice
from fedconsole.tui.keys import key
from fedconsole.tui.lang import _
from fedconsole.tui.messages import Echo, Notice, OpenRun
from fedconsole.tui.screens.run_actions import RunActions
from fedconsole.tui.screens.run_words import (
    NO_JOURNAL,
    duration_text,
    measure,
    share,
    started_text,
    state_text,
)
from fedconsole.tui.theme import style
from fedconsole.tui.widgets.fault import Fault
from fedconsole.tui.widgets.filter_bar import FilterBar
from fedconsole.tui.widgets.line_table import LineTable
from fedconsole.tui.widgets.sparkline import sparkline
from fedconsole.tui.widgets.table_cells import Column
from pi_daemon.protocol.text import clean

if TYPE_CHECKING:
    from fedconsole.history import RunSummary

_READ_EVERY_S: Final = 2.0
_STARTING_S: Final = 60.0
_AT_ONCE: Final = 4
"""Runs read between two looks at the screen."""
_TREND_CELLS: Final = 12
COLUMNS: Final = (
    Column("run", "run", 13),
    Column("task", "task", 6, priority=2, flexible=True),
    Column("state", "state", 12),
    Column("started", "started", 11, priority=3),
    Column("duration", "time", 8, priority=4, right=True),
    Column("rounds", "rounds", 6, priority=5, right=True),
    Column("workers", "workers", 7, priority=8, right=True),
    Column("loss", "loss", 7, right=True),
    Column("accuracy", "acc", 6, priority=1, right=True),
    Column("macro_f1", "F1", 6, priority=7, right=True),
    Column("trend", "trend", _TREND_CELLS, priority=6, sortable=False),
    Column("reason", "reason", 24, priority=9, flexible=True, sortable=False),
)


@dataclass(frozen=True, slots=True)
class Entry:
    """What has been read of a run."""

    summary: RunSummary | None
    losses: Sequence[float | None] = ()
    """By round."""
    reason: str = ""
    """Why there is no summary."""
    unread: str = "unreadable"
    """The state of one without a summary."""

    @property
    def state(self) -> str:
        return self.unread if self.summary is None else self.summary.state.value

    @property
    def is_going(self) -> bool:
        return self.summary is not None and self.summary.state.is_going


def read_entry(desk: Desk, run: str, before: Entry | None) -> Entry:
    """Read a run; its rounds only when there are more of them than before."""
    try:
        summary = desk.summarize(run)
        if summary is None:
            return Entry(None, reason=desk.last_words(run), unread=NO_JOURNAL)
        if before and before.summary and before.summary.rounds == summary.rounds:
            return Entry(summary, before.losses)
        rounds = desk.rounds(run)
    except FedconsoleError as error:
        return Entry(None, reason=str(error))
    tested = [row.loss for row in rounds]
    has_tests = any(loss is not None for loss in tested)
    return Entry(summary, tested if has_tests else [row.training_loss for row in rounds])


class RunRows:
    """The runs as rows of a table."""

    def __init__(self, desk: Desk, widget: Widget) -> None:
        self._desk = desk
        self._widget = widget
        self._runs: list[str] = []
        self._version = 0
        self._versions: dict[str, int] = {}
        self.entries: dict[str, Entry] = {}

    def keep(self, runs: Sequence[str]) -> None:
        """These are all runs that there are, the newest last."""
        self._runs = list(reversed(runs))
        self.entries = {run: entry for run, entry in self.entries.items() if run in set(runs)}

    def put(self, run: str, entry: Entry) -> None:
        self._version += 1
        self._versions[run] = self._version
        self.entries[run] = entry

    def due(self) -> list[str]:
        """What is to be read: what is new, and what may have changed."""
        return [run for run in self._runs if self._is_due(run)]

    def _is_due(self, run: str) -> bool:
        entry = self.entries.get(run)
        if entry is None or entry.summary is None:
            # The folder of a run that is just starting has no journal yet.
            return entry is None or entry.state == NO_JOURNAL
        if entry.state != "crashed":
            return entry.is_going
        # An engine that is just starting has a journal before it can be reached.
        age = self._desk.now() - entry.summary.started
        return age.total_seconds() < _STARTING_S or self._desk.is_running(run)

    def keys(self) -> Sequence[str]:
        return self._runs

    def version(self, key: str) -> Hashable:
        entry = self.entries.get(key)
        return (self._versions.get(key), self._duration(entry))

    def _duration(self, entry: Entry | None) -> str:
        if entry is None or entry.summary is None:
            return "-"
        return duration_text(entry.summary, self._desk.now())

    def cells(self, key: str) -> Mapping[str, Text]:
        cells = {"run": Text(clean(key, 64))}
        entry = self.entries.get(key)
        if entry is None:
            return cells
        cells["state"] = state_text(self._widget, entry.state)
        summary = entry.summary
        if summary is None:
            why = Text(clean(entry.reason), style(self._widget, "dim"))
            # Narrow screens have the one column only.
            return cells | {"task": why, "reason": why}
        return cells | {
            "task": Text(clean(summary.task, 128)),
            "started": Text(started_text(summary)),
            "duration": Text(self._duration(entry)),
            "rounds": Text(str(summary.rounds)),
            "workers": Text(str(num_workers(summary))),
            "loss": Text(measure(summary.loss)),
            "accuracy": Text(share(summary.accuracy)),
            "macro_f1": Text(share(summary.macro_f1)),
            "reason": Text(clean(summary.reason)),
            "trend": Text(sparkline(entry.losses, _TREND_CELLS), style(self._widget, "accent")),
        }

    def sort_value(self, key: str, column: str) -> Any:
        entry = self.entries.get(key)
        if column == "run":
            return key
        if entry is None or entry.summary is None:
            return None
        match column:
            case "duration":
                return (
                    (self._desk.now() - entry.summary.started).total_seconds()
                    if entry.is_going
                    else entry.summary.seconds
                )
            case "workers":
                return num_workers(entry.summary)
            case _:
                return getattr(entry.summary, column)

    def fields(self, key: str) -> Mapping[str, str]:
        entry = self.entries.get(key)
        fields = {"run": key}
        if entry is None or entry.summary is None:
            return fields
        return fields | {
            "task": entry.summary.task,
            "state": entry.state,
            "started": started_text(entry.summary),
            "reason": entry.summary.reason,
        }


class HistoryScreen(RunActions):
    NAME = "history"
    ABOUT = (
        "All runs of this desktop, finished and running. Enter opens one. Space marks up to four, "
        "which c compares. Clone puts a run's plan into the form of a new one; replay shows it on "
        "the Live screen as if it went on now."
    )
    BINDINGS: ClassVar = [
        key("c", "compare", "Compare", cli="fedconsole runs compare RUNS"),
        *RunActions.BINDINGS,
        key("delete", "remove", "Delete", cli="fedconsole runs rm RUN"),
    ]

    def __init__(self, desk: Desk) -> None:
        super().__init__(desk)
        self.rows = RunRows(desk, self)
        self._marked: frozenset[str] = frozenset()
        self._is_reading = False
        self._read_at: float | None = None

    def body(self) -> ComposeResult:
        yield Fault()
        yield LineTable(
            COLUMNS,
            self.rows,
            empty="Reading the runs…",
            sort="started",
            reverse=True,
            marks=True,
        )
        yield FilterBar()

    @property
    def table(self) -> LineTable:
        return self.query_one(LineTable)

    @property
    def bar(self) -> FilterBar:
        return self.query_one(FilterBar)

    def flush(self) -> None:
        is_due = self._read_at is None or self.desk.clock() - self._read_at >= _READ_EVERY_S
        if is_due and not self._is_reading:
            self.read_again()
        self.table.flush()
        self.bar.set_count(self.table.shown, self.table.total)

    def read_again(self) -> None:
        self._is_reading = True
        self._read_at = self.desk.clock()
        self.run_worker(self._read(), group="read")

    async def _read(self) -> None:
        try:
            self.rows.keep(await asyncio.to_thread(self.desk.run_ids))
            self._tell("No runs yet.\nStart one: press 2, or type fedconsole run")
            self._sort_again()
            due = iter(await asyncio.to_thread(self.rows.due))
            while self.is_current and (batch := list(islice(due, _AT_ONCE))):
                for run, entry in (await asyncio.to_thread(self._read_batch, batch)).items():
                    self.rows.put(run, entry)
                self._sort_again()
            self.refresh_bindings()
        except FedconsoleError as error:
            self._tell("The runs cannot be read.\nNew ones cannot be kept, either.", str(error))
        finally:
            self._is_reading = False

    def _tell(self, empty: str, why: str = "") -> None:
        """`why` the folder of runs cannot be read; rows that were read before stay."""
        if not self.is_mounted:
            return
        if why:
            hint = _("make it yours again, or set XDG_STATE_HOME; it is read again every 2 s")
            why = f"{why}\n{hint}"
        self.query_one(Fault).say(why)
        self.table.set_empty(empty)

    def _sort_again(self) -> None:
        # At once, not when the table does it next by itself.
        if self.is_mounted:
            self.table.set_filter(self.bar.filter)

    def _read_batch(self, runs: Sequence[str]) -> dict[str, Entry]:
        entries = self.rows.entries
        return {run: read_entry(self.desk, run, entries.get(run)) for run in runs}

    def chosen(self) -> RunSummary | None:
        entry = self.rows.entries.get(self.table.current or "") if self.is_mounted else None
        return entry.summary if entry else None

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        if action == "compare":
            return True if len(self._marked) > 1 else None
        if action == "remove":
            return True if self.is_mounted and self.table.current is not None else None
        return super().check_action(action, parameters)

    def why_not(self, action: str) -> str:
        if action == "compare":
            return _("mark two runs or more with Space")
        return super().why_not(action)

    def back(self) -> bool:
        was_filtered = self.bar.clear()
        self.table.focus()
        return was_filtered

    def copy_text(self) -> str | None:
        return self.table.current

    # Messages of the table

    def on_line_table_selected(self, event: LineTable.Selected) -> None:
        self.post_message(OpenRun(event.key))

    def on_line_table_highlighted(self) -> None:
        self.refresh_bindings()

    def on_line_table_marked(self, event: LineTable.Marked) -> None:
        if len(event.keys) > MOST_COMPARED:
            self.post_message(
                Notice(_("at most {n} runs can be compared", n=MOST_COMPARED), "warning")
            )
            self.table.set_marked(self._marked)
            return
        self._marked = event.keys
        self.refresh_bindings()

    def on_filter_bar_changed(self, event: FilterBar.Changed) -> None:
        self.table.set_filter(event.filter)

    def on_filter_bar_closed(self) -> None:
        self.table.focus()

    # Keys

    def names(self) -> Mapping[str, str]:
        marked = [quote(run) for run in self.rows.keys() if run in self._marked]  # noqa: SIM118
        return ({"RUNS": " ".join(marked)} if marked else {}) | dict(super().names())

    def action_compare(self) -> None:
        from fedconsole.tui.screens.compare import CompareScreen

        runs = [run for run in self.rows.keys() if run in self._marked]  # noqa: SIM118
        self.app.push_screen(CompareScreen(self.desk, runs))

    def action_remove(self) -> None:
        if (run := self.table.current) is not None:
            self.run_worker(self._remove(run), group="remove", exclusive=True)

    async def _remove(self, run: str) -> None:
        if self.desk.is_running(run):
            self.post_message(Notice(_("run {run} is running; abort it first", run=run), "warning"))
            return
        answer = await self.app.push_screen_wait(
            Choice(
                _("Delete run {run}?", run=run),
                _("Its journal and its model are deleted; exports stay. There is no way back."),
                [("delete", _("Delete")), ("cancel", _("Cancel"))],
                default="cancel",
            )
        )
        if answer != "delete":
            return
        try:
            await asyncio.to_thread(self.desk.remove, run)
        except FedconsoleError as error:
            self.post_message(Notice(str(error), "error"))
            return
        self.table.set_marked(self._marked - {run})
        self.post_message(Echo(f"fedconsole runs rm {quote(run)} --yes"))
        self.read_again()
