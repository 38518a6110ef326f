from __future__ import annotations

import gzip
import hashlib
import io
import itertools
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import msgspec
import numpy as np
import pytest
import safetensors.numpy

from pi_daemon.learning.datasets import Arrays, DatasetError, card, cut, load
from pi_daemon.protocol.messages import DatasetCard
from tests.support.records import write_record

X = np.arange(40, dtype=np.uint8).reshape(10, 2, 2)
Y = np.array([0, 1, 2, 0, 1, 2, 0, 1, 2, 2], dtype=np.uint8)
ARRAYS = Arrays(X, Y.astype(np.int64), 3)


def idx(array: np.ndarray) -> bytes:
    sizes = b"".join(size.to_bytes(4, "big") for size in array.shape)
    return bytes((0, 0, 8, array.ndim)) + sizes + array.tobytes()


def test_an_npz_file_a_safetensors_file_and_an_idx_folder_hold_the_same(tmp_path: Path) -> None:
    np.savez_compressed(tmp_path / "d.npz", x=X, y=Y)
    safetensors.numpy.save_file({"x": X, "y": Y}, tmp_path / "d.safetensors")
    folder = tmp_path / "idx"
    folder.mkdir()
    (folder / "train-images-idx3-ubyte.gz").write_bytes(gzip.compress(idx(X)))
    (folder / "train-labels-idx1-ubyte").write_bytes(idx(Y))
    for source in (tmp_path / "d.npz", tmp_path / "d.safetensors", folder):
        found = load(str(source))
        assert (found.x.dtype, found.y.dtype, found.num_classes) == (np.uint8, np.int64, 3)
        assert np.array_equal(found.x, X)
        assert np.array_equal(found.y, Y)


def test_the_sample_is_the_training_part_of_the_digits() -> None:
    assert card("digits", load("sample")) == DatasetCard(
        name="digits",
        sample_shape=(8, 8),
        sample_dtype="uint8",
        target_dtype="int64",
        num_examples=1437,
        num_classes=10,
        sha256=card("digits", load("sample")).sha256,
    )


def test_samples_keep_their_dtype_and_float_targets_are_no_classes(tmp_path: Path) -> None:
    np.savez(tmp_path / "d.npz", x=np.zeros((3, 5), ">f8"), y=np.ones((3, 2)))
    found = load(str(tmp_path / "d.npz"))
    assert (found.x.dtype.str, found.y.dtype, found.num_classes) == ("<f8", np.float32, None)


def test_a_card_names_the_content_and_counts_labels_only_if_allowed() -> None:
    expected = hashlib.sha256(X.tobytes() + Y.astype("<i8").tobytes()).hexdigest()
    found = card("d", ARRAYS)
    assert found == DatasetCard("d", (2, 2), "uint8", "int64", 10, 3, expected, None)
    assert card("d", ARRAYS, share_labels=True).label_counts == (3, 3, 4)


def test_shards_are_contiguous_and_share_all_examples() -> None:
    shards = [cut(ARRAYS, f"{i}/3") for i in (1, 2, 3)]
    assert [len(shard.x) for shard in shards] == [3, 3, 4]
    assert np.array_equal(np.concatenate([shard.x for shard in shards]), X)
    assert all(np.shares_memory(shard.x, X) for shard in shards)


def test_a_shard_knows_of_the_classes_that_it_lacks() -> None:
    assert cut(ARRAYS, "1/10").num_classes == 3


def test_dirichlet_shards_share_all_examples_and_depend_on_the_seed() -> None:
    big = Arrays(np.arange(300, dtype=np.uint8).reshape(300, 1), np.arange(300) % 3, 3)

    def rows(seed: int) -> list[list[int]]:
        return [cut(big, f"dirichlet:1:{i}/3:{seed}").x[:, 0].tolist() for i in (1, 2, 3)]

    assert sorted(itertools.chain(*rows(1))) == sorted(big.x[:, 0].tolist())
    assert rows(1) == rows(1) != rows(2)


@pytest.mark.parametrize(
    "shard", ["", "0/3", "4/3", "1/0", "a/b", "1", "-1/3", "dirichlet:0:1/3:1", "dirichlet:x:1/3:1",
              "dirichlet:1:1/3", "record:", "record:106,", "record:106:1/3"],
)  # fmt: skip
def test_a_shard_that_cannot_be_read_is_refused(shard: str) -> None:
    with pytest.raises(DatasetError, match="expected INDEX/COUNT such as 1/3"):
        cut(ARRAYS, shard)


def test_an_empty_shard_is_refused() -> None:
    with pytest.raises(DatasetError, match="shard 1/20 of 10 examples is empty"):
        cut(ARRAYS, "1/20")


BY_RECORD = Arrays(X, ARRAYS.y, 3, np.array([106, 106, 119, 119, 119, 106, 20, 20, 106, 119]))


def test_a_shard_can_be_the_examples_of_some_records() -> None:
    shard = cut(BY_RECORD, "record:106,20")
    assert shard.x.tolist() == X[[0, 1, 5, 6, 7, 8]].tolist()
    assert shard.y.tolist() == Y[[0, 1, 5, 6, 7, 8]].tolist()
    assert shard.record is not None
    assert (shard.record.tolist(), shard.num_classes) == ([106, 106, 106, 20, 20, 106], 3)


def test_records_can_have_names() -> None:
    named = Arrays(X[:3], ARRAYS.y[:3], 3, np.array(["sel7", "a", "sel7"]))
    assert np.array_equal(cut(named, "record:sel7").x, X[[0, 2]])


def test_a_record_that_is_not_there_is_refused_and_those_that_are_are_named() -> None:
    with pytest.raises(DatasetError, match="there is no record 7: it has 20, 106, 119"):
        cut(BY_RECORD, "record:106,7")
    with pytest.raises(DatasetError, match="expected an array named record"):
        cut(ARRAYS, "record:106")


@pytest.mark.parametrize("kind", ["{i}/3", "dirichlet:1:{i}/3:1"])
def test_every_shard_knows_the_records_of_its_examples(kind: str) -> None:
    for i in (1, 2, 3):
        shard = cut(BY_RECORD, kind.format(i=i))
        assert shard.record is not None
        rows = shard.x[:, 0, 0] // 4
        assert shard.record.tolist() == BY_RECORD.record[rows].tolist()  # type: ignore[index]


def test_files_may_say_which_record_an_example_is_of(tmp_path: Path) -> None:
    record = np.array([1] * 4 + [2] * 6, np.int16)
    np.savez(tmp_path / "d.npz", x=X, y=Y, record=record, sample=record)
    safetensors.numpy.save_file({"x": X, "y": Y, "record": record}, tmp_path / "d.safetensors")
    for name in ("d.npz", "d.safetensors"):
        assert np.array_equal(cut(load(str(tmp_path / name)), "record:2").x, X[4:])


def test_a_heartbeat_csv_file_is_a_dataset(tmp_path: Path) -> None:
    path = tmp_path / "beats.csv"
    path.write_text(",".join(["0.5"] * 187 + ["3"]))
    found = load(str(path))
    assert (found.x.tolist(), found.y.tolist(), found.num_classes) == ([[128] * 187], [3], 4)
    path.write_text("0.5,none")
    with pytest.raises(DatasetError, match=r"beats.csv: line 1 has 2 values, expected 187 and a"):
        load(str(path))


def test_a_folder_of_wfdb_records_is_a_dataset(tmp_path: Path) -> None:
    pytest.importorskip("wfdb", reason="needs the extra ecg")
    for name in ("7", "8"):
        write_record(tmp_path, name)
    found = load(str(tmp_path))
    assert (found.x.shape, found.num_classes) == ((40, 187), 5)
    assert np.array_equal(cut(found, "record:8").x, found.x[20:])
    (tmp_path / "8.atr").unlink()
    with pytest.raises(
        DatasetError, match=r"record 8: 8.atr is missing; to leave such records out"
    ):
        load(str(tmp_path))


def npz(**arrays: object) -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)  # type: ignore[arg-type]
    return buffer.getvalue()


def npz_that_claims(shape: str) -> bytes:
    """A small .npz file whose x has a header that claims more than it holds."""
    header = f"{{'descr': '|u1', 'fortran_order': False, 'shape': {shape}, }}".ljust(117) + "\n"
    x = b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header.encode() + b"abc"
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("x.npy", x)
        archive.writestr("y.npy", x)
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"no zip", "File is not a zip file"),
        (npz(x=X), "expected arrays x and y, found x.npy"),
        (npz(x=X, y=Y[:5]), "expected as many of each"),
        (
            npz(x=X, y=Y, record=Y[:5]),
            "record has dtype uint8 and shape \\(5,\\): expected a number",
        ),
        (
            npz(x=X, y=Y, record=Y / 2),
            "record has dtype float64 and shape \\(10,\\): expected a num",
        ),
        (npz(x=X[:0], y=Y[:0]), "it holds no examples"),
        (npz(x=np.array([object()] * 3), y=Y[:3]), "holds Python objects, which are not read"),
        (npz(x=X.astype(np.complex64), y=Y), "x has dtype complex64, expected one of"),
        (npz(x=X, y=Y.astype(np.int64) - 1), "y holds -1 to 1: expected class numbers from 0"),
        (npz(x=X, y=np.full(10, 5000)), "y holds 5000 to 5000: expected class numbers from 0"),
        (npz(x=X, y=np.array(list("abcdefghij"))), "expected one class number each, or floats"),
        (npz_that_claims("(1099511627776,)"), "x should have 1099511627776 bytes and has 3"),
    ],
    # The bytes of a file hold the time at which it was made.
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_file_that_is_no_dataset_is_refused(tmp_path: Path, content: bytes, reason: str) -> None:
    path = tmp_path / "d.npz"
    path.write_bytes(content)
    with pytest.raises(DatasetError, match=reason):
        load(str(path))


def test_a_source_that_is_not_there_or_of_no_known_kind_is_refused(tmp_path: Path) -> None:
    (tmp_path / "d.pkl").write_bytes(b"\x80\x04.")
    for name, reason in (
        ("d.npz", "No such file"),
        ("d", "there is no such file or folder"),
        ("d.pkl", "expected `sample`, a .npz or .safetensors file"),
        (".", "has neither train-images-idx3-ubyte nor"),
    ):
        with pytest.raises(DatasetError, match=reason):
            load(str(tmp_path / name))


def run_program(*arguments: str) -> subprocess.CompletedProcess[bytes]:
    command = [sys.executable, "-m", "pi_daemon.learning.datasets", *arguments]
    return subprocess.run(command, capture_output=True, check=False)


def test_the_program_prints_the_cards_of_the_shard(tmp_path: Path) -> None:
    np.savez(tmp_path / "d.npz", x=X, y=Y)
    done = run_program("--shard", "1/2", "--", f"d={tmp_path / 'd.npz'}")
    assert (done.returncode, done.stderr) == (0, b"")
    [found] = msgspec.json.decode(done.stdout, type=list[DatasetCard])
    assert found == card("d", cut(ARRAYS, "1/2"))


def test_the_program_says_in_one_line_what_is_wrong(tmp_path: Path) -> None:
    done = run_program("--", f"d={tmp_path / 'gone.npz'}")
    assert (done.returncode, done.stdout) == (3, b"")
    [line] = done.stderr.decode().splitlines()
    assert line.startswith(f"pi-daemon: dataset {tmp_path / 'gone.npz'}: ")


def test_mnist_can_be_read() -> None:
    data = Path(os.environ.get("FEDCONSOLE_DATA", Path(__file__).parents[3] / "shared" / "data"))
    if not (data / "mnist").is_dir():
        pytest.skip("needs MNIST in FEDCONSOLE_DATA")
    found = load(str(data / "mnist"))
    assert (found.x.shape, found.num_classes) == ((60_000, 28, 28), 10)
    assert np.bincount(found.y)[:3].tolist() == [5923, 6742, 5958]


@pytest.mark.parametrize("odd", [np.nan, np.inf])
def test_samples_that_are_not_finite_are_refused_with_their_place(
    tmp_path: Path, odd: float
) -> None:
    x = np.zeros((5_000, 3), np.float32)
    x[4_711, 1] = odd
    np.savez(tmp_path / "odd.npz", x=x, y=np.zeros(5_000, np.int64))
    with pytest.raises(DatasetError, match="NaN or infinity, first in example 4712 of 5000"):
        load(str(tmp_path / "odd.npz"))
