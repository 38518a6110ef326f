"""Evaluates a model on examples: its mean loss, and which classes it takes for which."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from pi_daemon.learning.graph import CompiledGraph


@dataclass(frozen=True, slots=True)
class Evaluation:
    loss: float | None
    """Mean over the examples; None when it is not finite."""
    num_examples: int
    confusion: tuple[tuple[int, ...], ...] | None
    """Row: true class, column: predicted class; None when the targets are no classes."""


@torch.no_grad()
def evaluate(
    program: CompiledGraph,
    parameters: Mapping[str, Tensor],
    buffers: Mapping[str, Tensor],
    x: Tensor,
    y: Tensor,
    *,
    batch_size: int,
    num_classes: int | None,
    on_batch: Callable[[], None] = lambda: None,
) -> Evaluation:
    """Run the evaluation graph over all examples, a last small batch included.

    The device is that of the parameters; `x` and `y` may lie elsewhere.

    Raises:
        ValueError: the output has not one column for each class.
    """
    device = next(iter(parameters.values())).device
    total_loss = 0.0
    pairs = torch.zeros((num_classes or 0) ** 2, dtype=torch.int64)
    for first in range(0, len(x), batch_size):
        targets = y[first : first + batch_size]
        loss, output = program.run(
            parameters, buffers, x[first : first + batch_size].to(device), targets.to(device)
        )
        total_loss += loss.item() * len(targets)
        if num_classes is not None:
            if output.shape != (len(targets), num_classes):
                raise ValueError(
                    f"the output has the shape {tuple(output.shape)}, "
                    f"expected {(len(targets), num_classes)}: one column for each class"
                )
            predicted = output.argmax(1).cpu()
            pairs += torch.bincount(targets * num_classes + predicted, minlength=len(pairs))
        on_batch()
    mean = total_loss / len(x) if len(x) else math.nan
    confusion = None
    if num_classes is not None:
        confusion = tuple(map(tuple, pairs.view(num_classes, num_classes).tolist()))
    return Evaluation(mean if math.isfinite(mean) else None, len(x), confusion)
