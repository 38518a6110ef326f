"""Models and updates as safetensors files, written and read piece by piece.

A model on disk is the only copy that has to exist: it is sent from the file, averaged from files and
evaluated from the file.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from io import FileIO
from itertools import groupby
from pathlib import Path
from typing import Final

import torch
from torch import Tensor

from fedconsole.learning.contents import WrittenModel, read_head
from pi_daemon.durable import sync
from pi_daemon.learning.graph import TORCH_DTYPES
from pi_daemon.protocol.errors import TensorError
from pi_daemon.protocol.tensors import TensorSpec, TensorTable, id_prefix, write_header

_CODES = {dtype: code for code, dtype in TORCH_DTYPES.items()}

PIECE: Final = 1 << 16
"""Values in hand at a time: with their float64 sum (512 kB) they stay in a core's own cache."""
_HASHED_AT_A_TIME_BYTES: Final = 1 << 20
"""To wake a thread takes as long as to hash a tenth of that."""


def spec_of(tensor: Tensor) -> TensorSpec:
    return TensorSpec(_CODES[tensor.dtype], tuple(tensor.shape))


def pieces(num_values: int) -> Iterator[tuple[int, int]]:
    """Begin and end of each piece of so many values."""
    for begin in range(0, num_values, PIECE):
        yield begin, min(begin + PIECE, num_values)


@dataclass(frozen=True, slots=True)
class ModelFile:
    """A safetensors file. Opened anew for each read: a thousand updates cost no descriptors."""

    path: Path
    table: TensorTable

    @classmethod
    def open(cls, path: Path) -> ModelFile:
        """Read a file's header.

        Raises:
            TensorError: it is no safetensors file, or malformed.
            OSError: it cannot be read.
        """
        with path.open("rb") as file:
            _, table = read_head(file)
        return cls(path, table)

    def header(self) -> bytes:
        """The bytes before the tensors."""
        with self.path.open("rb") as file:
            return file.read(self.table.start)

    def read(self, name: str, begin: int, values: Tensor) -> Tensor:
        """Fill flat `values`, of the tensor's dtype, with the tensor's from number `begin` on.

        Raises:
            TensorError: the file has become shorter.
            OSError: it cannot be read.
        """
        with self.path.open("rb", buffering=0) as file:
            file.seek(self.table.offsets[name][0] + begin * values.itemsize)
            _fill(values, file)
        return values

    def piece(self, name: str, begin: int, end: int) -> Tensor:
        """Some of a tensor's values, flat; raises as `read`."""
        dtype = TORCH_DTYPES[self.table.specs[name].dtype]
        return self.read(name, begin, torch.empty(end - begin, dtype=dtype))

    def tensor(self, name: str) -> Tensor:
        """A whole tensor; raises as `read`."""
        spec = self.table.specs[name]
        return self.piece(name, 0, spec.num_values).reshape(spec.shape)

    def runs(self) -> Iterator[tuple[list[str], Tensor]]:
        """All values in the order of the file, flat, piece by piece; raises as `read`.

        Neighbours of one dtype are read as if they were one tensor. Yields their names and a piece
        of their values, which is overwritten by the next.
        """
        with self.path.open("rb", buffering=0) as file:
            file.seek(self.table.start)
            for code, run in groupby(self.table.specs.items(), lambda item: item[1].dtype):
                specs = dict(run)
                room = torch.empty(PIECE, dtype=TORCH_DTYPES[code])
                for begin, end in pieces(sum(spec.num_values for spec in specs.values())):
                    yield list(specs), _fill(room[: end - begin], file)

    def tensors(self) -> dict[str, Tensor]:
        return {name: self.tensor(name) for name in self.table.specs}


def write_model(
    path: Path, specs: Mapping[str, TensorSpec], values: Callable[[str], Iterable[Tensor]]
) -> WrittenModel:
    """Write a safetensors file so that a power cut leaves either the old file or the whole new one.

    Args:
        specs: every tensor's dtype and shape.
        values: name -> the tensor, whole or in pieces that follow each other; asked for tensor by
            tensor, sorted by name, so that only a piece has to be in memory.

    Raises:
        ValueError: `values` gives another dtype or another number of values than `specs` say.
        OSError: the disk refuses; the old file is left as it was.
    """
    header = write_header(dict(sorted(specs.items())))
    whole, content = hashlib.sha256(header), hashlib.sha256()

    def add(parts: list[tuple[bytes, memoryview]]) -> None:
        for separator, raw in parts:
            content.update(separator)
            content.update(raw)
            whole.update(raw)

    temporary = path.with_name(path.name + ".partial")
    # Both hashes together take as long as an average does: the next pieces are made meanwhile.
    with temporary.open("wb") as file, ThreadPoolExecutor(1) as hashing:
        file.write(header)
        added: Future[None] | None = None
        separator, parts, num_bytes_of_parts = b"", [], 0
        for name, spec in sorted(specs.items()):
            separator += id_prefix(name, spec)
            num_bytes = 0
            for piece in values(name):
                if piece.dtype != TORCH_DTYPES[spec.dtype]:
                    raise ValueError(f"{name} has values of {piece.dtype}, not of {spec.dtype}")
                raw = bytes_of(piece.detach().contiguous().reshape(-1))
                num_bytes += len(raw)
                file.write(raw)
                parts.append((separator, raw))
                separator = b""
                num_bytes_of_parts += len(raw)
                if num_bytes_of_parts >= _HASHED_AT_A_TIME_BYTES:
                    if added is not None:
                        added.result()
                    added = hashing.submit(add, parts)
                    parts, num_bytes_of_parts = [], 0
            if num_bytes != spec.num_bytes:
                raise ValueError(
                    f"{name} has {num_bytes} bytes, not the {spec.num_bytes} of {spec}"
                )
            separator += b"\0"
        hashing.submit(add, parts)
        size = file.tell()
        file.flush()
        os.fsync(file.fileno())
    content.update(separator)
    temporary.replace(path)
    sync(path.parent)
    return WrittenModel(content.hexdigest(), whole.hexdigest(), size)


def _fill(values: Tensor, file: FileIO) -> Tensor:
    raw = bytes_of(values)
    while raw:
        num_read = file.readinto(raw)
        if not num_read:
            raise TensorError(f"{file.name} has become shorter")
        raw = raw[num_read:]
    return values


def bytes_of(values: Tensor) -> memoryview:
    """The memory of flat values."""
    return values.view(torch.uint8).numpy().data
