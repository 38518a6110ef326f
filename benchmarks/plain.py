"""Federated averaging in plain PyTorch, one worker after the other: what times are compared to.

Shares no code with the project, only the procedure: its own loop and average, and `torch.optim`.
Whether the results are the same is another question, which benchmarks.seed answers.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

Shard = tuple[Tensor, Tensor]


@dataclass(frozen=True)
class PlainRun:
    round_seconds: list[float]
    """Training and averaging of each round."""
    round_cpu_seconds: list[float]


def train(
    net: nn.Module,
    shards: dict[str, Shard],
    loss: Callable[[Tensor, Tensor], Tensor],
    *,
    batch_size: int,
    batches_per_round: int,
    lr: float,
) -> PlainRun:
    """Each round, every worker trains some batches from the global model; then they are averaged.

    Args:
        shards: each worker's examples, by its id; passed once.
    """
    seconds, cpu_seconds = [], []
    orders = [torch.randperm(len(x)) for x, _ in shards.values()]
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
    return PlainRun(seconds, cpu_seconds)
