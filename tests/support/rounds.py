"""A tiny model of digits, and the commands that train it: what an engine would send."""

from __future__ import annotations

import functools
import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
import torch.nn.functional as F
from msgspec.structs import replace
from torch import Tensor, nn

from fedconsole.learning.capture import capture
from fedconsole.learning.tasks.task import Task
from pi_daemon.protocol.graphs import OptimizerSpec, encode_graphs
from pi_daemon.protocol.messages import Cursor, Ok, Prepare, Prepared, StartRound
from pi_daemon.protocol.tensors import model_id, read_table
from pi_daemon.trainer.pipe import WorkerSpec
from tests.support.links import RawLink


@dataclass(frozen=True)
class TinyModel:
    graphs: bytes
    content: bytes
    """safetensors"""
    model_id: str


@functools.cache
def tiny_model(num_hidden: int = 8) -> TinyModel:
    """Dropout and batch norm included, so that generator and buffers count."""

    def prepare(images: Tensor) -> Tensor:
        return images.flatten(1).float() / 16

    task = Task(
        name="tiny",
        dataset="digits",
        sample_shape=(8, 8),
        sample_dtype="uint8",
        num_classes=10,
        build=lambda: nn.Sequential(
            nn.Linear(64, num_hidden),
            nn.BatchNorm1d(num_hidden),
            nn.ReLU(),
            nn.Dropout(0.2),
            nn.Linear(num_hidden, 10),
        ),
        prepare=prepare,
        loss=F.cross_entropy,
        test_data=lambda _: None,
    )
    captured = capture(task, 16)
    content = safetensors.torch.save(captured.state)
    return TinyModel(
        encode_graphs(captured.graphs), content, model_id(content, read_table(content))
    )


def prepare_command(link: RawLink, model: TinyModel | None = None, **changes: Any) -> Prepare:
    graphs = (model or tiny_model()).graphs
    command = Prepare(
        cmd_id=link.new_cmd_id(),
        run=link.run,
        fence=link.fence,
        worker_id="alice",
        dataset="digits",
        sample_shape=(8, 8),
        sample_dtype="uint8",
        num_classes=10,
        batch_size=16,
        holdout=0.2,
        order_seed="7",
        optimizer=OptimizerSpec("sgd", 0.05, momentum=0.9),
        graphs=link.blob(graphs),
    )
    return replace(command, **changes)


def start_command(
    link: RawLink, model: TinyModel | None = None, *, sends_model: bool = True, **changes: Any
) -> StartRound:
    model = model or tiny_model()
    command = StartRound(
        cmd_id=link.new_cmd_id(),
        run=link.run,
        fence=link.fence,
        round=1,
        attempt=1,
        model_id=model.model_id,
        model=link.blob(model.content) if sends_model else None,
        cursor=Cursor(0, 0),
        num_batches=30,
        torch_seed="5",
    )
    return replace(command, **changes)


async def prepare(link: RawLink, model: TinyModel | None = None) -> None:
    """Take the lease, from an earlier test's run if need be, and prepare the run."""
    assert isinstance(await link.take_lease(take_over=True), Ok)
    command = prepare_command(link, model)
    assert isinstance(await link.ask(command, (model or tiny_model()).graphs), Prepared)


def write_dataset(
    path: Path, num_examples: int = 480, classes: tuple[int, ...] = tuple(range(10))
) -> Path:
    """Random digits in a .npz file, for a daemon that then needs no scikit-learn."""
    generator = np.random.default_rng(1)
    x = generator.integers(0, 17, (num_examples, 8, 8), dtype=np.uint8)
    np.savez(path, x=x, y=np.resize(classes, num_examples))
    return path


def worker_spec(folder: Path, worker_id: str = "alice") -> WorkerSpec:
    """The tiny model and its data as files in this folder, for a trainer without a daemon."""
    graphs, data, model = folder / "graphs", folder / "digits.npz", folder / "model"
    if not data.exists():
        write_dataset(data)
        graphs.write_bytes(tiny_model().graphs)
        model.write_bytes(tiny_model().content)
    return WorkerSpec(
        worker_id=worker_id,
        dataset="digits",
        source=str(data),
        shard=None,
        sample_shape=(8, 8),
        sample_dtype="uint8",
        num_classes=10,
        batch_size=16,
        holdout=0.2,
        order_seed=7,
        optimizer=OptimizerSpec("sgd", 0.05, momentum=0.9),
        graphs_path=str(graphs),
        graphs_sha256=hashlib.sha256(tiny_model().graphs).hexdigest(),
    )
