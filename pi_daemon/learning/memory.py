"""Says how much memory a model would need, before any of it is used: the graph runs on meta tensors,
which have shapes and no elements.

The first call imports torch's shape machinery (about 0.4 s and 50 MB on a desktop; with torch's compiler
1.6 s and 160 MB), so a small device calls this in a child process.
"""

from __future__ import annotations

import math
import weakref
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from pi_daemon.learning.graph import TORCH_DTYPES, CompiledGraph
from pi_daemon.learning.optimizers import state_copies
from pi_daemon.protocol.graphs import GraphError, ModelGraphs, NamedTensor, OptimizerSpec


class GraphTooLargeError(GraphError):
    """The model needs more memory than this device gives it."""


def training_peak_bytes(
    graphs: ModelGraphs, optimizer: OptimizerSpec, batch_size: int, limit_bytes: int
) -> int:
    """The most bytes that tensors hold during a training step: parameters, buffers, optimizer state,
    activations and gradients. Scratch memory inside of operators comes on top.

    A graph can make its sizes depend on the batch in any way: ask for every batch size that will run.

    Raises:
        GraphTooLargeError: more than `limit_bytes`.
        GraphError, GraphRunError: the graph does not run on such batches.
    """
    meter = _Meter(limit_bytes)
    meter.hold(state_copies(optimizer) * sum(p.spec.num_bytes for p in graphs.parameters))
    parameters, buffers, x, y = _place(graphs, batch_size, meter)
    for parameter in parameters.values():
        parameter.requires_grad_()
    with meter:
        loss, _ = CompiledGraph(graphs.training, "meta").run(parameters, buffers, x, y)
        if not loss.requires_grad:
            raise GraphError("the loss does not depend on any parameter: there is nothing to train")
        loss.backward()  # type: ignore[no-untyped-call]
    # Adam computes a square and a denominator of one parameter at a time.
    meter.hold(2 * max(p.spec.num_bytes for p in graphs.parameters))
    return meter.peak_bytes


def evaluation_peak_bytes(graphs: ModelGraphs, batch_size: int, limit_bytes: int) -> int:
    """As `training_peak_bytes`, for one batch of evaluation."""
    meter = _Meter(limit_bytes)
    arguments = _place(graphs, batch_size, meter)
    with meter, torch.no_grad():
        CompiledGraph(graphs.evaluation, "meta").run(*arguments)
    return meter.peak_bytes


def _place(
    graphs: ModelGraphs, batch_size: int, meter: _Meter
) -> tuple[dict[str, Tensor], dict[str, Tensor], Tensor, Tensor]:
    """What `CompiledGraph.run` takes, without elements but metered."""

    def empty(tensor: NamedTensor, *leading: int) -> Tensor:
        spec = tensor.spec
        meter.hold(math.prod(leading) * spec.num_bytes)
        return torch.empty((*leading, *spec.shape), dtype=TORCH_DTYPES[spec.dtype], device="meta")

    return (
        {spec.name: empty(spec) for spec in graphs.parameters},
        {spec.name: empty(spec) for spec in graphs.buffers},
        empty(graphs.sample, batch_size),
        empty(graphs.target, batch_size),
    )


class _Meter(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Follows the bytes of all tensors that are made, and of those that are given up again."""

    def __init__(self, limit_bytes: int) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._limit_bytes = limit_bytes
        self._held_bytes = 0
        self._storages: set[int] = set()
        self.peak_bytes = 0

    def hold(self, num_bytes: int) -> None:
        self._held_bytes += num_bytes
        self.peak_bytes = max(self.peak_bytes, self._held_bytes)
        self._require(self._held_bytes)

    def __torch_dispatch__(
        self,
        func: Callable[..., Any],
        types: object,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(result):
            if isinstance(leaf, Tensor):
                self._follow(leaf)
        return result

    def _follow(self, tensor: Tensor) -> None:
        # A view that repeats a small storage can be expanded into anything by the next operator.
        self._require(tensor.numel() * tensor.element_size())
        storage = tensor.untyped_storage()
        key, num_bytes = storage._cdata, storage.nbytes()
        if key not in self._storages:
            self._storages.add(key)
            weakref.finalize(storage, self._give_up, key, num_bytes)
            self.hold(num_bytes)

    def _give_up(self, key: int, num_bytes: int) -> None:
        self._storages.discard(key)
        self._held_bytes -= num_bytes

    def _require(self, num_bytes: int) -> None:
        if num_bytes > self._limit_bytes:
            raise GraphTooLargeError(
                f"the model needs {num_bytes / 2**20:,.0f} MiB, "
                f"this device gives it {self._limit_bytes / 2**20:,.0f} MiB: "
                "take a smaller batch or a smaller model"
            )
