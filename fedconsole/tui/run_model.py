"""What the lines of a run say: the picture that the live screen, a run's page and a replay draw.

Plain Python without a clock: times are those of the lines, and `now` is passed in. Changed in place, as
a thousand workers may send ten thousand losses a second.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Final

from fedconsole.coordinator.facts import metric
from fedconsole.coordinator.phases import Request, RunPhase, allowed_requests
from fedconsole.headless import seed_line, sentence
from fedconsole.tui.run_records import (
    MAX_POINTS,
    AlarmRecord,
    Attendance,
    Level,
    LogRecord,
    RoundRow,
    Test,
    WorkerRow,
)
from pi_daemon.protocol.text import clean

Line = Mapping[str, Any]

_MAX_POINTS_OF_ALL: Final = 250_000
"""8 MB."""
_MIN_POINTS: Final = 200
_MAX_ROUND_TIMES: Final = 20
_MAX_ALARMS: Final = 500
_MANY_WORKERS: Final = 50
"""With more, the log has no line for their batches."""
_RATE_WEIGHT: Final = 0.7
_THROTTLED_NOW: Final = 0b1111
_LEVELS: Final = {"debug": Level.DEBUG, "warning": Level.WARNING, "error": Level.ERROR}
_OF_WORKERS: Final = {"joined", "rejoined", "lost", "phase", "update", "rejected"}
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
        self.round_started_at: datetime | None = None
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
        self.is_stopping = False
        """The run ends after this round."""
        self.have: int | None = None
        """Of the quorum, while it is in danger; with `need` and when the wait ends."""
        self.need: int | None = None
        self.quorum_seconds_left: float | None = None
        self.quorum_at: datetime | None = None
        self.bytes_sent = 0
        self.bytes_received = 0
        self.ending: Line | None = None
        self.alarms: list[AlarmRecord] = []
        self.version = 0
        """Grows with each line."""
        self._log: list[LogRecord] = []
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
        end = self.last_at if self.is_finished and self.last_at else now
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
        """Seconds to the end and their spread; None before one round is done."""
        total = self.num_rounds
        if not self.rounds or total is None or self.is_finished:
            return None
        seconds = [row.seconds for row in self.rounds[-_MAX_ROUND_TIMES:]]
        left = max(0, total - self.num_finished)
        spread = statistics.stdev(seconds) * math.sqrt(left) if len(seconds) > 1 else 0.0
        begun = self.round_started_at if self.round > self.num_finished else None
        gone = max(0.0, (now - begun).total_seconds()) if begun else 0.0
        # The median: a round that waited for a lost worker says little about the others.
        return max(0.0, statistics.median(seconds) * left - gone), spread

    def take_log(self) -> list[LogRecord]:
        """The records since the last call."""
        taken, self._log = self._log, []
        return taken

    # Lines

    def apply(self, line: Line) -> None:
        """Take in the next line; unknown ones only go to the log."""
        now = datetime.fromisoformat(line["time"])
        self.last_at = now
        self.version += 1
        kind: str = line["type"]
        if kind == "worker.batches":
            self._take_batches(line, now)
            if len(self.workers) <= _MANY_WORKERS:
                self._say(now, Level.DEBUG, line, seed_line(line))
            return
        if kind == "worker.telemetry":
            self._take_telemetry(line, now)
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
        self._say(now, _level(line), line, sentence(line))

    def _take_run(self, what: str, line: Line, now: datetime) -> None:
        match what:
            case "created":
                self.run, self.task = clean(line["run"], 64), clean(line["task"], 200)
                self.plan = line["plan"]
                self.started_at = now
            case "started" | "resumed":
                self.phase = RunPhase.TRAINING
                self.waiting_for.clear()
            case "restarted":
                self._restart(now)
            case "pausing" | "aborting" | "paused":
                self.phase = RunPhase(what)
                self.waiting_for = set(line.get("waiting_for") or ())
            case "stopping":
                self.is_stopping = True
            case "quorum":
                self.have, self.need = line["have"], line["need"]
                self.quorum_seconds_left = line.get("seconds_left")
                if self.quorum_at is None:
                    self._alarm(now, sentence(line), "")
                self.quorum_at = now
                if self.phase is RunPhase.CLOSING:
                    self.phase = RunPhase.WAITING
            case "finished":
                self.phase = _OUTCOMES.get(line["outcome"], RunPhase.FAILED)
                self.waiting_for.clear()
                self._forget_quorum()
                self.ending = line
                self._alarm(now, sentence(line), "")

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
            self.round_started_at = now
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
                self._alarm(now, sentence(line), row.label)
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
                row.error = clean(line.get("reason") or "", 200)
                self.attendance.note(line["round"], row.name, Attendance.REJECTED)
                self._alarm(now, sentence(line), row.label)

    def _take_batches(self, line: Line, now: datetime) -> None:
        row = self._row(line["worker"])
        losses = line["losses"]
        first, total, number = line["first"], line["batches"], line["round"]
        seconds = self._seconds(now)
        limit = max(_MIN_POINTS, min(MAX_POINTS, _MAX_POINTS_OF_ALL // len(self.workers)))
        for offset, loss in enumerate(losses):
            row.num_steps += 1
            value = math.nan if loss is None else loss
            round_at = number - 1 + (first + offset + 1) / total
            row.series.add(row.num_steps, seconds, round_at, value, limit)
        row.batch = first + len(losses)
        row.num_batches = total
        row.loss = losses[-1]
        row.version += 1
        if row._last_time is not None and (passed := (now - row._last_time).total_seconds()) > 0:
            rate = len(losses) * int(self.plan.get("batch_size") or 1) / passed
            old = row.examples_per_s
            row.examples_per_s = (
                rate if old is None else _RATE_WEIGHT * old + (1 - _RATE_WEIGHT) * rate
            )
        row._last_time = now

    def _take_telemetry(self, line: Line, now: datetime) -> None:
        row = self._row(line["worker"])
        was_throttled = bool((row.throttled or 0) & _THROTTLED_NOW)
        row.celsius = line.get("celsius")
        row.throttled = line.get("throttled")
        row.memory_bytes = line.get("memory_bytes")
        row.version += 1
        if (row.throttled or 0) & _THROTTLED_NOW and not was_throttled:
            text = f"{row.label} is throttled"
            self._alarm(now, text, row.label)
            self._log.append(LogRecord(now, Level.WARNING, row.label, text))

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

    def _give_letters(self) -> None:
        """From the first round on by name, not by who was quicker to join."""
        for number, name in enumerate(sorted(self.workers)):
            self.workers[name].letter = _letter(number)

    def _seconds(self, now: datetime) -> float:
        return (now - self.started_at).total_seconds() if self.started_at else 0.0

    def _forget_quorum(self) -> None:
        self.have = self.need = self.quorum_seconds_left = self.quorum_at = None

    def _alarm(self, now: datetime, text: str, worker: str) -> None:
        self.alarms.append(AlarmRecord(now, text, worker))
        del self.alarms[:-_MAX_ALARMS]

    def _say(self, now: datetime, level: Level, line: Line, text: str) -> None:
        self._log.append(LogRecord(now, level, clean(line.get("worker") or "", 64), text))


def _letter(number: int) -> str:
    return chr(ord("A") + number) if number < 26 else ""


def _level(line: Line) -> Level:
    match line["type"]:
        case "log":
            return _LEVELS.get(line.get("level", ""), Level.INFO)
        case "worker.phase" | "heartbeat":
            return Level.DEBUG
        case "warning" | "worker.lost" | "run.quorum":
            return Level.WARNING
        case "worker.rejected":
            return Level.ERROR
        case "run.finished" if line["outcome"] == "failed":
            return Level.ERROR
        case _:
            return Level.INFO
