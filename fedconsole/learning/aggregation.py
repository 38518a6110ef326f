"""Turns the update files of one round into the next global model.

Federated averaging (McMahan et al., 2017, arXiv 1602.05629): a worker counts in proportion to the
examples it trained on, or each the same. Piece by piece and in worker-id order: the result does
not depend on who answered first, and memory does not grow with the model or with the workers.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from fedconsole.learning.model_files import (
    PIECE,
    ModelFile,
    WrittenModel,
    bytes_of,
    pieces,
    write_model,
)
from pi_daemon.learning.graph import TORCH_DTYPES
from pi_daemon.protocol.errors import TensorError
from pi_daemon.protocol.tensors import TensorSpec, require_specs


@dataclass(frozen=True, slots=True)
class WeightedUpdate:
    """One worker's share of the next model."""

    worker_id: str
    weight: int
    """Examples trained on, or 1 for each worker. At least 1."""
    path: Path


def require_fit(path: Path, expected: Mapping[str, TensorSpec], sha256: str | None = None) -> None:
    """Check an update's file on arrival, before the round counts it.

    Args:
        sha256: what the file's hash must be; None if it needs no check.

    Raises:
        TensorError: malformed, names, dtypes or shapes differ from `expected`, a value is NaN or
            infinite, or the file has another hash.
    """
    update = ModelFile.open(path)
    require_specs(update.table.specs, expected)
    digest = hashlib.sha256(update.header())
    for names, values in update.runs():
        if sha256 is not None:
            digest.update(bytes_of(values))
        if not _is_finite(values):
            name = next(name for name in names if not _is_finite(update.tensor(name)))
            raise TensorError(f"tensor {name!r} holds NaN or infinity")
    if sha256 not in (None, digest.hexdigest()):
        raise TensorError("the SHA-256 of the bytes is not the one that was announced")


def _is_finite(values: Tensor) -> bool:
    if not values.is_floating_point():
        return True
    # A finite sum proves finite values in one pass; an infinite one may be mere overflow.
    if math.isfinite(values.sum().item()):
        return True
    return bool(torch.isfinite(values).all())


def federated_average(
    target: Path, global_model: ModelFile, updates: Sequence[WeightedUpdate]
) -> WrittenModel:
    """Average updates that passed `require_fit` and write the next model to `target`.

    Tensors of the global model that no update brings (buffers that training does not change) stay
    as they are. Integer buffers, such as batch norm's step counter, are rounded.

    Raises:
        ValueError: `updates` is empty.
        TensorError: an update's file has changed since.
        OSError: `target` cannot be written; it is left as it was.
    """
    if not updates:
        raise ValueError("no updates to average")
    ordered = sorted(updates, key=lambda update: update.worker_id)
    weighted = [(ModelFile.open(update.path), update.weight) for update in ordered]
    returned = weighted[0][0].table.specs
    # Made once: fresh memory costs more than what is done with it.
    room = torch.empty(PIECE, dtype=torch.float64)

    def values(name: str) -> Iterator[Tensor]:
        spec = global_model.table.specs[name]
        for begin, end in pieces(spec.num_values):
            if name in returned:
                piece = torch.empty(end - begin, dtype=TORCH_DTYPES[spec.dtype])
                yield _mean(weighted, name, begin, piece, room)
            else:
                yield global_model.piece(name, begin, end)

    return write_model(target, global_model.table.specs, values)


def _mean(
    weighted: Sequence[tuple[ModelFile, int]], name: str, begin: int, piece: Tensor, room: Tensor
) -> Tensor:
    """Fill a piece of a tensor with the weighted mean, summed in float64 in the given order."""
    total = room[: len(piece)].zero_()
    for file, weight in weighted:
        total.add_(file.read(name, begin, piece), alpha=weight)
    total.div_(float(sum(weight for _, weight in weighted)))
    # Integers round to the nearest; a bare cast would cut off.
    return piece.copy_(total if piece.is_floating_point() else total.round_())
