"""Cuts a dataset into shards, one for each worker, and writes them as the files that are dealt.

The same data, cut alike, gives the same bytes: a device that has them says so, and one that has
some of them is sent the rest.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from safetensors.numpy import save

from fedconsole.errors import RefusedError, StorageError, UsageError
from pi_daemon.learning.datasets import Array, Arrays, DatasetError, cut, load
from pi_daemon.protocol.limits import MAX_MODEL_BYTES


@dataclass(frozen=True, slots=True)
class Shard:
    """A safetensors file with x, y and, if the dataset tells records by number, record."""

    path: Path
    size: int
    """Bytes."""
    sha256: str
    """Of the file."""
    num_examples: int


def write_shards(source: str, plan: str, num_shards: int, folder: Path) -> list[Shard]:
    """Cut a source, which is as in `--dataset NAME=SOURCE`, into files in `folder`.

    Args:
        plan: "even" (contiguous parts), "dirichlet:ALPHA:SEED", or "record" (whole records, so that
            the shards are about equally large).

    Raises:
        UsageError: there is no such plan.
        RefusedError: the source is no dataset, or cannot be cut like that.
        StorageError: the folder cannot be written.
    """
    try:
        arrays = load(source)
        shards = shards_of(arrays, plan, num_shards)
        return [_write(cut(arrays, s), folder / str(i)) for i, s in enumerate(shards, start=1)]
    except DatasetError as error:
        raise RefusedError(str(error)) from error
    except OSError as error:
        raise StorageError(
            f"the shards cannot be written into {folder} ({error.strerror}): "
            "free some room there, or set TMPDIR to another folder"
        ) from error


def shards_of(arrays: Arrays, plan: str, num_shards: int) -> list[str]:
    """The shards of a plan, each as in `--shard`.

    Raises:
        UsageError: there is no such plan.
        RefusedError: the dataset cannot be cut like that.
    """
    match plan.split(":"):
        case ["even"]:
            return [f"{i}/{num_shards}" for i in range(1, num_shards + 1)]
        case ["dirichlet", alpha, seed]:
            return [f"dirichlet:{alpha}:{i}/{num_shards}:{seed}" for i in range(1, num_shards + 1)]
        case ["record"]:
            return [f"record:{','.join(names)}" for names in _whole_records(arrays, num_shards)]
        case _:
            raise UsageError(f"--shard {plan}: expected even, dirichlet:ALPHA:SEED or record")


def _whole_records(arrays: Arrays, num_shards: int) -> list[list[str]]:
    """The largest record first, each to the shard that is smallest by then."""
    if arrays.record is None:
        raise RefusedError("--shard record: the dataset does not say which record an example is of")
    names, counts = np.unique(arrays.record.astype(np.str_), return_counts=True)
    if len(names) < num_shards:
        raise RefusedError(
            f"--shard record: {len(names)} records cannot be shared by {num_shards} workers: "
            "deal to fewer"
        )
    sizes = [0] * num_shards
    shards: list[list[str]] = [[] for _ in range(num_shards)]
    for index in np.argsort(-counts, kind="stable"):
        smallest = sizes.index(min(sizes))
        sizes[smallest] += int(counts[index])
        shards[smallest].append(str(names[index]))
    return shards


def _write(arrays: Arrays, path: Path) -> Shard:
    tensors = {"x": arrays.x, "y": arrays.y} | _numbered(arrays.record)
    content = save(tensors)
    if len(content) > MAX_MODEL_BYTES:
        raise RefusedError(
            f"a shard has {len(content)} bytes, at most {MAX_MODEL_BYTES} can be sent: "
            "deal to more workers"
        )
    path.write_bytes(content)
    return Shard(path, len(content), hashlib.sha256(content).hexdigest(), len(arrays.x))


def _numbered(record: Array | None) -> dict[str, Array]:
    """safetensors has no text: names of records stay here."""
    return {} if record is None or record.dtype.kind == "U" else {"record": record}
