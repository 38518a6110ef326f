"""What the engine's two kinds of workers share: the job that they do, and how they report.

A worker on a device is a `WorkerLink`; one on this machine is a `VirtualWorker`.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from fedconsole.coordinator.commands import SendRound, WorkerCommand
from fedconsole.coordinator.events import Event
from fedconsole.coordinator.plan import Plan
from fedconsole.engine.store import Row, RunStore
from fedconsole.errors import DamagedModelError, StorageError
from fedconsole.fleet.device import ONE_IDENTITY
from pi_daemon.protocol.graphs import OptimizerSpec
from pi_daemon.protocol.limits import MAX_TENSOR_HEADER_BYTES
from pi_daemon.protocol.messages import Evaluated, Hello, Prepared
from pi_daemon.protocol.operators import OPERATORS_DIGEST
from pi_daemon.protocol.seeds import derive_seed
from pi_daemon.protocol.tensors import TensorSpec
from pi_daemon.protocol.text import clean


class Refusal(Exception):
    """This worker cannot take part; only the operator can mend it."""


class EvaluationError(Exception):
    """This worker will send no evaluation of the model."""


@dataclass(frozen=True, slots=True)
class ModelOnDisk:
    """The run's newest global model."""

    path: Path
    model_id: str
    sha256: str
    """Of the file."""
    size: int


@dataclass(frozen=True, slots=True)
class Captured:
    """The task as it travels."""

    graphs: bytes
    graphs_sha256: str
    returned: Mapping[str, TensorSpec]
    """What an update must hold."""
    parameters: tuple[str, ...]
    """Those of its tensors that are no statistics of the data."""
    dataset: str
    sample_shape: tuple[int, ...]
    sample_dtype: str
    num_classes: int | None

    @property
    def max_update_bytes(self) -> int:
        """Of an update's file, its header included."""
        return MAX_TENSOR_HEADER_BYTES + sum(spec.num_bytes for spec in self.returned.values())


class Reports(Protocol):
    """Where workers tell what happened."""

    def event(self, event: Event) -> None:
        """Something that the machine must know."""

    def note(self, row: Row) -> None:
        """Something for the journal alone."""


@dataclass(slots=True)
class Job:
    """One run, as its workers see it."""

    run_id: str
    plan: Plan
    hello: Hello
    store: RunStore
    captured: asyncio.Future[Captured]
    names: asyncio.Future[None]
    """Done when `worker_ids` holds every device that was there at the start."""
    is_taken_up: bool = False
    """From another engine, which may have died before the machine's first event."""
    worker_ids: dict[str, str] = field(default_factory=dict)
    """Device id -> name in this run."""
    models: dict[str, ModelOnDisk] = field(default_factory=dict)
    """The run's newest global models, by their ids."""
    prepared: dict[str, Prepared] = field(default_factory=dict)
    """What each worker answered when it was made ready."""
    told: dict[str, tuple[int, int]] = field(default_factory=dict)
    """Worker -> the round whose losses an earlier engine was told last, and how many of them."""
    places: dict[str, tuple[str, str]] = field(default_factory=dict)
    """Device id -> the address that it was met at last, and its boot id then."""

    @property
    def optimizer(self) -> OptimizerSpec:
        plan = self.plan
        return OptimizerSpec(
            plan.optimizer.value, plan.lr, plan.momentum, plan.weight_decay, plan.nesterov
        )

    def order_seed(self, worker_id: str) -> int:
        """Decides the order of a worker's examples, epoch by epoch."""
        return derive_seed("order", self.plan.seed, worker_id)

    def claim(self, address: str, hello: Hello, before: str) -> None:
        """Note where a device was met.

        Args:
            before: where whoever met it had met it before; the same as `address` unless it has moved.

        Raises:
            Refusal: it is in the run already, at a third address.
        """
        there, boot_id = self.places.get(hello.id, (before, hello.boot_id))
        if there not in (address, before):
            if boot_id == hello.boot_id:
                raise Refusal(f"{address} is the same device as {there}; name it once")
            raise Refusal(ONE_IDENTITY.format(why=f"{address} and {there}"))
        self.places[hello.id] = address, hello.boot_id

    def name_of(self, hello: Hello) -> str:
        """A device's name in this run; devices of one name get a part of their id added."""
        if hello.id not in self.worker_ids:
            self.worker_ids |= unique_names({hello.id: hello.name}, self.worker_ids.values())
        return self.worker_ids[hello.id]

    def unreadable(self, error: OSError) -> StorageError:
        """What ends the engine where the run's own files are gone; DamagedModelError if one is, and nothing
        of the run has deleted it."""
        mend = f"fedconsole resume {self.run_id}"
        if isinstance(error, FileNotFoundError):
            return DamagedModelError(
                f"cannot go on: {error.filename} is gone; what is lost with it is trained again: {mend}"
            )
        return StorageError(
            f"cannot go on: cannot read {error.filename}: {error.strerror}; when that is mended: {mend}"
        )

    def torch_seed(self, command: SendRound) -> int:
        """Of torch's generator in a worker's round; the attempt does not count."""
        return derive_seed("torch", self.plan.seed, command.worker, command.round)


class Worker(Protocol):
    """One participant of a run."""

    address: str
    worker_id: str

    @property
    def bytes_sent(self) -> int: ...

    @property
    def bytes_received(self) -> int: ...

    async def run(self) -> None:
        """Take part until `close`; report every loss and every return."""

    def send(self, command: WorkerCommand) -> None:
        """Carry out one of the machine's commands; what comes of it is reported."""

    async def evaluate(self, round_number: int, model_id: str) -> Evaluated:
        """Evaluate one of the run's models on the worker's holdout.

        Raises:
            EvaluationError: the worker is lost, or could not.
        """

    async def close(self) -> None:
        """Release what the worker holds for this run."""


def unique_names(names: Mapping[str, str], taken: Collection[str] = ()) -> dict[str, str]:
    """Names for devices that no other device of the run has.

    Args:
        names: device id -> the name that the device gives itself.
        taken: names that are in use.

    Returns:
        Device id -> name. A name that two devices give, or that is taken, gets the start of the
        device id added: the result does not depend on who came first.
    """
    cleaned = {device: clean(name, 64) or "worker" for device, name in names.items()}
    count = Counter(cleaned.values())
    count.update(taken)
    return {
        device: name if count[name] == 1 else f"{name}-{device[:4].lower()}"
        for device, name in cleaned.items()
    }


def require_suitable(hello: Hello, captured: Captured, job: Job) -> None:
    """Check what a device tells of itself against the task, before anything is sent to it.

    Raises:
        Refusal: it could not train this model on its data.
    """
    capabilities = hello.capabilities
    if capabilities is None:
        raise Refusal("it does not say what it can do: its hello has no capabilities")
    if capabilities.operators not in (None, OPERATORS_DIGEST):
        raise Refusal(
            f"it runs other tensor operators than this console ({clean(hello.build)} there, "
            f"{job.hello.build} here): install the same version on both"
        )
    size = max(model.size for model in job.models.values())
    if size > capabilities.max_model_bytes:
        raise Refusal(
            f"the model has {size} bytes, its owner allows "
            f"{capabilities.max_model_bytes}: see pi-daemon --max-model"
        )
    cards = {card.name: card for card in hello.datasets}
    card = cards.get(captured.dataset)
    if card is None:
        has = ", ".join(clean(name) for name in cards) or "none"
        raise Refusal(
            f"it has no dataset {captured.dataset!r} (it has: {has}): "
            f"start it with pi-daemon --dataset {captured.dataset}=SOURCE"
        )
    found = (card.sample_shape, card.sample_dtype, card.num_classes)
    expected = (captured.sample_shape, captured.sample_dtype, captured.num_classes)
    for what, have, want in zip(("shape", "dtype", "classes"), found, expected, strict=True):
        if have != want and not (what == "classes" and _fits(have, want)):
            raise Refusal(
                f"its dataset {captured.dataset!r} has {what} {have}, the task takes {want}"
            )


def require_classes(found: Evaluated, num_classes: int | None) -> None:
    """Raises EvaluationError: its confusion matrix is not one of the task's classes."""
    num = num_classes or 0
    if found.confusion is not None and [len(row) for row in found.confusion] != [num] * num:
        raise EvaluationError(f"its confusion matrix is not one of {num} classes")


def _fits(have: object, want: object) -> bool:
    """A shard need not hold an example of every class."""
    return isinstance(have, int) and isinstance(want, int) and have <= want
