"""What the lines of a run say: the picture that the live screen, a run's page and a replay draw.

Plain Python without a clock: times are those of the lines, or passed in, as `now` is. Changed in place, as
a thousand workers may send ten thousand losses a second.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Final

from fedconsole.coordinator.facts import metric
from fedconsole.coordinator.phases import RunPhase
from fedconsole.sentences import LINE_LIMIT, seed_line, sentence
from fedconsole.tui.run_figures import RunFigures
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


class RunModel(RunFigures):
    def __init__(self) -> None:
        super().__init__()
        self._log: list[LogRecord] = []
        self.told_at = datetime.min.replace(tzinfo=UTC)
        """Of the last line, by the wall clock: what is said of it is shown with that."""

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
        self.told_at = datetime.fromisoformat(line["time"])
        if self.taken_up_at is not None and self.told_at > self.taken_up_at:
            self.taken_up_at = None
        now = at or self.told_at
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
                    self._rest()
            case "stopping":
                self.is_stopping = True
            case "quorum" if line["have"] >= line["need"]:
                self.phase = RunPhase.TRAINING
                self._forget_quorum()
            case "quorum":
                self.have, self.need = line["have"], line["need"]
                self.quorum_seconds_left = line.get("seconds_left")
                if self.quorum_at is None:
                    self.alarm(sentence(line))
                self.quorum_at = now
                self.quorum_then = line.get("then", "")
                self.preparing = line.get("preparing", ())
                waits = self.phase is RunPhase.CLOSING or line.get("phase") == "waiting"
                if waits and self.phase is not RunPhase.WAITING:
                    self.phase = RunPhase.WAITING
                    self._rest()
            case "stalled":
                self.stalled = clean(line["reason"], 200)
                self.alarm(sentence(line))
            case "fewer":
                self._forget_quorum()
                if line["round"] == self.round:
                    self.phase = RunPhase.CLOSING
            case "finished":
                self.phase = _OUTCOMES.get(line["outcome"], RunPhase.FAILED)
                self.waiting_for.clear()
                self._forget_quorum()
                self.ending = line
                self._rest(has_ended=True)
                self.alarm(sentence(line))

    def crash(self, words: str, at: datetime) -> None:
        """Its engine is gone without a last line, which who reads the lines knows."""
        self.has_crashed = True
        self._rest(has_ended=True)
        self.alarm(words, at=at)

    def _rest(self, *, has_ended: bool = False) -> None:
        """Nobody trains now: what was measured last is no longer so."""
        for row in self.workers.values():
            row.forget_rate()
            if has_ended and row.lost_at is None:
                row.phase = "-"
            row.version += 1

    def _restart(self, now: datetime) -> None:
        """Another engine: no worker is there yet, and what the last one was asked for is void."""
        self.phase = RunPhase.TRAINING if self.rounds or self.cohort else RunPhase.GATHERING
        self.waiting_for.clear()
        for row in self.workers.values():
            row.lost_at = row.lost_at or now
            row.phase = "lost"
            row.forget_rate()
            row.version += 1

    def _take_round(self, what: str, line: Line, now: datetime) -> None:
        number = line["round"]
        if what == "finished":
            self._finish_round(number, line, now)
        elif what == "started":
            if self.phase not in (RunPhase.PAUSING, RunPhase.ABORTING):
                self.phase = RunPhase.TRAINING
            if line.get("epoch", 0) == 2 and self.rounds_of_first_epoch is None:
                self.rounds_of_first_epoch = number - 1
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
                row.forget_rate()
                row.error = clean(line.get("reason") or "", 200)
                self.waiting_for.discard(row.name)
                self.alarm(sentence(line), row.label)
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
                    self.alarm(sentence(line), row.label)

    def _take_batches(self, line: Line, now: datetime) -> None:
        row = self._row(line["worker"])
        limit = max(_MIN_POINTS, min(MAX_POINTS, _MAX_POINTS_OF_ALL // len(self.workers)))
        row.take_batches(line, self._seconds(now), limit)
        row.take_rate(len(line["losses"]) * int(self.plan.get("batch_size") or 1), now)

    def _take_telemetry(self, line: Line) -> None:
        row = self._row(line["worker"])
        for trouble in row.take_telemetry(line):
            text = f"{row.label} {trouble}"
            self.alarm(text, row.label)
            self._log.append(LogRecord(self.told_at, Level.WARNING, row.label, text))

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

    def alarm(self, text: str, worker: str = "", at: datetime | None = None) -> None:
        """Something that the operator should see; `at`: by the wall clock; None: with the last line."""
        self.alarms.append(AlarmRecord(at or self.told_at, clean(text, LINE_LIMIT), worker))
        del self.alarms[:-_MAX_ALARMS]
        self.num_alarms += 1

    def _say(self, level: Level, line: Line, text: str) -> None:
        name = clean(line.get("worker") or "", 64)
        self._log.append(LogRecord(self.told_at, level, name, text))


def _letter(number: int) -> str:
    return chr(ord("A") + number) if number < 26 else ""
