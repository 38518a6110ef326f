from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load as load_tensors

from fedconsole.errors import FedconsoleError, RefusedError, StorageError, UsageError
from fedconsole.fleet.shards import shards_of, write_shards
from pi_daemon.learning.datasets import Arrays, content_hash, cut, load
from tests.support.disks import small_disk

RECORDS = np.repeat([100, 101, 102, 103, 104], [50, 40, 30, 20, 10])


@pytest.fixture
def source(tmp_path: Path) -> str:
    """150 beats of five records, shuffled."""
    order = np.random.default_rng(1).permutation(150)
    x = np.arange(300, dtype=np.int16).reshape(150, 2)[order]
    path = tmp_path / "beats.npz"
    np.savez(path, x=x, y=(np.arange(150) % 5)[order], record=RECORDS[order])
    return str(path)


def test_the_same_data_cut_alike_gives_the_same_bytes(source: str, tmp_path: Path) -> None:
    folders = [tmp_path / "one", tmp_path / "two"]
    for folder in folders:
        folder.mkdir()
    one, two = (write_shards(source, "dirichlet:0.5:7", 3, folder) for folder in folders)
    assert [(s.sha256, s.size, s.num_examples) for s in one] == [
        (s.sha256, s.size, s.num_examples) for s in two
    ]
    assert [s.path.read_bytes() for s in one] == [s.path.read_bytes() for s in two]
    assert sum(s.num_examples for s in one) == 150


def test_a_dealt_shard_is_what_the_daemon_would_have_cut_itself(
    source: str, tmp_path: Path
) -> None:
    shards = write_shards(source, "even", 4, tmp_path)
    dealt = [shard.path.rename(shard.path.with_suffix(".safetensors")) for shard in shards]
    assert [content_hash(load(str(path))) for path in dealt] == [
        content_hash(cut(load(source), f"{i}/4")) for i in range(1, 5)
    ]


def test_records_are_dealt_whole_and_in_even_parts(source: str, tmp_path: Path) -> None:
    shards = write_shards(source, "record", 3, tmp_path)
    held = [load_tensors(shard.path.read_bytes())["record"] for shard in shards]
    assert [sorted(set(record.tolist())) for record in held] == [[100], [101, 104], [102, 103]]
    assert [len(record) for record in held] == [50, 50, 50]


def test_records_that_have_names_are_dealt_without_them(tmp_path: Path) -> None:
    path = tmp_path / "beats.npz"
    np.savez(path, x=np.zeros((4, 2), np.uint8), y=np.zeros(4, np.int64), record=list("abab"))
    [a, b] = write_shards(str(path), "record", 2, tmp_path)
    assert (a.num_examples, b.num_examples) == (2, 2)
    assert load_tensors(a.path.read_bytes()).keys() == {"x", "y"}


@pytest.mark.parametrize(
    ("plan", "num_shards", "error", "said"),
    [
        ("evenly", 2, UsageError, "--shard evenly: expected even, dirichlet:ALPHA:SEED or record"),
        ("dirichlet:x:1", 2, RefusedError, "shard 'dirichlet:x:1/2:1': expected "),
        ("even", 151, RefusedError, "shard 1/151 of 150 examples is empty"),
        ("record", 6, RefusedError, "5 records cannot be shared by 6 workers"),
    ],
)
def test_a_plan_that_cannot_be_is_refused_in_one_line(
    source: str, tmp_path: Path, plan: str, num_shards: int, error: type[FedconsoleError], said: str
) -> None:
    with pytest.raises(error) as raised:
        write_shards(source, plan, num_shards, tmp_path)
    assert said in str(raised.value)
    assert "\n" not in str(raised.value)


def test_data_without_records_is_not_cut_by_them() -> None:
    arrays = Arrays(np.zeros((4, 2), np.uint8), np.zeros(4, np.int64), 1)
    with pytest.raises(RefusedError, match="does not say which record"):
        shards_of(arrays, "record", 2)


def test_a_full_temporary_folder_is_one_line(tmp_path: Path) -> None:
    said = r"cannot be written into .+ \(No space left on device\): free some room there"
    big = tmp_path / "big.npz"
    np.savez(big, x=np.zeros((3 << 20, 1), np.uint8), y=np.zeros(3 << 20, np.int64))
    with (
        small_disk(tmp_path / "disk", 1 << 20) as disk,
        pytest.raises(StorageError, match=said),
    ):
        write_shards(str(big), "even", 2, disk)
