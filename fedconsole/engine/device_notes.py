"""What a device tells of its own accord, on its way to the journal: so much and no more of each kind.

What is left out is counted, and the count is journalled, so that a device that floods its console is
seen, and cannot fill a disk.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from fedconsole.engine.worker import Job
from fedconsole.health import worries
from pi_daemon.protocol import messages as m
from pi_daemon.protocol.text import clean

_TELL_S: Final = 1.0
_PHASES: Final = {
    m.DeviceState.READY: "waiting",
    m.DeviceState.RECEIVING: "receiving",
    m.DeviceState.TRAINING: "training",
    m.DeviceState.PAUSED: "paused",
    m.DeviceState.DELIVERING: "sending",
}
"""What `worker.phase` calls a device's state."""


class Kind(StrEnum):
    """What is counted; the value names it in the line that tells how many were left out."""

    LINE = "lines"
    STATE = "states"
    MEASUREMENT = "measurements"
    LOSS = "losses"
    UPDATE = "updates"


@dataclass(frozen=True, slots=True)
class Limit:
    per_s: float
    burst: int
    of_round: int = 0
    """So many more for each round that the device is sent."""
    of_batch: int = 0
    """So many more for each batch of such a round."""
    excess: str = "more than its rounds bring about"


LIMITS: Final = {
    Kind.LINE: Limit(20, 100, excess="more than 20 a second"),
    # Of a round: receiving, training, sending, waiting, and as much again after a lost link.
    Kind.STATE: Limit(1, 100, of_round=8),
    # A daemon sends one every 2 s.
    Kind.MEASUREMENT: Limit(1, 20, excess="more than 1 a second"),
    # Each is told once, once more after a lost link, and once more under a new attempt. An engine that
    # takes a run up is told those of a whole round before it sends one.
    Kind.LOSS: Limit(100, 1_000_000, of_batch=4),
    Kind.UPDATE: Limit(0.1, 20, of_round=4),
}


class Bucket:
    """Of tokens, one for each thing that is admitted. Pure: times are passed in, in seconds of a monotonic clock."""

    def __init__(self, limit: Limit) -> None:
        self._limit = limit
        self._tokens = float(limit.burst)
        self._last_s: float | None = None
        self._num_dropped = 0

    def admit(self, now_s: float, num: int = 1) -> bool:
        """Whether so many that come now are kept, all of them; else they are counted."""
        passed_s = now_s - self._last_s if self._last_s is not None else 0.0
        self._last_s = now_s
        most = max(self._tokens, self._limit.burst)
        self._tokens = min(most, self._tokens + passed_s * self._limit.per_s)
        if self._tokens < num:
            self._num_dropped += num
            return False
        self._tokens -= num
        return True

    def grant_round(self, num_batches: int) -> None:
        """Allow for what a round brings about, whatever was saved up before."""
        granted = self._limit.of_round + self._limit.of_batch * num_batches
        self._tokens = min(self._tokens, self._limit.burst) + granted

    def take_dropped(self) -> int:
        """What was dropped since the last call."""
        taken, self._num_dropped = self._num_dropped, 0
        return taken


class DeviceNotes:
    """Of one worker, over all its links."""

    def __init__(self, job: Job, note: Callable[..., None]) -> None:
        """`note` takes a line's type and its fields."""
        self._job = job
        self._note = note
        self._buckets = {kind: Bucket(limit) for kind, limit in LIMITS.items()}
        self._telling: asyncio.TimerHandle | None = None
        self._round = 0
        """The one whose losses came last."""
        self._num_told = 0
        """Its losses from the first one on that have come."""
        self.worries: list[str] = []
        """What the newest telemetry says against training there."""
        self.has_measured = asyncio.Event()

    def grant_round(self, num_batches: int) -> None:
        """The device is sent a round of so many batches."""
        for bucket in self._buckets.values():
            bucket.grant_round(num_batches)

    def admit(self, kind: Kind, num: int = 1) -> bool:
        """Whether so many of a kind are within the limit; if not, they are counted and told."""
        loop = asyncio.get_running_loop()
        if self._buckets[kind].admit(loop.time(), num):
            return True
        if self._telling is None:
            self._telling = loop.call_later(_TELL_S, self._tell_dropped)
        return False

    def take_log(self, log: m.Log) -> None:
        if self.admit(Kind.LINE):
            self._note("log", level=log.level, text=clean(log.text))

    def take_status(self, status: m.DeviceStatus) -> None:
        if not self._job.names.done():
            return  # its name in the run is not known yet
        is_of_run = status.run == self._job.run_id and status.state in _PHASES
        if is_of_run and self.admit(Kind.STATE):
            self._note("worker.phase", round=status.round, phase=_PHASES[status.state])

    def take_batches(self, batches: m.Batches) -> None:
        """A device tells all losses of its round again over a new link, and under a new attempt."""
        if batches.run != self._job.run_id or not self._job.names.done():
            return  # where names are not known yet the round's new attempt is still to come
        if batches.round != self._round:
            self._round, self._num_told = batches.round, 0
        first = max(batches.first, self._num_told)
        losses = batches.losses[first - batches.first :]
        if losses and self.admit(Kind.LOSS, len(losses)):
            self._note(
                "worker.batches",
                round=batches.round,
                first=first,
                batches=batches.num_batches,
                losses=losses,
            )
        self._num_told = max(self._num_told, first + len(losses))

    def go_on_from(self, round_number: int, num_told: int) -> None:
        """So many losses of a round are in the journal already."""
        self._round, self._num_told = round_number, num_told

    def train_anew(self) -> None:
        """What the device had of its round is lost: it trains the same batches again."""
        self._num_told = 0

    def take_telemetry(self, telemetry: m.Telemetry) -> None:
        ahead_s = None if telemetry.clock is None else telemetry.clock - time.time()
        self.worries = list(worries(telemetry, ahead_s))
        self.has_measured.set()
        if not self._job.names.done():
            return  # its name in the run is not known yet
        if self.admit(Kind.MEASUREMENT):
            self._note(
                "worker.telemetry",
                celsius=telemetry.celsius,
                throttled=telemetry.throttled,
                memory_bytes=telemetry.memory_bytes,
                disk_free_bytes=telemetry.disk_free_bytes,
                load=telemetry.load,
            )

    def _tell_dropped(self) -> None:
        self._telling = None
        for kind, bucket in self._buckets.items():
            if num := bucket.take_dropped():
                text = f"{num} {kind} dropped: {LIMITS[kind].excess}"
                self._note("log", level="warning", text=text, dropped=num)
