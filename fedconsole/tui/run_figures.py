"""What is known of a run, and the figures that follow from it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from fedconsole.coordinator.phases import Request, RunPhase, allowed_requests
from fedconsole.tui.round_times import RoundTimes
from fedconsole.tui.run_records import AlarmRecord, Attendance, Line, RoundRow, Test, WorkerRow


class RunFigures:
    def __init__(self) -> None:
        self.run = ""
        self.task = ""
        self.plan: Mapping[str, Any] = {}
        self.phase = RunPhase.GATHERING
        self.started_at: datetime | None = None
        """When the run was made."""
        self.last_at: datetime | None = None
        """Of the last line."""
        self.workers: dict[str, WorkerRow] = {}
        """In the order of joining."""
        self.round = 0
        self.round_times = RoundTimes()
        self.epoch = 0
        self.cohort: tuple[str, ...] = ()
        self.rounds: list[RoundRow] = []
        self.round_ends: list[tuple[float, float, float]] = []
        """Number, batches per worker so far, and seconds since the start, of each finished round."""
        self.tests: list[Test] = []
        self.confusion: Mapping[str, Sequence[int]] = {}
        self.attendance = Attendance()
        self.waiting_for: set[str] = set()
        """Workers that have not acknowledged a pause or an abort."""
        self.has_crashed = False
        """Its engine is gone without a last line; who reads the lines knows."""
        self.taken_up_at: datetime | None = None
        """When another engine took the run up, by the wall clock; None again with its first line."""
        self.is_stopping = False
        """The run ends after this round."""
        self.have: int | None = None
        """Of the quorum, while it is in danger; with `need` and when the wait ends."""
        self.need: int | None = None
        self.quorum_seconds_left: float | None = None
        self.quorum_at: datetime | None = None
        self.stalled = ""
        """Why the journal cannot be written now; "": it can."""
        self.quorum_then = ""
        """What happens when the wait ends, as in `run.quorum`."""
        self.preparing: Sequence[str] = ()
        """Missing workers that are connected, and made ready."""
        self.bytes_sent = 0
        self.bytes_received = 0
        self.ending: Line | None = None
        self.alarms: list[AlarmRecord] = []
        self.num_alarms = 0
        """Those that were too many for the list are counted."""
        self.version = 0
        """Grows with each line."""
        self.rounds_of_first_epoch: int | None = None

    # What follows from it

    @property
    def is_finished(self) -> bool:
        return self.phase.is_finished

    @property
    def phase_word(self) -> str:
        """English, in capitals."""
        begins = self.phase is RunPhase.GATHERING and not self.workers
        if begins or self.taken_up_at is not None:
            # The engine captures the task first.
            return "PREPARING"
        return self.phase.value.upper()

    @property
    def allowed(self) -> frozenset[Request]:
        if self.taken_up_at is not None:
            return frozenset({Request.ABORT})
        return allowed_requests(self.phase, is_stopping=self.is_stopping)

    @property
    def num_rounds(self) -> int | None:
        """How many are planned; of epochs that is known after the first. Once it stops: how many there are."""
        if self.is_stopping:
            return self.round
        if self.plan.get("rounds"):
            return int(self.plan["rounds"])
        if self.rounds_of_first_epoch and self.plan.get("epochs"):
            return self.rounds_of_first_epoch * int(self.plan["epochs"])
        return None

    @property
    def num_finished(self) -> int:
        return self.rounds[-1].number if self.rounds else 0

    @property
    def loss(self) -> float | None:
        """Mean of the last losses of those who train."""
        losses = [
            row.loss for row in self.workers.values() if row.loss is not None and not row.lost_at
        ]
        return sum(losses) / len(losses) if losses else None

    @property
    def examples_per_s(self) -> float:
        """Of the cohort; each worker as fast as it was last. 0: nobody trains."""
        if self.taken_up_at is not None:
            return 0
        rows = (self.workers.get(name) for name in self.cohort)
        return sum(row.examples_per_s or 0 for row in rows if row)

    @property
    def num_here(self) -> int:
        return sum(row.lost_at is None for row in self.workers.values())

    @property
    def quorum(self) -> int:
        """How many updates or workers a round needs."""
        if self.need is not None:
            return self.need
        wanted = len(self.plan.get("workers", ())) + int(self.plan.get("virtual", 0))
        return self.plan.get("min_updates") or self.plan.get("cohort_size") or wanted

    def elapsed_s(self, now: datetime) -> float:
        if self.started_at is None:
            return 0.0
        end = self.last_at if (self.is_finished or self.has_crashed) and self.last_at else now
        return max(0.0, (end - self.started_at).total_seconds())

    def share(self) -> float | None:
        """How much of the run is done, 0 to 1; None: its length is not known."""
        if not (total := self.num_rounds):
            return None
        done = float(self.num_finished)
        if self.round > self.num_finished and self.cohort:
            parts = [
                row.batch / row.num_batches
                for name in self.cohort
                if (row := self.workers.get(name)) and row.num_batches
            ]
            done += sum(parts) / len(self.cohort)
        return min(1.0, done / total)

    def eta_s(self, now: datetime) -> tuple[float, float] | None:
        """Seconds to the end and their spread, 0 after one round; None before one round is done, and while the run waits."""
        total = self.num_rounds
        stands_still = (
            self.phase is RunPhase.WAITING or bool(self.stalled) or self.taken_up_at is not None
        )
        if total is None or self.is_finished or stands_still:
            return None
        return self.round_times.left_s(max(0, total - self.num_finished), now)
