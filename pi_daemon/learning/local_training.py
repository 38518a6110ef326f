"""Trains a model on a worker's own examples, batch by batch, in an order that the run's seed fixes."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from pi_daemon.learning.graph import CompiledGraph
from pi_daemon.learning.optimizers import make_optimizer
from pi_daemon.protocol.batching import batches_per_epoch
from pi_daemon.protocol.graphs import OptimizerSpec
from pi_daemon.protocol.messages import Cursor
from pi_daemon.protocol.seeds import derive_seed


def order(order_seed: int, epoch: int, num_examples: int) -> Tensor:
    """The order of a worker's training examples in one epoch: int64 indices, each once."""
    return _permutation(derive_seed("order", order_seed, epoch), num_examples)


def split_holdout(sha256: str, num_examples: int, holdout: float) -> tuple[Tensor, Tensor]:
    """Ascending rows for training and, `holdout` of all, for evaluation.

    Fixed by the data's hash and not by a run's seed: what was held out once stays unseen in later
    runs that go on from an earlier model.
    """
    shuffled = _permutation(derive_seed("holdout", sha256), num_examples)
    num_held_out = math.floor(num_examples * holdout + 0.5)
    return shuffled[num_held_out:].sort().values, shuffled[:num_held_out].sort().values


def _permutation(seed: int, size: int) -> Tensor:
    return torch.randperm(size, generator=torch.Generator().manual_seed(seed))


@dataclass(frozen=True, slots=True)
class Examples:
    """What one worker trains on: some rows of arrays that it may share with other workers."""

    x: Tensor
    """Samples in their stored dtype."""
    y: Tensor
    rows: Tensor
    """int64, in the order that `order` permutes."""

    def zeros(self, limit: int) -> Examples:
        """As many, but at most so many, of the same kind that hold nothing of these."""
        num = min(limit, len(self.rows))
        x, y = (a.new_zeros((num, *a.shape[1:])) for a in (self.x, self.y))
        return Examples(x, y, torch.arange(num))

    def take(self, indices: Tensor, device: torch.device) -> tuple[Tensor, Tensor]:
        rows = self.rows[indices]
        return self.x[rows].to(device), self.y[rows].to(device)


class LocalTraining:
    """One round of one worker; `step` trains one batch.

    Between `suspend` and `proceed` others may draw from torch's generator: the round's own draws
    do not depend on it.
    """

    def __init__(
        self,
        program: CompiledGraph,
        parameters: Mapping[str, Tensor],
        buffers: Mapping[str, Tensor],
        examples: Examples,
        *,
        batch_size: int,
        optimizer: OptimizerSpec,
        order_seed: int,
        torch_seed: int,
        cursor: Cursor,
        device: torch.device | str = "cpu",
    ) -> None:
        """Take copies of the tensors, so that the caller's stay as they are.

        Raises:
            ValueError: the cursor is beyond the end of its epoch, or no batch can be made.
        """
        per_epoch = batches_per_epoch(len(examples.rows), batch_size)
        if cursor.batch >= per_epoch:
            raise ValueError(
                f"cursor at batch {cursor.batch}, but {len(examples.rows)} examples make "
                f"{per_epoch} batches of {batch_size}"
            )
        self._program = program
        self._examples = examples
        self._batch_size = batch_size
        self._order_seed = order_seed
        self._batches_per_epoch = per_epoch
        self._device = torch.device(device)
        # Copies, because memory of a mapped file lies at other alignments, and with them the last
        # bits of some sums change.
        self.parameters = {
            name: _copy(tensor, self._device).requires_grad_()
            for name, tensor in parameters.items()
        }
        self.buffers = {name: _copy(tensor, self._device) for name, tensor in buffers.items()}
        self._optimizer = make_optimizer(optimizer, self.parameters.values())
        self._order: tuple[int, Tensor] | None = None
        self.cursor = cursor
        """The batch that `step` trains next; runs on over the end of an epoch."""
        self.num_examples = 0
        """Trained on so far, repeats counted."""
        _seed(torch_seed, self._device)
        self._generator: list[Tensor] = []

    def step(self) -> float | None:
        """Train one batch and give its mean loss; None when it is not finite."""
        epoch, batch = self.cursor.epoch, self.cursor.batch
        if self._order is None or self._order[0] != epoch:
            self._order = epoch, order(self._order_seed, epoch, len(self._examples.rows))
        first = batch * self._batch_size
        indices = self._order[1][first : first + self._batch_size]
        x, y = self._examples.take(indices, self._device)
        loss, _ = self._program.run(self.parameters, self.buffers, x, y)
        loss.backward()  # type: ignore[no-untyped-call]
        self._optimizer.step()
        self.num_examples += len(indices)
        is_last = batch + 1 == self._batches_per_epoch
        self.cursor = Cursor(epoch + 1, 0) if is_last else Cursor(epoch, batch + 1)
        value = loss.item()
        return value if math.isfinite(value) else None

    def suspend(self) -> None:
        self._generator = [torch.get_rng_state()]
        if self._device.type == "cuda":
            self._generator.append(torch.cuda.get_rng_state(self._device))

    def proceed(self) -> None:
        """Go on after `suspend`."""
        torch.set_rng_state(self._generator[0])
        if self._device.type == "cuda":
            torch.cuda.set_rng_state(self._generator[1], self._device)


def _seed(seed: int, device: torch.device) -> None:
    # Not `torch.manual_seed`: it prepares every kind of device there is, which takes 0.4 ms.
    torch.default_generator.manual_seed(seed)
    if device.type == "cuda":
        torch.cuda.manual_seed(seed)


def _copy(tensor: Tensor, device: torch.device) -> Tensor:
    return tensor.detach().to(device, copy=True)
