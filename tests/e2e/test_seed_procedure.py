"""The old guide's procedure, by real daemons from the command line, and in plain PyTorch: bit for bit."""

from __future__ import annotations

import asyncio
import hashlib
import json
import sys
from collections.abc import Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from benchmarks.seed import Batch, GuideRun, run_guide
from fedconsole.history import folder_of
from fedconsole.learning.tasks.digits import task as digits
from pi_daemon.learning.digits import load_digits_split
from tests.support.daemons import daemon
from tests.support.places import redirect

AS_THE_GUIDE = ["--weighting", "uniform", "--epoch-end", "first", "--eval-every", "epoch"]
DATA = load_digits_split()


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    torch.set_num_threads(1)
    return redirect(tmp_path, monkeypatch)


@dataclass(frozen=True)
class ConsoleRun:
    lines: list[dict[str, Any]]

    def of_type(self, line_type: str) -> list[dict[str, Any]]:
        return [line for line in self.lines if line["type"] == line_type]

    @property
    def losses(self) -> list[dict[str, list[float]]]:
        """For each round and worker, those of its batches."""
        rounds: list[dict[str, list[float]]] = [
            {worker: [] for worker in line["cohort"]} for line in self.of_type("round.started")
        ]
        for line in self.of_type("worker.batches"):
            rounds[line["round"] - 1][line["worker"]] += line["losses"]
        return rounds

    @property
    def parameters(self) -> dict[str, Tensor]:
        return load_file(folder_of(self.lines[-1]["run"]) / "model.safetensors")


async def fedconsole_run(*options: str) -> ConsoleRun:
    """`fedconsole run` in a process of its own, to its successful end."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", "from fedconsole.cli.main import main; main()"),
        *("run", "--headless", "--json", *AS_THE_GUIDE, *options),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await process.communicate()
    assert (process.returncode, err) == (0, b"")
    return ConsoleRun([json.loads(text) for text in out.splitlines()])


def by_the_guide(shards: Mapping[str, slice], **options: Any) -> GuideRun:
    def prepared(x: np.ndarray[Any, Any], y: np.ndarray[Any, Any]) -> Batch:
        return digits.prepare(torch.from_numpy(x)), torch.from_numpy(y)

    x, y = prepared(DATA.x_train, DATA.y_train)
    torch.manual_seed(options["seed"])
    net = digits.build()
    return run_guide(
        net,
        digits.loss,
        {worker: (x[rows], y[rows]) for worker, rows in shards.items()},
        prepared(DATA.x_test, DATA.y_test),
        **options,
    )


def require_same(found: ConsoleRun, expected: GuideRun) -> None:
    assert found.losses == expected.losses
    assert [line["accuracy"] for line in found.of_type("eval")] == expected.accuracies
    parameters = expected.net.state_dict()
    assert found.parameters.keys() == parameters.keys()
    for name, tensor in found.parameters.items():
        assert torch.equal(tensor, parameters[name]), name
    assert found.lines[-1]["model_id"] == model_id(parameters)


def model_id(parameters: Mapping[str, Tensor]) -> str:
    """docs/protocol.md, "Model id", for models in float32."""
    digest = hashlib.sha256()
    for name, tensor in sorted(parameters.items()):
        shape = json.dumps(list(tensor.shape), separators=(",", ":"))
        for part in (name.encode(), b"F32", shape.encode(), tensor.numpy().tobytes()):
            digest.update(part + b"\0")
    return digest.hexdigest()


@pytest.mark.parametrize(
    ("federate_after_n_batches", "rounds"),
    [
        pytest.param(4, [4, 4, 2, 4, 4, 2], id="a short last round"),
        pytest.param(5, [5, 5, 5, 5], id="only full rounds", marks=pytest.mark.slow),
    ],
)
async def test_three_daemons_with_unequal_shards_follow_the_guide_to_the_last_bit(
    place: Path, federate_after_n_batches: int, rounds: list[int]
) -> None:
    shards = {"alice": slice(0, 130), "bob": slice(130, 230), "charlie": slice(230, 345)}
    settings = {
        "batch_size": 10,
        "test_batch_size": 100,
        "epochs": 2,
        "federate_after_n_batches": federate_after_n_batches,
        "lr": 0.05,
        "seed": 2,
    }
    async with AsyncExitStack() as stack:
        addresses = []
        for name, rows in shards.items():
            np.savez(place / f"{name}.npz", x=DATA.x_train[rows], y=DATA.y_train[rows])
            options = ("-p", "0", "--dataset", f"digits={place / name}.npz")
            device = await stack.enter_async_context(daemon(place, *options, name=name))
            addresses.append(f"--worker=127.0.0.1:{device.port}")
        found = await fedconsole_run(*as_options(settings), *addresses)
    expected = by_the_guide(shards, **settings)
    assert [len(losses["bob"]) for losses in expected.losses] == rounds
    require_same(found, expected)


@pytest.mark.slow
async def test_virtual_workers_follow_the_guide_to_the_last_bit(place: Path) -> None:
    settings = {"federate_after_n_batches": 3, "seed": 1}
    found = await fedconsole_run("--use_virtual", "--save_model", *as_options(settings))
    size = len(DATA.x_train) // 3
    shards = {
        name: slice(i * size, (i + 1) * size) for i, name in enumerate(("alice", "bob", "charlie"))
    }
    require_same(found, by_the_guide(shards, **settings))
    assert (place / "mnist_cnn.pt").is_file()


def as_options(values: Mapping[str, object]) -> list[str]:
    """As the guide spells them, with underscores."""
    return [word for name, value in values.items() for word in (f"--{name}", str(value))]
