"""Reads a stored run for its page, and turns what was read into rows and curves."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from typing import TYPE_CHECKING, Final

from fedconsole.tui.desk import Desk
from fedconsole.tui.run_model import RunModel
from fedconsole.tui.run_records import LogRecord
from fedconsole.tui.theme import SERIES
from fedconsole.tui.widgets.curves import Curve
from fedconsole.tui.widgets.line_log import MAX_LINES

if TYPE_CHECKING:
    from fedconsole.history import RoundSummary

_BATCH: Final = 500


class Reading:
    """Reads a run's lines in a thread; the screen may look at how far it is."""

    def __init__(self, desk: Desk, run: str) -> None:
        self.num_lines = 0
        self.is_wanted = True
        """False ends it early."""
        self.model = RunModel()
        self.log: deque[LogRecord] = deque(maxlen=MAX_LINES)
        self._lines = desk.lines(run)

    def read(self) -> None:
        """Raises FedconsoleError."""
        try:
            while self.is_wanted and (line := next(self._lines, None)) is not None:
                self.model.apply(line)
                self.num_lines += 1
                if self.num_lines % _BATCH == 0:
                    self.log.extend(self.model.take_log())
        finally:
            # What was read before the disk failed is shown.
            self.log.extend(self.model.take_log())


def round_cells(row: RoundSummary) -> dict[str, object]:
    return {
        "round": row.round,
        "seconds": row.seconds,
        "training_loss": row.training_loss,
        "loss": row.loss,
        "accuracy": row.accuracy,
        "macro_f1": row.macro_f1,
        "num_updates": len(row.updates),
        "updates": row.updates,
    }


def training_curves(model: RunModel) -> Iterator[Curve]:
    for index, row in enumerate(sorted(model.workers.values(), key=lambda row: row.name)):
        colour = SERIES[index % len(SERIES)]
        yield Curve(row.label, row.letter, colour, row.series.rounds, row.series.losses)
