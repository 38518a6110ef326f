"""Models and updates as safetensors files: write one tensor at a time, read without copying.

A model on disk is the only copy that has to exist: it is sent from the file, averaged from files and
evaluated from the file.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from pi_daemon.learning.graph import TORCH_DTYPES
from pi_daemon.protocol.tensors import TensorSpec, TensorTable, model_id, read_table

_CODES = {dtype: code for code, dtype in TORCH_DTYPES.items()}


def spec_of(tensor: Tensor) -> TensorSpec:
    return TensorSpec(_CODES[tensor.dtype], tuple(tensor.shape))


@dataclass(frozen=True, slots=True)
class ModelFile:
    """A safetensors file mapped into memory; closed when the last tensor of it is gone."""

    data: Tensor
    """uint8, the whole file."""
    table: TensorTable

    @classmethod
    def open(cls, path: Path) -> ModelFile:
        """Map a file and check its header.

        Raises:
            TensorError: it is no safetensors file, or malformed.
            OSError: it cannot be read.
        """
        # The mapping outlives its file descriptor, so a thousand open updates cost no descriptors.
        size = path.stat().st_size
        storage = torch.UntypedStorage.from_file(str(path), False, size)
        data = torch.tensor([], dtype=torch.uint8).set_(storage)  # type: ignore[arg-type]
        return cls(data, read_table(_content(data)))

    @property
    def content(self) -> memoryview:
        return _content(self.data)

    def tensor(self, name: str) -> Tensor:
        """A tensor of the file; its values are the file's own pages where alignment allows."""
        spec = self.table.specs[name]
        begin, end = self.table.offsets[name]
        raw = self.data[begin:end]
        if begin % max(1, TORCH_DTYPES[spec.dtype].itemsize):
            raw = raw.clone()
        return raw.view(TORCH_DTYPES[spec.dtype]).reshape(spec.shape)

    def tensors(self) -> dict[str, Tensor]:
        return {name: self.tensor(name) for name in self.table.specs}

    def model_id(self) -> str:
        return model_id(self.content, self.table)


def write_model(
    path: Path, specs: Mapping[str, TensorSpec], tensors: Iterable[tuple[str, Tensor]]
) -> str:
    """Write a safetensors file so that a power cut leaves either the old file or the whole new one.

    Args:
        specs: every tensor's dtype and shape.
        tensors: the tensors sorted by name, each asked for when its turn comes, so that only one
            has to be in memory.

    Returns:
        The SHA-256 of the file.
    """
    header: dict[str, object] = {}
    offset = 0
    for name in sorted(specs):
        spec = specs[name]
        end = offset + spec.num_bytes
        header[name] = {
            "dtype": spec.dtype,
            "shape": list(spec.shape),
            "data_offsets": [offset, end],
        }
        offset = end
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # tensors start aligned, as the library writes them
    digest = hashlib.sha256()
    temporary = path.with_name(path.name + ".partial")
    with temporary.open("wb") as file:
        for part in (len(text).to_bytes(8, "little"), text):
            file.write(part)
            digest.update(part)
        for name, tensor in tensors:
            if spec_of(tensor) != specs[name]:
                raise ValueError(f"{name} is {spec_of(tensor)}, not {specs[name]}")
            raw = _content(tensor.detach().contiguous().reshape(-1).view(torch.uint8))
            file.write(raw)
            digest.update(raw)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
    fsync_folder(path.parent)
    return digest.hexdigest()


def _content(data: Tensor) -> memoryview:
    return data.numpy().data


def fsync_folder(folder: Path) -> None:
    """Make a rename in `folder` outlive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
