"""Turns the update files of one round into the next global model.

Federated averaging (McMahan et al., 2017, arXiv 1602.05629): a worker counts in proportion to the
examples it trained on, or each the same. Piece by piece and in worker-id order: the result does
not depend on who answered first, and memory does not grow with the model or with the workers.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import torch
from torch import Tensor

from fedconsole.learning.contents import WrittenModel
from fedconsole.learning.model_files import (
    PIECE,
    ModelFile,
    pieces,
    write_model,
)
from fedconsole.paths import require_regular
from pi_daemon.learning.graph import TORCH_DTYPES
from pi_daemon.protocol.errors import TensorError, TransferError
from pi_daemon.protocol.tensors import TensorSpec, require_specs

MAX_GROWTH: Final = 1000.0
"""Of the parameters in one round."""


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
        TransferError: the file has another hash; nothing is said of what is in it then.
        TensorError: malformed, names, dtypes or shapes differ from `expected`, or a value is NaN or
            infinite.
        OSError: it cannot be read.
    """
    require_regular(path)
    if sha256 is not None:
        with path.open("rb") as file:
            if hashlib.file_digest(file, "sha256").hexdigest() != sha256:
                raise TransferError("the SHA-256 of the bytes is not the one that was announced")
    update = ModelFile.open(path)
    require_specs(update.table.specs, expected)
    for names, values in update.runs():
        if not _is_finite(values):
            name = next(name for name in names if not _is_finite(update.tensor(name)))
            raise TensorError(f"tensor {name!r} holds NaN or infinity")


def _is_finite(values: Tensor) -> bool:
    if not values.is_floating_point():
        return True
    # A finite sum proves finite values in one pass; an infinite one may be mere overflow.
    if math.isfinite(values.sum().item()):
        return True
    return bool(torch.isfinite(values).all())


def require_size(path: Path, global_model: Path, parameters: Collection[str]) -> None:
    """Check that an update is no blow-up of the model that its training began with.

    The bound is wide: it stops what would drown all other updates, not what is merely odd. Statistics
    of batch norm are left out, as they are as large as the data.

    Raises:
        TensorError: the root mean square of its parameters is over `MAX_GROWTH` times that of the
            model's, or times 1 where the model's is smaller.
    """
    found = _root_mean_square(path, parameters)
    most = MAX_GROWTH * max(1.0, _root_mean_square(global_model, parameters))
    if not found <= most:
        raise TensorError(
            f"its parameters are too large: their root mean square is {found:.3g}, "
            f"at most {most:.3g} allowed"
        )


def _root_mean_square(path: Path, names: Collection[str]) -> float:
    file = ModelFile.open(path)
    total, num_values = 0.0, 0
    for name in names:
        size = file.table.specs[name].num_values
        for begin, end in pieces(size):
            values = file.piece(name, begin, end)
            total += torch.linalg.vector_norm(values, dtype=torch.float64).item() ** 2
        num_values += size
    return math.sqrt(total / num_values) if num_values else 0.0


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
