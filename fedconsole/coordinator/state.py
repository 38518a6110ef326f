"""The state of one run, as values. Only `machine` makes new ones; screens and the engine read."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum

from msgspec import Struct

from fedconsole.coordinator.phases import RunPhase
from fedconsole.coordinator.plan import Plan
from fedconsole.errors import ExitCode
from pi_daemon.protocol.messages import Cursor

Metric = float | None
Confusion = Mapping[str, tuple[int, ...]]
"""How many examples of each true class were taken for each class, in the order of the keys."""
"""None: not finite. JSON has no NaN, so it must not come here."""


class Member(Struct, frozen=True, kw_only=True):
    """A worker that has joined the run, whether or not it is connected now."""

    address: str
    device_id: str
    num_examples: int
    """For training, the holdout taken off."""
    num_holdout: int
    batches_per_epoch: int
    cursor: Cursor
    """The next batch to train; `batch` is below `batches_per_epoch`. Moved by saved rounds only."""
    is_connected: bool = True
    refusal: str | None = None
    """Why it takes no further part in this run, if so: it is not waited for."""

    @property
    def can_train(self) -> bool:
        return self.is_connected and self.batches_per_epoch > 0


class Update(Struct, frozen=True, kw_only=True):
    """What a worker delivered; the parameters are in `file`, checked and on disk."""

    num_examples: int
    loss: Metric
    seconds: float
    file: str
    sha256: str


class PartStatus(StrEnum):
    IDLE = "idle"
    """Has nothing in hand: the round is to be sent, or sent again."""
    TRAINING = "training"
    PAUSED = "paused"
    """Told to pause."""
    DELIVERED = "delivered"
    OUT = "out"
    """Takes no further part in this round."""


class Part(Struct, frozen=True, kw_only=True):
    """One worker's part in a round."""

    cursor: Cursor
    num_batches: int
    next_cursor: Cursor
    """Where the worker stands after it."""
    status: PartStatus = PartStatus.IDLE
    attempt: int = 0
    """How often the round was sent to this worker."""
    num_failures: int = 0
    is_late: bool = False
    """It had not delivered at the deadline."""
    update: Update | None = None

    @property
    def is_working(self) -> bool:
        return self.status in {PartStatus.TRAINING, PartStatus.PAUSED}

    @property
    def has_answered(self) -> bool:
        return self.status in {PartStatus.DELIVERED, PartStatus.OUT}


class RoundStep(StrEnum):
    TRAINING = "training"
    AGGREGATING = "aggregating"
    EVALUATING = "evaluating"
    SAVING = "saving"
    CLOSED = "closed"


class HoldoutResult(Struct, frozen=True, kw_only=True):
    num_examples: int
    metrics: Mapping[str, Metric]
    confusion: Confusion | None = None


class Round(Struct, frozen=True, kw_only=True):
    """The open round, or the last one. Its parts are its cohort, sorted by worker id."""

    number: int
    """From 1."""
    model_id: str
    """What the cohort trains from."""
    parts: Mapping[str, Part]
    attempt: int = 1
    """How many engines have carried it."""
    step: RoundStep = RoundStep.TRAINING
    new_model_id: str | None = None
    """The aggregate, once there is one."""
    metrics: Mapping[str, Metric] | None = None
    """None: not evaluated (yet). Those of the workers' holdouts are named `holdout_...`."""
    num_test_examples: int = 0
    """On the desktop."""
    confusion: Confusion | None = None
    """On the desktop's test set."""
    evaluating: frozenset[str] = frozenset()
    """Workers whose evaluation is still to come."""
    holdouts: Mapping[str, HoldoutResult] = {}

    @property
    def delivered(self) -> dict[str, Update]:
        return {worker: part.update for worker, part in self.parts.items() if part.update}

    @property
    def have_all_answered(self) -> bool:
        return all(part.has_answered for part in self.parts.values())


class TimerKind(StrEnum):
    GATHERING = "gathering"
    ROUND = "round"
    EVALUATION = "evaluation"
    QUORUM = "quorum"
    PREPARATION = "preparation"
    """After one of GATHERING or QUORUM: for workers that are connected, but not ready yet."""
    ABORT = "abort"
    STORAGE = "storage"


class Timer(Struct, frozen=True):
    kind: TimerKind
    number: int
    """New for each start: a timer that was stopped changes nothing when it expires."""


class Outcome(StrEnum):
    COMPLETED = "completed"
    ABORTED = "aborted"
    FAILED = "failed"


class Ending(Struct, frozen=True):
    outcome: Outcome
    reason: str
    exit_code: ExitCode


class RunState(Struct, frozen=True, kw_only=True):
    plan: Plan
    model_id: str
    """The global model of the last complete round; at first the initial one."""
    phase: RunPhase = RunPhase.GATHERING
    members: Mapping[str, Member] = {}
    absent: Mapping[str, str] = {}
    """While gathering: worker ids or addresses that are not there, each with the reason."""
    expected: frozenset[str] = frozenset()
    """Of the absent: those that were there a moment ago."""
    preparing: frozenset[str] = frozenset()
    """Workers that are connected, but not ready for rounds yet."""
    round: Round | None = None
    num_rounds: int = 0
    """Complete rounds: aggregated and saved."""
    epoch: int = 0
    """Complete epochs."""
    waiting_for: frozenset[str] = frozenset()
    """Workers that have not acknowledged a pause or an abort."""
    timer: Timer | None = None
    """The one that runs."""
    num_timers: int = 0
    is_regathering: bool = False
    """After a new engine has taken over: all members are waited for before another round."""
    fewer: int | None = None
    """So many workers or updates are enough for the open round, or for the next one if none is open:
    fewer than the plan says."""
    is_stopping: bool = False
    """The operator wants the run to end after the current round."""
    ending: Ending | None = None
    """Known from FINISHING or ABORTING on."""
    num_ignored: int = 0
    """Events that were out of place and changed nothing else."""

    @property
    def num_connected(self) -> int:
        return sum(member.is_connected for member in self.members.values())

    @property
    def are_all_connected(self) -> bool:
        """But for those that take no further part."""
        return all(m.is_connected or m.refusal is not None for m in self.members.values())

    @property
    def open_round(self) -> Round | None:
        """The round that still takes updates."""
        is_open = self.round is not None and self.round.step is RoundStep.TRAINING
        return self.round if is_open else None

    @property
    def is_closing(self) -> bool:
        """A round is aggregated, evaluated or saved, whatever the operator has asked meanwhile."""
        steps = {RoundStep.AGGREGATING, RoundStep.EVALUATING, RoundStep.SAVING}
        return self.round is not None and self.round.step in steps

    @property
    def have(self) -> int:
        """What counts for the quorum now: updates in an open round, else connected workers."""
        return len(self.open_round.delivered) if self.open_round else self.num_connected

    @property
    def need(self) -> int:
        """The quorum for `have`. Workers that sit a round out are not missed in it."""
        quorum = self.fewer or self.plan.quorum
        if self.open_round is None:
            return quorum
        return min(quorum, len(self.open_round.parts))
