"""Reads the data that a device owns, cuts a shard from it, and describes it without showing it.

NumPy only, except for WFDB records, which need the extra `ecg`. As a program (`python -m
pi_daemon.learning.datasets`) it prints the dataset cards of a daemon, which itself stays small that
way.
"""

from __future__ import annotations

import argparse
import hashlib
import math
import os
import sys
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import msgspec
import numpy as np
import numpy.typing as npt

from pi_daemon.ecg.heartbeat_csv import read_csv
from pi_daemon.ecg.records import RecordError, joined, read_beats, record_names
from pi_daemon.learning.digits import load_digits_split
from pi_daemon.learning.idx import DEFLATE_MAX_RATIO, read_idx_pair
from pi_daemon.protocol.limits import MAX_CLASSES, MAX_DIMENSIONS
from pi_daemon.protocol.messages import DatasetCard

SAMPLE_DTYPES: Final = {
    "float64": "F64",
    "float32": "F32",
    "float16": "F16",
    "int64": "I64",
    "int32": "I32",
    "int16": "I16",
    "int8": "I8",
    "uint8": "U8",
    "bool": "BOOL",
}
"""NumPy's names of the dtypes that a graph can take, with their safetensors codes."""

Array = npt.NDArray[np.generic]


_ROWS_AT_ONCE: Final = 4096


class DatasetError(Exception):
    """A dataset cannot be used; the message names it and says how to mend that."""


@dataclass(frozen=True, slots=True)
class Arrays:
    """Samples and their targets, in one order; at least one."""

    x: Array
    """First dimension: examples. Stored dtype, C-contiguous."""
    y: Array
    """int64 class numbers from 0, or float targets of any shape."""
    num_classes: int | None
    """Of the whole source, also for a shard that lacks some of them. None: no class numbers."""
    record: Array | None = None
    """Of each example, the record that it is of: numbers or names. None: not known."""


def load(source: str) -> Arrays:
    """Read a dataset's source, which is as in `--dataset NAME=SOURCE`.

    Raises:
        DatasetError: missing, malformed, over this machine's memory, or not a dataset.
    """
    try:
        return _checked(*_read(source))
    except MemoryError as error:
        raise DatasetError(f"dataset {source}: it does not fit into memory") from error
    except zipfile.BadZipFile as error:
        raise DatasetError(
            f"dataset {source}: it is no .npz file ({error}): write it with numpy.savez(path, x=, y=)"
        ) from error
    except OSError as error:
        raise DatasetError(f"dataset {source}: {error.strerror or error}") from error
    except (DatasetError, ValueError, EOFError) as error:
        raise DatasetError(f"dataset {source}: {error}") from error


def cut(arrays: Arrays, shard: str | None) -> Arrays:
    """The part of a dataset that one worker owns; `shard` is as in `--shard`.

    "2/3" gives the second of three contiguous parts, as a view. "dirichlet:0.3:2/3:SEED" gives the
    second of three parts that share each class in proportions drawn from Dirichlet(0.3).
    "record:106,119" gives the examples of these records.

    Raises:
        DatasetError: the shard cannot be read, or is empty.
    """
    if shard is None:
        return arrays
    match shard.split(":"):
        case [part]:
            index, count = _part(part, shard)
            n = len(arrays.x)
            rows: slice | npt.NDArray[np.int64] = slice(
                n * (index - 1) // count, n * index // count
            )
        case ["dirichlet", alpha, part, seed]:
            index, count = _part(part, shard)
            rows = _dirichlet_rows(arrays, _number(alpha, shard), index, count, seed, shard)
        case ["record", records]:
            rows = _record_rows(arrays.record, records.split(","), shard)
        case _:
            raise _bad_shard(shard)
    x, y = arrays.x[rows], arrays.y[rows]
    if len(x) == 0:
        raise DatasetError(f"shard {shard} of {len(arrays.x)} examples is empty: cut fewer parts")
    record = None if arrays.record is None else arrays.record[rows]
    return Arrays(x, y, arrays.num_classes, record)


def content_hash(arrays: Arrays) -> str:
    """SHA-256 over the bytes of the samples, then of the targets."""
    digest = hashlib.sha256()
    for array in (arrays.x, arrays.y):
        digest.update(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)
    return digest.hexdigest()


def card(name: str, arrays: Arrays, *, share_labels: bool = False) -> DatasetCard:
    """What may be told about a shard."""
    counts = None
    if share_labels and arrays.num_classes is not None:
        counts = tuple(np.bincount(arrays.y, minlength=arrays.num_classes).tolist())
    return DatasetCard(
        name=name,
        sample_shape=arrays.x.shape[1:],
        sample_dtype=arrays.x.dtype.name,
        target_dtype=arrays.y.dtype.name,
        num_examples=len(arrays.x),
        num_classes=arrays.num_classes,
        sha256=content_hash(arrays),
        label_counts=counts,
    )


def _read(source: str) -> tuple[Array, Array, Array | None]:
    path = Path(source)
    if source == "sample":
        digits = load_digits_split()
        return digits.x_train, digits.y_train, None
    if path.is_dir():
        if any(path.glob("*.hea")):
            return _read_wfdb(path)
        return *read_idx_pair(path, "train"), None
    match path.suffix:
        case ".npz":
            return _read_npz(path)
        case ".safetensors":
            return _read_safetensors(path)
        case ".csv":
            return *read_csv(path), None
    if path.exists():
        raise DatasetError(
            "expected `sample`, a .npz or .safetensors file with x and y, a heartbeat .csv file, or "
            "a folder of IDX files or WFDB records"
        )
    raise DatasetError("there is no such file or folder")


def _checked(x: Array, y: Array, record: Array | None) -> Arrays:
    if x.ndim < 1 or y.ndim < 1 or len(x) != len(y):
        raise DatasetError(f"x has the shape {x.shape} and y {y.shape}: expected as many of each")
    if record is not None and (record.shape != (len(x),) or record.dtype.kind not in "iuU"):
        raise DatasetError(
            f"record has dtype {record.dtype} and shape {record.shape}: "
            f"expected a number or a name for each of the {len(x)} examples"
        )
    if len(x) == 0:
        raise DatasetError("it holds no examples")
    if x.size == 0 or y.size == 0:
        raise DatasetError(f"its {len(x)} examples hold no values: expected samples with some")
    if max(x.ndim, y.ndim) > 1 + MAX_DIMENSIONS:
        raise DatasetError(
            f"x has {x.ndim} and y {y.ndim} dimensions, at most {1 + MAX_DIMENSIONS} are allowed"
        )
    if x.dtype.name not in SAMPLE_DTYPES:
        raise DatasetError(f"x has dtype {x.dtype}, expected one of {', '.join(SAMPLE_DTYPES)}")
    _require_finite(x)
    # Writable, because torch warns of tensors over memory that is not.
    x = np.require(x, x.dtype.newbyteorder("="), ["C", "W"])
    if np.issubdtype(y.dtype, np.floating):
        return Arrays(x, np.require(y, np.float32, ["C", "W"]), None, record)
    if not np.issubdtype(y.dtype, np.integer) or y.ndim != 1:
        raise DatasetError(
            f"y has dtype {y.dtype} and shape {y.shape}: expected one class number each, or floats"
        )
    if y.min() < 0 or y.max() >= MAX_CLASSES:
        raise DatasetError(
            f"y holds {y.min()} to {y.max()}: expected class numbers from 0 to {MAX_CLASSES - 1}"
        )
    return Arrays(x, np.require(y, np.int64, ["C", "W"]), int(y.max()) + 1, record)


def _require_finite(x: Array) -> None:
    """One NaN among the samples would spoil every update that is computed from it."""
    if x.dtype.kind != "f":
        return
    for start in range(0, len(x), _ROWS_AT_ONCE):
        rows = x[start : start + _ROWS_AT_ONCE].reshape(len(x[start : start + _ROWS_AT_ONCE]), -1)
        odd = np.flatnonzero(~np.isfinite(rows).all(axis=1))
        if odd.size:
            raise DatasetError(
                f"x holds NaN or infinity, first in example {start + int(odd[0]) + 1} of {len(x)}: "
                "mend those examples, or leave them out"
            )


def _read_wfdb(folder: Path) -> tuple[Array, Array, Array]:
    records = []
    for name in record_names(folder):
        try:
            records.append(read_beats(folder, name))
        except RecordError as error:
            raise DatasetError(
                f"record {name}: {error}; to leave such records out: pi-daemon data import wfdb {folder}"
            ) from error
    arrays = joined(records)
    return arrays["x"], arrays["y"], arrays["record"]


def _read_npz(path: Path) -> tuple[Array, Array, Array | None]:
    try:
        most_bytes = path.stat().st_size * DEFLATE_MAX_RATIO
        with zipfile.ZipFile(path) as archive:
            has_record = "record.npy" in archive.namelist()
            for name in ("x", "y", *(["record"] if has_record else [])):
                _require_npy_fits(archive, name, most_bytes)
        with np.load(path, allow_pickle=False) as arrays:
            return arrays["x"], arrays["y"], arrays["record"] if has_record else None
    except (DatasetError, MemoryError, OSError, ValueError, EOFError, zipfile.BadZipFile):
        raise
    # Whatever else a damaged archive makes zipfile and NumPy stumble over.
    except Exception as error:
        raise DatasetError(f"it is damaged ({type(error).__name__}: {error})") from error


def _require_npy_fits(archive: zipfile.ZipFile, name: str, most_bytes: int) -> None:
    """Read the header alone: NumPy would allocate whatever it says."""
    try:
        info = archive.getinfo(f"{name}.npy")
    except KeyError:
        held = ", ".join(archive.namelist()[:8])
        raise DatasetError(f"expected arrays x and y, found {held}") from None
    with archive.open(info) as file:
        version = np.lib.format.read_magic(file)
        read_header = (
            np.lib.format.read_array_header_1_0
            if version == (1, 0)
            else np.lib.format.read_array_header_2_0
        )
        try:
            shape, _, dtype = read_header(file)
        except (MemoryError, RecursionError):  # Python's parser, over thousands of signs
            raise DatasetError(f"{name} has a header that cannot be read") from None
        found = info.file_size - file.tell()
    if dtype.hasobject:
        raise DatasetError(f"{name} holds Python objects, which are not read: save plain numbers")
    expected = math.prod(shape) * dtype.itemsize
    if expected != found:
        raise DatasetError(f"{name} should have {expected} bytes and has {found}: it is damaged")
    if expected > most_bytes:
        raise DatasetError(f"{name} claims {expected} bytes, which the file is too small to hold")
    _require_memory(expected)


def _read_safetensors(path: Path) -> tuple[Array, Array, Array | None]:
    from safetensors import SafetensorError, safe_open

    _require_memory(path.stat().st_size)
    try:
        with safe_open(path, framework="numpy") as file:
            names = set(file.keys())
            if missing := {"x", "y"} - names:
                raise DatasetError(f"tensor {min(missing)} is missing: expected x and y")
            record = file.get_tensor("record") if "record" in names else None
            return file.get_tensor("x"), file.get_tensor("y"), record
    except (SafetensorError, TypeError) as error:
        raise DatasetError(str(error)) from error


def _require_memory(num_bytes: int) -> None:
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if num_bytes > total:
        raise DatasetError(
            f"it needs {num_bytes >> 20} MiB, this machine has {total >> 20}: cut it into smaller files"
        )


def _dirichlet_rows(
    arrays: Arrays, alpha: float, index: int, count: int, seed: str, shard: str
) -> npt.NDArray[np.int64]:
    if arrays.num_classes is None:
        raise DatasetError(f"shard {shard}: the dataset has no classes to share out")
    if not (alpha > 0 and seed.isascii() and seed.isdigit()):
        raise _bad_shard(shard)
    generator = np.random.default_rng(int(seed))
    kept = []
    for label in range(arrays.num_classes):
        rows = generator.permutation(np.flatnonzero(arrays.y == label))
        ends = np.cumsum(generator.dirichlet([alpha] * count))
        ends = np.round(ends * len(rows)).astype(np.int64)
        kept.append(rows[ends[index - 2] if index > 1 else 0 : ends[index - 1]])
    return np.sort(np.concatenate(kept))


def _record_rows(record: Array | None, wanted: list[str], shard: str) -> npt.NDArray[np.int64]:
    if "" in wanted:
        raise _bad_shard(shard)
    if record is None:
        raise DatasetError(
            f"shard {shard}: the dataset does not say which record an example is of: "
            "expected an array named record"
        )
    names = record.astype(np.str_)
    here = np.unique(record).astype(np.str_).tolist()
    if missing := [name for name in wanted if name not in here]:
        raise DatasetError(
            f"shard {shard}: there is no record {missing[0]}: it has {', '.join(here)}"
        )
    return np.flatnonzero(np.isin(names, wanted))


def _part(text: str, shard: str) -> tuple[int, int]:
    index, _, count = text.partition("/")
    if not (index.isdecimal() and count.isdecimal() and 1 <= int(index) <= int(count)):
        raise _bad_shard(shard)
    return int(index), int(count)


def _number(text: str, shard: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise _bad_shard(shard) from None


def _bad_shard(shard: str) -> DatasetError:
    return DatasetError(
        f"shard {shard!r}: expected INDEX/COUNT such as 1/3, dirichlet:ALPHA:1/3:SEED, "
        "or record:NAME,NAME"
    )


def main() -> None:
    """Print the cards of `NAME=SOURCE ...` as a JSON list, or one line on stderr and exit with 3."""
    parser = argparse.ArgumentParser()
    parser.add_argument("datasets", nargs="*")
    parser.add_argument("--shard")
    parser.add_argument("--share-labels", action="store_true")
    options = parser.parse_args()
    cards = []
    for dataset in options.datasets:
        name, _, source = dataset.partition("=")
        try:
            shard = cut(load(source), options.shard)
        except DatasetError as error:
            print(f"pi-daemon: {error}", file=sys.stderr)
            sys.exit(3)
        cards.append(card(name, shard, share_labels=options.share_labels))
    sys.stdout.buffer.write(msgspec.json.encode(cards))


if __name__ == "__main__":
    main()
