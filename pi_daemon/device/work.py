"""What a run has brought to the device, and how far its round is: the state behind `assignment`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import StrEnum

from msgspec.structs import replace

from pi_daemon.device.actions import ControlCommand
from pi_daemon.device.refusals import Excess
from pi_daemon.protocol.limits import MAX_LOSSES, MAX_TEXT
from pi_daemon.protocol.messages import (
    Batches,
    DeviceState,
    Evaluate,
    Prepare,
    Prepared,
    RoundFailed,
    StartRound,
)
from pi_daemon.trainer.pipe import RoundTrained, WorkerReady, WorkerSpec


@dataclass(slots=True)
class Work:
    """What a run wants to train here."""

    prepare: Prepare
    ticket: int
    asked_by: list[str]
    """Commands to answer when it is ready."""
    ready: WorkerReady | None = None

    def is_same(self, prepare: Prepare) -> bool:
        return _content(self.prepare) == _content(prepare)

    def prepared(self, cmd_id: str) -> Prepared:
        ready = self.ready
        assert ready is not None
        return Prepared(
            cmd_id, ready.num_examples, ready.num_holdout, ready.batch_seconds, ready.memory_bytes
        )


@dataclass(frozen=True, slots=True)
class Arriving:
    """The one blob that is on its way here, with the command that waits for it."""

    link: int
    transfer: int
    command: Prepare | StartRound | Evaluate


class Phase(StrEnum):
    RECEIVING = "receiving"
    """Its model is arriving."""
    STARTING = "starting"
    """The trainer was asked and has not begun."""
    TRAINING = "training"
    ABORTING = "aborting"
    DELIVERING = "delivering"
    """The update is kept until it is accepted or refused."""


@dataclass(slots=True)
class Round:
    start: StartRound
    """Of the latest attempt."""
    ticket: int
    asked_by: list[str]
    """Commands to answer when training begins."""
    phase: Phase = Phase.RECEIVING
    is_pause_wanted: bool = False
    is_paused: bool = False
    losses: list[float | None] = field(default_factory=list)
    trained: RoundTrained | None = None
    broken_off: Excess | None = None
    """Why the device itself aborts it."""
    keep_until_s: float = 0.0
    delivered_to: set[int] = field(default_factory=set)
    """Links that got the update, for the latest attempt."""

    @property
    def is_in_trainer(self) -> bool:
        return self.phase in (Phase.STARTING, Phase.TRAINING, Phase.ABORTING)

    @property
    def is_at_work(self) -> bool:
        """The trainer computes for it."""
        return self.phase in (Phase.TRAINING, Phase.ABORTING) and not self.is_paused

    def is_same(self, start: StartRound) -> bool:
        """Whether another attempt would give the same update."""
        return _inputs(self.start) == _inputs(start)

    def control(self, kind: type[ControlCommand]) -> ControlCommand:
        """A command of the device's own, which nobody waits for."""
        start = self.start
        return kind(cmd_id="", run=start.run, fence=start.fence, round=start.round)

    def failed(self, why: str | Excess) -> RoundFailed:
        start = self.start
        reason, limit = (why.reason, why.limit) if isinstance(why, Excess) else (why, None)
        return RoundFailed(start.run, start.round, start.attempt, reason[:MAX_TEXT], limit)

    def batches(self, first: int) -> Iterator[Batches]:
        """The losses from index `first` on."""
        start = self.start
        for i in range(first, len(self.losses), MAX_LOSSES):
            losses = tuple(self.losses[i : i + MAX_LOSSES])
            yield Batches(start.run, start.round, start.attempt, i, start.num_batches, losses)


def state_of(work: Work | None, round_: Round | None, *, is_evaluating: bool) -> DeviceState:
    """What the device is doing, for people and consoles."""
    match round_:
        case None if is_evaluating:
            return DeviceState.EVALUATING
        case None if work is None:
            return DeviceState.IDLE
        case None:
            return DeviceState.READY if work and work.ready else DeviceState.PREPARING
        case Round(phase=Phase.RECEIVING):
            return DeviceState.RECEIVING
        case Round(phase=Phase.DELIVERING):
            return DeviceState.DELIVERING
        case Round(is_paused=True):
            return DeviceState.PAUSED
        case _:
            return DeviceState.TRAINING


def worker_spec(prepare: Prepare, source: str, shard: str | None, graphs_path: str) -> WorkerSpec:
    """What the trainer is told of a worker; source and shard are as in `--dataset` and `--shard`."""
    return WorkerSpec(
        worker_id=prepare.worker_id,
        dataset=prepare.dataset,
        source=source,
        shard=shard,
        sample_shape=prepare.sample_shape,
        sample_dtype=prepare.sample_dtype,
        num_classes=prepare.num_classes,
        batch_size=prepare.batch_size,
        holdout=prepare.holdout,
        order_seed=int(prepare.order_seed),
        optimizer=prepare.optimizer,
        graphs_path=graphs_path,
        graphs_sha256=prepare.graphs.sha256,
    )


def _content(prepare: Prepare) -> Prepare:
    return replace(prepare, cmd_id="", fence=0, graphs=replace(prepare.graphs, transfer=0))


def _inputs(start: StartRound) -> StartRound:
    return replace(start, cmd_id="", fence=0, attempt=1, model=None)
