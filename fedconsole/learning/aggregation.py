"""Turns the update files of one round into the next global model.

Federated averaging (McMahan et al., 2017, arXiv 1602.05629): a worker counts in proportion to the
examples it trained on, or each the same. Tensor by tensor and in worker-id order: the result does
not depend on who answered first, and memory stays at a few times the largest tensor.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from fedconsole.learning.model_files import ModelFile, write_model
from pi_daemon.protocol.errors import TensorError
from pi_daemon.protocol.tensors import TensorSpec, require_specs

_CHUNK = 1 << 16
"""Values averaged at a time: their float64 sum (512 kB) stays in a core's own cache."""


@dataclass(frozen=True, slots=True)
class WeightedUpdate:
    """One worker's share of the next model."""

    worker_id: str
    weight: int
    """Examples trained on, or 1 for each worker. At least 1."""
    path: Path


def require_fit(path: Path, expected: Mapping[str, TensorSpec]) -> None:
    """Check an update's file on arrival, before the round counts it.

    Raises:
        TensorError: malformed, names, dtypes or shapes differ from `expected`, or a value is NaN or
            infinite.
    """
    update = ModelFile.open(path)
    require_specs(update.table.specs, expected)
    for name in expected:
        if not _is_finite(update.tensor(name)):
            raise TensorError(f"tensor {name!r} holds NaN or infinity")


def _is_finite(values: Tensor) -> bool:
    if not values.is_floating_point():
        return True
    # A finite sum proves finite values in one pass; an infinite one may be mere overflow.
    if bool(torch.isfinite(values.sum())):
        return True
    return bool(torch.isfinite(values).all())


def federated_average(
    target: Path, global_model: ModelFile, updates: Sequence[WeightedUpdate]
) -> None:
    """Average updates that passed `require_fit` and write the next model to `target`.

    Tensors of the global model that no update brings (buffers that training does not change) stay
    as they are. Integer buffers, such as batch norm's step counter, are rounded.

    Raises:
        ValueError: `updates` is empty.
        OSError: `target` cannot be written; it is left as it was.
    """
    if not updates:
        raise ValueError("no updates to average")
    ordered = sorted(updates, key=lambda update: update.worker_id)
    files = [ModelFile.open(update.path) for update in ordered]
    weights = [update.weight for update in ordered]

    def averaged() -> Iterator[tuple[str, Tensor]]:
        for name in sorted(global_model.table.specs):
            if name in files[0].table.specs:
                yield name, _mean([file.tensor(name) for file in files], weights)
            else:
                yield name, global_model.tensor(name)

    write_model(target, global_model.table.specs, averaged())


def _mean(tensors: Sequence[Tensor], weights: Sequence[int]) -> Tensor:
    """Weighted mean of tensors of one shape and dtype, summed in float64 in the given order."""
    mean = torch.empty_like(tensors[0])
    out = mean.reshape(-1)
    flat = [tensor.reshape(-1) for tensor in tensors]
    total = torch.empty(min(_CHUNK, out.numel()), dtype=torch.float64)
    share = float(sum(weights))
    for begin in range(0, out.numel(), _CHUNK):
        sums = total[: min(_CHUNK, out.numel() - begin)].zero_()
        for values, weight in zip(flat, weights, strict=True):
            sums.add_(values[begin : begin + len(sums)], alpha=weight)
        sums.div_(share)
        # Integers round to the nearest; a bare cast would cut off.
        out[begin : begin + len(sums)] = sums if mean.is_floating_point() else sums.round_()
    return mean
