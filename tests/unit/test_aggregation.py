from __future__ import annotations

import hashlib
import os
from fractions import Fraction
from pathlib import Path

import pytest
import torch
from torch import Tensor

from fedconsole.learning.aggregation import WeightedUpdate, federated_average, require_fit
from fedconsole.learning.model_files import ModelFile, spec_of, write_model
from pi_daemon.protocol.errors import TensorError, TransferError

GLOBAL = {
    "fc.weight": torch.zeros(2, 3),
    "bn.num_batches_tracked": torch.tensor(0),
    "table": torch.arange(4, dtype=torch.uint8),
}
RETURNED = {name: spec_of(GLOBAL[name]) for name in ("fc.weight", "bn.num_batches_tracked")}


def save(path: Path, tensors: dict[str, Tensor]) -> Path:
    specs = {name: spec_of(tensor) for name, tensor in tensors.items()}
    write_model(path, specs, lambda name: [tensors[name]])
    return path


def update(folder: Path, name: str, weight: int, fill: float, steps: int = 1) -> WeightedUpdate:
    tensors = {
        "fc.weight": torch.full((2, 3), fill),
        "bn.num_batches_tracked": torch.tensor(steps),
    }
    return WeightedUpdate(name, weight, save(folder / name, tensors))


def average(folder: Path, *updates: WeightedUpdate) -> ModelFile:
    federated_average(folder / "next", ModelFile.open(save(folder / "global", GLOBAL)), updates)
    return ModelFile.open(folder / "next")


def test_workers_count_in_proportion_to_their_weight(tmp_path: Path) -> None:
    mean = average(tmp_path, update(tmp_path, "alice", 1, 4.0), update(tmp_path, "bob", 3, 8.0))
    assert torch.equal(mean.tensor("fc.weight"), torch.full((2, 3), 7.0))


def test_integer_buffers_round_instead_of_being_cut_off(tmp_path: Path) -> None:
    mean = average(
        tmp_path, update(tmp_path, "alice", 1, 0.0, 1), update(tmp_path, "bob", 2, 0.0, 3)
    )
    assert mean.tensor("bn.num_batches_tracked").item() == 2
    mean = average(
        tmp_path, update(tmp_path, "alice", 1, 0.0, 1), update(tmp_path, "bob", 5, 0.0, 3)
    )
    assert mean.tensor("bn.num_batches_tracked").item() == 3


def test_a_buffer_that_no_update_brings_stays(tmp_path: Path) -> None:
    mean = average(tmp_path, update(tmp_path, "alice", 1, 1.0))
    assert torch.equal(mean.tensor("table"), GLOBAL["table"])


def test_the_order_of_arrival_does_not_matter(tmp_path: Path) -> None:
    torch.manual_seed(3)
    names = [f"pi-{n:02d}" for n in range(7)]
    updates: list[WeightedUpdate] = []
    for name in names:
        tensors = {"fc.weight": torch.randn(2, 3), "bn.num_batches_tracked": torch.tensor(5)}
        updates.append(WeightedUpdate(name, len(updates) + 3, save(tmp_path / name, tensors)))
    mean = average(tmp_path, *updates).tensor("fc.weight")
    assert torch.equal(mean, average(tmp_path, *updates[::-1]).tensor("fc.weight"))


def test_the_mean_is_the_float64_mean_across_the_borders_of_pieces(tmp_path: Path) -> None:
    size = (1 << 16) * 2 + 11
    torch.manual_seed(5)
    values = [torch.randn(size) for _ in range(3)]
    weights = [7, 11, 5]
    paths = [save(tmp_path / f"w{n}", {"x": v}) for n, v in enumerate(values)]
    start = ModelFile.open(save(tmp_path / "global", {"x": torch.zeros(size)}))
    updates = [WeightedUpdate(p.name, w, p) for p, w in zip(paths, weights, strict=True)]
    federated_average(tmp_path / "next", start, updates)
    got = ModelFile.open(tmp_path / "next").tensor("x")
    for index in (0, 65535, 65536, 131071, size - 1):
        exact = sum(
            Fraction(v[index].item()) * w for v, w in zip(values, weights, strict=True)
        ) / Fraction(sum(weights))
        assert got[index].item() == pytest.approx(float(exact), rel=1e-7)


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf")])
def test_an_update_with_one_value_that_is_not_finite_is_refused(tmp_path: Path, bad: float) -> None:
    tensors = {"fc.weight": torch.zeros(2, 3), "bn.num_batches_tracked": torch.tensor(1)}
    tensors["fc.weight"][1, 2] = bad
    with pytest.raises(TensorError, match=r"'fc.weight' holds NaN or infinity"):
        require_fit(save(tmp_path / "update", tensors), RETURNED)


def test_finite_values_whose_sum_overflows_are_accepted(tmp_path: Path) -> None:
    tensors = {"fc.weight": torch.full((2, 3), 3e38), "bn.num_batches_tracked": torch.tensor(1)}
    require_fit(save(tmp_path / "update", tensors), RETURNED)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"fc.weight": None}, "'fc.weight' is missing"),
        ({"extra": torch.zeros(1)}, "'extra' does not belong"),
        ({"fc.weight": torch.zeros(3, 2)}, r"F32 \[3, 2\], expected F32 \[2, 3\]"),
        ({"fc.weight": torch.zeros(2, 3, dtype=torch.float64)}, r"F64 \[2, 3\], expected F32"),
    ],
)
def test_an_update_that_does_not_fit_is_refused_by_tensor(
    tmp_path: Path, change: dict[str, Tensor | None], reason: str
) -> None:
    tensors = {"fc.weight": torch.zeros(2, 3), "bn.num_batches_tracked": torch.tensor(1), **change}
    kept = {name: tensor for name, tensor in tensors.items() if tensor is not None}
    with pytest.raises(TensorError, match=reason):
        require_fit(save(tmp_path / "update", kept), RETURNED)


def test_an_update_with_another_hash_than_announced_is_refused(tmp_path: Path) -> None:
    path = update(tmp_path, "alice", 1, 1.0).path
    require_fit(path, RETURNED, hashlib.sha256(path.read_bytes()).hexdigest())
    with pytest.raises(TransferError, match="is not the one that was announced"):
        require_fit(path, RETURNED, hashlib.sha256(b"other bytes").hexdigest())


@pytest.mark.timeout(60)
def test_a_fifo_in_the_place_of_an_update_is_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "update")
    with pytest.raises(OSError, match=r"^update is no regular file$"):
        require_fit(tmp_path / "update", {}, "0" * 64)


def test_averaging_nothing_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no updates"):
        average(tmp_path)
