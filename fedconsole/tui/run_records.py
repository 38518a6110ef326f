"""What is kept of a run's workers, rounds, tests, alarms and log."""

from __future__ import annotations

import math
from array import array
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import IntEnum
from typing import Any, Final, NamedTuple

from fedconsole.coordinator.phases import RunPhase
from fedconsole.health import THROTTLED_NOW, is_disk_low

Line = Mapping[str, Any]

MAX_POINTS: Final = 20_000
"""Of one worker's losses."""
_RECENT: Final = 60
_RATE_WEIGHT: Final = 0.7
"""Of the rate before, beside a new one."""
_VIRTUAL: Final = "virtual:"


class Series:
    """A worker's losses over steps, time and rounds; thinned when there are too many."""

    def __init__(self) -> None:
        self.steps = array("d")
        self.times = array("d")
        self.rounds = array("d")
        self.losses = array("d")
        self.recent: deque[float] = deque(maxlen=_RECENT)
        self._stride = 1
        self._num_seen = 0

    def add(
        self, step: int, seconds: float, round_at: float, loss: float, limit: int = MAX_POINTS
    ) -> None:
        """Keep a point, unless points have been thinned out; at `limit` every other one goes."""
        self.recent.append(loss)
        self._num_seen += 1
        if self._num_seen % self._stride:
            return
        self.steps.append(step)
        self.times.append(seconds)
        self.rounds.append(round_at)
        self.losses.append(loss)
        if len(self.losses) >= limit:
            self._stride *= 2
            for name in ("steps", "times", "rounds", "losses"):
                setattr(self, name, getattr(self, name)[::2])


@dataclass(slots=True)
class WorkerRow:
    """One worker; `version` grows with each change."""

    name: str
    """As in the lines."""
    label: str
    """Cleaned."""
    letter: str
    address: str = ""
    phase: str = "joining"
    batch: int = 0
    num_batches: int | None = None
    loss: float | None = None
    series: Series = field(default_factory=Series)
    num_steps: int = 0
    """Batches in all rounds."""
    examples_per_s: float | None = None
    celsius: float | None = None
    throttled: int | None = None
    memory_bytes: int | None = None
    bytes_sent: int = 0
    """To it, in all rounds that it delivered."""
    bytes_received: int = 0
    num_lost: int = 0
    """How often its link was lost."""
    lost_at: datetime | None = None
    """None: it is there."""
    error: str = ""
    version: int = 0
    _is_disk_low: bool = False
    _last_time: datetime | None = None

    def take_batches(self, line: Line, seconds: float, limit: int) -> None:
        """Its losses, heard `seconds` after the start; `limit` as in `Series.add`."""
        losses = line["losses"]
        first, total, number = line["first"], line["batches"], line["round"]
        for offset, loss in enumerate(losses):
            self.num_steps += 1
            value = math.nan if loss is None else loss
            round_at = number - 1 + (first + offset + 1) / total
            self.series.add(self.num_steps, seconds, round_at, value, limit)
        self.batch = first + len(losses)
        self.num_batches = total
        self.loss = losses[-1]
        self.version += 1

    def take_rate(self, num_examples: int, now: datetime) -> None:
        """It trained on so many since the last time."""
        if self._last_time is not None and (passed := (now - self._last_time).total_seconds()) > 0:
            rate, old = num_examples / passed, self.examples_per_s
            self.examples_per_s = (
                rate if old is None else _RATE_WEIGHT * old + (1 - _RATE_WEIGHT) * rate
            )
        self._last_time = now

    def forget_rate(self) -> None:
        """It has stopped, and the time until it goes on is none of its training."""
        self.examples_per_s = self._last_time = None

    def take_telemetry(self, line: Line) -> Iterator[str]:
        """Take in its health; gives what is wrong with it since now."""
        was_throttled, was_low = self._is_throttled, self._is_disk_low
        self.celsius = line.get("celsius")
        self.throttled = line.get("throttled")
        self.memory_bytes = line.get("memory_bytes")
        free_bytes = line.get("disk_free_bytes")
        self._is_disk_low = is_disk_low(free_bytes, was_low=was_low)
        self.version += 1
        if self._is_throttled and not was_throttled:
            yield "is throttled"
        if self._is_disk_low and not was_low:
            yield f"is short of disk space: {(free_bytes or 0) >> 20} MiB are free"

    @property
    def _is_throttled(self) -> bool:
        return bool((self.throttled or 0) & THROTTLED_NOW)

    @property
    def is_virtual(self) -> bool:
        return self.address.startswith(_VIRTUAL)


class RoundRow(NamedTuple):
    """A finished round."""

    number: int
    loss: float | None
    seconds: float
    updates: tuple[str, ...]
    bytes_sent: int
    bytes_received: int


class Test(NamedTuple):
    """An evaluation of the whole model."""

    round: int
    loss: float | None
    accuracy: float | None
    macro_f1: float | None


class AlarmRecord(NamedTuple):
    time: datetime
    text: str
    worker: str


class Attendance:
    """Who was in which round, and what came of it: the grid of a run's page."""

    DELIVERED, REJECTED, ABSENT, AT_WORK = "delivered", "rejected", "absent", "at work"

    def __init__(self) -> None:
        self.rounds: dict[int, dict[str, str]] = {}

    def begin(self, number: int, cohort: Sequence[str]) -> None:
        self.rounds[number] = dict.fromkeys(cohort, self.AT_WORK)

    def note(self, number: int, worker: str, what: str) -> None:
        cells = self.rounds.setdefault(number, {})
        # A copy that is rejected says nothing against what was counted.
        if cells.get(worker) != self.DELIVERED:
            cells[worker] = what

    def close(self, number: int, updates: Sequence[str]) -> None:
        cells = self.rounds.setdefault(number, {})
        for worker, what in cells.items():
            if what == self.AT_WORK and worker not in updates:
                cells[worker] = self.ABSENT
        cells.update(dict.fromkeys(updates, self.DELIVERED))


class Level(IntEnum):
    DEBUG = 0
    INFO = 1
    WARNING = 2
    ERROR = 3


@dataclass(frozen=True, slots=True)
class LogRecord:
    time: datetime
    level: Level
    worker: str
    text: str

    def fields(self) -> dict[str, str]:
        return {"level": self.level.name.lower(), "worker": self.worker, "text": self.text}


_LEVELS: Final = {"debug": Level.DEBUG, "warning": Level.WARNING, "error": Level.ERROR}


def level_of(line: Line, phase: RunPhase) -> Level:
    """`phase`: of the run when the line came."""
    match line["type"]:
        case "log":
            return _LEVELS.get(line.get("level", ""), Level.INFO)
        case "worker.phase" | "heartbeat":
            return Level.DEBUG
        case "run.quorum" if line["have"] >= line["need"]:
            return Level.INFO
        case "warning" | "worker.lost" | "worker.straggler" | "run.quorum" | "run.stalled":
            return Level.WARNING
        case "worker.rejected" if phase is not RunPhase.ABORTING:
            # An abort takes no more updates: those on their way are no trouble.
            return Level.ERROR
        case "run.finished" if line["outcome"] == "failed":
            return Level.ERROR
        case _:
            return Level.INFO
