"""The old guide's procedure in plain PyTorch, function by function, and what it reaches on MNIST.

The functions have the guide's names (docs/from-pysyft.md) and share no code with the project, only the
seeds of docs/protocol.md, so that every worker sees its examples in the same order.
`python -m benchmarks.seed` runs the guide's command by three daemons and here, for some seeds.
"""

from __future__ import annotations

import asyncio
import copy
import hashlib
import json
import os
import platform
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, TypeVar

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from fedconsole.fleet.local import local_daemons
from fedconsole.learning.tasks.mnist import task as mnist
from pi_daemon.learning.idx import read_idx_pair

Batch = tuple[Tensor, Tensor]
"""Some examples and their classes; a worker's shard, too."""
Loss = Callable[[Tensor, Tensor], Tensor]
T = TypeVar("T")


@dataclass(frozen=True)
class GuideRun:
    net: nn.Module
    accuracies: list[float]
    """After each epoch."""
    losses: list[dict[str, list[float]]]
    """For each round and worker, those of its batches."""


def run_guide(
    net: nn.Module,
    loss: Loss,
    shards: Mapping[str, Batch],
    test_set: Batch,
    *,
    batch_size: int = 64,
    test_batch_size: int = 1000,
    epochs: int = 2,
    federate_after_n_batches: int = 50,
    lr: float = 0.01,
    seed: int = 1,
) -> GuideRun:
    """What the guide's `main` does once it has its workers, a model and the data.

    Args:
        net: trained in place.
        shards: by worker id, in the order of the ids.
    """
    run = GuideRun(net, [], [])
    for epoch in range(epochs):
        loader = {
            worker: shuffled(
                shard, batch_size, derive("order", derive("order", seed, worker), epoch)
            )
            for worker, shard in shards.items()
        }
        train(run, loss, loader, federate_after_n_batches, lr, seed)
        run.accuracies.append(test(net, test_set, test_batch_size))
    return run


def train(
    run: GuideRun,
    loss: Loss,
    loader: Mapping[str, Iterator[Batch]],
    federate_after_n_batches: int,
    lr: float,
    seed: int,
) -> None:
    """Rounds until the first worker has run out of data."""
    while all((batches := get_next_batches(loader, federate_after_n_batches)).values()):
        models, losses = {}, {}
        for worker in batches:
            torch.manual_seed(derive("torch", seed, worker, len(run.losses) + 1))
            models[worker] = copy.deepcopy(run.net)
            losses[worker] = train_on_batches(models[worker], loss, batches[worker], lr)
        run.net.load_state_dict(federated_avg(list(models.values())))
        run.losses.append(losses)


def get_next_batches(loader: Mapping[str, Iterator[T]], nr_batches: int) -> dict[str, list[T]]:
    """The same number for every worker: one that has run out ends the turn for all."""
    batches: dict[str, list[T]] = {worker: [] for worker in loader}
    with suppress(StopIteration):
        for _ in range(nr_batches):
            turn = {worker: next(iterator) for worker, iterator in loader.items()}
            for worker, batch in turn.items():
                batches[worker].append(batch)
    return batches


def train_on_batches(net: nn.Module, loss: Loss, batches: list[Batch], lr: float) -> list[float]:
    optimizer = torch.optim.SGD(net.parameters(), lr=lr)
    net.train()
    losses = []
    for data, target in batches:
        optimizer.zero_grad()
        batch_loss = loss(net(data), target)
        batch_loss.backward()
        optimizer.step()
        losses.append(batch_loss.item())
    return losses


def federated_avg(models: list[nn.Module]) -> dict[str, Tensor]:
    """The mean of all parameters, every worker alike; in float64, where the guide had float32."""
    states = [model.state_dict() for model in models]
    return {
        name: (sum(state[name].double() for state in states) / len(states)).to(tensor.dtype)
        for name, tensor in states[0].items()
    }


@torch.no_grad()
def test(net: nn.Module, test_set: Batch, test_batch_size: int) -> float:
    net.eval()
    batches = zip(*(part.split(test_batch_size) for part in test_set), strict=True)
    correct = sum(int((net(data).argmax(1) == target).sum()) for data, target in batches)
    return correct / len(test_set[0])


def shuffled(shard: Batch, batch_size: int, seed: int) -> Iterator[Batch]:
    """One epoch of a worker's `FederatedDataLoader`, but for a last batch of one example."""
    x, y = shard
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(seed))
    return ((x[rows], y[rows]) for rows in order.split(batch_size) if len(rows) > 1)


def derive(*parts: str | int) -> int:
    text = json.dumps(parts, separators=(",", ":"))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


# The guide's run on MNIST, by daemons and here

SEEDS = (1, 2, 3)
OLD_ACCURACIES = (0.9064, 0.9415)
"""Of PySyft 0.2.3 with the guide's defaults, measured once."""
COMMAND = [
    *("run", "--headless", "--json", "--task", "mnist", "--batch_size", "64"),
    *("--test_batch_size", "1000", "--epochs", "2", "--federate_after_n_batches", "50"),
    *("--lr", "0.01", "--weighting", "uniform", "--epoch-end", "first", "--eval-every", "epoch"),
]


def mnist_folder() -> Path:
    data = Path(os.environ.get("FEDCONSOLE_DATA", Path(__file__).parents[2] / "shared" / "data"))
    if not (data / "mnist").is_dir():
        sys.exit(
            f"skipped: MNIST is not in {data / 'mnist'}; name the folder above its four IDX files "
            "in FEDCONSOLE_DATA"
        )
    return data / "mnist"


def plain_run(folder: Path, seed: int) -> GuideRun:
    def prepared(part: str) -> Batch:
        x, y = read_idx_pair(folder, part)
        return mnist.prepare(torch.from_numpy(x)), torch.from_numpy(y)

    shards = zip(*(part.chunk(3) for part in prepared("train")), strict=True)
    torch.manual_seed(seed)
    net = mnist.build()
    workers = ("alice", "bob", "charlie")
    return run_guide(
        net, mnist.loss, dict(zip(workers, shards, strict=True)), prepared("t10k"), seed=seed
    )


async def daemons_run(folder: Path, seed: int) -> tuple[list[float], dict[str, Tensor]]:
    """Accuracies after each epoch, and the final parameters."""
    with TemporaryDirectory(prefix="fedconsole-seed-") as place:
        async with local_daemons(3, f"mnist={folder}") as addresses:
            options = [f"--worker={address}" for address in addresses]
            fedconsole = await asyncio.create_subprocess_exec(
                *(sys.executable, "-c", "from fedconsole.cli.main import main; main()"),
                *(*COMMAND, "--seed", str(seed), "--data-dir", str(folder), *options),
                stdout=asyncio.subprocess.PIPE,
                env=os.environ | {"XDG_STATE_HOME": place},
            )
            out, _ = await fedconsole.communicate()
        lines = [json.loads(text) for text in out.splitlines()]
        if fedconsole.returncode != 0:
            sys.exit(f"the run of seed {seed} ended with exit code {fedconsole.returncode}")
        accuracies = [line["accuracy"] for line in lines if line["type"] == "eval"]
        return accuracies, load_file(lines[-1]["model_path"])


def main() -> None:
    torch.set_num_threads(1)
    folder = mnist_folder()
    print("accuracy after epochs 1 and 2; the old system had " + _percent(OLD_ACCURACIES))
    figures: dict[str, Any] = {
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}",
        "versions": f"Python {platform.python_version()}, torch {torch.__version__}",
        "old_accuracies": OLD_ACCURACIES,
        "seeds": {},
    }
    for seed in SEEDS:
        accuracies, parameters = asyncio.run(daemons_run(folder, seed))
        plain = plain_run(folder, seed)
        expected = plain.net.state_dict()
        is_same = parameters.keys() == expected.keys() and all(
            torch.equal(parameters[name], expected[name]) for name in expected
        )
        figures["seeds"][seed] = {
            "accuracies": accuracies,
            "plain_accuracies": plain.accuracies,
            "same_parameters": is_same,
        }
        verdict = "the same" if is_same else "other"
        print(
            f"seed {seed}: daemons {_percent(accuracies)}, plain {_percent(plain.accuracies)}; "
            f"{verdict} parameters",
            flush=True,
        )
    results = Path(__file__).parent / "results" / "seed.json"
    results.write_text(json.dumps(figures, indent=2) + "\n")


def _percent(accuracies: Sequence[float]) -> str:
    return " and ".join(f"{100 * accuracy:.2f} %" for accuracy in accuracies)


if __name__ == "__main__":
    main()
