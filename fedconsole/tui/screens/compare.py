"""Two to four runs beside each other: their evaluations, their outcomes, what their plans differ in."""

from __future__ import annotations

import asyncio
import shlex
from collections.abc import Mapping, Sequence
from itertools import zip_longest
from typing import TYPE_CHECKING, Any, ClassVar, Final, NamedTuple

from rich.text import Text
from textual.app import ComposeResult

from fedconsole.errors import FedconsoleError
from fedconsole.report import differing, num_workers, shown
from fedconsole.tui.desk import Desk
from fedconsole.tui.frame import ConsoleScreen
from fedconsole.tui.frame import Line as Heading
from fedconsole.tui.keys import key
from fedconsole.tui.lang import _
from fedconsole.tui.messages import OpenRun
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
_MOST_LINES: Final = 10
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


class _Compared(NamedTuple):
    letter: str
    run: str
    summary: RunSummary | None
    rounds: list[RoundSummary]
    reason: str
    """Why there is no summary, if so."""


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
        # A blank stays one.
        self._options = FixedRows(dict.fromkeys(("option", *_LETTERS), str))

    def body(self) -> ComposeResult:
        yield Heading(id="title")
        yield Plot(empty="reading…")
        outcomes = LineTable(
            _OUTCOMES, self._outcomes, empty="reading…", filters=False, id="outcomes"
        )
        # A line for the titles, and a free one.
        outcomes.styles.height = len(self._runs) + 2
        yield outcomes
        columns = [
            # Sorted, the lines of a list would come apart.
            Column("option", "option", 16, sortable=False),
            *(
                Column(letter, letter, 14, flexible=True, sortable=False)
                for letter in _LETTERS[: len(self._runs)]
            ),
        ]
        yield LineTable(columns, self._options, empty="reading…", filters=False, id="options")

    def on_mount(self) -> None:
        self.query_one(Plot).focus()
        self.run_worker(self._read(), group="read")

    async def _read(self) -> None:
        found = await asyncio.to_thread(self._read_all)
        if not self.is_mounted:
            return
        self._rounds = [one.rounds for one in found]
        self._outcomes.put([self._outcome(one) for one in found], self._table("outcomes"))
        self._show_options({one.letter: one.summary.plan for one in found if one.summary})
        can_any = any(one.summary for one in found)
        self.query_one(Plot).set_empty(
            "no evaluation to compare" if can_any else "none of these runs can be read"
        )
        self._draw_curves()

    def _table(self, name: str) -> LineTable:
        return self.query_one(f"#{name}", LineTable)

    def _show_options(self, plans: Mapping[str, Mapping[str, Any]]) -> None:
        """Those in which the plans differ, by the runs' letters."""
        options = differing(list(plans.values()))
        rows = [
            {"option": name if number == 0 else ""} | dict(zip(plans, line, strict=True))
            for name, values in options.items()
            for number, line in enumerate(zip_longest(*map(_lines, values), fillvalue=""))
        ]
        table = self._table("options")
        table.styles.height = max(1, len(rows)) + 1
        table.set_empty("the plans are the same" if len(plans) > 1 else "no plans to compare")
        self._options.put(rows, table)

    def _read_all(self) -> list[_Compared]:
        return [self._read_one(*pair) for pair in zip(_LETTERS, self._runs, strict=False)]

    def _read_one(self, letter: str, run: str) -> _Compared:
        """One that cannot be read, or was deleted meanwhile, must not hide the others."""
        try:
            summary = self.desk.summarize(run)
            rounds = self.desk.rounds(run) if summary is not None else []
        except FedconsoleError as error:
            return _Compared(letter, run, None, [], str(error))
        return _Compared(letter, run, summary, rounds, _("it has no journal"))

    def _outcome(self, compared: _Compared) -> dict[str, Any]:
        summary = compared.summary
        if summary is None:
            return {
                "letter": compared.letter,
                "run": compared.run,
                "task": compared.reason,
                "state": state_text(self, "unreadable").plain,
            }
        return {
            "letter": compared.letter,
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
            if not known:
                continue
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
        return shlex.join(["fedconsole", "runs", "compare", *self._runs])


def _lines(value: object) -> list[str]:
    """A value as lines of a cell: of a long list the first ones, and how many more there are."""
    if not isinstance(value, list | tuple) or not all(isinstance(item, str) for item in value):
        return [shown(value)]
    lines = [shown(item) for item in value[:_MOST_LINES]]
    if (num_more := len(value) - _MOST_LINES) > 0:
        lines.append(_("and {n} more", n=num_more))
    return lines or [shown(value)]
