from __future__ import annotations

import subprocess
import sys

import pytest
import torch
from torch import Tensor

from pi_daemon.learning.optimizers import make_optimizer, state_copies
from pi_daemon.protocol.graphs import OptimizerSpec

torch.set_num_threads(1)

SPECS = [
    OptimizerSpec("sgd", lr=0.1),
    OptimizerSpec("sgd", lr=0.1, weight_decay=0.01),
    OptimizerSpec("sgd", lr=0.1, momentum=0.9),
    OptimizerSpec("sgd", lr=0.1, momentum=0.9, weight_decay=0.01, nesterov=True),
    OptimizerSpec("adam", lr=0.01),
    OptimizerSpec("adam", lr=0.01, weight_decay=0.1),
    OptimizerSpec("adamw", lr=0.01),
    OptimizerSpec("adamw", lr=0.01, weight_decay=0.1),
]


def fresh_parameters() -> list[Tensor]:
    torch.manual_seed(0)
    return [torch.randn(7, 5, requires_grad=True), torch.randn(33, requires_grad=True)]


def reference(spec: OptimizerSpec, parameters: list[Tensor]) -> torch.optim.Optimizer:
    match spec.name:
        case "sgd":
            return torch.optim.SGD(
                parameters,
                lr=spec.lr,
                momentum=spec.momentum,
                weight_decay=spec.weight_decay,
                nesterov=spec.nesterov,
            )
        case "adam":
            return torch.optim.Adam(parameters, lr=spec.lr, weight_decay=spec.weight_decay)
        case "adamw":
            return torch.optim.AdamW(parameters, lr=spec.lr, weight_decay=spec.weight_decay)


@pytest.mark.parametrize("spec", SPECS, ids=str)
def test_forty_steps_equal_those_of_torch_to_the_last_bit(spec: OptimizerSpec) -> None:
    ours, theirs = fresh_parameters(), fresh_parameters()
    optimizer, expected = make_optimizer(spec, ours), reference(spec, theirs)
    for step in range(40):
        for mine, other in zip(ours, theirs, strict=True):
            # Every third step leaves the second parameter without a gradient.
            gradient = None if mine.dim() == 1 and step % 3 == 0 else torch.randn_like(mine)
            mine.grad = other.grad = gradient
        optimizer.step()
        expected.step()
        expected.zero_grad()
    assert [t.tolist() for t in ours] == [t.tolist() for t in theirs]
    assert [t.grad for t in ours] == [None, None]


def test_the_state_that_memory_is_reserved_for() -> None:
    assert [state_copies(spec) for spec in SPECS] == [0, 0, 1, 1, 2, 2, 2, 2]


def test_no_optimizer_imports_torchs_compiler() -> None:
    script = """
import sys, torch
from pi_daemon.learning.optimizers import make_optimizer
from pi_daemon.protocol.graphs import OptimizerSpec
for name in ("sgd", "adam", "adamw"):
    tensor = torch.ones(3, requires_grad=True)
    tensor.grad = torch.ones(3)
    make_optimizer(OptimizerSpec(name, lr=0.1), [tensor]).step()
print("torch._dynamo" in sys.modules, "sympy" in sys.modules)
"""
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert done.stdout == "False False\n"
