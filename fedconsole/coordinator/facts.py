"""What the coordinator makes public: the JSON lines of the command line, by type and field.

Only what can be known without a clock: the engine adds `seconds`, `seconds_left`, `bytes_sent` and
`bytes_received` to the lines that have them.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Any

from msgspec import Struct

from fedconsole.coordinator.phases import RunPhase
from fedconsole.coordinator.plan import Plan
from fedconsole.coordinator.state import Confusion, Metric, Outcome


class RunCreated(Struct, frozen=True, tag="run.created"):
    task: str
    plan: Plan


class RunStarted(Struct, frozen=True, tag="run.started"):
    round: int
    waiting_for: tuple[str, ...] = ()


class RunRestarted(Struct, frozen=True, tag="run.restarted"):
    """A new engine goes on with the run."""

    round: int


class RunPausing(Struct, frozen=True, tag="run.pausing"):
    round: int
    waiting_for: tuple[str, ...] = ()


class RunPaused(Struct, frozen=True, tag="run.paused"):
    round: int
    waiting_for: tuple[str, ...] = ()


class RunResumed(Struct, frozen=True, tag="run.resumed"):
    round: int
    waiting_for: tuple[str, ...] = ()


class RunAborting(Struct, frozen=True, tag="run.aborting"):
    round: int
    waiting_for: tuple[str, ...] = ()


class RunStopping(Struct, frozen=True, tag="run.stopping"):
    """The operator wants the run to end after this round."""

    round: int


class AtTimeout(StrEnum):
    """What happens to a run that lacks its quorum when the time is up."""

    WAIT = "wait"
    """It waits for more."""
    FEWER = "fewer"
    """It goes on with those that are there."""
    FAIL = "fail"


class QuorumOf(StrEnum):
    """What is counted for a quorum."""

    WORKERS = "workers"
    """That are here, or have delivered already."""
    UPDATES = "updates"


class RunQuorum(Struct, frozen=True, tag="run.quorum"):
    """Too few of them, or enough again; the engine adds what is left of the timer."""

    have: int
    need: int
    of: QuorumOf
    phase: RunPhase
    """Training: whether they will be enough at the deadline. Waiting: the run stands still for them."""
    then: AtTimeout
    preparing: tuple[str, ...] = ()
    """Of the missing workers those that are connected, and made ready: they are waited for."""


class RunFewer(Struct, frozen=True, tag="run.fewer"):
    """This round is content with fewer than the plan says."""

    round: int
    have: int
    need: int
    """What the plan says."""


class RunFinished(Struct, frozen=True, kw_only=True, tag="run.finished"):
    outcome: Outcome
    rounds: int
    model_id: str
    model_path: str | None
    reason: str
    exit_code: int


class RoundStarted(Struct, frozen=True, tag="round.started"):
    round: int
    attempt: int
    cohort: tuple[str, ...]
    epoch: int
    """From 1."""


class RoundFinished(Struct, frozen=True, tag="round.finished"):
    round: int
    updates: tuple[str, ...]
    loss: Metric
    """Mean of the workers' losses, weighted as in the aggregate."""
    model_id: str


class WorkerJoined(Struct, frozen=True, tag="worker.joined"):
    worker: str
    address: str


class WorkerRejoined(Struct, frozen=True, tag="worker.rejoined"):
    worker: str
    address: str


class WorkerLost(Struct, frozen=True, tag="worker.lost"):
    worker: str
    address: str
    reason: str


class WorkerStraggler(Struct, frozen=True, tag="worker.straggler"):
    """It is here, and has not delivered at the round's deadline."""

    worker: str
    round: int


class WorkerUpdate(Struct, frozen=True, tag="worker.update"):
    worker: str
    round: int
    num_examples: int
    loss: Metric
    seconds: float


class WorkerRejected(Struct, frozen=True, tag="worker.rejected"):
    worker: str
    round: int
    reason: str


class Eval(Struct, frozen=True, tag="eval"):
    """The engine writes each metric as a field of its own."""

    round: int
    num_examples: int
    metrics: Mapping[str, Metric]
    worker: str | None = None
    """None: the whole evaluation, on the desktop's test set; the means over the workers' holdouts are
    among its metrics as `holdout_...`."""
    confusion: Confusion | None = None
    """Of the whole evaluation without a test set: the sum over the workers' holdouts."""


class Warning(Struct, frozen=True, tag="warning"):  # noqa: A001
    text: str
    worker: str | None = None


Fact = (
    RunCreated
    | RunStarted
    | RunRestarted
    | RunPausing
    | RunPaused
    | RunResumed
    | RunAborting
    | RunStopping
    | RunQuorum
    | RunFewer
    | RunFinished
    | RoundStarted
    | RoundFinished
    | WorkerJoined
    | WorkerRejoined
    | WorkerLost
    | WorkerStraggler
    | WorkerUpdate
    | WorkerRejected
    | Eval
    | Warning
)


def metric(line: Mapping[str, Any], name: str) -> Metric:
    """A metric of an `eval` line; that of the workers' holdouts where there is no test set."""
    value: Metric = line.get(name, line.get(f"holdout_{name}"))
    return value
