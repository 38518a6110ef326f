"""What decides a run: everything the operator chose, checked as a whole before anything starts."""

from __future__ import annotations

import math
from collections.abc import Iterator
from enum import StrEnum
from typing import Literal

from msgspec import Struct
from msgspec.structs import force_setattr

from fedconsole.errors import UsageError

DEFAULT_EPOCHS = 2
DEFAULT_FEDERATE_AFTER_N_BATCHES = 50
MAX_VIRTUAL = 10_000
NO_WORKERS = "there are no workers: name devices by their addresses or ask for virtual ones"
MAX_COUNT = 10**9
"""Of rounds, epochs, batches, or a batch's examples. Whoever gives more has mistyped."""
MAX_SECONDS = 10**9


class PlanError(UsageError):
    """A plan that cannot be run; `problems` has one sentence for each wrong value."""

    def __init__(self, problems: tuple[str, ...]) -> None:
        super().__init__("; ".join(problems))
        self.problems = problems


class Optimizer(StrEnum):
    SGD = "sgd"
    ADAM = "adam"
    ADAMW = "adamw"


class Weighting(StrEnum):
    EXAMPLES = "examples"
    """A worker counts in proportion to the examples that it trained on."""
    UNIFORM = "uniform"


class EpochEnd(StrEnum):
    ALL = "all"
    """An epoch ends when every connected worker has passed over its shard."""
    FIRST = "first"
    """It ends when the first worker has; what the others have left is dropped."""


class OnQuorumLoss(StrEnum):
    WAIT = "wait"
    """For `quorum_timeout_s`, and for what the operator says meanwhile; then the run fails."""
    FEWER = "fewer"
    """Go on with those that are there; wait only while there is none."""
    FAIL = "fail"


class Plan(Struct, frozen=True, kw_only=True):
    """One validated run. What `msgspec.convert` or a constructor returns can be run.

    Raises:
        PlanError: naming every wrong value, when it is made.
    """

    task: str = "digits"
    """A built-in task, or the path of a Python file."""
    workers: tuple[str, ...] = ()
    """Addresses of devices, HOST:PORT."""
    virtual: int = 0
    rounds: int | None = None
    """Length of the run; either this or `epochs`, which is the default."""
    epochs: int | None = None
    federate_after_n_batches: int | None = None
    """Length of a round; either this, the default, or `local_epochs`."""
    local_epochs: int | None = None
    batch_size: int = 64
    test_batch_size: int = 1000
    lr: float = 0.01
    optimizer: Optimizer = Optimizer.SGD
    momentum: float = 0.0
    weight_decay: float = 0.0
    nesterov: bool = False
    holdout: float = 0.0
    """Share of each worker's examples that it keeps for evaluation."""
    weighting: Weighting = Weighting.EXAMPLES
    epoch_end: EpochEnd = EpochEnd.ALL
    cohort_size: int | None = None
    """None: every connected worker."""
    min_updates: int | None = None
    """None: the whole cohort."""
    round_timeout_s: float = 600.0
    on_quorum_loss: OnQuorumLoss = OnQuorumLoss.WAIT
    quorum_timeout_s: float = 600.0
    """How long to wait for enough workers in the run; at the start for those that do answer."""
    eval_every: Literal["round", "epoch"] | int = "round"
    stop_at: tuple[str, float] | None = None
    """Name and value of a metric; a loss stops the run at or below it, others at or above."""
    init_from: str | None = None
    save_model: str | None = None
    """None: `model.safetensors` in the run's folder."""
    seed: int = 1
    cuda: bool = False
    """For evaluation on the desktop and for virtual workers."""
    data_dir: str | None = None

    def __post_init__(self) -> None:
        if self.rounds is None and self.epochs is None:
            force_setattr(self, "epochs", DEFAULT_EPOCHS)
        if self.federate_after_n_batches is None and self.local_epochs is None:
            force_setattr(self, "federate_after_n_batches", DEFAULT_FEDERATE_AFTER_N_BATCHES)
        if problems := tuple(_problems(self)):
            raise PlanError(problems)

    @property
    def num_workers(self) -> int:
        """How many workers are wanted."""
        return len(self.workers) + self.virtual

    @property
    def quorum(self) -> int:
        """How many connected workers a round needs before it is opened."""
        return self.min_updates or self.cohort_size or self.num_workers


_COUNTS = (
    "rounds",
    "epochs",
    "federate_after_n_batches",
    "local_epochs",
    "batch_size",
    "test_batch_size",
    "eval_every",
)


def _problems(plan: Plan) -> Iterator[str]:
    yield from _worker_problems(plan)
    yield from _length_problems(plan)
    yield from _training_problems(plan)
    for name, seconds in (
        ("round_timeout_s", plan.round_timeout_s),
        ("quorum_timeout_s", plan.quorum_timeout_s),
    ):
        if not 0 < seconds <= MAX_SECONDS:
            yield (
                f"{name} is {seconds}: a run must end when all go quiet; "
                f"give seconds above 0, at most {MAX_SECONDS}"
            )
    for name in _COUNTS:
        count = getattr(plan, name)
        if isinstance(count, int) and count > MAX_COUNT:
            yield f"{name} is {count}: expected at most {MAX_COUNT}"
    if isinstance(plan.eval_every, int) and plan.eval_every < 1:
        yield f"eval_every is {plan.eval_every}: expected 'round', 'epoch' or a number of rounds"
    if plan.stop_at is not None and not math.isfinite(plan.stop_at[1]):
        yield f"stop_at {plan.stop_at[0]} is {plan.stop_at[1]}: expected a finite value"
    if not 0 <= plan.seed < 2**63:
        yield f"seed is {plan.seed}: expected 0 to 2**63 - 1"


def _worker_problems(plan: Plan) -> Iterator[str]:
    if not 0 <= plan.virtual <= MAX_VIRTUAL:
        yield f"virtual is {plan.virtual}: expected 0 to {MAX_VIRTUAL} virtual workers"
    elif plan.num_workers == 0:
        yield NO_WORKERS
    if twice := sorted({address for address in plan.workers if plan.workers.count(address) > 1}):
        yield f"workers named twice: {', '.join(twice)}; name each once"
    if plan.cohort_size is not None and not 1 <= plan.cohort_size <= max(1, plan.num_workers):
        yield (
            f"cohort_size is {plan.cohort_size}: expected 1 to {plan.num_workers}, "
            "the number of workers"
        )
    most = plan.cohort_size or max(1, plan.num_workers)
    if plan.min_updates is not None and not 1 <= plan.min_updates <= most:
        yield (
            f"min_updates is {plan.min_updates}: no round could reach it; "
            f"expected 1 to {most}, the size of a cohort"
        )


def _length_problems(plan: Plan) -> Iterator[str]:
    for one, other in (("rounds", "epochs"), ("federate_after_n_batches", "local_epochs")):
        values = getattr(plan, one), getattr(plan, other)
        if None not in values:
            yield f"{one} is {values[0]} and {other} is {values[1]}: give one of them"
        for name, value in zip((one, other), values, strict=True):
            if value is not None and value < 1:
                yield f"{name} is {value}: expected 1 or more"


def _training_problems(plan: Plan) -> Iterator[str]:
    for name, size in (("batch_size", plan.batch_size), ("test_batch_size", plan.test_batch_size)):
        if size < 1:
            yield f"{name} is {size}: a batch has at least 1 example"
    if not 0 < plan.lr < math.inf:
        yield f"lr is {plan.lr}: expected a finite learning rate above 0, such as 0.01"
    if not 0 <= plan.momentum < 1:
        yield f"momentum is {plan.momentum}: expected 0 or more, and below 1"
    if plan.momentum and plan.optimizer is not Optimizer.SGD:
        yield f"momentum is {plan.momentum}, which {plan.optimizer} does not take: use sgd or 0"
    if plan.nesterov and (plan.momentum == 0 or plan.optimizer is not Optimizer.SGD):
        yield "nesterov needs sgd with a momentum above 0: give one, such as 0.9"
    if not 0 <= plan.weight_decay < math.inf:
        yield f"weight_decay is {plan.weight_decay}: expected a finite value, 0 or more"
    if not 0 <= plan.holdout < 1:
        yield f"holdout is {plan.holdout}: expected a share of the examples, 0 or more and below 1"
