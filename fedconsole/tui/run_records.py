"""What is kept of a run's workers, rounds, tests, alarms and log."""

from __future__ import annotations

from array import array
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import IntEnum
from typing import Final, NamedTuple

MAX_POINTS: Final = 20_000
"""Of one worker's losses."""
_RECENT: Final = 60
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
    _last_time: datetime | None = None

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
        self.rounds.setdefault(number, {})[worker] = what

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
