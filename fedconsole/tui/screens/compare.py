"""Two to four runs beside each other: their evaluations, their outcomes, what their plans differ in."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Final

from rich.text import Text
from textual.app import ComposeResult

from fedconsole.errors import FedconsoleError
from fedconsole.report import differing, num_workers, shown
from fedconsole.tui.desk import Desk
from fedconsole.tui.frame import ConsoleScreen
from fedconsole.tui.frame import Line as Heading
from fedconsole.tui.keys import key
from fedconsole.tui.lang import _
from fedconsole.tui.messages import Notice, OpenRun
from fedconsole.tui.screens.fixed_rows import FixedRows
from fedconsole.tui.screens.run_words import (
    duration_text,
    measure,
    share,
    started_text,
    state_text,
)
from fedconsole.tui.theme import SERIES
from fedconsole.tui.widgets.curves import Curve
from fedconsole.tui.widgets.line_table import LineTable
from fedconsole.tui.widgets.plot import Plot
from fedconsole.tui.widgets.table_cells import Column

if TYPE_CHECKING:
    from fedconsole.history import RoundSummary, RunSummary

_LETTERS: Final = "ABCD"
_OUTCOMES: Final = (
    Column("letter", "", 1, sortable=False),
    Column("run", "run", 13),
    Column("task", "task", 6, priority=3, flexible=True),
    Column("state", "state", 12),
    Column("started", "started", 11, priority=5),
    Column("duration", "time", 8, priority=2, right=True),
    Column("rounds", "rounds", 6, priority=1, right=True),
    Column("workers", "workers", 7, priority=6, right=True),
    Column("loss", "loss", 7, right=True),
    Column("accuracy", "acc", 6, right=True),
    Column("macro_f1", "F1", 6, priority=4, right=True),
)


class CompareScreen(ConsoleScreen):
    NAME = "history"
    ABOUT = (
        "Up to four runs beside each other: the evaluation after each round, how they ended, and "
        "only those options of their plans that differ. x changes between loss and accuracy."
    )
    BINDINGS: ClassVar = [key("x", "other_metric", "Loss or accuracy")]
    DEFAULT_CSS = """
    CompareScreen Plot { height: 1fr; }
    CompareScreen #options { max-height: 7; }
    CompareScreen.-normal #options, CompareScreen.-wide #options { max-height: 14; }
    """

    def __init__(self, desk: Desk, runs: Sequence[str]) -> None:
        super().__init__(desk)
        self._runs = runs
        self._metric = "loss"
        self._rounds: Sequence[Sequence[RoundSummary]] = ()
        self._outcomes = FixedRows({"accuracy": share, "macro_f1": share, "loss": measure})
        self._options = FixedRows()

    def body(self) -> ComposeResult:
        yield Heading(id="title")
        yield Plot(empty="no evaluation to compare")
        outcomes = LineTable(
            _OUTCOMES, self._outcomes, empty="reading…", filters=False, id="outcomes"
        )
        # A line for the titles, and a free one.
        outcomes.styles.height = len(self._runs) + 2
        yield outcomes
        columns = [
            Column("option", "option", 16),
            *(Column(letter, letter, 14, flexible=True) for letter in _LETTERS[: len(self._runs)]),
        ]
        yield LineTable(
            columns, self._options, empty="the plans are the same", filters=False, id="options"
        )

    def on_mount(self) -> None:
        self.query_one(Plot).focus()
        self.run_worker(self._read(), group="read")

    async def _read(self) -> None:
        try:
            found = await asyncio.to_thread(self._summaries_and_rounds)
        except FedconsoleError as error:
            self.post_message(Notice(str(error), "error"))
            return
        if not self.is_mounted:
            return
        self._rounds = [rounds for _summary, rounds in found]
        summaries = [summary for summary, _rounds in found]
        # One that was deleted meanwhile is left out.
        self._runs = [summary.run for summary in summaries]
        rows = [self._outcome(index, summary) for index, summary in enumerate(summaries)]
        self._outcomes.put(rows, self.query_one("#outcomes", LineTable))
        options = differing([summary.plan for summary in summaries])
        table = self.query_one("#options", LineTable)
        table.styles.height = max(1, len(options)) + 1
        self._options.put(
            [
                {"option": name} | dict(zip(_LETTERS, map(shown, values), strict=False))
                for name, values in options.items()
            ],
            table,
        )
        self._draw_curves()

    def _summaries_and_rounds(self) -> list[tuple[RunSummary, list[RoundSummary]]]:
        return [
            (summary, self.desk.rounds(run))
            for run in self._runs
            if (summary := self.desk.summarize(run)) is not None
        ]

    def _outcome(self, index: int, summary: RunSummary) -> dict[str, Any]:
        return {
            "letter": _LETTERS[index],
            "run": summary.run,
            "task": summary.task,
            "state": state_text(self, summary.state.value).plain,
            "started": started_text(summary),
            "duration": duration_text(summary, self.desk.now()),
            "rounds": summary.rounds,
            "workers": num_workers(summary),
            "loss": summary.loss,
            "accuracy": summary.accuracy,
            "macro_f1": summary.macro_f1,
        }

    def _draw_curves(self) -> None:
        curves = []
        for index, rounds in enumerate(self._rounds):
            points = [(float(row.round), getattr(row, self._metric)) for row in rounds]
            known = [(x, y) for x, y in points if y is not None]
            curves.append(
                Curve(
                    self._runs[index],
                    _LETTERS[index],
                    SERIES[index],
                    [x for x, _y in known],
                    [y for _x, y in known],
                )
            )
        self.query_one(Plot).show(curves, x_label=_("round"))

    def flush(self) -> None:
        title = _("{metric} of the evaluation after each round", metric=_(self._metric))
        self.query_one("#title", Heading).show(Text(f" {title}", "bold"))
        self.query_one(Plot).flush()
        for table in self.query(LineTable):
            table.flush()

    def action_other_metric(self) -> None:
        self._metric = "accuracy" if self._metric == "loss" else "loss"
        self._draw_curves()

    def on_line_table_selected(self, event: LineTable.Selected) -> None:
        if event.table.id == "outcomes":
            self.post_message(OpenRun(self._runs[int(event.key)]))

    def copy_text(self) -> str | None:
        return f"fedconsole runs compare {' '.join(self._runs)}"
