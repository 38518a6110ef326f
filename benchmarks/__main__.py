"""`make bench`: the seed's procedure on MNIST, by daemons and in plain PyTorch, in one run.

Prints ratios with the machine they were measured on; seconds alone say little elsewhere. Nothing is
judged here: tests are never timed.
"""

from __future__ import annotations

import asyncio
import json
import os
import platform
import statistics
import sys
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.plain import PlainRun, train
from fedconsole.coordinator.plan import Plan
from fedconsole.engine.control import ControlLink
from fedconsole.engine.launch import new_run_id, start_engine
from fedconsole.fleet.local import local_daemons, name_of
from fedconsole.learning.tasks.mnist import task as mnist
from pi_daemon.learning.idx import read_idx_pair

WORKERS, EPOCHS, BATCH_SIZE, BATCHES_PER_ROUND, LR = 3, 2, 64, 50, 0.01


def data_folder() -> Path:
    folder = Path(os.environ.get("FEDCONSOLE_DATA", Path(__file__).parents[2] / "shared" / "data"))
    if not (folder / "mnist").is_dir():
        sys.exit(
            f"MNIST is not in {folder / 'mnist'}: put its four IDX files there, "
            "or name the folder above it in FEDCONSOLE_DATA"
        )
    return folder / "mnist"


def plain_run(folder: Path) -> PlainRun:
    def prepared(part: str) -> tuple[Tensor, Tensor]:
        x, y = read_idx_pair(folder, part)
        return mnist.prepare(torch.from_numpy(x)), torch.from_numpy(y).long()

    x, y = prepared("train")
    parts = zip(x.chunk(WORKERS), y.chunk(WORKERS), strict=True)
    shards = {name_of(index): shard for index, shard in enumerate(parts)}
    torch.manual_seed(1)
    return train(
        mnist.build(),
        shards,
        mnist.loss,
        prepared("t10k"),
        epochs=EPOCHS,
        batch_size=BATCH_SIZE,
        batches_per_round=BATCHES_PER_ROUND,
        lr=LR,
    )


async def federated_run(folder: Path) -> list[dict[str, Any]]:
    """The lines of a run over daemons on this machine."""
    async with local_daemons(WORKERS, f"mnist={folder}") as addresses:
        plan = Plan(
            task="mnist",
            workers=tuple(addresses),
            epochs=EPOCHS,
            federate_after_n_batches=BATCHES_PER_ROUND,
            batch_size=BATCH_SIZE,
            lr=LR,
            eval_every="epoch",
            data_dir=str(folder),
        )
        run_id = new_run_id()
        engine = start_engine(run_id, plan)
        async with ControlLink.connect(run_id) as link:
            lines = [line async for line in link.events()]
        await asyncio.to_thread(engine.wait)
    return lines


def main() -> None:
    torch.set_num_threads(1)
    folder = data_folder()
    plain = plain_run(folder)
    lines = asyncio.run(federated_run(folder))
    rounds = [line for line in lines if line["type"] == "round.finished"]
    trained = [line for line in lines if line["type"] == "worker.update"]
    accuracies = [line["accuracy"] for line in lines if line["type"] == "eval"]
    worker_seconds = sum(line["seconds"] for line in trained)
    full = statistics.median(plain.round_seconds[1:-1])
    ours = statistics.median(line["seconds"] for line in rounds[1:-1])
    figures = {
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}",
        "versions": f"Python {platform.python_version()}, torch {torch.__version__}",
        "plain_accuracy": plain.accuracies,
        "accuracy": accuracies,
        "plain_seconds": sum(plain.round_seconds),
        "seconds": lines[-1]["seconds"],
        "plain_round_seconds": full,
        "round_seconds": ours,
        "round_ratio": ours / full,
        "training_ratio": worker_seconds / sum(plain.round_seconds),
        "bytes_per_round": rounds[1]["bytes_sent"] + rounds[1]["bytes_received"],
    }
    results = Path(__file__).parent / "results"
    results.mkdir(exist_ok=True)
    (results / "mnist.json").write_text(json.dumps(figures, indent=2) + "\n")
    print(f"{figures['machine']}; {figures['versions']}")
    print(
        f"MNIST, {WORKERS} workers x {BATCHES_PER_ROUND} batches of {BATCH_SIZE}, {EPOCHS} epochs"
    )
    print(f"{'':34}{'daemons':>10}{'plain':>10}{'ratio':>8}")
    rows = (
        ("accuracy after epoch 1", accuracies[0], plain.accuracies[0]),
        ("accuracy after epoch 2", accuracies[1], plain.accuracies[1]),
        ("seconds per round (median)", ours, full),
        ("seconds of training, all workers", worker_seconds, sum(plain.round_seconds)),
    )
    for name, value, reference in rows:
        print(f"{name:34}{value:10.4f}{reference:10.4f}{value / reference:8.2f}")
    print(f"the whole run, start and evaluation included: {lines[-1]['seconds']:.1f} s")
    print(f"bytes per round on the wire: {figures['bytes_per_round']:,}")


if __name__ == "__main__":
    main()
