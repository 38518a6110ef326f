"""What the engine is to do. Outcomes come back as events; commands to workers need no answer here.

Commands are carried out in their order, after the event that led to them is in the journal.
"""

from __future__ import annotations

from msgspec import Struct

from fedconsole.coordinator.facts import Fact
from fedconsole.coordinator.state import Outcome, TimerKind
from fedconsole.errors import ExitCode
from pi_daemon.protocol.messages import Cursor

# To workers; only to connected ones


class SendRound(Struct, frozen=True, kw_only=True, tag="send_round"):
    """Later: UpdateDelivered, UpdateRejected or TrainingFailed."""

    worker: str
    round: int
    attempt: int
    model_id: str
    cursor: Cursor
    num_batches: int


class PauseWorker(Struct, frozen=True, tag="pause_worker"):
    """Later: WorkerPaused."""

    worker: str
    round: int


class ResumeWorker(Struct, frozen=True, tag="resume_worker"):
    """A worker that has no state to resume is TrainingFailed, and gets the round again."""

    worker: str
    round: int


class AbortWorker(Struct, frozen=True, tag="abort_worker"):
    """Stop working on this round; the worker stays prepared. Later: WorkerAborted."""

    worker: str
    round: int


class AcceptUpdate(Struct, frozen=True, tag="accept_update"):
    worker: str
    round: int
    attempt: int


class RefuseUpdate(Struct, frozen=True, tag="refuse_update"):
    """Its file, if there is one of this attempt, is not needed."""

    worker: str
    round: int
    attempt: int
    reason: str


class EvaluateOnWorkers(Struct, frozen=True, tag="evaluate_on_workers"):
    """Later, for each: Evaluated or EvaluationFailed with this worker."""

    round: int
    model_id: str
    workers: tuple[str, ...]


# On the desktop


class StartTimer(Struct, frozen=True, tag="start_timer"):
    """Later: TimerExpired with this number. There is one timer: a new one replaces it."""

    kind: TimerKind
    seconds: float
    number: int


class StopTimer(Struct, frozen=True, tag="stop_timer"):
    kind: TimerKind
    number: int


class CountedUpdate(Struct, frozen=True):
    worker: str
    weight: int
    file: str
    sha256: str


class Aggregate(Struct, frozen=True, tag="aggregate"):
    """Later: ModelAggregated or AggregationFailed. Updates are in worker-id order."""

    round: int
    updates: tuple[CountedUpdate, ...]


class Evaluate(Struct, frozen=True, tag="evaluate"):
    """On the desktop's test set. Later: Evaluated or EvaluationFailed without a worker."""

    round: int
    model_id: str


class SaveRound(Struct, frozen=True, tag="save_round"):
    """Write the checkpoint. Later: RoundSaved or StorageFailed.

    A round is saved a second time when it turned out to be the last one and was evaluated late.
    """

    round: int
    model_id: str


class SaveModel(Struct, frozen=True, tag="save_model"):
    """Write the run's model where the plan says. Later: ModelSaved or StorageFailed."""

    model_id: str


class Announce(Struct, frozen=True, tag="announce"):
    fact: Fact


class Finish(Struct, frozen=True, tag="finish"):
    """The last command of a run: drop work in hand, let go of the workers, end."""

    outcome: Outcome
    reason: str
    exit_code: ExitCode


WorkerCommand = SendRound | PauseWorker | ResumeWorker | AbortWorker | AcceptUpdate | RefuseUpdate
Command = (
    WorkerCommand
    | EvaluateOnWorkers
    | StartTimer
    | StopTimer
    | Aggregate
    | Evaluate
    | SaveRound
    | SaveModel
    | Announce
    | Finish
)
