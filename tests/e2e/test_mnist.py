"""The old guide's run on real MNIST, beside the same procedure in plain PyTorch."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

from benchmarks.seed import daemons_run, plain_run
from tests.support.places import redirect

DATA = Path(os.environ.get("FEDCONSOLE_DATA", Path(__file__).parents[3] / "shared" / "data"))


@pytest.mark.slow
@pytest.mark.skipif(not (DATA / "mnist").is_dir(), reason="MNIST is not here (FEDCONSOLE_DATA)")
@pytest.mark.timeout(600)
async def test_three_daemons_learn_on_mnist_what_plain_pytorch_learns(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    redirect(tmp_path, monkeypatch)
    torch.set_num_threads(1)
    accuracies, parameters = await daemons_run(DATA / "mnist", seed=1)
    plain = plain_run(DATA / "mnist", seed=1)
    assert accuracies == pytest.approx(plain.accuracies)
    assert accuracies[-1] > 0.92
    expected = plain.net.state_dict()
    assert parameters.keys() == expected.keys()
    assert all(torch.equal(parameters[name], expected[name]) for name in expected)
