"""What can happen to a run. The engine journals each event, then gives it to `machine.advance`.

Events of a round name it; those that name a closed round change nothing.
"""

from __future__ import annotations

from collections.abc import Mapping

from msgspec import Struct

from fedconsole.coordinator.plan import Plan
from fedconsole.coordinator.state import Confusion, Metric
from fedconsole.errors import ExitCode
from pi_daemon.protocol.messages import Cursor

# Of the run


class RunCreated(Struct, frozen=True, tag="run_created"):
    """The first event of a journal; given to `machine.start`."""

    plan: Plan
    model_id: str
    """Of the initial model."""


class EngineRestarted(Struct, frozen=True, tag="engine_restarted"):
    """A new engine has read the journal and goes on with the run; no worker is connected."""

    lost: tuple[str, ...] = ()
    """Workers whose delivered updates of the open round are no longer on disk as they were."""


class TimerExpired(Struct, frozen=True, tag="timer_expired"):
    number: int
    """As in StartTimer."""


# Requests of the operator


class PauseRequested(Struct, frozen=True, tag="pause_requested"):
    pass


class ResumeRequested(Struct, frozen=True, tag="resume_requested"):
    pass


class AbortRequested(Struct, frozen=True, tag="abort_requested"):
    reason: str = "aborted by the operator"


class StopAfterRoundRequested(Struct, frozen=True, tag="stop_after_round_requested"):
    pass


class WaitRequested(Struct, frozen=True, tag="wait_requested"):
    pass


class FewerRequested(Struct, frozen=True, tag="fewer_requested"):
    pass


# Of workers


class WorkerPreparing(Struct, frozen=True, tag="worker_preparing"):
    """A worker is connected, and made ready: it joins, is refused or is lost next."""

    worker: str


class WorkerJoined(Struct, frozen=True, kw_only=True, tag="worker_joined"):
    """A worker is connected and prepared, for the first time or again."""

    worker: str
    address: str
    device_id: str
    num_examples: int
    """For training, the holdout taken off. As `num_holdout`, the same each time."""
    num_holdout: int = 0
    working_on: int | None = None
    """The round of this run that the device has in hand: training, paused or its update kept."""


class WorkerRefused(Struct, frozen=True, tag="worker_refused"):
    """A worker that was reached cannot take part, or not any more; this engine tries it no more."""

    worker: str
    reason: str
    exit_code: ExitCode = ExitCode.REFUSED
    """Of a run that has not begun."""


class WorkerLost(Struct, frozen=True, tag="worker_lost"):
    """The link is gone, or never came about; `worker` is then the address."""

    worker: str
    reason: str
    was_met: bool = False
    """This engine has had it on a link before: it is somewhere, and may come back."""


class WorkerPaused(Struct, frozen=True, tag="worker_paused"):
    worker: str


class WorkerAborted(Struct, frozen=True, tag="worker_aborted"):
    worker: str


class UpdateDelivered(Struct, frozen=True, kw_only=True, tag="update_delivered"):
    """An update is in `file`, synced, and its tensors have been checked."""

    worker: str
    round: int
    attempt: int
    model_id: str
    """Of the model that the training began with."""
    num_examples: int
    num_batches: int
    cursor: Cursor
    """Where the worker's next round goes on."""
    loss: Metric
    seconds: float
    file: str
    """Name in the run's `updates/`."""
    sha256: str


class UpdateRejected(Struct, frozen=True, tag="update_rejected"):
    """An update came whose tensors cannot be used."""

    worker: str
    round: int
    attempt: int
    reason: str


class TrainingFailed(Struct, frozen=True, tag="training_failed"):
    """A worker that is still connected has stopped training and will not deliver this attempt."""

    worker: str
    round: int
    attempt: int
    reason: str


# Of the engine's own work


class ModelAggregated(Struct, frozen=True, tag="model_aggregated"):
    round: int
    model_id: str


class AggregationFailed(Struct, frozen=True, tag="aggregation_failed"):
    round: int
    reason: str


class Evaluated(Struct, frozen=True, kw_only=True, tag="evaluated"):
    round: int
    num_examples: int
    metrics: Mapping[str, Metric]
    """By name: `loss`, `accuracy`, ..."""
    confusion: Confusion | None = None
    """None without classes, or with too many to show."""
    worker: str | None = None
    """None: the desktop's test set; else this worker's holdout."""


class EvaluationFailed(Struct, frozen=True, kw_only=True, tag="evaluation_failed"):
    round: int
    reason: str
    worker: str | None = None


class RoundSaved(Struct, frozen=True, tag="round_saved"):
    """The checkpoint is on disk."""

    round: int
    checkpoint: str
    """Name in the run's `checkpoints/`."""
    sha256: str


class ModelSaved(Struct, frozen=True, tag="model_saved"):
    path: str


class StorageFailed(Struct, frozen=True, tag="storage_failed"):
    """The run's folder or the model cannot be written, or not be read."""

    reason: str


RequestEvent = (
    PauseRequested
    | ResumeRequested
    | AbortRequested
    | StopAfterRoundRequested
    | WaitRequested
    | FewerRequested
)
Event = (
    RunCreated
    | EngineRestarted
    | TimerExpired
    | RequestEvent
    | WorkerPreparing
    | WorkerJoined
    | WorkerRefused
    | WorkerLost
    | WorkerPaused
    | WorkerAborted
    | UpdateDelivered
    | UpdateRejected
    | TrainingFailed
    | ModelAggregated
    | AggregationFailed
    | Evaluated
    | EvaluationFailed
    | RoundSaved
    | ModelSaved
    | StorageFailed
)
