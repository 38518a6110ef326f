"""What the lines of a run say: the picture that the live screen, a run's page and a replay draw.

Plain Python without a clock: times are those of the lines, or passed in, as `now` is. Changed in place, as
a thousand workers may send ten thousand losses a second.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final

from fedconsole.coordinator.facts import metric
from fedconsole.coordinator.phases import Request, RunPhase, allowed_requests
from fedconsole.sentences import seed_line, sentence
from fedconsole.tui.round_times import RoundTimes
from fedconsole.tui.run_records import (
    MAX_POINTS,
    AlarmRecord,
    Attendance,
    Level,
    Line,
    LogRecord,
    RoundRow,
    Test,
    WorkerRow,
    level_of,
)
from pi_daemon.protocol.text import clean

_MAX_POINTS_OF_ALL: Final = 250_000
"""8 MB."""
_MIN_POINTS: Final = 200
_MAX_ALARMS: Final = 500
_MANY_WORKERS: Final = 50
"""With more, the log has no line for their batches."""
_OF_WORKERS: Final = {"joined", "rejoined", "lost", "phase", "straggler", "update", "rejected"}
_OUTCOMES: Final = {
    "completed": RunPhase.COMPLETED,
    "aborted": RunPhase.ABORTED,
    "failed": RunPhase.FAILED,
}


class RunModel:
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
        self._log: list[LogRecord] = []
        self._told_at = datetime.min.replace(tzinfo=UTC)
        """Of the last line, by the wall clock: what is said of it is shown with that."""
        self._rounds_of_first_epoch: int | None = None

    # What follows from it

    @property
    def is_finished(self) -> bool:
        return self.phase.is_finished

    @property
    def allowed(self) -> frozenset[Request]:
        return allowed_requests(self.phase)

    @property
    def num_rounds(self) -> int | None:
        """How many are planned; of epochs that is known after the first."""
        if self.plan.get("rounds"):
            return int(self.plan["rounds"])
        if self._rounds_of_first_epoch and self.plan.get("epochs"):
            return self._rounds_of_first_epoch * int(self.plan["epochs"])
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
        """Of the cohort; each worker as fast as it was last."""
        rows = (self.workers.get(name) for name in self.cohort)
        return sum(row.examples_per_s or 0 for row in rows if row and row.lost_at is None)

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
        """Seconds to the end and their spread; None before one round is done, and while the run waits."""
        total = self.num_rounds
        stands_still = self.phase is RunPhase.WAITING or bool(self.stalled)
        if total is None or self.is_finished or stands_still:
            return None
        return self.round_times.left_s(max(0, total - self.num_finished), now)

    def take_log(self) -> list[LogRecord]:
        """The records since the last call."""
        taken, self._log = self._log, []
        return taken

    # Lines

    def apply(self, line: Line, at: datetime | None = None) -> None:
        """Take in the next line; unknown ones only go to the log.

        Args:
            at: when it was, on the clock that gives every `now`; None: when it says.
        """
        self._told_at = datetime.fromisoformat(line["time"])
        now = at or self._told_at
        self.last_at = now
        self.version += 1
        self.stalled = ""
        kind: str = line["type"]
        if kind == "worker.batches":
            self._take_batches(line, now)
            if len(self.workers) <= _MANY_WORKERS:
                self._say(Level.DEBUG, line, seed_line(line))
            return
        if kind == "worker.telemetry":
            self._take_telemetry(line)
            return
        group, _dot, what = kind.partition(".")
        match group:
            case "run":
                self._take_run(what, line, now)
            case "round":
                self._take_round(what, line, now)
            case "worker":
                self._take_worker(what, line, now)
            case "eval" if line.get("worker") is None:
                self._take_test(line)
        self._say(level_of(line, self.phase), line, sentence(line))

    def _take_run(self, what: str, line: Line, now: datetime) -> None:
        match what:
            case "created":
                self.run, self.task = clean(line["run"], 64), clean(line["task"], 200)
                self.plan = line["plan"]
                self.started_at = now
            case "started" | "resumed":
                self.phase = RunPhase.TRAINING
                self.waiting_for.clear()
                self._forget_quorum()
                self.round_times.go_on(now)
            case "restarted":
                self._restart(now)
            case "pausing" | "aborting" | "paused":
                self.phase = RunPhase(what)
                self.waiting_for = set(line.get("waiting_for") or ())
                self.quorum_seconds_left = None  # the engine's timer stops
                if what == "paused":
                    self.round_times.pause(now)
            case "stopping":
                self.is_stopping = True
            case "quorum" if line["have"] >= line["need"]:
                self.phase = RunPhase.TRAINING
                self._forget_quorum()
            case "quorum":
                self.have, self.need = line["have"], line["need"]
                self.quorum_seconds_left = line.get("seconds_left")
                if self.quorum_at is None:
                    self._alarm(sentence(line), "")
                self.quorum_at = now
                self.quorum_then = line.get("then", "")
                self.preparing = line.get("preparing", ())
                if self.phase is RunPhase.CLOSING or line.get("phase") == "waiting":
                    self.phase = RunPhase.WAITING
            case "stalled":
                self.stalled = clean(line["reason"], 200)
                self._alarm(sentence(line), "")
            case "fewer":
                self._forget_quorum()
                if line["round"] == self.round:
                    self.phase = RunPhase.CLOSING
            case "finished":
                self.phase = _OUTCOMES.get(line["outcome"], RunPhase.FAILED)
                self.waiting_for.clear()
                self._forget_quorum()
                self.ending = line
                self._alarm(sentence(line), "")

    def _restart(self, now: datetime) -> None:
        """Another engine: no worker is there yet, and what the last one was asked for is void."""
        self.phase = RunPhase.TRAINING if self.rounds or self.cohort else RunPhase.GATHERING
        self.waiting_for.clear()
        for row in self.workers.values():
            row.lost_at = row.lost_at or now
            row.phase = "lost"
            row.version += 1

    def _take_round(self, what: str, line: Line, now: datetime) -> None:
        number = line["round"]
        if what == "finished":
            self._finish_round(number, line, now)
        elif what == "started":
            if self.phase not in (RunPhase.PAUSING, RunPhase.ABORTING):
                self.phase = RunPhase.TRAINING
            if line.get("epoch", 0) == 2 and self._rounds_of_first_epoch is None:
                self._rounds_of_first_epoch = number - 1
            self.round, self.epoch = number, line.get("epoch", 0)
            self.round_times.begin(now)
            self.cohort = tuple(line["cohort"])
            self.attendance.begin(number, self.cohort)
            if not self.rounds:
                self._give_letters()
            self._forget_quorum()
            for name in self.cohort:
                row = self._row(name)
                row.batch = 0
                row.version += 1

    def _finish_round(self, number: int, line: Line, now: datetime) -> None:
        if self.phase in (RunPhase.TRAINING, RunPhase.WAITING):
            self.phase = RunPhase.CLOSING
        self._forget_quorum()
        self.bytes_sent += line.get("bytes_sent") or 0
        self.bytes_received += line.get("bytes_received") or 0
        updates = tuple(line["updates"])
        self.attendance.close(number, updates)
        steps = max((row.num_steps for row in self.workers.values()), default=0)
        self.round_times.finish(line.get("seconds") or 0.0)
        self.round_ends.append((number, steps, self._seconds(now)))
        self.rounds.append(
            RoundRow(
                number,
                line["loss"],
                line.get("seconds") or 0.0,
                updates,
                line.get("bytes_sent") or 0,
                line.get("bytes_received") or 0,
            )
        )

    def _take_worker(self, what: str, line: Line, now: datetime) -> None:
        if what not in _OF_WORKERS:
            return
        row = self._row(line["worker"])
        if what == "joined" and row.name != line.get("address"):
            self._replace(line.get("address"), row)
        row.version += 1
        match what:
            case "joined" | "rejoined":
                row.address = clean(str(line.get("address") or ""), 80)
                row.lost_at = None
                if row.phase in ("joining", "lost"):
                    row.phase = "waiting"
            case "lost":
                row.lost_at = now
                row.num_lost += 1
                row.phase = "lost"
                row.examples_per_s = None
                row.error = clean(line.get("reason") or "", 200)
                self.waiting_for.discard(row.name)
                self._alarm(sentence(line), row.label)
            case "straggler":
                row.phase = what
            case "phase":
                row.phase = clean(line["phase"], 20)
                if row.phase in ("paused", "waiting"):
                    self.waiting_for.discard(row.name)
            case "update":
                row.phase = "done"
                row.loss = line["loss"]
                row.error = ""
                row.bytes_sent += line.get("bytes_sent") or 0
                row.bytes_received += line.get("bytes_received") or 0
                self.waiting_for.discard(row.name)
                self.attendance.note(line["round"], row.name, Attendance.DELIVERED)
            case "rejected":
                self.attendance.note(line["round"], row.name, Attendance.REJECTED)
                if level_of(line, self.phase) is Level.ERROR:
                    row.error = clean(line.get("reason") or "", 200)
                    self._alarm(sentence(line), row.label)

    def _take_batches(self, line: Line, now: datetime) -> None:
        row = self._row(line["worker"])
        limit = max(_MIN_POINTS, min(MAX_POINTS, _MAX_POINTS_OF_ALL // len(self.workers)))
        row.take_batches(line, self._seconds(now), limit)
        row.take_rate(len(line["losses"]) * int(self.plan.get("batch_size") or 1), now)

    def _take_telemetry(self, line: Line) -> None:
        row = self._row(line["worker"])
        for trouble in row.take_telemetry(line):
            text = f"{row.label} {trouble}"
            self._alarm(text, row.label)
            self._log.append(LogRecord(self._told_at, Level.WARNING, row.label, text))

    def _take_test(self, line: Line) -> None:
        self.tests.append(
            Test(
                line["round"],
                metric(line, "loss"),
                metric(line, "accuracy"),
                metric(line, "macro_f1"),
            )
        )
        self.confusion = line.get("confusion") or {}

    def _row(self, name: str) -> WorkerRow:
        row = self.workers.get(name)
        if row is None:
            letter = _letter(len(self.workers))
            row = self.workers[name] = WorkerRow(name, clean(name, 64), letter)
        return row

    def _replace(self, address: object, row: WorkerRow) -> None:
        """A worker that was lost before its name was known was told by its address."""
        unnamed = self.workers.pop(address, None) if isinstance(address, str) else None
        if unnamed is not None:
            row.letter = unnamed.letter

    def _give_letters(self) -> None:
        """From the first round on by name, not by who was quicker to join."""
        for number, name in enumerate(sorted(self.workers)):
            self.workers[name].letter = _letter(number)

    def _seconds(self, now: datetime) -> float:
        return (now - self.started_at).total_seconds() if self.started_at else 0.0

    def _forget_quorum(self) -> None:
        self.have = self.need = self.quorum_seconds_left = self.quorum_at = None
        self.quorum_then = ""
        self.preparing = ()

    def _alarm(self, text: str, worker: str) -> None:
        self.alarms.append(AlarmRecord(self._told_at, text, worker))
        del self.alarms[:-_MAX_ALARMS]
        self.num_alarms += 1

    def _say(self, level: Level, line: Line, text: str) -> None:
        name = clean(line.get("worker") or "", 64)
        self._log.append(LogRecord(self._told_at, level, name, text))


def _letter(number: int) -> str:
    return chr(ord("A") + number) if number < 26 else ""
