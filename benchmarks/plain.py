"""Federated averaging in plain PyTorch, one worker after the other: what every figure is compared to.

Shares no code with the project, only the procedure: its own loop, average and `torch.optim`, and the
seeds of docs/protocol.md, so that every worker sees its examples in the same order.
"""

from __future__ import annotations

import copy
import hashlib
import json
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

Shard = tuple[Tensor, Tensor]


@dataclass(frozen=True)
class PlainRun:
    accuracies: list[float]
    """After each epoch."""
    round_seconds: list[float]
    """Training and averaging of each round, evaluation apart."""
    round_cpu_seconds: list[float]
    num_steps: int


def train(
    net: nn.Module,
    shards: dict[str, Shard],
    loss: Callable[[Tensor, Tensor], Tensor],
    test: Shard,
    *,
    epochs: int,
    batch_size: int,
    batches_per_round: int,
    lr: float,
    seed: int = 1,
) -> PlainRun:
    """Each round, every worker trains some batches from the global model; then they are averaged.

    Args:
        shards: each worker's examples, by its id.
    """
    accuracies, seconds, cpu_seconds, num_steps = [], [], [], 0
    for epoch in range(epochs):
        orders = [
            _order(_derive("order", _derive("order", seed, worker), epoch), len(x))
            for worker, (x, _) in shards.items()
        ]
        num_batches = max(-(-len(x) // batch_size) for x, _ in shards.values())
        for first in range(0, num_batches, batches_per_round):
            start, start_cpu = time.perf_counter(), time.process_time()
            updates, weights = [], []
            for (x, y), order in zip(shards.values(), orders, strict=True):
                local = copy.deepcopy(net).train()
                optimizer = torch.optim.SGD(local.parameters(), lr=lr)
                num_examples = 0
                for batch in range(first, min(first + batches_per_round, num_batches)):
                    rows = order[batch * batch_size : (batch + 1) * batch_size]
                    optimizer.zero_grad()
                    loss(local(x[rows]), y[rows]).backward()
                    optimizer.step()
                    num_examples += len(rows)
                    num_steps += 1
                updates.append(local.state_dict())
                weights.append(num_examples)
            net.load_state_dict(
                {
                    name: sum(u[name].double() * w for u, w in zip(updates, weights, strict=True))
                    / sum(weights)
                    for name in updates[0]
                }
            )
            seconds.append(time.perf_counter() - start)
            cpu_seconds.append(time.process_time() - start_cpu)
        accuracies.append(accuracy(net, test))
    return PlainRun(accuracies, seconds, cpu_seconds, num_steps)


def _derive(*parts: str | int) -> int:
    text = json.dumps(parts, separators=(",", ":"))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def _order(seed: int, size: int) -> Tensor:
    return torch.randperm(size, generator=torch.Generator().manual_seed(seed))


@torch.no_grad()
def accuracy(net: nn.Module, test: Shard) -> float:
    net.eval()
    x, y = test
    right = sum(
        int((net(x[first : first + 1000]).argmax(1) == y[first : first + 1000]).sum())
        for first in range(0, len(x), 1000)
    )
    return right / len(x)
