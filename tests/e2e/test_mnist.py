"""The old guide's run on real MNIST, beside the same procedure in plain PyTorch."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

from benchmarks.__main__ import federated_run, plain_run
from tests.support.places import redirect

DATA = Path(os.environ.get("FEDCONSOLE_DATA", Path(__file__).parents[3] / "shared" / "data"))


@pytest.mark.skipif(not (DATA / "mnist").is_dir(), reason="MNIST is not here (FEDCONSOLE_DATA)")
@pytest.mark.timeout(600)
async def test_three_daemons_learn_mnist_as_well_as_plain_pytorch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    redirect(tmp_path, monkeypatch)
    torch.set_num_threads(1)
    lines = await federated_run(DATA / "mnist")
    trained = [line for line in lines if line["type"] == "worker.update"]
    assert sum(line["num_examples"] for line in trained) == 2 * 60_000
    accuracies = [line["accuracy"] for line in lines if line["type"] == "eval"]
    assert accuracies == pytest.approx(plain_run(DATA / "mnist").accuracies, abs=0.003)
    assert accuracies[-1] > 0.92
