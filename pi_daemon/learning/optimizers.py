"""The optimizers of `torch.optim`, without its classes: their first step imports torch's compiler,
which costs a second and 150 MB. The functions behind them do not.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

import torch
from torch import Tensor
from torch.optim.adam import adam
from torch.optim.sgd import sgd

from pi_daemon.protocol.graphs import OptimizerSpec


class Optimizer(Protocol):
    def step(self) -> None:
        """Apply the gradients in `.grad` and clear them; tensors without one stay as they are."""


def make_optimizer(spec: OptimizerSpec, parameters: Iterable[Tensor]) -> Optimizer:
    """An optimizer without a past, equal to `torch.optim`'s on the CPU to the last bit."""
    return _Sgd(spec, parameters) if spec.name == "sgd" else _Adam(spec, parameters)


def state_copies(spec: OptimizerSpec) -> int:
    """How many tensors of its own size each parameter needs beside it from the first step on."""
    match spec.name:
        case "sgd":
            return 1 if spec.momentum else 0
        case "adam" | "adamw":
            return 2


class _Sgd:
    def __init__(self, spec: OptimizerSpec, parameters: Iterable[Tensor]) -> None:
        self._spec = spec
        self._parameters = list(parameters)
        self._momenta: dict[int, Tensor | None] = dict.fromkeys(range(len(self._parameters)))

    @torch.no_grad()
    def step(self) -> None:
        indices, tensors, gradients = _with_gradients(self._parameters)
        momenta = [self._momenta[index] for index in indices]
        sgd(
            tensors,
            gradients,
            momenta,
            foreach=False,
            lr=self._spec.lr,
            momentum=self._spec.momentum,
            weight_decay=self._spec.weight_decay,
            nesterov=self._spec.nesterov,
            dampening=0.0,
            maximize=False,
        )
        self._momenta.update(zip(indices, momenta, strict=True))


class _Adam:
    def __init__(self, spec: OptimizerSpec, parameters: Iterable[Tensor]) -> None:
        self._spec = spec
        self._parameters = list(parameters)
        self._means = [torch.zeros_like(p, requires_grad=False) for p in self._parameters]
        self._squares = [torch.zeros_like(p, requires_grad=False) for p in self._parameters]
        self._steps = [torch.tensor(0.0) for _ in self._parameters]

    @torch.no_grad()
    def step(self) -> None:
        indices, tensors, gradients = _with_gradients(self._parameters)
        adam(
            tensors,
            gradients,
            [self._means[index] for index in indices],
            [self._squares[index] for index in indices],
            [],
            [self._steps[index] for index in indices],
            foreach=False,
            lr=self._spec.lr,
            weight_decay=self._spec.weight_decay,
            decoupled_weight_decay=self._spec.name == "adamw",
            beta1=0.9,
            beta2=0.999,
            eps=1e-8,
            amsgrad=False,
            maximize=False,
        )


def _with_gradients(parameters: list[Tensor]) -> tuple[list[int], list[Tensor], list[Tensor]]:
    """The numbers, tensors and gradients of the parameters that have one; clears the gradients."""
    found = [(i, p, p.grad) for i, p in enumerate(parameters) if p.grad is not None]
    for _, tensor, _ in found:
        tensor.grad = None
    return [i for i, _, _ in found], [p for _, p, _ in found], [g for _, _, g in found]
