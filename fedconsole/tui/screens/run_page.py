"""One stored run: curves, rounds, who was in which round, classes, plan and log.

A pane for each; where there is no room for all, the one with the focus is shown.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from itertools import islice
from shlex import quote
from typing import TYPE_CHECKING, ClassVar, Final, cast

from rich.text import Text
from textual import events
from textual.app import ComposeResult
from textual.containers import Container, Vertical, VerticalScroll
from textual.widget import Widget
from textual.widgets import Static

from fedconsole.errors import FedconsoleError
from fedconsole.report import changed, class_rows, shown
from fedconsole.tui.desk import Desk
from fedconsole.tui.frame import Line as Heading
from fedconsole.tui.keys import key
from fedconsole.tui.lang import _
from fedconsole.tui.run_model import RunModel
from fedconsole.tui.run_records import LogRecord
from fedconsole.tui.screens.fixed_rows import FixedRows
from fedconsole.tui.screens.log_file import save_log
from fedconsole.tui.screens.run_actions import RunActions
from fedconsole.tui.screens.run_reading import Reading, round_cells, training_curves
from fedconsole.tui.screens.run_words import (
    NO_JOURNAL,
    duration_text,
    measure,
    share,
    started_text,
    state_text,
)
from fedconsole.tui.theme import style
from fedconsole.tui.widgets.curves import Curve
from fedconsole.tui.widgets.fault import Fault
from fedconsole.tui.widgets.filter_bar import Filterable, FilterBar
from fedconsole.tui.widgets.filtering import EVERYTHING
from fedconsole.tui.widgets.line_log import LineLog
from fedconsole.tui.widgets.line_table import LineTable
from fedconsole.tui.widgets.plot import Plot
from fedconsole.tui.widgets.table_cells import Column
from fedconsole.tui.widgets.timeline import Timeline
from pi_daemon.protocol.text import clean

if TYPE_CHECKING:
    from fedconsole.history import RunSummary

PANES: Final = {
    "curves": "Losses",
    "attendance": "Workers",
    "rounds": "Rounds",
    "classes": "Classes",
    "plan": "Plan",
    "log": "Log",
}
_ROOM_FOR_ALL: Final = (100, 30)  # columns and lines
_MAX_FACT: Final = 4_000
_LOG_BATCH: Final = 5_000
"""Lines of the log at once; more would be felt under the keys."""
_ROUNDS: Final = (
    Column("round", "round", 5, right=True),
    Column("seconds", "s", 6, priority=2, right=True),
    Column("training_loss", "training", 8, right=True),
    Column("loss", "loss", 7, right=True),
    Column("accuracy", "acc", 6, right=True),
    Column("macro_f1", "F1", 6, priority=3, right=True),
    Column("num_updates", "updates", 7, priority=1, right=True),
    Column("updates", "from", 8, priority=4, flexible=True, sortable=False),
)
_CLASSES: Final = (
    Column("class", "class", 6, flexible=True),
    Column("examples", "examples", 8, right=True),
    Column("recall", "recall", 7, right=True),
    Column("precision", "precision", 9, right=True),
    Column("f1", "F1", 7, right=True),
)


class RunPage(RunActions):
    NAME = "history"
    ABOUT = (
        "One run: its losses by round, who was in which round, the table of rounds, the last "
        "evaluation class by class, the plan as far as it is not the default, and the log. "
        "Tab goes from pane to pane."
    )
    BINDINGS: ClassVar = [
        key("tab", "pane(1)", "Next pane"),
        key("shift+tab", "pane(-1)", "Previous pane", show=False),
        *RunActions.BINDINGS,
        key("p", "whole_plan", "Whole plan", cli="fedconsole runs show RUN -o json"),
    ]
    DEFAULT_CSS = """
    RunPage #panes { layout: grid; grid-size: 2 3; grid-rows: 3fr 2fr 2fr; }
    RunPage.-wide #panes { grid-size: 3 2; grid-rows: 3fr 2fr; }
    RunPage.-one #panes { layout: vertical; }
    RunPage .pane { border-top: solid $panel; border-title-color: $primary; }
    RunPage .pane:focus-within { border-top: solid $primary; }
    RunPage.-one .pane { border-top: none; }
    RunPage #tabs { display: none; background: $surface; }
    RunPage.-one #tabs { display: block; }
    """

    def __init__(self, desk: Desk, run: str) -> None:
        super().__init__(desk)
        self.run_id = run
        self._summary: RunSummary | None = None
        self.reading = Reading(desk, run)
        self._is_read = False
        self._is_unreadable = False
        self._log: Iterator[LogRecord] = iter(())
        self._pane = "curves"
        self._shows_whole_plan = False
        self._filtered: LineTable | LineLog | None = None
        self._round_rows = FixedRows(
            {"accuracy": share, "macro_f1": share, "loss": measure, "training_loss": measure}
        )
        self._class_rows = FixedRows({"recall": share, "precision": share, "f1": share})

    # Layout

    def body(self) -> ComposeResult:
        yield Heading(id="title")
        yield Fault()
        yield Heading(id="tabs")
        with Container(id="panes"):
            for name in PANES:
                with Vertical(id=name, classes="pane"):
                    yield from self._content(name)
        yield FilterBar()

    def _content(self, pane: str) -> Iterator[Widget]:
        match pane:
            case "curves":
                yield Plot(empty="reading…", is_smooth=True)
            case "attendance":
                yield Timeline()
            case "rounds":
                yield LineTable(_ROUNDS, self._round_rows, empty="reading…")
            case "classes":
                yield LineTable(_CLASSES, self._class_rows, empty="reading…")
            case "plan":
                with VerticalScroll():
                    yield Static(id="plan-text")
            case "log":
                yield LineLog()

    def on_mount(self) -> None:
        self.retell()
        self._show_pane()
        self.run_worker(self._read(), group="read")

    def retell(self) -> None:
        for name, title in PANES.items():
            self.query_one(f"#{name}").border_title = _(title)
        self._show_tabs()
        self._show_plan()

    def on_unmount(self) -> None:
        self.reading.is_wanted = False

    def on_resize(self, event: events.Resize) -> None:
        width, height = _ROOM_FOR_ALL
        self.set_class(event.size.width < width or event.size.height < height, "-one")
        self._show_pane(focus=False)

    def _show_pane(self, *, focus: bool = True) -> None:
        """Arrange the panes after another one was chosen, or after the size has changed."""
        is_one = self.has_class("-one")
        for name in PANES:
            self.query_one(f"#{name}").display = name == self._pane or not is_one
        if focus:
            self._focusable().focus()
        self._show_tabs()

    def _table(self, pane: str) -> LineTable:
        return self.query_one(f"#{pane} LineTable", LineTable)

    def _focusable(self) -> Widget:
        pane = self.query_one(f"#{self._pane}")
        return next(widget for widget in pane.query(Widget) if widget.can_focus)

    def _show_tabs(self) -> None:
        tabs = self.query_one("#tabs", Heading)
        tabs.forget_clicks()
        text = Text(" ", no_wrap=True)
        for name, title in PANES.items():
            start = text.cell_len
            text.append(f" {_(title)} ", "bold reverse" if name == self._pane else "")
            tabs.click_runs(start, text.cell_len, f"show_pane('{name}')", self)
        tabs.show(text)

    def on_descendant_focus(self, event: events.DescendantFocus) -> None:
        for node in event.widget.ancestors:
            if node.id in PANES:
                self._pane = node.id
                self._show_tabs()
        self.refresh_bindings()

    def action_pane(self, step: int) -> None:
        names = list(PANES)
        self.action_show_pane(names[(names.index(self._pane) + step) % len(names)])

    def action_show_pane(self, name: str) -> None:
        self._pane = name
        self._show_pane()

    # Reading

    async def _read(self) -> None:
        try:
            self._summary = await asyncio.to_thread(self.desk.summarize, self.run_id)
            if self._summary is None:
                why = await asyncio.to_thread(self.desk.last_words, self.run_id)
                self.query_one(Fault).say(_("it has no journal: {why}", why=why))
            rounds = await asyncio.to_thread(self.desk.rounds, self.run_id)
            if not self.is_mounted:
                return
            self._round_rows.put([round_cells(row) for row in rounds], self._table("rounds"))
            self._show_plan()
            if self._summary is not None and self._summary.state == "failed":
                whole = _("p: all of it")
                self.query_one(Fault).say(self._summary.reason, whole=whole)
            self.refresh_bindings()
            await asyncio.to_thread(self.reading.read)
        except FedconsoleError as error:
            self._tell(error)
        if self.is_mounted:
            self._show_lines()

    def _tell(self, error: FedconsoleError) -> None:
        self._is_unreadable = True
        num = self.reading.num_lines
        hint = _("what stands before it is shown: {n} lines", n=f"{num:,}")
        if not num:
            hint = _(
                "if the disk is well, remove it: fedconsole runs rm {run}", run=quote(self.run_id)
            )
        if self.is_mounted:
            self.query_one(Fault).say(f"{error}\n{hint}", is_warning=num > 0)

    def _show_lines(self) -> None:
        model = self.reading.model
        self._is_read = True
        self.query_one(Plot).set_empty("no losses yet")
        self._table("rounds").set_empty("no round was finished")
        self._table("classes").set_empty("no evaluation by class")
        self.query_one(Plot).show(
            [*training_curves(model), *self._tests(model)], x_label=_("round")
        )
        self.query_one(Timeline).show(sorted(model.workers), model.attendance)
        self._class_rows.put(class_rows(model.confusion), self._table("classes"))
        self._log = iter(self.reading.log)

    def _tests(self, model: RunModel) -> Iterator[Curve]:
        points = [(float(test.round), test.loss) for test in model.tests if test.loss is not None]
        if points:
            xs, ys = zip(*points, strict=True)
            colour = self.app.theme_variables["foreground"].removeprefix("ansi_")
            yield Curve(_("test"), "T", colour, xs, ys, thick=True)

    # What is shown

    def flush(self) -> None:
        self.query_one("#title", Heading).show(self._title())
        self.query_one(Plot).flush()
        for each in self.query(LineTable):
            each.flush()
        log = self.query_one(LineLog)
        log.append(islice(self._log, _LOG_BATCH))
        log.flush()
        if self._filtered is not None:
            table = self._filtered
            counts = table.counts if isinstance(table, LineLog) else (table.shown, table.total)
            self.query_one(FilterBar).set_count(*counts)

    def _title(self) -> Text:
        text = Text(f" {clean(self.run_id, 40)}  ", "bold", no_wrap=True)
        summary = self._summary
        if summary is None:
            if not self._is_read:
                return text.append(_("reading…"))
            return text.append(_("unreadable" if self._is_unreadable else NO_JOURNAL))
        text.append_text(state_text(self, summary.state.value))
        facts = [
            clean(summary.task, 40),
            _("{n} rounds", n=summary.rounds),
            f"{_('loss')} {measure(summary.loss)}",
            f"{_('acc')} {share(summary.accuracy)}",
            duration_text(summary, self.desk.now()),
            started_text(summary),
        ]
        text.append("  " + "  ".join(facts))
        if not self._is_read:
            note = _("reading: {n} lines", n=f"{self.reading.num_lines:,}")
            text.append(f"  {note}", style(self, "dim"))
        return text

    def _show_plan(self) -> None:
        self.query_one("#plan-text", Static).update(self._plan_text())

    def _plan_text(self) -> Text:
        text = Text()
        summary = self._summary
        if summary is None:
            return text
        plan = summary.plan if self._shows_whole_plan else changed(summary.plan)
        note = _("the whole plan") if self._shows_whole_plan else _("what is not the default")
        text.append(f"{note}\n", style(self, "dim"))
        for name, value in plan.items():
            text.append(f"{clean(name, 64):<26} ", style(self, "title"))
            text.append(f"{shown(value)}\n")
        facts = {
            _("model"): summary.model_path,
            _("model id"): summary.model_id,
            _("journal"): f"fedconsole runs export {quote(summary.run)} --json",
            _("reason"): summary.reason,
        }
        text.append("\n")
        for name, value in facts.items():
            if value:
                text.append(f"{name}  ", style(self, "title"))
                text.append(f"{clean(value, _MAX_FACT)}\n")
        return text

    def chosen(self) -> RunSummary | None:
        return self._summary

    def copy_text(self) -> str | None:
        return self._plan_text().plain if self._pane == "plan" else self.run_id

    def action_whole_plan(self) -> None:
        self._shows_whole_plan = not self._shows_whole_plan
        self._show_plan()
        self.action_show_pane("plan")

    # One filter bar, for what asked for it last

    def open_filter(self, pane: Filterable) -> None:
        target = cast("LineTable | LineLog", pane)
        if target is not self._filtered and self._filtered is not None:
            self._filtered.set_filter(EVERYTHING)
            self.query_one(FilterBar).clear()
        self._filtered = target
        self.query_one(FilterBar).open()

    def on_filter_bar_changed(self, event: FilterBar.Changed) -> None:
        if self._filtered is not None:
            self._filtered.set_filter(event.filter)

    def on_filter_bar_closed(self) -> None:
        if self._filtered is not None:
            self._filtered.focus()

    def on_line_log_save_wanted(self, event: LineLog.SaveWanted) -> None:
        save_log(self, event.log, self.run_id)

    def back(self) -> bool:
        if self.query_one(FilterBar).clear():
            self.on_filter_bar_closed()
            return True
        return False
